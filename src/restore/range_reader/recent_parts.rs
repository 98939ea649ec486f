//! Small parts of archives that were fetched lately: frames that are read one by one share the
//! encrypted chunks at their ends.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::base::ids::Hash;

/// Most bytes of all parts.
const MOST_BYTES: usize = 4 << 20;
/// A larger part is not kept.
const MOST_PART_BYTES: usize = 256 << 10;

/// A part of an archive.
struct RecentPart {
    archive: Hash,
    start: u64,
    bytes: Bytes,
}

/// Parts in memory, the oldest first.
#[derive(Default)]
pub(super) struct RecentParts(Mutex<VecDeque<RecentPart>>);

impl RecentParts {
    /// Keeps a part that was fetched. The oldest ones go.
    pub(super) fn put(&self, archive: Hash, start: u64, bytes: &Bytes) {
        if bytes.len() > MOST_PART_BYTES {
            return;
        }
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push_back(RecentPart {
            archive,
            start,
            bytes: bytes.clone(),
        });
        let mut total: usize = parts.iter().map(|part| part.bytes.len()).sum();
        while total > MOST_BYTES {
            total -= parts.pop_front().map_or(0, |oldest| oldest.bytes.len());
        }
    }

    /// Returns what is here of a range: in order, no byte twice.
    pub(super) fn get(&self, archive: &Hash, range: &Range<u64>) -> Vec<(u64, Bytes)> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut here: Vec<(u64, Bytes)> = parts
            .iter()
            .filter(|part| part.archive == *archive)
            .filter_map(|part| within(part, range))
            .collect();
        drop(parts);
        here.sort_unstable_by_key(|(start, bytes)| (*start, bytes.len()));
        let mut at = range.start;
        let rest = here.into_iter().filter_map(|(start, bytes)| {
            let skipped = at.saturating_sub(start);
            let bytes = (skipped < bytes.len() as u64).then(|| bytes.slice(skipped as usize..))?;
            let start = start.max(at);
            at = start + bytes.len() as u64;
            Some((start, bytes))
        });
        rest.collect()
    }
}

/// Returns what `part` has of `range`.
fn within(part: &RecentPart, range: &Range<u64>) -> Option<(u64, Bytes)> {
    let end = part.start + part.bytes.len() as u64;
    let (from, to) = (part.start.max(range.start), end.min(range.end));
    let cut = |at: u64| (at - part.start) as usize;
    (from < to).then(|| (from, part.bytes.slice(cut(from)..cut(to))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Kind: bytes come back at a wrong place, twice, or of another archive.
        #[test]
        fn parts_come_back_in_order_and_once(
            put in proptest::collection::vec((0..2_u8, 0..200_u64, 1..60_u64), 0..12),
            range in (0..250_u64, 0..250_u64),
        ) {
            let parts = RecentParts::default();
            let content = |archive: u8, at: u64| archive * 100 + (at % 97) as u8;
            for (archive, start, length) in &put {
                let bytes: Vec<u8> = (*start..start + length).map(|at| content(*archive, at)).collect();
                parts.put(Hash([*archive; 32]), *start, &bytes.into());
            }
            let range = range.0.min(range.1)..range.0.max(range.1);
            let (mut at, mut found) = (range.start, Vec::new());
            for (start, bytes) in parts.get(&Hash([1; 32]), &range) {
                prop_assert!(start >= at && !bytes.is_empty());
                at = start + bytes.len() as u64;
                for (at, byte) in (start..at).zip(&bytes) {
                    prop_assert_eq!(*byte, content(1, at));
                    found.push(at);
                }
            }
            let has = |at: &u64| put.iter().any(|(archive, start, length)| {
                *archive == 1 && (*start..start + length).contains(at)
            });
            prop_assert_eq!(found, range.filter(has).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_oldest_parts_go() {
        let parts = RecentParts::default();
        let part = Bytes::from(vec![0; MOST_PART_BYTES]);
        let step = MOST_PART_BYTES as u64;
        let many = (MOST_BYTES / MOST_PART_BYTES) as u64;
        for number in 0..=many {
            parts.put(Hash([1; 32]), number * step, &part);
        }
        parts.put(Hash([1; 32]), 0, &vec![0; MOST_PART_BYTES + 1].into());
        assert_eq!(parts.get(&Hash([1; 32]), &(0..step)), []);
        let kept = parts.get(&Hash([1; 32]), &(0..u64::MAX));
        assert_eq!(kept.len() as u64, many);
    }
}
