//! A file of the ciphertext cache: those parts of one block of an archive that were fetched.
//!
//! ```text
//! "sealift-block-1\n" | number of parts | (start, length) of each | their bytes | BLAKE3
//! ```
//!
//! Numbers have 32 bits, little-endian. The hash tells a file that a crash or a disk damaged. It
//! proves nothing else: what the file holds is ciphertext, which authenticates itself.

use std::ops::Range;

/// Bytes of an archive in one block.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;
/// Largest file of a block.
pub(super) const MOST_FILE_BYTES: u64 = BLOCK_BYTES + MOST_PARTS as u64 * 8 + 64;

const MAGIC: &[u8; 16] = b"sealift-block-1\n";
const HASH_BYTES: usize = 32;
/// Most parts of a block. Further ones replace the file.
const MOST_PARTS: usize = 256;

/// The parts of one block. Positions count from the block's begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BlockParts {
    /// Sorted; between two of them is a gap.
    parts: Vec<(u32, Vec<u8>)>,
}

impl BlockParts {
    /// Parses a file. `None`: it is damaged.
    pub(super) fn parse(file: &[u8]) -> Option<Self> {
        let content = file.len().checked_sub(HASH_BYTES)?;
        let (content, hash) = file.split_at(content);
        if blake3::hash(content).as_bytes() != hash {
            return None;
        }
        let mut rest = content.strip_prefix(MAGIC)?;
        let count = take_number(&mut rest)? as usize;
        if count > MOST_PARTS {
            return None;
        }
        let mut bounds = Vec::with_capacity(count);
        for _ in 0..count {
            bounds.push((take_number(&mut rest)?, take_number(&mut rest)? as usize));
        }
        let mut parts = Self::default();
        for (start, length) in bounds {
            let (bytes, more) = rest.split_at_checked(length)?;
            let is_in_block = u64::from(start) + length as u64 <= BLOCK_BYTES;
            let is_behind = parts.parts.last().is_none_or(|last| end(last) < start);
            if length == 0 || !is_in_block || !is_behind {
                return None;
            }
            parts.parts.push((start, bytes.to_vec()));
            rest = more;
        }
        rest.is_empty().then_some(parts)
    }

    /// Returns the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut file = Vec::with_capacity(bytes + self.parts.len() * 8 + 64);
        file.extend_from_slice(MAGIC);
        file.extend((self.parts.len() as u32).to_le_bytes());
        for (start, bytes) in &self.parts {
            file.extend(start.to_le_bytes());
            file.extend((bytes.len() as u32).to_le_bytes());
        }
        for (_, bytes) in &self.parts {
            file.extend_from_slice(bytes);
        }
        let hash = blake3::hash(&file);
        file.extend_from_slice(hash.as_bytes());
        file
    }

    /// Returns what it has of `range`: positions in the block, and bytes.
    pub(super) fn of(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &[u8])> {
        let range = range.clone();
        self.parts.iter().filter_map(move |part| {
            let (start, bytes) = (u64::from(part.0), part.1.as_slice());
            let from = range.start.max(start);
            let to = range.end.min(start + bytes.len() as u64);
            let cut = (from < to).then(|| (from - start) as usize..(to - start) as usize);
            cut.and_then(|cut| Some((from, bytes.get(cut)?)))
        })
    }

    /// Adds bytes that begin at `start` and end within the block. Where both have bytes, the new
    /// ones count.
    pub(super) fn add(&mut self, start: u64, bytes: &[u8]) {
        let Ok(start) = u32::try_from(start) else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        let mut merged = (start, bytes.to_vec());
        let mut others = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            if end(&part) < merged.0 || end(&merged) < part.0 {
                others.push(part);
                continue;
            }
            if part.0 < merged.0 {
                let mut before = part.1[..(merged.0 - part.0) as usize].to_vec();
                before.append(&mut merged.1);
                // What the old part has behind the new bytes.
                let covered = before.len();
                if let Some(after) = part.1.get(covered..) {
                    before.extend_from_slice(after);
                }
                merged = (part.0, before);
            } else if end(&part) > end(&merged) {
                let covered = (end(&merged) - part.0) as usize;
                merged.1.extend_from_slice(&part.1[covered..]);
            }
        }
        if others.len() >= MOST_PARTS {
            others.clear();
        }
        others.push(merged);
        others.sort_by_key(|part| part.0);
        self.parts = others;
    }
}

fn end(part: &(u32, Vec<u8>)) -> u32 {
    part.0 + part.1.len() as u32
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, more) = rest.split_first_chunk::<4>()?;
    *rest = more;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_damaged_file_is_taken() {
        let mut parts = BlockParts::default();
        parts.add(5, b"some");
        parts.add(100, b"bytes");
        let file = parts.encode();
        assert_eq!(BlockParts::parse(&file), Some(parts));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 4;
            assert_eq!(BlockParts::parse(&damaged), None, "{at}");
            assert_eq!(BlockParts::parse(&file[..at]), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn parts_hold_what_was_added_and_nothing_else(
            added in proptest::collection::vec((0..300_u64, proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
            range in (0..400_u64, 0..400_u64),
        ) {
            let mut parts = BlockParts::default();
            let mut expected = vec![None; 400];
            for (start, bytes) in &added {
                parts.add(*start, bytes);
                for (at, byte) in bytes.iter().enumerate() {
                    expected[*start as usize + at] = Some(*byte);
                }
            }
            let parts = BlockParts::parse(&parts.encode()).unwrap();
            let range = range.0.min(range.1)..range.0.max(range.1);
            let mut found = vec![None; 400];
            for (start, bytes) in parts.of(&range) {
                for (at, byte) in bytes.iter().enumerate() {
                    prop_assert!(found[start as usize + at].replace(*byte).is_none());
                }
            }
            for at in range {
                prop_assert_eq!(found[at as usize].take(), expected[at as usize]);
            }
            prop_assert!(found.iter().all(Option::is_none));
        }
    }
}
