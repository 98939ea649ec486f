//! Ships and copies the archives of a plan.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};

use super::super::copy::{Streak, copy_archive};
use super::super::error::{CopyError, ShipError};
use super::super::upload::{Sealed, UploadTracker, close, ship_archive, spooled};
use super::plan::Plan;
use super::{PUBLISH_CONCURRENCY, PublishJob};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::{ArchiveRow, ManifestName};
use crate::storage::{Body, PutMode, is_full, metered};

impl PublishJob<'_> {
    /// Ships the plan's archives, those that the newest planned snapshot needs before all others,
    /// and adds them to `shipped`. Returns the archives that the target has no room for, and why.
    pub(super) async fn ship_newest_first(
        &self,
        plan: &Plan<'_>,
        planned: &[ManifestName],
        tracker: &impl UploadTracker,
        shipped: &mut HashMap<Hash, u64>,
    ) -> Result<HashMap<Hash, String>, ShipError> {
        let newest = planned.last();
        let mut publications = self.publications.iter();
        let newest = publications.find(|one| Some(&one.manifest.name()) == newest);
        let rows = newest.into_iter().flat_map(|newest| &newest.archives);
        let needed_first: HashSet<ObjectKey> = rows.map(ArchiveRow::key).collect();
        let is_first = |(archive, _): &&(Sealed, PutMode)| needed_first.contains(&archive.key);
        let (first, then): (Vec<_>, Vec<_>) = plan.archives.iter().partition(is_first);
        let limit = RoomLimit::default();
        let mut no_room = Vec::new();
        for mut group in [first, then] {
            // Smallest first: each archive that does not fit may take minutes, and a larger one
            // does not fit either.
            group.sort_by_key(|(archive, _)| self.spool.size(&archive.key));
            for (archive, bytes) in self.ship_group(&group, &limit, tracker).await? {
                let Some(hash) = ObjectKey::archive_hash(archive.key.as_str()) else {
                    continue;
                };
                match bytes {
                    Some(bytes) => drop(shipped.insert(hash, bytes)),
                    None => no_room.push(hash),
                }
            }
        }
        let cause = limit.cause.into_inner().unwrap_or_default();
        let no_room = no_room.into_iter().map(|hash| (hash, cause.clone()));
        Ok(no_room.collect())
    }

    /// Ships archives and returns the size of each, or `None` if the target has no room for it.
    async fn ship_group<'p>(
        &self,
        group: &[&'p (Sealed, PutMode)],
        limit: &RoomLimit,
        tracker: &impl UploadTracker,
    ) -> Result<Vec<(&'p Sealed, Option<u64>)>, ShipError> {
        let at_once = futures::stream::iter(group).map(|one| self.ship(one, limit, tracker));
        let done = at_once.buffered(PUBLISH_CONCURRENCY);
        let mut done: Vec<Option<u64>> = done.try_collect().await?;
        if self.folder.target.has_reserve() && done.contains(&None) {
            // On a disk, uploads at the same time may have taken each other's room.
            limit.forget();
            for (one, done) in group.iter().zip(&mut done) {
                if done.is_none() {
                    *done = self.ship(one, limit, tracker).await?;
                }
            }
        }
        let archives = group.iter().map(|(archive, _)| archive);
        Ok(archives.zip(done).collect())
    }

    async fn ship(
        &self,
        (archive, mode): &(Sealed, PutMode),
        limit: &RoomLimit,
        tracker: &impl UploadTracker,
    ) -> Result<Option<u64>, ShipError> {
        let bytes = spooled(self.spool, &archive.key)?;
        if bytes >= limit.bytes.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let meter = tracker.meter(false);
        let shipping = ship_archive(self.folder, self.spool, archive, *mode, Body::File);
        let shipped = metered(meter.as_ref(), shipping).await;
        if let Ok(bytes) = &shipped {
            tracker.shipped(&archive.key, *bytes);
        }
        close(meter);
        match shipped {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_full(&error) => {
                limit.note(bytes, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Announces the plan's archives to the tracker.
    pub(super) fn announce(&self, plan: &Plan<'_>, tracker: &impl UploadTracker) {
        let sizes = plan.archives.iter();
        let sizes = sizes.filter_map(|(archive, _)| self.spool.size(&archive.key));
        if let bytes @ 1.. = sizes.sum() {
            tracker.due(bytes, None);
        }
        let first = plan.copies.first();
        let source = first.and_then(|(_, _, source)| self.support.copy_sources.get(*source));
        if let Some(source) = source {
            let bytes = plan.copies.iter().map(|(row, ..)| row.bytes).sum();
            tracker.due(bytes, Some(source.target.label()));
        }
    }

    /// Copies all archives of the plan, also after one failed: the next push must not meet damaged
    /// archives one by one. If a side does not answer, it stops after a few. Returns the archives
    /// that the target has no room for, and why.
    pub(super) async fn copy_all(
        &self,
        plan: &Plan<'_>,
        tracker: &impl UploadTracker,
    ) -> Result<HashMap<Hash, String>, ShipError> {
        let (sources, scratch) = (&self.support.copy_sources, &self.support.scratch);
        let streaks: Vec<Streak> = sources.iter().map(|_| Streak::default()).collect();
        let copies = futures::stream::iter(&plan.copies).map(async |(row, mode, source)| {
            let streak = &streaks[*source];
            if streak.is_over() {
                return Ok(0);
            }
            let meter = tracker.meter(true);
            let copying = copy_archive(&sources[*source], self.folder, row, *mode, scratch);
            let copied = metered(meter.as_ref(), copying).await;
            streak.note(&copied);
            match &copied {
                Ok(bytes) => tracker.shipped(&row.key(), *bytes),
                Err(CopyError::Damaged { key, .. }) => tracker.damaged(key),
                Err(_) => {}
            }
            close(meter);
            copied.map_err(|error| (row.blake3, error))
        });
        let copied = copies.buffer_unordered(PUBLISH_CONCURRENCY);
        let copied: Vec<Result<u64, (Hash, CopyError)>> = copied.collect().await;
        let mut no_room = HashMap::new();
        for (hash, error) in copied.into_iter().filter_map(Result::err) {
            match &error {
                CopyError::Target(failed) if is_full(failed) => {
                    no_room.insert(hash, with_causes(&error));
                }
                _ => return Err(error.into()),
            }
        }
        Ok(no_room)
    }
}

/// What a full target refused.
struct RoomLimit {
    /// Size of the smallest archive that did not fit.
    bytes: AtomicU64,
    /// The target's last refusal, with its causes.
    cause: Mutex<String>,
}

impl Default for RoomLimit {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(u64::MAX),
            cause: Mutex::default(),
        }
    }
}

impl RoomLimit {
    fn note(&self, bytes: u64, error: &ShipError) {
        self.bytes.fetch_min(bytes, Ordering::Relaxed);
        if let Ok(mut cause) = self.cause.lock() {
            *cause = with_causes(error);
        }
    }

    fn forget(&self) {
        self.bytes.store(u64::MAX, Ordering::Relaxed);
    }
}
