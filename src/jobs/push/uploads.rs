//! Uploads to every target while packing goes on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::copy_sources::CopySource;
use super::error::PushError;
use super::inspect_targets::InspectedTarget;
use super::spool_quota::{ServedTarget, SpoolFull, SpoolQuota};
use crate::base::error_chain::with_causes;
use crate::base::ids::{ARCHIVES, Hash, ObjectKey};
use crate::base::panics::caught;
use crate::base::progress::{Progress, ProgressEvent, TargetActivity};
use crate::shipper::{Sealed, ShipError, SpoolBody, UploadTracker, ship_archives};
use crate::state::State;
use crate::state::spool::{self, Spool};
use crate::storage::{Body, Meter, panicked};

/// The uploads to one target.
enum TargetUploads {
    /// The target did not answer. Holds the error and its causes.
    Unreachable(String),
    /// A task uploads what comes through the queue.
    Running {
        /// The target's configured name.
        name: String,
        queue: UnboundedSender<Sealed>,
        task: JoinHandle<UploadsResult>,
    },
}

/// What the uploads to one target came to.
pub(super) struct UploadsResult {
    /// The first failure.
    pub result: Result<(), ShipError>,
    /// Archives that the target confirmed, with their sizes.
    pub shipped: Vec<(ObjectKey, u64)>,
}

/// The uploads to all targets, and the spool that they share.
pub(super) struct Uploads {
    /// In the targets' order.
    targets: Vec<TargetUploads>,
    quota: Arc<SpoolQuota>,
    progress: Arc<dyn Progress>,
}

impl Uploads {
    /// Begins with the archives that earlier runs sealed and a target still lacks.
    pub(super) fn start(
        runtime: &Runtime,
        state: &State,
        inspected_targets: &[InspectedTarget],
        copy_sources: &[CopySource],
        spool_limit: Option<u64>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Self, PushError> {
        let spooled = spooled(state)?;
        let held = spooled.iter().map(|(_, bytes)| bytes).sum();
        let limit = match spool_limit {
            Some(limit) => limit,
            None => default_limit(state, held)?,
        };
        let served = inspected_targets.iter().zip(copy_sources);
        let served = served.map(|(inspected, source)| ServedTarget {
            is_live: inspected.seen.is_ok(),
            is_copy_source: *source == CopySource::Yes,
        });
        let quota = SpoolQuota::new(limit, state.spool.clone(), served.collect());
        let quota = Arc::new(quota);
        for (archive, bytes) in &spooled {
            let has = inspected_targets
                .iter()
                .map(|inspected| has(inspected, &archive.key, *bytes));
            quota.add(archive.key.clone(), *bytes, has.collect());
        }
        let body: SpoolBody = match inspected_targets.len() {
            1 => Body::Shared,
            _ => Body::File,
        };
        let mut targets = Vec::new();
        for (index, inspected) in inspected_targets.iter().enumerate() {
            if let Err(error) = &inspected.seen {
                targets.push(TargetUploads::Unreachable(with_causes(error)));
                continue;
            }
            let (queue, requests) = unbounded_channel();
            let mut queued = 0;
            for (archive, bytes) in &spooled {
                if !has(inspected, &archive.key, *bytes) {
                    queued += bytes;
                    let _ = queue.send(archive.clone());
                }
            }
            report_queued(&**progress, &inspected.name, queued);
            let tracker = TargetTracker {
                index,
                name: inspected.name.clone(),
                quota: Arc::clone(&quota),
                progress: Arc::clone(progress),
                under_way: AtomicUsize::new(0),
                shipped: Mutex::new(Vec::new()),
            };
            let uploads = upload(inspected, tracker, state.spool.clone(), requests, body);
            let task = runtime.spawn(uploads);
            targets.push(TargetUploads::Running {
                name: inspected.name.clone(),
                queue,
                task,
            });
        }
        Ok(Self {
            targets,
            quota,
            progress: Arc::clone(progress),
        })
    }

    /// Queues a sealed archive for every target. Waits while the spool is over its limit.
    pub(super) fn announce(&self, archive: &Sealed, bytes: u64) -> Result<(), SpoolFull> {
        let has = vec![false; self.targets.len()];
        self.quota.add(archive.key.clone(), bytes, has);
        for target in &self.targets {
            if let TargetUploads::Running { name, queue, .. } = target {
                // Uploads that failed take no more; their error is reported once they have ended.
                if queue.send(archive.clone()).is_ok() {
                    report_queued(&*self.progress, name, bytes);
                }
            }
        }
        self.quota.wait_for_room()
    }

    /// Closes the queues. Each future waits until the uploads to one target have ended.
    pub(super) fn end(self) -> Vec<impl Future<Output = EndedUploads> + Send> {
        let ended = |(target, uploads): (usize, TargetUploads)| async move {
            let (unreachable, result) = match uploads {
                TargetUploads::Unreachable(why) => (Some(why), None),
                TargetUploads::Running { queue, task, .. } => {
                    drop(queue);
                    (None, task.await.ok())
                }
            };
            EndedUploads {
                target,
                unreachable,
                result,
            }
        };
        self.targets.into_iter().enumerate().map(ended).collect()
    }
}

/// Returns whether the target showed the archive in full.
fn has(inspected: &InspectedTarget, key: &ObjectKey, bytes: u64) -> bool {
    let Ok(seen) = &inspected.seen else {
        return false;
    };
    let hash = ObjectKey::archive_hash(key.as_str());
    hash.is_some_and(|hash| seen.archives.get(&hash) == Some(&bytes))
}

/// Returns the archives in the spool. An archive that the catalog does not know may be an index, so
/// it is not cold.
fn spooled(state: &State) -> Result<Vec<(Sealed, u64)>, PushError> {
    let listed = state.spool.list(ARCHIVES)?;
    let hashes = listed.iter().map(|(key, _)| key.as_str());
    let spooled: HashSet<Hash> = hashes.filter_map(ObjectKey::archive_hash).collect();
    let known = state.catalog.archives_named(spooled)?;
    let known = known
        .iter()
        .map(|archive| (archive.row.blake3, Sealed::from(&archive.row)));
    let known: HashMap<Hash, Sealed> = known.collect();
    let archives = listed.into_iter().filter_map(|(key, bytes)| {
        let hash = ObjectKey::archive_hash(&key)?;
        let unknown = || Sealed {
            key: ObjectKey::archive(&hash),
            cold: false,
        };
        let sealed = known.get(&hash).cloned();
        Some((sealed.unwrap_or_else(unknown), bytes))
    });
    Ok(archives.collect())
}

fn default_limit(state: &State, held: u64) -> Result<u64, PushError> {
    let dir = state.spool.dir();
    spool::default_limit(dir, held).map_err(|source| PushError::State {
        operation: "tell the free space of",
        path: dir.display().to_string(),
        source,
    })
}

/// Reports the uploads to one target to the quota and as progress, and keeps the keys for the
/// catalog.
struct TargetTracker {
    /// The target's place in the targets' order.
    index: usize,
    name: String,
    quota: Arc<SpoolQuota>,
    progress: Arc<dyn Progress>,
    /// Number of uploads that have begun and not ended.
    under_way: AtomicUsize,
    shipped: Mutex<Vec<(ObjectKey, u64)>>,
}

impl TargetTracker {
    /// An upload has ended.
    fn end_one(&self, key: &ObjectKey, is_shipped: bool) {
        self.quota.end_upload(self.index, key, is_shipped);
        if self.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            report_activity(&*self.progress, &self.name, &TargetActivity::Waiting);
        }
    }
}

