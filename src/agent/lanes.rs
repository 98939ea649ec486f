//! Uploads to the targets, one lane each, while packing goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::donors::Donor;
use super::room::{self, NoRoom, Room};
use super::survey::Survey;
use super::{AgentError, Reporter, State};
use crate::error::with_causes;
use crate::ids::{ARCHIVES, Hash, ObjectKey};
use crate::panics::caught;
use crate::shipper::{Sealed, ShipError, Watcher, ship_archives};
use crate::spool::Spool;
use crate::target::panicked;

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
        reporter: &Arc<dyn Reporter>,
    ) -> Result<Self, AgentError> {
        let spooled = spooled(state)?;
        let held = spooled.iter().map(|(_, bytes)| bytes).sum();
        let limit = match spool_limit {
            Some(limit) => limit,
            None => default_limit(state, held)?,
        };
        let served = surveys.iter().zip(asked);
        let served = served.map(|(survey, donor)| room::Lane {
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
            let shared = surveys.len() == 1;
            let ship = ship_lane(
                survey,
                LaneWatcher::new(at, &survey.name, &room, reporter),
                state.spool.clone(),
                requests,
                shared,
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
fn spooled(state: &State) -> Result<Vec<(Sealed, u64)>, AgentError> {
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

/// Half of what the spool has and could have: the disk is not its own.
fn default_limit(state: &State, held: u64) -> Result<u64, AgentError> {
    let dir = state.spool.dir();
    let free = crate::fs::free_bytes(dir).map_err(|source| AgentError::State {
        operation: "tell the free space of",
        path: dir.display().to_string(),
        source,
    })?;
    Ok((held + free) / 2)
}

/// Tells the reporter and the room of a lane's uploads.
struct LaneWatcher {
    at: usize,
    name: String,
    room: Arc<Room>,
    reporter: Arc<dyn Reporter>,
    shipped: std::sync::Mutex<Vec<(ObjectKey, u64)>>,
}

impl LaneWatcher {
    fn new(at: usize, name: &str, room: &Arc<Room>, reporter: &Arc<dyn Reporter>) -> Self {
        Self {
            at,
            name: name.to_owned(),
            room: Arc::clone(room),
            reporter: Arc::clone(reporter),
            shipped: std::sync::Mutex::new(Vec::new()),
        }
    }
}

impl Watcher for LaneWatcher {
    fn begins(&self, key: &ObjectKey) -> bool {
        self.room.begin(key)
    }

    fn shipped(&self, key: &ObjectKey, bytes: u64) {
        self.room.end(self.at, key, true);
        self.reporter.shipped(&self.name, bytes);
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
    watcher: LaneWatcher,
    spool: Spool,
    requests: UnboundedReceiver<Sealed>,
    shared: bool,
) -> impl Future<Output = LaneEnd> + use<> {
    let (folder, concurrency) = (survey.folder.clone(), survey.concurrency);
    async move {
        let shipping = ship_archives(&folder, &spool, requests, concurrency, shared, &watcher);
        let result = caught(shipping).await.unwrap_or_else(|error| {
            let label = folder.target.label();
            Err(panicked("ship to", folder.host.as_str(), label, error).into())
        });
        watcher.room.lane_ended(watcher.at);
        let shipped = watcher.shipped.into_inner().unwrap_or_default();
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
