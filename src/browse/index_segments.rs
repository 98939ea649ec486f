//! Cuts index archives where an index begins or ends to use them.
//!
//! The indexes of successive snapshots share most of their bytes, but not as equal extents: what a
//! day changes splits the runs of the day before. So each archive is cut at every place where an
//! extent of any index begins or ends. Each extent is then a run of whole segments, and a segment
//! needs to be read once, however many indexes have it. Pure.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::base::ids::ArchiveId;
use crate::format::index::Extent;
use crate::format::manifest::IndexRef;

/// An extent of an index, in an archive that is named by a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PlacedExtent {
    /// Number of the archive.
    pub(super) archive: u32,
    /// Position in the tar stream, bytes.
    pub(super) offset: u64,
    /// Bytes, at least 1.
    pub(super) length: u64,
}

/// The archives that an index is in, by number. (Its extents stay in the manifest: of a year of
/// snapshots there may be a million.)
#[derive(Debug, Default)]
pub(super) struct IndexPlaces {
    archives: HashMap<ArchiveId, u32, RandomState>,
}

impl IndexPlaces {
    /// Whether the archive of `extent` is known.
    pub(super) fn has(&self, extent: &Extent) -> bool {
        extent
            .archive
            .is_some_and(|id| self.archives.contains_key(&id))
    }

    /// Adds an archive and its number.
    pub(super) fn add(&mut self, id: ArchiveId, number: u32) {
        self.archives.insert(id, number);
    }

    /// Returns the extents of an index whose archives are all known.
    pub(super) fn of(&self, index: &IndexRef) -> impl Iterator<Item = PlacedExtent> {
        index.extents.iter().filter_map(|extent| {
            Some(PlacedExtent {
                archive: *self.archives.get(&extent.archive?)?,
                offset: extent.offset,
                length: extent.length,
            })
        })
    }
}

/// The segments of all archives.
#[derive(Debug, Default)]
pub(super) struct IndexSegments {
    /// For each archive its segments by offset: the place in the tar stream. Segments are numbered
    /// through all archives.
    pub(super) archives: Vec<ArchiveSegments>,
    /// The segments of each distinct extent.
    runs: HashMap<PlacedExtent, Range<u32>, RandomState>,
    /// Number of segments.
    pub(super) len: u32,
}

/// The segments of one archive.
#[derive(Debug, Default)]
pub(super) struct ArchiveSegments {
    /// Number of the first one.
    pub(super) first: u32,
    /// Their places in the tar stream, by offset.
    pub(super) places: Vec<Range<u64>>,
}

impl IndexSegments {
    /// Cuts `archives` archives, of which the indexes use `extents`.
    pub(super) fn cut(archives: usize, extents: impl Iterator<Item = PlacedExtent>) -> Self {
        let distinct: HashSet<PlacedExtent, RandomState> = extents.collect();
        let mut by_archive: Vec<Vec<PlacedExtent>> = vec![Vec::new(); archives];
        for extent in distinct {
            by_archive[extent.archive as usize].push(extent);
        }
        let mut segments = Self::default();
        for extents in by_archive {
            let one = segments.cut_archive(&extents);
            segments.archives.push(one);
        }
        segments
    }

    fn cut_archive(&mut self, extents: &[PlacedExtent]) -> ArchiveSegments {
        let ends = extents.iter();
        let ends = ends.flat_map(|extent| [extent.offset, extent.offset + extent.length]);
        let mut cuts: Vec<u64> = ends.collect();
        cuts.sort_unstable();
        cuts.dedup();
        let position = |at: u64| cuts.partition_point(|cut| *cut < at);
        // How many more extents cover the part after each cut than the part before it.
        let mut steps = vec![0_i64; cuts.len()];
        for extent in extents {
            steps[position(extent.offset)] += 1;
            steps[position(extent.offset + extent.length)] -= 1;
        }
        let first = self.len;
        let mut places = Vec::new();
        // Number of the segment that begins at each cut; those that no extent covers have none.
        let mut numbers = Vec::with_capacity(cuts.len());
        let mut covering = 0;
        for (at, step) in steps.iter().enumerate() {
            covering += step;
            numbers.push(first + places.len() as u32);
            if covering > 0 {
                places.push(cuts[at]..cuts[at + 1]);
            }
        }
        self.len += places.len() as u32;
        for extent in extents {
            let from = numbers[position(extent.offset)];
            let to = numbers[position(extent.offset + extent.length)];
            self.runs.insert(*extent, from..to);
        }
        ArchiveSegments { first, places }
    }

    /// Returns the numbers of the segments that make `extent`, which was one of those given.
    pub(super) fn of(&self, extent: &PlacedExtent) -> Range<u32> {
        self.runs.get(extent).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each extent is the concatenation of its segments, and segments do not overlap.
        #[test]
        fn extents_are_runs_of_segments(
            raw in proptest::collection::vec((0u32..3, 0u64..60, 1u64..20), 1..40)
        ) {
            let extents: Vec<PlacedExtent> = raw
                .into_iter()
                .map(|(archive, offset, length)| PlacedExtent { archive, offset, length })
                .collect();
            let segments = IndexSegments::cut(3, extents.iter().copied());
            let mut number = 0;
            for one in &segments.archives {
                prop_assert_eq!(one.first, number);
                number += one.places.len() as u32;
                prop_assert!(one.places.windows(2).all(|two| two[0].end <= two[1].start));
            }
            prop_assert_eq!(segments.len, number);
            let place = |number: u32| {
                let archive = segments.archives.iter().rposition(|one| one.first <= number
                    && number < one.first + one.places.len() as u32).unwrap();
                let one = &segments.archives[archive];
                (archive as u32, one.places[(number - one.first) as usize].clone())
            };
            for extent in &extents {
                let mut at = extent.offset;
                for number in segments.of(extent) {
                    let (archive, range) = place(number);
                    prop_assert_eq!((archive, range.start), (extent.archive, at));
                    at = range.end;
                }
                prop_assert_eq!(at, extent.offset + extent.length);
            }
        }
    }
}
