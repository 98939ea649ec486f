//! The spool's limit, while packing and shipping go on.
//!
//! Pressed, the spool first gives up what every target has, then what a target has from which the others
//! can copy it, then what only targets lack that are away; and if there is nothing of these it holds the
//! packer back until something is shipped. So a first push may be larger than the disk, and a target that is
//! away for weeks keeps nobody waiting.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::ids::ObjectKey;
use crate::state::spool::Spool;

/// A lane that ends without a word is noticed after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error(
    "the spool holds {bytes} bytes, its limit is {limit}, and no target takes what is in it; see to the targets, or \
     raise `limit` in [spool]"
)]
pub struct NoRoom {
    bytes: u64,
    limit: u64,
}

/// Archives in the spool, and which target has them.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    spool: Spool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: u64,
    /// Oldest first.
    held: Vec<Held>,
    lanes: Vec<Lane>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    /// Uploads go on.
    pub is_live: bool,
    /// Others can copy from this target.
    pub is_donor: bool,
}

#[derive(Debug)]
struct Held {
    key: ObjectKey,
    bytes: u64,
    /// By target.
    has: Vec<bool>,
    in_flight: usize,
}

impl Room {
    pub fn new(limit: u64, spool: Spool, lanes: Vec<Lane>) -> Self {
        Self {
            limit,
            spool,
            inner: Mutex::new(Inner {
                lanes,
                ..Inner::default()
            }),
            changed: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an archive that is in the spool; `has` says which targets have it.
    pub fn add(&self, key: ObjectKey, bytes: u64, has: Vec<bool>) {
        let mut inner = self.inner();
        inner.bytes += bytes;
        inner.held.push(Held {
            key,
            bytes,
            has,
            in_flight: 0,
        });
    }

    /// Waits until the spool is within its limit.
    pub fn make(&self) -> Result<(), NoRoom> {
        let mut inner = self.inner();
        while inner.bytes > self.limit {
            if self.evict(&mut inner) {
                continue;
            }
            if !inner.lanes.iter().any(|lane| lane.is_live) {
                return Err(NoRoom {
                    bytes: inner.bytes,
                    limit: self.limit,
                });
            }
            let waited = self.changed.wait_timeout(inner, LOOK_AGAIN);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Removes the archive that is needed least; `false`: none may go.
    fn evict(&self, inner: &mut Inner) -> bool {
        let lanes = &inner.lanes;
        let rank = |held: &Held| {
            let donor = |(has, lane): (&bool, &Lane)| *has && lane.is_donor;
            if held.has.iter().all(|has| *has) {
                Some(0)
            } else if held.has.iter().zip(lanes).any(donor) {
                Some(1)
            } else {
                // No target that is being served may have to do without.
                let served = |(has, lane): (&bool, &Lane)| *has || !lane.is_live;
                let anywhere = held.has.contains(&true);
                (anywhere && held.has.iter().zip(lanes).all(served)).then_some(2)
            }
        };
        let idle = inner.held.iter().enumerate();
        let ranked = idle.filter(|(_, held)| held.in_flight == 0);
        let ranked = ranked.filter_map(|(at, held)| Some((rank(held)?, at)));
        let Some((_, at)) = ranked.min() else {
            return false;
        };
        let held = inner.held.remove(at);
        inner.bytes -= held.bytes;
        // What stays behind is removed by the next run.
        if let Err(error) = self.spool.remove(held.key.as_str()) {
            tracing::warn!(%error, "cannot make room in the spool");
        }
        true
    }

    /// Before `lane` ships an archive; `false`: it is no longer here.
    pub fn begin(&self, key: &ObjectKey) -> bool {
        let mut inner = self.inner();
        let held = inner.held.iter_mut().find(|held| held.key == *key);
        held.map(|held| held.in_flight += 1).is_some()
    }

    pub fn end(&self, lane: usize, key: &ObjectKey, shipped: bool) {
        let mut inner = self.inner();
        if let Some(held) = inner.held.iter_mut().find(|held| held.key == *key) {
            held.in_flight = held.in_flight.saturating_sub(1);
            if let (true, Some(has)) = (shipped, held.has.get_mut(lane)) {
                *has = true;
            }
        }
        drop(inner);
        self.changed.notify_all();
    }

    pub fn lane_ended(&self, lane: usize) {
        if let Some(lane) = self.inner().lanes.get_mut(lane) {
            lane.is_live = false;
        }
        self.changed.notify_all();
    }
}
