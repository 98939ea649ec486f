//! Uploads archives from the spool.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::StreamExt as _;
use tokio::sync::mpsc::UnboundedReceiver;

use super::error::ShipError;
use crate::base::ids::ObjectKey;
use crate::format::manifest::{ArchiveKind, ArchiveRow};
use crate::repository::HostFolder;
use crate::state::spool::Spool;
use crate::storage::{Body, Meter, PutMode, TargetError, metered};

/// A sealed archive in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The archive.
    pub key: ObjectKey,
    /// Whether it may go to cold storage: only a restore reads data, and every push reads an index.
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

/// Keeps the books of uploads to one target: which objects it confirmed, and which copies were
/// damaged.
pub trait UploadTracker: Sync {
    /// An archive's upload is about to begin. Returns false if it must not, because the spool no
    /// longer has the archive.
    fn begins(&self, _key: &ObjectKey) -> bool {
        true
    }

    /// Returns a new meter for an object that is about to be sent; `copied`: from another target.
    /// `None`: nothing is counted.
    fn meter(&self, _copied: bool) -> Option<Arc<Meter>> {
        None
    }

    /// Objects of `bytes` bytes are to be sent that nothing announced before, from the spool or
    /// from the target of this label.
    fn due(&self, _bytes: u64, _from: Option<&str>) {}

    /// Everything that the snapshots need is there; they are about to become visible.
    fn publishing(&self) {}

    /// The target confirmed an object of `bytes` bytes, which came from the spool or from another
    /// target.
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

/// How a file of the spool is handed to the target: [`Body::File`], or [`Body::Shared`] if no other
/// target needs the file, so that a folder may keep it.
pub type SpoolBody = fn(PathBuf) -> Body;

/// Ships archives as `requests` announces them, `concurrency` at a time, until its senders are
/// gone. After the first failure it begins nothing new and waits for the uploads that are under
/// way.
pub async fn ship_archives(
    folder: &HostFolder,
    spool: &Spool,
    mut requests: UnboundedReceiver<Sealed>,
    concurrency: usize,
    body: SpoolBody,
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
            let meter = tracker.meter(false);
            let shipping = ship_archive(folder, spool, &archive, PutMode::Create, body);
            let shipped = metered(meter.as_ref(), shipping).await;
            match &shipped {
                Ok(bytes) => tracker.shipped(&archive.key, *bytes),
                Err(_) => tracker.failed(&archive.key),
            }
            close(meter);
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

/// Ends a meter: its object is counted otherwise from now on, or failed.
pub(super) fn close(meter: Option<Arc<Meter>>) {
    if let Some(meter) = meter {
        meter.close();
    }
}

/// Puts an archive of the spool onto the target and returns its size.
pub(super) async fn ship_archive(
    folder: &HostFolder,
    spool: &Spool,
    archive: &Sealed,
    mode: PutMode,
    body: SpoolBody,
) -> Result<u64, ShipError> {
    let (key, bytes) = (&archive.key, spooled(spool, &archive.key)?);
    put_archive(folder, archive, body(spool.path(key)), mode).await?;
    Ok(bytes)
}

/// Returns the size of an object in the spool.
pub(super) fn spooled(spool: &Spool, key: &ObjectKey) -> Result<u64, ShipError> {
    spool
        .size(key)
        .ok_or_else(|| ShipError::NotInSpool(key.clone()))
}

/// Puts an archive into the storage class of its kind.
pub(super) async fn put_archive(
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
