//! Bloom filter of added chunk hashes; a miss proves that a chunk is new.

use crate::state::catalog::ChunkHash;

/// Size: 4 MiB, of which the system allocates only the touched pages. At five million chunks, four
/// of a hundred lookups are in vain; more chunks do no harm.
const BITS: usize = 1 << 25;
const PROBES: usize = 4;

/// A set of hashes that may contain further ones.
#[derive(Debug)]
pub(super) struct BloomFilter {
    words: Vec<u64>,
}

impl BloomFilter {
    pub(super) fn new() -> Self {
        Self {
            words: vec![0; BITS / 64],
        }
    }

    pub(super) fn add(&mut self, hash: &ChunkHash) {
        for bit in bits(hash) {
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Returns false if `hash` was certainly not added.
    pub(super) fn may_hold(&self, hash: &ChunkHash) -> bool {
        bits(hash).all(|bit| self.words[bit / 64] & (1 << (bit % 64)) != 0)
    }
}

/// Returns the positions of a hash, which are its own bytes, since it is as good as random.
fn bits(hash: &ChunkHash) -> impl Iterator<Item = usize> + '_ {
    let words = hash.as_chunks::<4>().0.iter().take(PROBES);
    words.map(|word| u32::from_le_bytes(*word) as usize % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Hash;
    use crate::packer::chunk_hash::short;

    #[test]
    fn added_hashes_are_always_found_and_others_seldom() {
        let hash = |n: u32| short(&Hash::blake3(&n.to_le_bytes()));
        let mut filter = BloomFilter::new();
        (0..100_000).for_each(|n| filter.add(&hash(n)));
        assert!((0..100_000).all(|n| filter.may_hold(&hash(n))));
        let claimed = (100_000..200_000).filter(|n| filter.may_hold(&hash(*n)));
        assert!(claimed.count() < 10);
    }
}
