//! Where the bytes of a file are: which extents a read needs, and where its holes are. Each is a
//! binary search, since a file may have millions of extents.

use std::ops::Range;

use crate::format::index::Extent;

/// The extents of a file, with the position at which each begins.
#[derive(Debug, Clone)]
pub struct ContentMap {
    extents: Vec<Extent>,
    starts: Vec<u64>,
    size: u64,
}

impl ContentMap {
    /// Returns the map of a file with these extents.
    pub fn new(extents: impl Iterator<Item = Extent>) -> Self {
        let extents: Vec<Extent> = extents.collect();
        let mut size = 0u64;
        let starts = extents.iter().map(|extent| {
            let start = size;
            size = size.saturating_add(extent.length);
            start
        });
        let starts = starts.collect();
        Self {
            extents,
            starts,
            size,
        }
    }

    /// Returns the bytes of the content.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the extents that have the bytes `range`, and these bytes as a range of the content
    /// of those extents alone.
    pub fn part(&self, range: Range<u64>) -> (&[Extent], Range<u64>) {
        let first = self.extent_at(range.start);
        let last = self.starts.partition_point(|start| *start < range.end);
        let last = last.max(first);
        let begin = self.starts.get(first).copied().unwrap_or(self.size);
        let within = range.start.saturating_sub(begin)..range.end.saturating_sub(begin);
        (&self.extents[first..last], within)
    }

    /// Returns the first position from `offset` on that is no hole; `None`: there is none.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.next(offset, |extent| extent.archive.is_some())
    }

    /// Returns the first position from `offset` on that is a hole or the end; `None`: `offset` is
    /// not before the end.
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        let hole = self.next(offset, |extent| extent.archive.is_none());
        hole.or_else(|| (offset < self.size).then_some(self.size))
    }

    fn next(&self, offset: u64, is_wanted: impl Fn(&Extent) -> bool) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let first = self.extent_at(offset);
        let mut from = self.extents.iter().zip(&self.starts).skip(first);
        from.find(|(extent, _)| is_wanted(extent))
            .map(|(_, start)| offset.max(*start))
    }

    /// Returns the number of the extent that has the byte at `offset`.
    fn extent_at(&self, offset: u64) -> usize {
        let after = self.starts.partition_point(|start| *start <= offset);
        after.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::{ArchiveId, WriterId};

    fn map(lengths: &[(bool, u64)]) -> ContentMap {
        let archive = ArchiveId {
            writer: WriterId([1; 8]),
            counter: 1,
        };
        let extents = lengths.iter().map(|(is_hole, length)| Extent {
            archive: (!is_hole).then_some(archive),
            offset: 0,
            length: *length,
        });
        ContentMap::new(extents)
    }

    proptest! {
        #[test]
        fn parts_and_holes_are_those_of_a_map_of_single_bytes(
            lengths in prop::collection::vec((any::<bool>(), 1u64..6), 0..8),
            start in 0u64..50,
            length in 1u64..20,
        ) {
            let map = map(&lengths);
            let bytes: Vec<(usize, bool)> = lengths
                .iter()
                .enumerate()
                .flat_map(|(n, (hole, length))| std::iter::repeat_n((n, *hole), *length as usize))
                .collect();
            prop_assert_eq!(map.size(), bytes.len() as u64);
            let find = |wanted: bool| {
                let from = bytes.iter().enumerate().skip(start as usize);
                from.clone().find(|(_, (_, hole))| *hole == wanted).map(|(at, _)| at as u64)
            };
            prop_assert_eq!(map.next_data(start), find(false));
            let end = (start < map.size()).then_some(map.size());
            prop_assert_eq!(map.next_hole(start), find(true).or(end));
            let range = start..(start + length).min(map.size());
            if range.start < range.end {
                let (extents, within) = map.part(range.clone());
                let (first, last) = (bytes[range.start as usize].0, bytes[range.end as usize - 1].0);
                prop_assert_eq!(extents.len(), last - first + 1);
                prop_assert_eq!(within.end - within.start, range.end - range.start);
                let before = bytes.iter().filter(|(n, _)| *n < first).count() as u64;
                prop_assert_eq!(within.start + before, range.start);
            }
        }
    }
}
