//! Fetches archives: several at once, each hashed while it streams and opened on a thread of its
//! own.
//!
//! For each archive, one task reads from the target, and one thread verifies, decrypts,
//! decompresses and passes the needed pieces to a [`Sink`]. A few buffers are between the two, so
//! memory is bounded whatever the archive's size. Bytes reach the sink before the archive's hash is
//! known: if an archive turns out to be damaged, the caller must discard everything.

mod demux;
mod error;
mod sink;
mod verify;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};

use super::open::{Identities, open_archive};
use super::plan::ArchiveJob;
use crate::base::ids::ObjectKey;
use crate::base::progress::{Progress, ProgressEvent};
use crate::repository::HostFolder;
use crate::storage::{Meter, TargetError, metered};
use demux::{DemuxError, demux};
use verify::VerifiedReader;

pub(super) use error::without_local_failures;
pub use error::{ArchiveError, Damaged};
pub(super) use sink::Sink;

/// Buffers between the network and the opening thread.
const CHANNEL_BUFFERS: usize = 8;
/// Archives that are fetched at once.
const PARALLEL_ARCHIVES: usize = 4;

/// Fetches all `jobs`. Returns the archives that failed. `sink` makes one sink for each archive.
///
/// After a frozen archive no other is begun, since all would be fetched again later. After as many
/// failures of the target in a row as archives are fetched at once, the rest is not requested: each
/// failure has used up all its retries.
pub(crate) async fn fetch(
    folder: &HostFolder,
    jobs: Vec<ArchiveJob>,
    identities: &Arc<Identities>,
    progress: &Arc<dyn Progress>,
    sink: &(dyn Fn() -> Box<dyn Sink> + Sync),
) -> Vec<Damaged> {
    let (frozen, in_a_row) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let fetches = jobs.into_iter().map(|job| async move {
        if frozen.load(Ordering::Relaxed) {
            return None;
        }
        if in_a_row.load(Ordering::Relaxed) >= PARALLEL_ARCHIVES {
            return Some(Damaged::not_asked(&job));
        }
        let (identities, progress) = (Arc::clone(identities), Arc::clone(progress));
        let damaged = fetch_one(folder, job, identities, progress, sink()).await;
        if damaged.as_ref().is_some_and(Damaged::is_frozen) {
            frozen.store(true, Ordering::Relaxed);
        }
        match &damaged {
            Some(damaged) if damaged.is_the_targets_fault() => {
                in_a_row.fetch_add(1, Ordering::Relaxed);
            }
            _ => in_a_row.store(0, Ordering::Relaxed),
        }
        damaged
    });
    futures::stream::iter(fetches)
        .buffer_unordered(PARALLEL_ARCHIVES)
        .filter_map(async |damaged| damaged)
        .collect()
        .await
}

async fn fetch_one(
    folder: &HostFolder,
    job: ArchiveJob,
    identities: Arc<Identities>,
    progress: Arc<dyn Progress>,
    mut sink: Box<dyn Sink>,
) -> Option<Damaged> {
    let key = job.row.key();
    let (sender, receiver) = mpsc::channel(CHANNEL_BUFFERS);
    let archive = job.row.id;
    let open = move || {
        let outcome = read_archive(&job, receiver, &identities, &mut *sink);
        outcome.map_err(|error| Box::new((error, job)))
    };
    let opening = match on_a_thread_of_its_own(open) {
        Ok(opening) => opening,
        Err(error) => {
            return Some(Damaged {
                archive,
                key,
                error: ArchiveError::Write(error),
                entries: Vec::new(),
            });
        }
    };
    let sending = send(folder, &key, sender, &progress);
    let ((), opened) = tokio::join!(sending, opening);
    let (error, entries) = match opened {
        Ok(Ok(())) => return None,
        Ok(Err(failed)) => {
            let (error, job) = *failed;
            (error, job.pieces.iter().map(|piece| piece.entry).collect())
        }
        Err(_) => (ArchiveError::Stopped, Vec::new()),
    };
    Some(Damaged {
        archive,
        key,
        error,
        entries,
    })
}

/// Runs `work` on a new thread, not on one of the runtime, which targets need as well: if all of
/// those were opening archives, none could deliver the bytes they wait for.
fn on_a_thread_of_its_own<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, outcome) = oneshot::channel();
    let named = std::thread::Builder::new().name("open".to_owned());
    named.spawn(move || {
        let result = work();
        // If the restore was given up, no receiver is left.
        let _ = done.send(result);
    })?;
    Ok(outcome)
}

/// Sends the object's bytes until it ends or fails, or the receiver is gone.
async fn send(
    folder: &HostFolder,
    key: &ObjectKey,
    sender: mpsc::Sender<Result<Bytes, TargetError>>,
    progress: &Arc<dyn Progress>,
) {
    // Counts what is fetched and not here yet: some kinds of targets fetch the whole object first.
    let meter = Meter::of_reads(progress, folder.target.label());
    let key = folder.key(key);
    let opened = metered(Some(&meter), folder.target.stream(&key, 0)).await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            let _ = sender.send(Err(error)).await;
            return;
        }
    };
    while let Some(item) = stream.next().await {
        if let Ok(bytes) = &item {
            let bytes = bytes.len() as u64;
            progress.report(&ProgressEvent::BytesFetched { bytes });
        }
        if sender.send(item).await.is_err() {
            return;
        }
    }
}

/// Verifies and opens one archive, and passes its pieces to `sink`.
fn read_archive(
    job: &ArchiveJob,
    receiver: mpsc::Receiver<Result<Bytes, TargetError>>,
    identities: &Identities,
    sink: &mut dyn Sink,
) -> Result<(), ArchiveError> {
    let mut reader = VerifiedReader::new(receiver, &job.row);
    reader.check_head()?;
    let demuxed = open_archive(&mut reader, identities)
        .map_err(DemuxError::Open)
        .and_then(|mut tar| demux(&mut tar, job, sink));
    if let Err(DemuxError::Write(error)) = demuxed {
        return Err(ArchiveError::Write(error));
    }
    // A wrong hash of the ciphertext says more than the error that decryption met.
    reader.finish()?;
    demuxed.map_err(|error| match error {
        DemuxError::Open(error) => ArchiveError::Open(error),
        DemuxError::Stream(what) => ArchiveError::Stream(what),
        DemuxError::Write(error) => ArchiveError::Write(error),
    })
}
