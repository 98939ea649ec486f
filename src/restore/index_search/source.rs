//! The bytes of an index, and where reading them is cheap.

use std::ops::Range;

use crate::format::index::Extent;
use crate::format::manifest::IndexRef;
use crate::repository::ArchiveTable;
use crate::restore::range_reader::{RangeError, RangeReader};

/// In a shorter extent, the begins of frames are not worth opening its archive.
const LEAST_BYTES: u64 = 64 << 10;

/// The bytes of an index.
pub(in crate::restore) trait IndexSource {
    /// Returns their number.
    fn bytes(&self) -> u64;

    /// Reads the bytes `range`, which is cut at the end of the index.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RangeError>;

    /// Returns places around `at` from which reading is cheap: what is before them need not be
    /// read.
    async fn cuts(&self, at: u64) -> Result<Vec<u64>, RangeError>;
}

/// The index of a snapshot, in its archives.
pub(in crate::restore) struct SealedIndex<'a> {
    reader: &'a RangeReader,
    table: &'a ArchiveTable,
    extents: &'a [Extent],
    /// Where each extent begins in the index.
    starts: Vec<u64>,
    bytes: u64,
}

impl<'a> SealedIndex<'a> {
    /// Returns the index that `reference` names.
    pub(in crate::restore) fn new(
        reader: &'a RangeReader,
        table: &'a ArchiveTable,
        reference: &'a IndexRef,
    ) -> Self {
        let mut bytes = 0;
        let starts = reference.extents.iter().map(|extent| {
            let start = bytes;
            bytes += extent.length;
            start
        });
        Self {
            reader,
            table,
            extents: &reference.extents,
            starts: starts.collect(),
            bytes,
        }
    }

    /// Returns the begins of frames next to `at` within an extent that begins at `start`.
    async fn frames_around(
        &self,
        at: u64,
        start: u64,
        extent: &Extent,
    ) -> Result<Vec<u64>, RangeError> {
        let Some(id) = extent.archive.filter(|_| extent.length >= LEAST_BYTES) else {
            return Ok(Vec::new());
        };
        let row = self.table.rows.get(&id);
        let row = row.ok_or(RangeError::NotInTable(id))?;
        let begins = self.reader.frame_begins(row).await?;
        let inside = extent.offset..extent.offset + extent.length;
        let wanted = extent.offset + (at - start);
        let next = begins.partition_point(|begin| *begin <= wanted);
        let around = begins[next.saturating_sub(1)..].iter().take(2);
        let around = around.filter(|begin| inside.contains(begin));
        Ok(around
            .map(|begin| start + (begin - extent.offset))
            .collect())
    }
}

impl IndexSource for SealedIndex<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RangeError> {
        self.reader
            .read_content(self.table, self.extents, range)
            .await
    }

    async fn cuts(&self, at: u64) -> Result<Vec<u64>, RangeError> {
        let next = self.starts.partition_point(|start| *start <= at);
        let Some(number) = next.checked_sub(1) else {
            return Ok(Vec::new());
        };
        let start = self.starts[number];
        let mut cuts = self.frames_around(at, start, &self.extents[number]).await?;
        cuts.push(start);
        cuts.extend(self.starts.get(next));
        Ok(cuts)
    }
}
