//! Computes the BLAKE3 of a file whose parts arrive in any order.
//!
//! BLAKE3 is a tree: the chaining values of aligned groups can be computed when their bytes arrive,
//! and are merged at the end. A group that does not arrive in one piece is read back from the file.

use std::collections::HashMap;
use std::io;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use super::ids::Hash;

/// Bytes of a group: a power of two of BLAKE3's chunks.
const GROUP_BYTES: u64 = 64 << 10;
/// Bytes of a group of what arrives in runs of pages.
const PAGE_BYTES: u64 = 4 << 10;

/// The groups of one file whose values are known.
pub(crate) struct Subtrees {
    file_bytes: u64,
    group_bytes: u64,
    /// By number. (A sparse file may be far larger than its content.)
    groups: HashMap<u64, ChainingValue>,
    /// Number of the first group that is not merged.
    next: u64,
    /// The complete subtrees of the groups before `next`, the largest first.
    complete: Vec<ChainingValue>,
}

impl Subtrees {
    /// Returns the state of a file of `file_bytes`, without any value.
    pub(crate) fn new(file_bytes: u64) -> Self {
        Self::with_groups(file_bytes, GROUP_BYTES)
    }

    /// Returns the state of a file of `file_bytes` whose bytes arrive in runs of pages, for
    /// [`Self::take`].
    pub(crate) fn of_pages(file_bytes: u64) -> Self {
        Self::with_groups(file_bytes, PAGE_BYTES)
    }

    fn with_groups(file_bytes: u64, group_bytes: u64) -> Self {
        Self {
            file_bytes,
            group_bytes,
            groups: HashMap::new(),
            next: 0,
            complete: Vec::new(),
        }
    }

    /// Sets the chaining value of a group.
    pub(crate) fn set(&mut self, group: u64, value: ChainingValue) {
        self.groups.insert(group, value);
    }

    /// Takes bytes that are at `start` of the file: the groups that are whole in them. Returns the
    /// hash of the file once every group was taken. A file of one group has none.
    pub(crate) fn take(&mut self, start: u64, bytes: &[u8]) -> Option<Hash> {
        if self.file_bytes <= self.group_bytes {
            return None;
        }
        let end = start + bytes.len() as u64;
        let mut at = start.next_multiple_of(self.group_bytes);
        while at < self.file_bytes {
            let until = (at + self.group_bytes).min(self.file_bytes);
            if until > end {
                break;
            }
            let group = at / self.group_bytes;
            if group >= self.next {
                let part = &bytes[(at - start) as usize..(until - start) as usize];
                self.set(group, group_hasher(at).update(part).finalize_non_root());
            }
            at = until;
        }
        // Of what is read in order nothing is kept but some subtrees.
        while let Some(value) = self.groups.remove(&self.next) {
            self.merge(value);
        }
        let is_complete = self.next == self.file_bytes.div_ceil(self.group_bytes);
        is_complete.then(|| self.root()).flatten()
    }

    /// Adds the value of group `next`.
    fn merge(&mut self, value: ChainingValue) {
        merge_down_to(self.next.count_ones() as usize, &mut self.complete);
        self.complete.push(value);
        self.next += 1;
    }

    /// Returns the hash of the file, all of whose groups, more than one, are merged.
    fn root(&mut self) -> Option<Hash> {
        merge_down_to(2, &mut self.complete);
        let [left, right] = self.complete.as_slice() else {
            return None;
        };
        let root = merge_subtrees_root(left, right, Mode::Hash);
        Some(Hash(*root.as_bytes()))
    }

