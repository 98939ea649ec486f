//! Copies of whole indexes, made while their segments are read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::index_segments::{IndexPlaces, IndexSegments};
use crate::base::ids::Hash;
use crate::format::manifest::IndexRef;

/// Most bytes of indexes that are compared with the hashes of their manifests.
pub(super) const COMPARED_BYTES: u64 = 32 << 20;
/// Whole indexes, to be compared with the hashes in their manifests.
pub(super) struct IndexCopies {
    /// Positions of their snapshots, and their bytes.
    all: Vec<(usize, Mutex<Vec<u8>>)>,
    /// For each segment the copies that have it, and where.
    places: HashMap<u32, Vec<(u32, u64)>>,
}

impl IndexCopies {
    /// Makes space for the newest indexes that fit.
    pub(super) fn of<E>(
        indexes: &[&IndexRef],
        places: &[Result<IndexPlaces, E>],
        segments: &IndexSegments,
    ) -> Self {
        let mut copies = Self {
            all: Vec::new(),
            places: HashMap::new(),
        };
        let mut left = COMPARED_BYTES;
        for (position, (index, places)) in indexes.iter().zip(places).enumerate().rev() {
            let Ok(places) = places else { continue };
            let bytes = index.bytes;
            let Some(rest) = left.checked_sub(bytes) else {
                break;
            };
            left = rest;
            let number = copies.all.len() as u32;
            copies
                .all
                .push((position, Mutex::new(vec![0; bytes as usize])));
            let mut at = 0;
            for extent in places.of(index) {
                let lengths = &segments.archives[extent.archive as usize];
                for segment in segments.of(&extent) {
                    let place = &lengths.places[(segment - lengths.first) as usize];
                    copies.places.entry(segment).or_default().push((number, at));
                    at += place.end - place.start;
                }
            }
        }
        copies
    }

    /// Copies bytes that are at `at` of a segment.
    pub(super) fn put(&self, segment: u32, at: u64, bytes: &[u8]) {
        for (number, start) in self.places.get(&segment).into_iter().flatten() {
            let mut copy = self.all[*number as usize]
                .1
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let start = (start + at) as usize;
            copy[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Returns the positions of the snapshots whose indexes are copied, and their hashes.
    pub(super) fn hashes(&self) -> HashMap<usize, Hash> {
        let all = self.all.iter().map(|(position, bytes)| {
            let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
            (*position, Hash::blake3(&bytes))
        });
        all.collect()
    }
}
