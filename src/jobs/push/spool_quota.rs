//! The spool's limit, while packing and shipping go on.
//!
//! Over its limit, the spool first gives up archives that every target has, then those of a target
//! that the others can copy from, then those that only unreachable targets lack. If there are none
//! of these, the packer waits until something is shipped. So a first push may be larger than the
//! disk, and a target that is unreachable for weeks does not stop the others.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::ids::ObjectKey;
use crate::state::spool::Spool;

/// How often a waiting packer looks whether uploads ended without a message.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The spool is over its limit, and no upload is left that could change that.
#[derive(Debug, thiserror::Error)]
#[error(
    "the spool holds {bytes} bytes, its limit is {limit}, and no target takes the archives in it; see to the targets, \
     or raise `limit` in [spool]"
)]
pub(super) struct SpoolFull {
    bytes: u64,
    limit: u64,
}

/// The archives in the spool, which targets have them, and the limit of their bytes.
#[derive(Debug)]
pub(super) struct SpoolQuota {
    limit: u64,
    spool: Spool,
    inner: Mutex<QuotaState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QuotaState {
    /// Bytes of all held archives.
    bytes: u64,
    /// Oldest first.
    held: Vec<Held>,
    targets: Vec<ServedTarget>,
}

/// The part of one target.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServedTarget {
    /// Its uploads go on.
    pub is_live: bool,
    /// Other targets can copy from it.
    pub is_copy_source: bool,
}

/// An archive in the spool.
#[derive(Debug)]
struct Held {
    key: ObjectKey,
    bytes: u64,
    /// Whether the target has it, in the targets' order.
    has: Vec<bool>,
    /// Uploads of it under way.
    in_flight: usize,
}

impl SpoolQuota {
    /// Returns the quota of an empty spool.
    pub(super) fn new(limit: u64, spool: Spool, targets: Vec<ServedTarget>) -> Self {
        Self {
            limit,
            spool,
            inner: Mutex::new(QuotaState {
                targets,
                ..QuotaState::default()
            }),
            changed: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, QuotaState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an archive that is in the spool. `has` says which targets have it, in their order.
    pub(super) fn add(&self, key: ObjectKey, bytes: u64, has: Vec<bool>) {
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
    pub(super) fn wait_for_room(&self) -> Result<(), SpoolFull> {
        let mut inner = self.inner();
        while inner.bytes > self.limit {
            if self.evict(&mut inner) {
                continue;
            }
            if !inner.targets.iter().any(|target| target.is_live) {
                return Err(SpoolFull {
                    bytes: inner.bytes,
                    limit: self.limit,
                });
            }
            let waited = self.changed.wait_timeout(inner, LOOK_AGAIN);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Removes the archive that is needed least. Returns false if none may go.
    fn evict(&self, inner: &mut QuotaState) -> bool {
        let targets = &inner.targets;
        let rank = |held: &Held| {
            let can_give = |(has, target): (&bool, &ServedTarget)| *has && target.is_copy_source;
            if held.has.iter().all(|has| *has) {
                Some(0)
            } else if held.has.iter().zip(targets).any(can_give) {
                Some(1)
            } else {
                // A target whose uploads go on must not lose an archive that it waits for.
                let served = |(has, target): (&bool, &ServedTarget)| *has || !target.is_live;
                let anywhere = held.has.contains(&true);
                (anywhere && held.has.iter().zip(targets).all(served)).then_some(2)
            }
        };
        let idle = inner.held.iter().enumerate();
        let ranked = idle.filter(|(_, held)| held.in_flight == 0);
        let ranked = ranked.filter_map(|(index, held)| Some((rank(held)?, index)));
        let Some((_, index)) = ranked.min() else {
            return false;
        };
        let held = inner.held.remove(index);
        inner.bytes -= held.bytes;
        // The next run removes a file that stays behind.
        if let Err(error) = self.spool.remove(held.key.as_str()) {
            tracing::warn!(%error, "cannot make room in the spool");
        }
        true
    }

    /// Notes that an upload of an archive begins. Returns false if the spool no longer has the
    /// archive.
    pub(super) fn begin_upload(&self, key: &ObjectKey) -> bool {
        let mut inner = self.inner();
        let held = inner.held.iter_mut().find(|held| held.key == *key);
        held.map(|held| held.in_flight += 1).is_some()
    }

    /// Notes that an upload to the target of this index ended, and whether the target has the
    /// archive now.
    pub(super) fn end_upload(&self, target: usize, key: &ObjectKey, shipped: bool) {
        let mut inner = self.inner();
        if let Some(held) = inner.held.iter_mut().find(|held| held.key == *key) {
            held.in_flight = held.in_flight.saturating_sub(1);
            if let (true, Some(has)) = (shipped, held.has.get_mut(target)) {
                *has = true;
            }
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Notes that the target of this index takes no more archives in this push.
    pub(super) fn end_target(&self, target: usize) {
        if let Some(target) = self.inner().targets.get_mut(target) {
            target.is_live = false;
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Hash;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::archive(&Hash::blake3(name.as_bytes()))
    }

    /// A quota of ten bytes for two targets, of which the second is unreachable.
    fn quota(dir: &std::path::Path, first_is_copy_source: bool) -> SpoolQuota {
        let targets = [(true, first_is_copy_source), (false, false)];
        let targets = targets.map(|(is_live, is_copy_source)| ServedTarget {
            is_live,
            is_copy_source,
        });
        SpoolQuota::new(10, Spool::open(dir).unwrap(), targets.to_vec())
    }

    fn held(quota: &SpoolQuota) -> Vec<ObjectKey> {
        let inner = quota.inner();
        inner.held.iter().map(|held| held.key.clone()).collect()
    }

    #[test]
    fn archives_that_are_needed_least_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let quota = quota(dir.path(), false);
        quota.add(key("on no target"), 4, vec![false, false]);
        quota.add(key("on the first"), 4, vec![true, false]);
        quota.add(key("on both"), 4, vec![true, true]);
        quota.wait_for_room().unwrap();
        assert_eq!(held(&quota), [key("on no target"), key("on the first")]);
        quota.add(key("another"), 4, vec![false, false]);
        quota.wait_for_room().unwrap();
        assert_eq!(held(&quota), [key("on no target"), key("another")]);
    }

    #[test]
    fn without_uploads_an_archive_that_is_nowhere_else_fills_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let quota = quota(dir.path(), true);
        quota.add(key("on no target"), 11, vec![false, false]);
        quota.end_target(0);
        let full = quota.wait_for_room().unwrap_err();
        assert!(full.to_string().contains("its limit is 10"), "{full}");
    }

    #[test]
    fn an_archive_under_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let quota = quota(dir.path(), false);
        quota.add(key("on both"), 11, vec![true, true]);
        assert!(quota.begin_upload(&key("on both")));
        quota.end_target(0);
        quota.wait_for_room().unwrap_err();
        quota.end_upload(0, &key("on both"), true);
        quota.wait_for_room().unwrap();
        assert!(!quota.begin_upload(&key("on both")));
    }
}