    /// Returns the hash of the whole file. `read` fills a buffer from an offset of the file; it is
    /// called for the groups without a value.
    pub(crate) fn finish(
        mut self,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Hash> {
        let mut buffer = vec![0; self.file_bytes.min(self.group_bytes) as usize];
        if self.file_bytes <= self.group_bytes {
            read(&mut buffer, 0)?;
            return Ok(Hash::blake3(&buffer));
        }
        while self.next < self.file_bytes.div_ceil(self.group_bytes) {
            let value = match self.groups.remove(&self.next) {
                Some(value) => value,
                None => {
                    let start = self.next * self.group_bytes;
                    let end = (start + self.group_bytes).min(self.file_bytes);
                    let bytes = &mut buffer[..(end - start) as usize];
                    read(bytes, start)?;
                    group_hasher(start).update(bytes).finalize_non_root()
                }
            };
            self.merge(value);
        }
        // More than one group leaves two subtrees.
        let root = self.root();
        root.ok_or_else(|| io::Error::other("its parts do not make a whole"))
    }
}

/// Returns the hash of a whole of which `groups` are the values of its groups. `None`: there are
/// fewer than two.
pub(crate) fn root_of(groups: &[ChainingValue]) -> Option<Hash> {
    let mut all = Subtrees::with_groups(0, PAGE_BYTES);
    groups.iter().for_each(|value| all.merge(*value));
    all.root()
}

/// Merges the last two values until `count` are left.
fn merge_down_to(count: usize, values: &mut Vec<ChainingValue>) {
    while values.len() > count
        && let (Some(right), Some(left)) = (values.pop(), values.pop())
    {
        values.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
}

fn group_hasher(start: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(start);
    hasher
}

/// Hashes the groups that arrive whole within a piece; the bytes of each piece arrive in order. One
/// value serves one stream of pieces, and several may serve one file.
#[derive(Default)]
pub(crate) struct Passing {
    /// The incomplete group of a piece, and the group's offset, by file and the piece's offset.
    under_way: HashMap<(u32, u64), (Hasher, u64)>,
}

impl Passing {
    /// Takes `bytes`, which begin `at` bytes into the piece from `start` to `end` of file number
    /// `file`. Calls `found` with each complete group and its value.
    pub(crate) fn take(
        &mut self,
        file: u32,
        (start, end, file_bytes): (u64, u64, u64),
        at: u64,
        mut bytes: &[u8],
        mut found: impl FnMut(u64, ChainingValue),
    ) {
        if file_bytes <= GROUP_BYTES {
            return;
        }
        let mut position = start + at;
        let mut current = self.under_way.remove(&(file, start));
        loop {
            let (mut hasher, group) = match current.take() {
                Some(under_way) => under_way,
                None => {
                    let group = position.next_multiple_of(GROUP_BYTES);
                    let skipped = group - position;
                    if end_of(group, file_bytes) > end || skipped >= bytes.len() as u64 {
                        return;
                    }
                    bytes = &bytes[skipped as usize..];
                    position = group;
                    (group_hasher(group), group)
                }
            };
            let wanted = end_of(group, file_bytes) - position;
            let now = wanted.min(bytes.len() as u64);
            hasher.update(&bytes[..now as usize]);
            if now < wanted {
                self.under_way.insert((file, start), (hasher, group));
                return;
            }
            found(group / GROUP_BYTES, hasher.finalize_non_root());
            bytes = &bytes[now as usize..];
            position += now;
        }
    }
}

fn end_of(group: u64, file_bytes: u64) -> u64 {
    (group + GROUP_BYTES).min(file_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The hash is BLAKE3's, however the file is cut and in whatever order its pieces arrive.
        #[test]
        fn the_hash_is_that_of_the_whole(
            size in prop_oneof![0usize..3000, 60_000usize..70_000, 100_000usize..1_500_000],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            aligned in any::<bool>(),
            order in any::<u64>(),
            step in 1000usize..300_000,
        ) {
            let content: Vec<u8> = (0..size).map(|i| (i * i / 7 % 251) as u8).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(size + 1)).collect();
            if aligned {
                ends.iter_mut().for_each(|end| *end -= *end % GROUP_BYTES as usize);
            }
            ends.extend([0, size]);
            ends.sort_unstable();
            ends.dedup();
            let mut pieces: Vec<(usize, usize)> = ends.windows(2).map(|w| (w[0], w[1])).collect();
            pieces.sort_by_key(|(start, _)| (*start as u64).wrapping_mul(order | 1));
            let mut subtrees = Subtrees::new(size as u64);
            let mut passing = Passing::default();
            for (start, end) in &pieces {
                let mut at = *start;
                while at < *end {
                    let until = (at + step).min(*end);
                    let place = (*start as u64, *end as u64, size as u64);
                    let bytes = &content[at..until];
                    passing.take(3, place, (at - start) as u64, bytes, |group, value| {
                        subtrees.set(group, value);
                    });
                    at = until;
                }
            }
            prop_assert!(passing.under_way.is_empty());
            let mut read_bytes = 0;
            let read = |buffer: &mut [u8], from: u64| {
                buffer.copy_from_slice(&content[from as usize..][..buffer.len()]);
                read_bytes += buffer.len();
                Ok(())
            };
            let hash = subtrees.finish(read).unwrap();
            prop_assert_eq!(hash, Hash::blake3(&content));
            // So it is if runs of pages are taken in any order, and some twice.
            const PAGE: usize = PAGE_BYTES as usize;
            let mut subtrees = Subtrees::of_pages(size as u64);
            let mut hashes = Vec::new();
            for (start, end) in pieces.iter().chain(&pieces[..pieces.len() / 2]) {
                let (from, to) = (start - start % PAGE, end.next_multiple_of(PAGE).min(size));
                hashes.extend(subtrees.take(from as u64, &content[from..to]));
            }
            prop_assert_eq!(hashes.is_empty(), size <= PAGE);
            prop_assert!(hashes.iter().all(|hash| *hash == Hash::blake3(&content)));
            // Only groups that no piece contained whole are read back.
            let most = 2 * GROUP_BYTES as usize * pieces.len();
            prop_assert!(size <= GROUP_BYTES as usize || read_bytes <= most);
        }
    }
}
