//! Proves parts of an index by the BLAKE3 that the manifest names.
//!
//! BLAKE3 is a tree over groups of bytes. The values of an index's groups are stored behind it in
//! its newest archive, as a last member that no extent names (docs/format.md, 4). They need no
//! trust: only the right ones make the signed hash. Then each group can be compared with its own
//! value, without the others.

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt as _};

use crate::base::blake3_tree::root_of;
use crate::base::ids::Hash;

/// Bytes of a group.
pub(crate) const GROUP_BYTES: u64 = 32 << 10;
/// Bytes of a group's value.
const VALUE_BYTES: u64 = 32;

/// Name of the member that holds the values.
pub(crate) const MEMBER: &str = "index-groups";

/// Computes the values of an index's groups while it is written.
pub(crate) struct GroupValues {
    values: Vec<u8>,
    current: Hasher,
    /// Bytes in `current`.
    filled: u64,
}

impl GroupValues {
    /// Returns the state before the first byte.
    pub(crate) fn new() -> Self {
        Self {
            values: Vec::new(),
            current: group_hasher(0),
            filled: 0,
        }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == GROUP_BYTES {
                self.end_group();
            }
            let now = bytes.len().min((GROUP_BYTES - self.filled) as usize);
            self.current.update(&bytes[..now]);
            self.filled += now as u64;
            bytes = &bytes[now..];
        }
    }

    fn end_group(&mut self) {
        self.values.extend(self.current.finalize_non_root());
        let groups = self.values.len() as u64 / VALUE_BYTES;
        self.current = group_hasher(groups * GROUP_BYTES);
        self.filled = 0;
    }

    /// Returns the member's content; empty for an index of one group.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.values.is_empty() {
            return Vec::new();
        }
        self.end_group();
        self.values
    }
}

/// Returns the bytes of the member of an index of `index_bytes`; 0 if it has none.
pub(crate) fn member_bytes(index_bytes: u64) -> u64 {
    match index_bytes.div_ceil(GROUP_BYTES) {
        0 | 1 => 0,
        groups => groups * VALUE_BYTES,
    }
}

/// The values of an index's groups, which make its hash.
#[derive(Debug)]
pub(crate) struct IndexProof {
    values: Vec<ChainingValue>,
}

impl IndexProof {
    /// Returns the values in `member`. `None`: they do not make `hash`.
    pub(crate) fn new(member: &[u8], hash: Hash) -> Option<Self> {
        let (values, rest) = member.as_chunks::<{ VALUE_BYTES as usize }>();
        let is_right = rest.is_empty() && root_of(values) == Some(hash);
        is_right.then(|| Self {
            values: values.to_vec(),
        })
    }

    /// Whether `bytes`, which begin with group number `first` and end with the end of a group or of
    /// the index, are those of the index.
    pub(crate) fn proves(&self, first: u64, bytes: &[u8]) -> bool {
        let groups = bytes.chunks(GROUP_BYTES as usize);
        !bytes.is_empty()
            && (first..).zip(groups).all(|(number, group)| {
                let mut hasher = group_hasher(number * GROUP_BYTES);
                let found = hasher.update(group).finalize_non_root();
                self.values.get(number as usize) == Some(&found)
            })
    }
}

fn group_hasher(start: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(start);
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_proven_if_it_is_the_one_that_the_hash_is_of() {
        let group = GROUP_BYTES as usize;
        for bytes in [
            0,
            1,
            group,
            group + 1,
            2 * group,
            5 * group + 77,
            13 * group,
        ] {
            let index: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
            let mut values = GroupValues::new();
            index.chunks(10_007).for_each(|part| values.update(part));
            let member = values.finish();
            assert_eq!(member.len() as u64, member_bytes(bytes as u64), "{bytes}");
            let hash = Hash::blake3(&index);
            let Some(proof) = IndexProof::new(&member, hash) else {
                assert!(bytes <= group, "{bytes}");
                continue;
            };
            for (number, part) in (0..).zip(index.chunks(group)) {
                assert!(proof.proves(number, part));
                assert!(!proof.proves(number + 1, part));
                let mut wrong = part.to_vec();
                wrong[part.len() / 2] ^= 1;
                assert!(!proof.proves(number, &wrong));
                assert!(!proof.proves(number, &part[1..]));
            }
            assert!(proof.proves(1, &index[group..]));
            let mut wrong = member.clone();
            wrong[40] ^= 1;
            assert!(IndexProof::new(&wrong, hash).is_none());
            assert!(IndexProof::new(&member[1..], hash).is_none());
            assert!(IndexProof::new(&member[32..], hash).is_none());
            assert!(IndexProof::new(&member, Hash([0; 32])).is_none());
        }
    }
}
