//! Hashes chunks, many of them side by side if they are small and of equal length.
//!
//! A processor with wide registers hashes up to sixteen KiB of BLAKE3 at once, but of one input
//! only, so a page of 4 KiB leaves most of it idle. Sixteen pages side by side take less than a
//! third of the time. The blake3 crate has the necessary function in an undocumented module, hence
//! the narrow version in `Cargo.toml`; the test compares the result with the crate's own.

use blake3::IncrementCounter;
use blake3::platform::Platform;

use crate::base::ids::Hash;
use crate::state::catalog::ChunkHash;

/// One chunk of a member's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The beginning of its BLAKE3.
    pub hash: ChunkHash,
    /// Bytes.
    pub length: usize,
}

/// Returns the part of a chunk's BLAKE3 that the catalog stores.
pub(crate) fn short(hash: &Hash) -> ChunkHash {
    let mut short = [0; 24];
    short.copy_from_slice(&hash.0[..24]);
    short
}

/// Number of blocks that are hashed side by side.
const LANES: usize = 16;
/// Bytes of a leaf of BLAKE3's tree.
const LEAF_BYTES: usize = 1024;
/// Most leaves of a block that is hashed side by side; a larger one fills the registers alone.
const MAX_LEAVES: usize = 8;
const KEY: &[u32; 8] = &[
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
];
const LEAF_START: u8 = 1;
const LEAF_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// Appends the chunks of the given `lengths`, with which `bytes` begins, to `chunks`. Returns their
/// total length.
pub fn hash_chunks(bytes: &[u8], lengths: &[usize], chunks: &mut Vec<Chunk>) -> usize {
    let platform = Platform::detect();
    chunks.reserve(lengths.len());
    let mut rest = bytes;
    let mut lengths = lengths;
    while let Some(&length) = lengths.first() {
        let is_block =
            length.is_power_of_two() && (LEAF_BYTES..=MAX_LEAVES * LEAF_BYTES).contains(&length);
        let group = lengths.first_chunk::<LANES>();
        let count = match group {
            Some(group) if is_block && group.iter().all(|other| *other == length) => {
                let hashes = hash_blocks(platform, &rest[..LANES * length], length);
                chunks.extend(hashes.map(|hash| Chunk { hash, length }));
                LANES
            }
            _ => {
                let hash = short(&Hash::blake3(&rest[..length]));
                chunks.push(Chunk { hash, length });
                1
            }
        };
        rest = &rest[count * length..];
        lengths = &lengths[count..];
    }
    bytes.len() - rest.len()
}

/// Returns the hash of each of [`LANES`] blocks of `length` bytes: one, two, four or eight leaves.
fn hash_blocks(platform: Platform, blocks: &[u8], length: usize) -> [ChunkHash; LANES] {
    let mut leaves = length / LEAF_BYTES;
    // The nodes of one level of all trees: the first of each, the second of each, …
    let mut nodes = [[0; 32]; MAX_LEAVES * LANES];
    let root = |leaves| if leaves == 1 { ROOT } else { 0 };
    for (leaf, out) in nodes.chunks_exact_mut(LANES).take(leaves).enumerate() {
        let inputs: [&[u8; LEAF_BYTES]; LANES] =
            std::array::from_fn(|block| &blocks[block * length..].as_chunks().0[leaf]);
        platform.hash_many(
            &inputs,
            KEY,
            leaf as u64,
            IncrementCounter::No,
            0,
            LEAF_START,
            LEAF_END | root(leaves),
            out.as_flattened_mut(),
        );
    }
    while leaves > 1 {
        leaves /= 2;
        for node in 0..leaves {
            let mut pairs = [[0; 64]; LANES];
            for (block, pair) in pairs.iter_mut().enumerate() {
                pair[..32].copy_from_slice(&nodes[2 * node * LANES + block]);
                pair[32..].copy_from_slice(&nodes[(2 * node + 1) * LANES + block]);
            }
            platform.hash_many(
                &pairs.each_ref(),
                KEY,
                0,
                IncrementCounter::No,
                PARENT | root(leaves),
                0,
                0,
                nodes[node * LANES..][..LANES].as_flattened_mut(),
            );
        }
    }
    std::array::from_fn(|block| short(&Hash(nodes[block])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Side by side or one by one, for any order of lengths, the hash is BLAKE3's.
        #[test]
        fn chunks_have_their_blake3_hashes(
            runs in prop::collection::vec((prop::sample::select(vec![512, 1000, 1024, 2048, 4096, 8192, 16384]), 1usize..40), 1..6),
            left_over in 0usize..5000,
            seed in any::<[u8; 32]>(),
        ) {
            let lengths: Vec<usize> = runs.iter().flat_map(|(length, count)| vec![*length; *count]).collect();
            let total = lengths.iter().sum::<usize>();
            let mut bytes = vec![0; total + left_over];
            blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut bytes);
            let mut chunks = Vec::new();
            prop_assert_eq!(hash_chunks(&bytes, &lengths, &mut chunks), total);
            let mut rest = bytes.as_slice();
            let one_by_one: Vec<Chunk> = lengths.iter().map(|length| {
                let (chunk, later) = rest.split_at(*length);
                rest = later;
                Chunk { hash: short(&Hash::blake3(chunk)), length: *length }
            }).collect();
            prop_assert_eq!(chunks, one_by_one);
        }
    }
}
