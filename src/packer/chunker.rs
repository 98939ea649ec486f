//! Where content is cut: at database pages, at fixed blocks, or where the content says.

use fastcdc::v2020::FastCDC;

use crate::base::sqlite;

pub const BLOCK: usize = 4096;
/// Files below this are one chunk.
const CDC_MIN: usize = 16 << 10;
const CDC_AVERAGE: usize = 64 << 10;
pub const CDC_MAX: usize = 256 << 10;
/// The index changes a line here and a line there; it is cut finer.
const INDEX_MIN: usize = 2 << 10;
const INDEX_AVERAGE: usize = 8 << 10;
const INDEX_MAX: usize = 32 << 10;
/// Below this, fixed blocks are not worth their rows in the catalog.
const IN_PLACE_MIN_BYTES: u64 = 1 << 20;

/// Files of these kinds are rewritten in place: vector indexes, memory-mapped stores, disk images.
/// Others are found out when they change under one inode and keep their size.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunker {
    /// Blocks of this many bytes, from the start of the file.
    Fixed(usize),
    /// FastCDC.
    Content,
    /// FastCDC, finer, for the index.
    Index,
}

impl Chunker {
    /// `head`: the file's first 100 bytes; `changes_in_place`: seen to at this path.
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

    /// Cuts `bytes` and gives the chunks' lengths. Unless `last`, the end of `bytes` is not the end
    /// of the content, and what could be cut differently with more bytes is left over.
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
        /// However the bytes arrive, the cuts are the same: content decides, not buffer ends.
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
