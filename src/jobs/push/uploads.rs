//! Uploads to the targets, one lane each, while packing goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::copy_sources::Donor;
use super::error::PushError;
use super::inspect_targets::Survey;
use super::spool_quota::{self, NoRoom, Room};
use crate::base::error_chain::with_causes;
use crate::base::ids::{ARCHIVES, Hash, ObjectKey};
use crate::base::panics::caught;
use crate::base::progress::{Progress, ProgressEvent};
use crate::shipper::{Sealed, ShipError, SpoolBody, UploadTracker, ship_archives};
use crate::state::State;
use crate::state::spool::Spool;
use crate::storage::{Body, panicked};

/// One target's uploads, under way while packing goes on.
pub(super) struct Lane {
    pub queue: Option<UnboundedSender<Sealed>>,
    pub task: Option<JoinHandle<LaneEnd>>,
    /// Why there is no lane: the target did not answer.
    pub unreachable: Option<String>,
}

pub(super) struct LaneEnd {
    pub result: Result<(), ShipError>,
    pub shipped: Vec<(ObjectKey, u64)>,
}

/// The lanes, and the spool that they share.
pub(super) struct Lanes {
    pub lanes: Vec<Lane>,
    pub room: Arc<Room>,
}

impl Lanes {
    /// Begins with what earlier runs sealed and a target still lacks.
    pub fn start(
        runtime: &Runtime,
        state: &State,
        surveys: &[Survey],
        asked: &[Donor],
        spool_limit: Option<u64>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Self, PushError> {
        let spooled = spooled(state)?;
        let held = spooled.iter().map(|(_, bytes)| bytes).sum();
        let limit = match spool_limit {
            Some(limit) => limit,
            None => default_limit(state, held)?,
        };
        let served = surveys.iter().zip(asked);
        let served = served.map(|(survey, donor)| spool_quota::Lane {
            is_live: survey.seen.is_ok(),
            is_donor: *donor == Donor::Yes,
        });
        let room = Arc::new(Room::new(limit, state.spool.clone(), served.collect()));
        for (archive, bytes) in &spooled {
            let has = surveys
                .iter()
                .map(|survey| has(survey, &archive.key, *bytes));
            room.add(archive.key.clone(), *bytes, has.collect());
        }
        let mut lanes = Vec::new();
        for (at, survey) in surveys.iter().enumerate() {
            if let Err(error) = &survey.seen {
                lanes.push(Lane {
                    queue: None,
                    task: None,
                    unreachable: Some(with_causes(error)),
                });
                continue;
            }
            let (queue, requests) = unbounded_channel();
            for (archive, bytes) in &spooled {
                if !has(survey, &archive.key, *bytes) {
                    let _ = queue.send(archive.clone());
                }
            }
            let body: SpoolBody = match surveys.len() {
                1 => Body::Shared,
                _ => Body::File,
            };
            let ship = ship_lane(
                survey,
                LaneTracker::new(at, &survey.name, &room, progress),
                state.spool.clone(),
                requests,
                body,
            );
            lanes.push(Lane {
                queue: Some(queue),
                task: Some(runtime.spawn(ship)),
                unreachable: None,
            });
        }
        Ok(Self { lanes, room })
    }

    /// Announces an archive to every lane; waits while the spool is over its limit.
    pub fn announce(&self, archive: &Sealed, bytes: u64) -> Result<(), NoRoom> {
        let has = vec![false; self.lanes.len()];
        self.room.add(archive.key.clone(), bytes, has);
        for lane in &self.lanes {
            // A lane that failed takes no more; its error is told when it has ended.
            let _ = lane.queue.as_ref().map(|queue| queue.send(archive.clone()));
        }
        self.room.make()
    }

    /// The lanes, each as it ends once its queue is empty.
    pub fn end(self) -> Vec<impl Future<Output = EndedLane> + Send> {
        let ended = |(at, lane): (usize, Lane)| async move {
            drop(lane.queue);
            let end = match lane.task {
                Some(task) => task.await.ok(),
                None => None,
            };
            EndedLane {
                at,
                unreachable: lane.unreachable,
                end,
            }
        };
        self.lanes.into_iter().enumerate().map(ended).collect()
    }
}

/// Whether the target showed the archive in full.
fn has(survey: &Survey, key: &ObjectKey, bytes: u64) -> bool {
    let Ok(seen) = &survey.seen else { return false };
    let hash = ObjectKey::archive_hash(key.as_str());
    hash.is_some_and(|hash| seen.archives.get(&hash) == Some(&bytes))
}

/// The archives in the spool. What the catalog does not know may be an index.
fn spooled(state: &State) -> Result<Vec<(Sealed, u64)>, PushError> {
    let listed = state.spool.list(ARCHIVES)?;
    let hashes = listed.iter().map(|(key, _)| key.as_str());
    let spooled: HashSet<Hash> = hashes.filter_map(ObjectKey::archive_hash).collect();
    let mut known: HashMap<Hash, Sealed> = HashMap::new();
    if !spooled.is_empty() {
        for archive in state.catalog.archives()?.iter() {
            if spooled.contains(&archive.row.blake3) {
                known.insert(archive.row.blake3, Sealed::from(&archive.row));
            }
        }
    }
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

/// Half of what the spool has and could have: the disk is not its own.
fn default_limit(state: &State, held: u64) -> Result<u64, PushError> {
    let dir = state.spool.dir();
    let free = crate::base::fs::free_bytes(dir).map_err(|source| PushError::State {
        operation: "tell the free space of",
        path: dir.display().to_string(),
        source,
    })?;
    Ok((held + free) / 2)
}

/// Reports the uploads of one lane to the spool quota and as progress.
struct LaneTracker {
    at: usize,
    name: String,
    room: Arc<Room>,
    progress: Arc<dyn Progress>,
    shipped: std::sync::Mutex<Vec<(ObjectKey, u64)>>,
}

impl LaneTracker {
    fn new(at: usize, name: &str, room: &Arc<Room>, progress: &Arc<dyn Progress>) -> Self {
        Self {
            at,
            name: name.to_owned(),
            room: Arc::clone(room),
            progress: Arc::clone(progress),
            shipped: std::sync::Mutex::new(Vec::new()),
        }
    }
}

impl UploadTracker for LaneTracker {
    fn begins(&self, key: &ObjectKey) -> bool {
        self.room.begin(key)
    }

    fn shipped(&self, key: &ObjectKey, bytes: u64) {
        self.room.end(self.at, key, true);
        let target = &self.name;
        self.progress
            .report(&ProgressEvent::BytesShipped { target, bytes });
        if let Ok(mut shipped) = self.shipped.lock() {
            shipped.push((key.clone(), bytes));
        }
    }

    fn failed(&self, key: &ObjectKey) {
        self.room.end(self.at, key, false);
    }
}

fn ship_lane(
    survey: &Survey,
    tracker: LaneTracker,
    spool: Spool,
    requests: UnboundedReceiver<Sealed>,
    body: SpoolBody,
) -> impl Future<Output = LaneEnd> + use<> {
    let (folder, concurrency) = (survey.folder.clone(), survey.concurrency);
    async move {
        let shipping = ship_archives(&folder, &spool, requests, concurrency, body, &tracker);
        let result = caught(shipping).await.unwrap_or_else(|error| {
            let label = folder.target.label();
            Err(panicked("ship to", folder.host.as_str(), label, error).into())
        });
        tracker.room.lane_ended(tracker.at);
        let shipped = tracker.shipped.into_inner().unwrap_or_default();
        LaneEnd { result, shipped }
    }
}

/// How one target's uploads ended; `None`: there were none, or they broke off.
pub(super) struct EndedLane {
    /// Which of the lanes.
    pub at: usize,
    pub unreachable: Option<String>,
    pub end: Option<LaneEnd>,
}
