//! Fetching archives: in parallel, hashed while they stream, opened on a thread of their own.
//!
//! Per archive one task reads the target and one blocking thread verifies, decrypts, decompresses
//! and hands the wanted pieces to a [`Sink`]; between them stand a few buffers, so memory is bounded
//! whatever the archive's size. Bytes reach the sink before the archive's last hash is known: the
//! caller must throw everything away if any archive turns out damaged.

mod demux;
mod verify;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};

use super::open::{Identities, OpenError, open_archive};
use super::plan::{ArchiveJob, Piece};
use crate::base::ids::{ArchiveId, ObjectKey};
use crate::base::progress::{Progress, ProgressEvent};
use crate::repository::HostFolder;
use crate::storage::{ErrorKind, TargetError};
use demux::{ScatterError, scatter};
use verify::VerifiedReader;

/// Buffers between the network and the thread that opens.
const CHANNEL_BUFFERS: usize = 8;
pub const PARALLEL_ARCHIVES: usize = 4;

/// What is wrong with one archive, or with using it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it could not be fetched: {}", chain(.0))]
    Fetch(TargetError),
    #[error("it has {found} bytes, the manifest says {expected}")]
    Size { found: String, expected: u64 },
    #[error("its {0} is not the manifest's: it is damaged or another one")]
    Hash(&'static str),
    #[error("{0}")]
    Open(OpenError),
    #[error("its tar stream is not what the index says: {0}")]
    Stream(String),
    #[error("cannot write what it holds: {0}")]
    Write(io::Error),
    #[error("it was not asked for: the target delivered none of the last {PARALLEL_ARCHIVES}")]
    NotAsked,
    #[error("the restore was stopped")]
    Stopped,
}

/// An error and what is behind it, on one line: it is shown in a list of damaged archives.
fn chain(error: &TargetError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// An archive that did not give what it should.
#[derive(Debug)]
pub struct Damaged {
    pub archive: ArchiveId,
    pub key: ObjectKey,
    pub error: ArchiveError,
    /// Entries that lack bytes because of it.
    pub entries: Vec<u32>,
}

impl Damaged {
    /// It is whole, but lies where it cannot be read.
    pub fn is_frozen(&self) -> bool {
        matches!(&self.error, ArchiveError::Fetch(error) if error.kind == ErrorKind::Frozen)
    }

    fn not_asked(job: &ArchiveJob) -> Self {
        Self {
            archive: job.row.id,
            key: job.row.key(),
            error: ArchiveError::NotAsked,
            entries: job.pieces.iter().map(|piece| piece.entry).collect(),
        }
    }

    fn is_the_targets_fault(&self) -> bool {
        let kind = match &self.error {
            ArchiveError::Fetch(error) => error.kind,
            _ => return false,
        };
        matches!(kind, ErrorKind::Unavailable | ErrorKind::Denied)
    }
}

/// Takes the bytes of the pieces of one archive. Within a piece they come in order.
pub trait Sink: Send {
    /// `bytes` stand `at` bytes into `piece`.
    fn write(&mut self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<()>;
}

/// Fetches all `jobs` and gives those that failed; `sink` makes one sink per archive. After the first that is
/// frozen nothing new is begun: all of it would be fetched again later. And a target that fails as often in a
/// row as archives are fetched at once is not asked for the rest: each of its failures took all its patience.
pub async fn fetch(
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
    let sending = send(folder, &key, sender, &*progress);
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

/// Not one of the runtime's, which targets need as well: were there so few that all of them opened, those that
/// wait for the bytes to open would wait for ever.
fn on_a_thread_of_its_own<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, outcome) = oneshot::channel();
    let named = std::thread::Builder::new().name("open".to_owned());
    named.spawn(move || {
        let result = work();
        // Nobody waits for it any more where the restore was given up.
        let _ = done.send(result);
    })?;
    Ok(outcome)
}

/// Passes the object's bytes on until it ends, fails or nobody listens any more.
async fn send(
    folder: &HostFolder,
    key: &ObjectKey,
    sender: mpsc::Sender<Result<Bytes, TargetError>>,
    progress: &dyn Progress,
) {
    let mut stream = match folder.target.stream(&folder.key(key), 0).await {
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

/// Verifies, opens and distributes one archive.
fn read_archive(
    job: &ArchiveJob,
    receiver: mpsc::Receiver<Result<Bytes, TargetError>>,
    identities: &Identities,
    sink: &mut dyn Sink,
) -> Result<(), ArchiveError> {
    let mut reader = VerifiedReader::new(receiver, &job.row);
    reader.check_head()?;
    let scattered = open_archive(&mut reader, identities)
        .map_err(ScatterError::Open)
        .and_then(|mut tar| scatter(&mut tar, job, sink));
    if let Err(ScatterError::Write(error)) = scattered {
        return Err(ArchiveError::Write(error));
    }
    // That the ciphertext is not the signed one says more than what decrypting it ran into.
    reader.finish()?;
    scattered.map_err(|error| match error {
        ScatterError::Open(error) => ArchiveError::Open(error),
        ScatterError::Stream(what) => ArchiveError::Stream(what),
        ScatterError::Write(error) => ArchiveError::Write(error),
    })
}