/// Reports what a target does now.
pub(super) fn report_activity(progress: &dyn Progress, target: &str, activity: &TargetActivity) {
    progress.report(&ProgressEvent::TargetChanged { target, activity });
}

fn report_queued(progress: &dyn Progress, target: &str, bytes: u64) {
    if bytes > 0 {
        progress.report(&ProgressEvent::BytesQueued { target, bytes });
    }
}

impl UploadTracker for TargetTracker {
    fn begins(&self, key: &ObjectKey) -> bool {
        let begins = self.quota.begin_upload(key);
        if begins && self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            report_activity(&*self.progress, &self.name, &TargetActivity::Sending);
        }
        begins
    }

    fn meter(&self, _copied: bool) -> Option<Arc<Meter>> {
        Some(Meter::of_put(&self.progress, &self.name))
    }

    fn shipped(&self, key: &ObjectKey, bytes: u64) {
        self.end_one(key, true);
        let target = &self.name;
        self.progress
            .report(&ProgressEvent::BytesShipped { target, bytes });
        if let Ok(mut shipped) = self.shipped.lock() {
            shipped.push((key.clone(), bytes));
        }
    }

    fn failed(&self, key: &ObjectKey) {
        self.end_one(key, false);
    }
}

fn upload(
    inspected: &InspectedTarget,
    tracker: TargetTracker,
    spool: Spool,
    requests: UnboundedReceiver<Sealed>,
    body: SpoolBody,
) -> impl Future<Output = UploadsResult> + use<> {
    let (folder, concurrency) = (inspected.folder.clone(), inspected.concurrency);
    async move {
        let shipping = ship_archives(&folder, &spool, requests, concurrency, body, &tracker);
        let result = caught(shipping).await.unwrap_or_else(|error| {
            let label = folder.target.label();
            Err(panicked("ship to", folder.host.as_str(), label, error).into())
        });
        tracker.quota.end_target(tracker.index);
        let shipped = tracker.shipped.into_inner().unwrap_or_default();
        UploadsResult { result, shipped }
    }
}

/// How the uploads to one target ended.
pub(super) struct EndedUploads {
    /// The target's place in the targets' order.
    pub target: usize,
    /// Why the target was not reached; `None`: it was.
    pub unreachable: Option<String>,
    /// `None`: there were no uploads, or their task broke off.
    pub result: Option<UploadsResult>,
}
