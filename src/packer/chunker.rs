//! Cuts content into chunks: at database pages, at fixed blocks, or at content-defined positions.

use fastcdc::v2020::FastCDC;

use crate::base::sqlite;

/// Bytes of a fixed block.
pub const BLOCK: usize = 4096;
/// Files below this are one chunk.
const CDC_MIN: usize = 16 << 10;
const CDC_AVERAGE: usize = 64 << 10;
/// Longest content-defined chunk, in bytes.
pub const CDC_MAX: usize = 256 << 10;
/// The index changes in single lines, so it is cut finer.
const INDEX_MIN: usize = 2 << 10;
const INDEX_AVERAGE: usize = 8 << 10;
const INDEX_MAX: usize = 32 << 10;
/// Smallest file for which fixed blocks are worth their rows in the catalog.
const IN_PLACE_MIN_BYTES: u64 = 1 << 20;

/// Endings of files that are rewritten in place: vector indexes, memory-mapped stores, disk images.
/// Other such files are recognized when they change under the same inode with the same size.
const IN_PLACE_ENDINGS: [&[u8]; 14] = [
    b".bin",
    b".hnsw",
    b".faiss",
    b".usearch",
    b".annoy",
    b".mdb",
    b".qcow2",
    b".img",
    b".raw",
    b".vmdk",
    b".vdi",
    b".ibd",
    b".duckdb",
    b".wt",
];

/// A way to cut content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Blocks of this many bytes, from the start of the file.
    Fixed(usize),
    /// At content-defined positions (FastCDC).
    Content,
    /// At content-defined positions, finer, for the index.
    Index,
}

impl Chunker {
    /// Chooses the way for a file. `head` are its first 100 bytes; `changes_in_place` states that
    /// the file at this path was once rewritten in place.
    pub fn choose(head: &[u8], size: u64, name: &[u8], changes_in_place: bool) -> Self {
        if sqlite::is_sqlite(head)
            && let Some(page) = sqlite::page_size(head)
        {
            return Self::Fixed(page as usize);
        }
        let by_name = || {
            let lower = name.to_ascii_lowercase();
            IN_PLACE_ENDINGS
                .iter()
                .any(|ending| lower.ends_with(ending))
        };
        if size >= IN_PLACE_MIN_BYTES && (changes_in_place || by_name()) {
            return Self::Fixed(BLOCK);
        }
        Self::Content
    }

    /// Cuts `bytes` and returns the chunks' lengths. Unless `last`, the content goes on after
    /// `bytes`; the part that further bytes could cut differently is then left over.
    pub fn cut(&self, bytes: &[u8], last: bool) -> Vec<usize> {
        let (min, average, max) = match self {
            Self::Fixed(block) => {
                let mut lengths = vec![*block; bytes.len() / block];
                let rest = bytes.len() % block;
                if last && rest > 0 {
                    lengths.push(rest);
                }
                return lengths;
            }
            Self::Content => (CDC_MIN, CDC_AVERAGE, CDC_MAX),
            Self::Index => (INDEX_MIN, INDEX_AVERAGE, INDEX_MAX),
        };
        let mut lengths = Vec::new();
        let mut done = 0;
        for chunk in FastCDC::new(bytes, min, average, max) {
            if !last && bytes.len() - done < max {
                break;
            }
            lengths.push(chunk.length);
            done += chunk.length;
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Content decides about the cuts, not the ends of buffers.
        #[test]
        fn cuts_do_not_depend_on_buffers(seed in any::<u64>(), kib in 1usize..3000, step in 300usize..900) {
            let mut state = seed | 1;
            let content: Vec<u8> = (0..kib * 1024).map(|_| {
                state ^= state << 13; state ^= state >> 7; state ^= state << 17;
                (state >> 24) as u8
            }).collect();
            for chunker in [Chunker::Content, Chunker::Index, Chunker::Fixed(BLOCK)] {
                let whole = chunker.cut(&content, true);
                prop_assert_eq!(whole.iter().sum::<usize>(), content.len());
                let mut pieces = Vec::new();
                let (mut start, mut end) = (0, 0);
                while end < content.len() {
                    end = (end + step * 1024).min(content.len());
                    let cuts = chunker.cut(&content[start..end], end == content.len());
                    start += cuts.iter().sum::<usize>();
                    pieces.extend(cuts);
                }
                prop_assert_eq!(&whole, &pieces);
            }
        }
    }
}
