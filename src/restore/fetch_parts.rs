//! Fetches parts of archives into a [`Sink`], where that is clearly less than the whole of them.
//!
//! An archive that is fetched whole is compared with its BLAKE3. Here each chunk authenticates
//! itself under the key in the archive's head, which the signed table binds, and each file is
//! compared with its own BLAKE3 as always.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;

use super::fetch::{ArchiveError, Damaged, Sink};
use super::open::Identities;
use super::plan::{ArchiveJob, Piece};
use super::range_reader::{RangeError, RangeReader, RangeReaderOptions};
use crate::base::progress::{Progress, ProgressEvent};
use crate::repository::HostFolder;
use crate::storage::{ErrorKind, TargetError};

/// Bytes of content that are read at a time.
const WINDOW_BYTES: u64 = 16 << 20;
/// Most memory for decrypted frames.
const MEMORY_BYTES: u64 = 64 << 20;
/// Archives that are read at a time.
const PARALLEL_ARCHIVES: usize = 4;

/// Returns a reader of parts of the archives in `folder`. It keeps nothing on disk.
pub(super) fn parts_reader(folder: &HostFolder, identities: &Arc<Identities>) -> RangeReader {
    let options = RangeReaderOptions {
        cache_dir: None,
        cache_bytes: 0,
        memory_bytes: MEMORY_BYTES,
    };
    RangeReader::new(folder.clone(), Arc::clone(identities), options)
}

/// Reads the pieces of all `jobs`. Returns the archives that failed. `sink` makes one sink for each
/// archive.
pub(super) async fn fetch_parts(
    reader: &RangeReader,
    jobs: Vec<ArchiveJob>,
    progress: &dyn Progress,
    sink: &(dyn Fn() -> Box<dyn Sink> + Sync),
) -> Vec<Damaged> {
    let told = &AtomicU64::new(reader.fetched_bytes());
    let fetches = jobs.into_iter().map(async |job| {
        let failed = fetch_one(reader, &job, sink()).await.err();
        let now = reader.fetched_bytes();
        let bytes = now.saturating_sub(told.fetch_max(now, Ordering::Relaxed));
        progress.report(&ProgressEvent::BytesFetched { bytes });
        failed.map(|error| Damaged::of_job(&job, error))
    });
    futures::stream::iter(fetches)
        .buffer_unordered(PARALLEL_ARCHIVES)
        .filter_map(async |damaged| damaged)
        .collect()
        .await
}

async fn fetch_one(
    reader: &RangeReader,
    job: &ArchiveJob,
    mut sink: Box<dyn Sink>,
) -> Result<(), ArchiveError> {
    let pieces: Vec<(Piece, Range<u64>)> = job.pieces.iter().flat_map(windows).collect();
    for batch in batches(&pieces) {
        let batch = batch.to_vec();
        let ranges = batch.iter().map(|(_, range)| range.clone()).collect();
        let read = reader.read_ranges(&job.row, ranges).await;
        let parts = read.map_err(|error| archive_error(error, job))?;
        // A disk may take its time, and the threads of the runtime serve targets.
        let writing = tokio::task::spawn_blocking(move || {
            let written = write(&mut *sink, &batch, &parts);
            (sink, written)
        });
        let (back, written) = writing.await.map_err(|_| ArchiveError::Stopped)?;
        written.map_err(ArchiveError::Write)?;
        sink = back;
    }
    Ok(())
}

fn write(sink: &mut dyn Sink, batch: &[(Piece, Range<u64>)], parts: &[Bytes]) -> io::Result<()> {
    for ((piece, range), bytes) in batch.iter().zip(parts) {
        sink.write(piece, range.start - piece.tar_offset, bytes)?;
    }
    Ok(())
}

/// Cuts a piece into parts that fit the memory.
fn windows(piece: &Piece) -> impl Iterator<Item = (Piece, Range<u64>)> + use<> {
    let (piece, end) = (*piece, piece.tar_offset + piece.length);
    let starts = (piece.tar_offset..end).step_by(WINDOW_BYTES as usize);
    starts.map(move |start| (piece, start..end.min(start + WINDOW_BYTES)))
}

/// Groups parts, so that each group fits the memory.
fn batches(pieces: &[(Piece, Range<u64>)]) -> Vec<&[(Piece, Range<u64>)]> {
    let (mut batches, mut rest) = (Vec::new(), pieces);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(_, range)| {
            bytes += range.end - range.start;
            bytes <= WINDOW_BYTES
        });
        let (batch, later) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = later;
    }
    batches
}

/// Returns the failure of `job` that `error` means.
pub(super) fn archive_error(error: RangeError, job: &ArchiveJob) -> ArchiveError {
    match error {
        RangeError::Archive { source, .. } => source.again(),
        RangeError::Frozen(frozen) => {
            let (key, kind) = (job.row.key(), ErrorKind::Frozen);
            let cause = frozen.to_string();
            ArchiveError::Fetch(TargetError::new("get", key.as_str(), "", kind, cause))
        }
        // The job has the archive's row.
        RangeError::NotInTable(_) => ArchiveError::Stopped,
    }
}
