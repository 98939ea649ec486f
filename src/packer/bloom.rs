//! What was certainly not added: a Bloom filter over hashes.

use crate::state::catalog::ChunkHash;

/// 4 MiB, of which the system gives only what is touched: four look-ups in a hundred in vain at five
/// million chunks, and no harm beyond.
const BITS: usize = 1 << 25;
const PROBES: usize = 4;

#[derive(Debug)]
pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    pub fn new() -> Self {
        Self {
            words: vec![0; BITS / 64],
        }
    }

    pub fn add(&mut self, hash: &ChunkHash) {
        for bit in bits(hash) {
            self.words[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// False: it was not.
    pub fn may_hold(&self, hash: &ChunkHash) -> bool {
        bits(hash).all(|bit| self.words[bit / 64] & (1 << (bit % 64)) != 0)
    }
}

/// The hash is as good as random: its own bytes say where to look.
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
    fn it_never_denies_what_it_has_and_seldom_claims_what_it_has_not() {
        let hash = |n: u32| short(&Hash::blake3(&n.to_le_bytes()));
        let mut filter = Filter::new();
        (0..100_000).for_each(|n| filter.add(&hash(n)));
        assert!((0..100_000).all(|n| filter.may_hold(&hash(n))));
        let claimed = (100_000..200_000).filter(|n| filter.may_hold(&hash(*n)));
        assert!(claimed.count() < 10);
    }
}
