//! Uploads to the targets, one lane each, while packing goes on.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::FuturesUnordered;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::survey::Survey;
use super::{AgentError, Reporter, State};
use crate::error::with_causes;
use crate::ids::{ARCHIVES, Hash, ObjectKey};
use crate::repository::HostFolder;
use crate::shipper::{ShipError, Shipment, ship_archives};
use crate::spool::Spool;

/// One target's uploads, under way while packing goes on.
pub(super) struct Lane {
    pub queue: Option<UnboundedSender<Shipment>>,
    pub task: Option<JoinHandle<LaneEnd>>,
    /// Why there is no lane: the target did not answer.
    pub unreachable: Option<String>,
}

pub(super) struct LaneEnd {
    pub result: Result<(), ShipError>,
    pub shipped: Vec<(ObjectKey, u64)>,
}

pub(super) fn start_lanes(
    runtime: &Runtime,
    state: &State,
    surveys: &[Survey],
    reporter: &Arc<dyn Reporter>,
) -> Result<Vec<Lane>, AgentError> {
    let spooled = state.spool.list(ARCHIVES)?;
    let known = state.catalog.archives()?;
    let known: HashMap<Hash, Shipment> = known
        .iter()
        .map(|archive| (archive.row.blake3, Shipment::from(&archive.row)))
        .collect();
    let mut lanes = Vec::new();
    for survey in surveys {
        let seen = match &survey.seen {
            Ok(seen) => seen,
            Err(error) => {
                lanes.push(Lane {
                    queue: None,
                    task: None,
                    unreachable: Some(with_causes(error)),
                });
                continue;
            }
        };
        let (queue, requests) = unbounded_channel();
        // What earlier runs sealed and this target still lacks goes first.
        for (key, bytes) in &spooled {
            if let Some(hash) = ObjectKey::archive_hash(key)
                && seen.archives.get(&hash) != Some(bytes)
            {
                let unknown = || Shipment::of_unknown(ObjectKey::archive(&hash));
                let _ = queue.send(known.get(&hash).cloned().unwrap_or_else(unknown));
            }
        }
        let shared = surveys.len() == 1;
        let task = ship_lane(
            survey,
            state.spool.clone(),
            requests,
            shared,
            reporter.clone(),
        );
        lanes.push(Lane {
            queue: Some(queue),
            task: Some(runtime.spawn(task)),
            unreachable: None,
        });
    }
    Ok(lanes)
}

fn ship_lane(
    survey: &Survey,
    spool: Spool,
    requests: UnboundedReceiver<Shipment>,
    shared: bool,
    reporter: Arc<dyn Reporter>,
) -> impl Future<Output = LaneEnd> + use<> {
    let folder = HostFolder {
        target: survey.folder.target.clone(),
        host: survey.folder.host.clone(),
    };
    let (name, concurrency) = (survey.name.clone(), survey.concurrency);
    async move {
        let shipped = std::sync::Mutex::new(Vec::new());
        let note = |key: &ObjectKey, bytes: u64| {
            reporter.shipped(&name, bytes);
            if let Ok(mut shipped) = shipped.lock() {
                shipped.push((key.clone(), bytes));
            }
        };
        let result = ship_archives(&folder, &spool, requests, concurrency, shared, note).await;
        let shipped = shipped.into_inner().unwrap_or_default();
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

/// The lanes as they end, the first first: a target that hangs keeps none waiting.
pub(super) fn end_lanes(
    lanes: Vec<Lane>,
) -> FuturesUnordered<impl Future<Output = EndedLane> + Send> {
    let ended = |(at, lane): (usize, Lane)| async move {
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
    lanes.into_iter().enumerate().map(ended).collect()
}
