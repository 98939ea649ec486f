//! Moves sealed objects from the spool to one target, and between targets.
//!
//! Archives go up while packing still goes on ([`ship_archives`]); then [`publish_all`] makes the
//! snapshots visible. What the spool no longer has comes from another target ([`copy`]), and whole
//! snapshots go from target to target by [`sync()`]. Nobody here ever holds an identity: what moves is
//! ciphertext, believed by its hash.

pub mod copy;
mod publish;
pub mod sync;

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::StreamExt as _;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::base::ids::ObjectKey;
use crate::format::manifest::{ArchiveKind, ArchiveRow, ManifestName};
use crate::repository::{HostFolder, RepositoryError};
use crate::state::spool::{Spool, SpoolError};
use crate::storage::{Body, PutMode, TargetError};

pub use publish::{Publication, Published, Support, publish, publish_all, publish_recovery};

#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Copy(#[from] copy::CopyError),
    #[error(
        "{target} holds {count} prune marks that were not read, for there are too many or they are too large: what they \
         name cannot be told. See who writes there, and remove them from marks/ (`sealift prune` writes those again \
         that are needed)"
    )]
    UnreadMarks { target: String, count: usize },
    #[error("{0} was to be shipped, but is not in the spool")]
    NotInSpool(ObjectKey),
    #[error(
        "cannot publish {manifest} on {target}: {count} of its objects are neither there nor in the spool, nor on a \
         target that can be read ({first})"
    )]
    Incomplete {
        manifest: ManifestName,
        target: String,
        count: usize,
        /// Keys of the first few.
        first: String,
    },
    #[error("there is no room for {manifest} on {target}: {cause}")]
    NoRoom {
        manifest: ManifestName,
        target: String,
        cause: String,
    },
    #[error(
        "cannot publish {manifest}: it names {count} archives and pages that were not handed over ({first})"
    )]
    Unlisted {
        manifest: ManifestName,
        count: usize,
        first: String,
    },
}

/// A sealed archive that is in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub key: ObjectKey,
    /// Only a restore reads it: data, not an index.
    pub cold: bool,
}

impl From<&ArchiveRow> for Sealed {
    fn from(row: &ArchiveRow) -> Self {
        Self {
            key: row.key(),
            cold: row.kind == ArchiveKind::Data,
        }
    }
}

/// Keeps the books of uploads to one target: which objects it confirmed, and which copies were damaged.
pub trait UploadTracker: Sync {
    /// An archive's upload is about to begin. Returns false if it must not, because the spool no longer has the
    /// archive.
    fn begins(&self, _key: &ObjectKey) -> bool {
        true
    }

    /// The target confirmed an object of `bytes` bytes, which came from the spool or from another target.
    fn shipped(&self, key: &ObjectKey, bytes: u64);

    /// An upload that had begun failed.
    fn failed(&self, _key: &ObjectKey) {}

    /// The archive could not be copied from another target because it is damaged there.
    fn damaged(&self, _key: &ObjectKey) {}
}

impl<F: Fn(&ObjectKey, u64) + Sync> UploadTracker for F {
    fn shipped(&self, key: &ObjectKey, bytes: u64) {
        self(key, bytes);
    }
}

/// Ships archives as `requests` announces them, `concurrency` at once, until its senders are gone. With
/// `shared` no other target needs the spool's files, and a folder may keep them ([`Body::Shared`]).
/// After the first failure nothing new is begun; what is under way is waited for.
pub async fn ship_archives(
    folder: &HostFolder,
    spool: &Spool,
    mut requests: UnboundedReceiver<Sealed>,
    concurrency: usize,
    shared: bool,
    tracker: &impl UploadTracker,
) -> Result<(), ShipError> {
    let stopped = AtomicBool::new(false);
    let announced = futures::stream::poll_fn(|context| match stopped.load(Ordering::Relaxed) {
        true => Poll::Ready(None),
        false => requests.poll_recv(context),
    });
    let mut uploads = announced
        .map(|archive| async move {
            if !tracker.begins(&archive.key) {
                return Ok(());
            }
            let shipped = ship_archive(folder, spool, &archive, PutMode::Create, shared).await;
            match &shipped {
                Ok(bytes) => tracker.shipped(&archive.key, *bytes),
                Err(_) => tracker.failed(&archive.key),
            }
            shipped.map(drop)
        })
        .buffer_unordered(concurrency.max(1));
    let mut outcome = Ok(());
    while let Some(uploaded) = uploads.next().await {
        if uploaded.is_err() {
            stopped.store(true, Ordering::Relaxed);
            outcome = outcome.and(uploaded);
        }
    }
    outcome
}

/// Puts an archive of the spool onto the target; gives its bytes.
async fn ship_archive(
    folder: &HostFolder,
    spool: &Spool,
    archive: &Sealed,
    mode: PutMode,
    shared: bool,
) -> Result<u64, ShipError> {
    let (key, bytes) = (&archive.key, spooled(spool, &archive.key)?);
    let body = match shared {
        true => Body::Shared(spool.path(key)),
        false => Body::File(spool.path(key)),
    };
    put_archive(folder, archive, body, mode).await?;
    Ok(bytes)
}

fn spooled(spool: &Spool, key: &ObjectKey) -> Result<u64, ShipError> {
    spool
        .size(key)
        .ok_or_else(|| ShipError::NotInSpool(key.clone()))
}

/// Into the class that its kind asks for.
async fn put_archive(
    folder: &HostFolder,
    archive: &Sealed,
    body: Body,
    mode: PutMode,
) -> Result<(), TargetError> {
    let key = folder.key(&archive.key);
    match archive.cold {
        true => folder.target.put_cold(&key, body, mode).await?,
        false => folder.target.put(&key, body, mode).await?,
    };
    Ok(())
}
