//! The bytes of an index, proven, and where reading them is cheap.

use std::ops::Range;

use super::NotFound;
use crate::base::ids::ArchiveId;
use crate::format::archive::tar_member::BLOCK_BYTES;
use crate::format::index::Extent;
use crate::format::index::proof::{GROUP_BYTES, IndexProof, member_bytes};
use crate::format::manifest::Manifest;
use crate::repository::ArchiveTable;
use crate::restore::range_reader::RangeReader;

/// In a shorter extent, the begins of frames are not worth opening its archive.
const LEAST_BYTES: u64 = 64 << 10;
/// The two blocks of zeros at the end of a tar stream.
const END_BYTES: u64 = 2 * BLOCK_BYTES as u64;

/// The bytes of an index.
pub(in crate::restore) trait IndexSource {
    /// Returns their number.
    fn bytes(&self) -> u64;

    /// Reads the bytes `range`, which is cut at the end of the index.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, NotFound>;

    /// Returns places around `at` from which reading is cheap: what is before them need not be
    /// read.
    async fn cuts(&self, at: u64) -> Result<Vec<u64>, NotFound>;
}

/// The index of a snapshot, in its archives. Each byte is proven by the hash that the manifest
/// names.
pub(in crate::restore) struct SealedIndex<'a> {
    reader: &'a RangeReader,
    table: &'a ArchiveTable,
    extents: &'a [Extent],
    /// Where each extent begins in the index.
    starts: Vec<u64>,
    bytes: u64,
    proof: IndexProof,
}

impl<'a> SealedIndex<'a> {
    /// Opens the index of a snapshot. An index whose parts cannot be proven must be read whole.
    pub(in crate::restore) async fn open(
        reader: &'a RangeReader,
        table: &'a ArchiveTable,
        manifest: &'a Manifest,
    ) -> Result<Self, NotFound> {
        let reference = &manifest.core.index;
        let mut bytes = 0;
        let starts = reference.extents.iter().map(|extent| {
            let start = bytes;
            bytes += extent.length;
            start
        });
        let starts = starts.collect();
        let member = read_member(reader, table, manifest).await?;
        let proof = IndexProof::new(&member, reference.blake3).ok_or(NotFound::ReadWhole)?;
        Ok(Self {
            reader,
            table,
            extents: &reference.extents,
            starts,
            bytes,
            proof,
        })
    }

    /// Returns the begins of frames next to `at` within an extent that begins at `start`.
    async fn frames_around(
        &self,
        at: u64,
        start: u64,
        extent: &Extent,
    ) -> Result<Vec<u64>, NotFound> {
        let Some(id) = extent.archive.filter(|_| extent.length >= LEAST_BYTES) else {
            return Ok(Vec::new());
        };
        let row = self.table.rows.get(&id).ok_or(NotFound::ReadWhole)?;
        let begins = self.reader.frame_begins(row).await?;
        // An archive without a table of its frames would be read from its begin each time.
        if begins.is_empty() {
            return Err(NotFound::ReadWhole);
        }
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

/// Reads the values of the index's groups. They are at the end of the newest archive that the host
/// made for the snapshot.
async fn read_member(
    reader: &RangeReader,
    table: &ArchiveTable,
    manifest: &Manifest,
) -> Result<Vec<u8>, NotFound> {
    let core = &manifest.core;
    let archives = core
        .index
        .extents
        .iter()
        .filter_map(|extent| extent.archive);
    let own = archives.filter(|id| id.writer == core.writer);
    let newest: Option<ArchiveId> = own.max_by_key(|id| id.counter);
    let row = newest.and_then(|id| table.rows.get(&id));
    let row = row.ok_or(NotFound::ReadWhole)?;
    let bytes = member_bytes(core.index.bytes);
    let from_end = bytes.next_multiple_of(BLOCK_BYTES as u64) + END_BYTES;
    let content_bytes = reader.content_bytes(row).await?;
    let start = content_bytes.checked_sub(from_end);
    let start = start.filter(|_| bytes > 0).ok_or(NotFound::ReadWhole)?;
    let member = reader.read_archive(row, start..start + bytes).await?;
    Ok(member.into())
}

impl IndexSource for SealedIndex<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, NotFound> {
        let end = range.end.min(self.bytes);
        if range.start >= end {
            return Ok(Vec::new());
        }
        let first = range.start / GROUP_BYTES;
        let start = first * GROUP_BYTES;
        let whole = start..end.next_multiple_of(GROUP_BYTES).min(self.bytes);
        let read = self.reader.read_content(self.table, self.extents, whole);
        let mut bytes = read.await?;
        // The whole index shows whether it is wrong.
        if !self.proof.proves(first, &bytes) {
            return Err(NotFound::ReadWhole);
        }
        bytes.truncate((end - start) as usize);
        bytes.drain(..(range.start - start) as usize);
        Ok(bytes)
    }

    async fn cuts(&self, at: u64) -> Result<Vec<u64>, NotFound> {
        let next = self.starts.partition_point(|start| *start <= at);
        let Some(number) = next.checked_sub(1) else {
            return Ok(Vec::new());
        };
        let start = self.starts[number];
        let mut cuts = self.frames_around(at, start, &self.extents[number]).await?;
        cuts.push(start);
        cuts.extend(self.starts.get(next));
        // Only whole groups can be proven.
        let cuts = cuts
            .into_iter()
            .map(|cut| cut.next_multiple_of(GROUP_BYTES));
        Ok(cuts.collect())
    }
}
