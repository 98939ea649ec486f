//! The last part of a push on one target: once its uploads have ended, every snapshot that it lacks
//! is published there, oldest first.

pub(super) mod newest_snapshot;
mod publish_result;
mod spooled_publication;

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;

use super::copy_sources::note_damaged;
use super::error::PushError;
use super::inspect_targets::{InspectedTarget, NameSet};
use super::inventory::record_shipped;
use super::request::{TargetReport, TargetState};
use super::uploads::{EndedUploads, report_activity};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, ObjectKey};
use crate::base::panics::caught;
use crate::base::progress::{Progress, ProgressEvent, Stage, TargetActivity};
use crate::format::manifest::ManifestName;
use crate::repository::HostFolder;
use crate::shipper::{
    Publication, Published, ShipError, Support, UploadTracker, publish_all, publish_recovery,
};
use crate::state::State;
use crate::state::catalog::{PublicationState, SnapshotRow};
use crate::state::spool::Spool;
use crate::storage::{Meter, is_full, panicked};
use newest_snapshot::{PushedSnapshot, waiting_snapshots};
use publish_result::{PublishResult, fork_warning, with_next_step};
use spooled_publication::spooled_publication;

/// Version of the recovery documents. A target gets them once per version.
const RECOVERY_VERSION: &str = "3";

/// One target after its uploads.
pub(super) struct FinishTarget<'a> {
    /// `RECOVER.md` and its script, by key.
    pub recovery: &'a [(ObjectKey, Bytes)],
    /// What the target held before the push.
    pub inspected: &'a InspectedTarget,
    /// Folders on other targets to copy from.
    pub copy_sources: Vec<HostFolder>,
    /// Another target that could be copied from does not answer now.
    pub copy_sources_away: bool,
    /// The snapshot that the target is to have in the end.
    pub newest: &'a PushedSnapshot<'a>,
    /// Receives the shipped bytes.
    pub progress: &'a Arc<dyn Progress>,
    /// When the push began.
    pub began: Instant,
}

/// The objects that the target confirmed, and the archives that were damaged on copy sources.
struct ConfirmedObjects<'a> {
    name: &'a str,
    progress: &'a Arc<dyn Progress>,
    shipped: Mutex<Vec<(ObjectKey, u64)>>,
    damaged: Mutex<Vec<ObjectKey>>,
}

impl UploadTracker for ConfirmedObjects<'_> {
    fn meter(&self, copied: bool) -> Option<Arc<Meter>> {
        Some(match copied {
            true => Meter::of_copy(self.progress, self.name),
            false => Meter::of_put(self.progress, self.name),
        })
    }

    fn due(&self, bytes: u64, from: Option<&str>) {
        let target = self.name;
        let activity = match from {
            Some(from) => TargetActivity::Copying {
                from: from.to_owned(),
            },
            None => TargetActivity::Sending,
        };
        report_activity(&**self.progress, target, &activity);
        self.progress
            .report(&ProgressEvent::BytesQueued { target, bytes });
    }

    fn publishing(&self) {
        report_activity(&**self.progress, self.name, &TargetActivity::Publishing);
        self.progress.report(&ProgressEvent::StageStarted {
            stage: Stage::Publishing,
            subject: Some(self.name),
        });
    }

    fn shipped(&self, key: &ObjectKey, bytes: u64) {
        let target = self.name;
        self.progress
            .report(&ProgressEvent::BytesShipped { target, bytes });
        if let Ok(mut shipped) = self.shipped.lock() {
            shipped.push((key.clone(), bytes));
        }
    }

    fn damaged(&self, key: &ObjectKey) {
        if let Ok(mut damaged) = self.damaged.lock() {
            damaged.push(key.clone());
        }
    }
}

/// The publication on one target. It does not borrow the state, so targets publish concurrently.
pub(super) struct Publishing<'a> {
    /// The target's place in the targets' order.
    pub target: usize,
    finishing: FinishTarget<'a>,
    confirmed: ConfirmedObjects<'a>,
    result: PublishResult,
    /// `None`: there is nothing to do, or it is under way.
    work: Option<PublishWork>,
    recovery_is_put: bool,
    reserve_is_kept: bool,
    /// `None`: nothing was tried.
    published: Option<Result<Published, ShipError>>,
}

struct PublishWork {
    spool: Spool,
    /// Oldest first.
    pending: Vec<Publication>,
    support: Support,
    recovery_is_due: bool,
    reserve_is_due: bool,
}

impl Publishing<'_> {
    /// Publishes. A panic is the target's failure and no other's.
    pub(super) async fn run(mut self) -> Self {
        let done = caught(self.put_all()).await;
        if let (Err(error), None) = (done, &self.published) {
            let folder = &self.finishing.inspected.folder;
            let (host, label) = (folder.host.as_str(), folder.target.label());
            self.published = Some(Err(panicked("publish on", host, label, error).into()));
        }
        self
    }

    async fn put_all(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        let folder = &self.finishing.inspected.folder;
        if work.recovery_is_due {
            let recovery = self.finishing.recovery;
            if let Err(error) = publish_recovery(folder, recovery).await {
                self.result.failure = Some(with_causes(&error));
                return;
            }
            self.recovery_is_put = true;
        }
        let (pending, support) = (&work.pending, &work.support);
        let published = publish_all(folder, &work.spool, pending, support, &self.confirmed).await;
        let is_published = published.is_ok();
        self.published = Some(published);
        // Last, so that the reserve does not take the room of a snapshot. Without room for it, the
        // next push tries again.
        if work.reserve_is_due && is_published {
            let kept = folder.target.keep_reserve(folder.host.as_str()).await;
            self.reserve_is_kept = kept.is_ok();
        }
    }

    /// Records the outcome in the catalog and returns the target's report and warnings.
    pub(super) fn conclude(
        self,
        state: &mut State,
    ) -> Result<(TargetReport, Vec<String>), PushError> {
        let (finishing, mut result) = (self.finishing, self.result);
        let name = &finishing.inspected.name;
        let label = finishing.inspected.folder.target.label();
        if self.recovery_is_put {
            let key = recovery_key(name);
            state.catalog.set_meta(&key, RECOVERY_VERSION)?;
        }
        if self.reserve_is_kept {
            state.catalog.set_meta(&reserve_key(name), "1")?;
        }
        match self.published {
            Some(Ok(published)) => finishing.record_published(state, published, &mut result)?,
            Some(Err(error)) => result.failure = Some(with_next_step(&error)),
            None => {}
        }
        let activity = match &result.failure {
            Some(reason) => TargetActivity::Away {
                reason: reason.clone(),
            },
            None => TargetActivity::Done,
        };
        report_activity(&**finishing.progress, name, &activity);
        let damaged = self.confirmed.damaged.into_inner().unwrap_or_default();
        note_damaged(&state.catalog, &damaged)?;
        let shipped = self.confirmed.shipped.into_inner().unwrap_or_default();
        let seen = finishing.inspected.seen.as_ref().ok();
        let next_shard = seen.and_then(|seen| seen.scope.next_shard());
        record_shipped(state, name, &shipped, next_shard)?;
        let report = TargetReport {
            name: name.clone(),
            label: label.to_owned(),
            answer: finishing.inspected.answer(),
            state: match result.failure.take() {
                Some(cause) => TargetState::Behind(cause),
                None => TargetState::Published,
            },
            shipped_objects: shipped.len() as u64,
            shipped_bytes: shipped.iter().map(|(_, bytes)| bytes).sum(),
            copied_archives: result.copied,
            took: finishing.began.elapsed(),
        };
        Ok((report, result.into_warnings(name, label)))
    }
}

/// Catalog entry: whether the target keeps a reserve for a prune of a full disk.
fn reserve_key(target: &str) -> String {
    format!("reserve:{target}")
}

/// Catalog entry: the version of the recovery documents on the target.
fn recovery_key(target: &str) -> String {
    format!("recovery:{target}")
}

impl<'a> FinishTarget<'a> {
    /// Determines what the target lacks, once its uploads have ended.
    pub(super) fn begin(
        self,
        state: &State,
        uploads: EndedUploads,
    ) -> Result<Publishing<'a>, PushError> {
        let (shipped, failure) = match (uploads.unreachable, uploads.result) {
            (Some(cause), _) => (Vec::new(), Some(cause)),
            (None, Some(end)) => {
                // The publication finds out what a full target still takes.
                let failure = end.result.err().filter(|error| !is_full(error));
                (end.shipped, failure.map(|error| with_causes(&error)))
            }
            (None, None) => (Vec::new(), Some("its uploads ended early".to_owned())),
        };
        let confirmed = ConfirmedObjects {
            name: &self.inspected.name,
            progress: self.progress,
            shipped: Mutex::new(shipped),
            damaged: Mutex::default(),
        };
        let mut result = PublishResult {
            failure,
            ..PublishResult::default()
        };
        let mut work = None;
        let name = &self.inspected.name;
        if result.failure.is_none() {
            let pending = match self.newest {
                PushedSnapshot::Packed(_) => self.pending(state, &mut result)?,
                PushedSnapshot::Spooled(newest) => self.spooled(state, newest, &mut result)?,
            };
            if result.failure.is_none() {
                work = Some(PublishWork {
                    spool: state.spool.clone(),
                    support: self.support(state, &confirmed)?,
                    pending,
                    recovery_is_due: self.is_due(state, &recovery_key(name), RECOVERY_VERSION)?,
                    reserve_is_due: self.is_due(state, &reserve_key(name), "1")?,
                });
            }
        }
        Ok(Publishing {
            target: uploads.target,
            finishing: self,
            confirmed,
            result,
            work,
            recovery_is_put: false,
            reserve_is_kept: false,
            published: None,
        })
    }

    /// Returns the snapshots that the target still waits for, oldest first, and settles those that
    /// it never gets.
    fn pending(
        &self,
        state: &State,
        result: &mut PublishResult,
    ) -> Result<Vec<Publication>, PushError> {
        let mut pending = Vec::new();
        let publications = state.catalog.publications(&self.inspected.name)?;
        let knows_target = publications
            .values()
            .any(|state| *state == PublicationState::Published);
        let seen = self.inspected.seen.as_ref();
        let shown = LazyCell::new(|| -> NameSet<'_> {
            seen.map_or_else(
                |_| NameSet::default(),
                |seen| seen.manifests.iter().collect(),
            )
        });
        for row in state.catalog.snapshots()?.iter() {
            let core = &row.known.core;
            if let Some(publication) = publications.get(core) {
                // `sync`, or a repair, may have brought what this host had given up.
                let is_back = matches!(
                    publication,
                    PublicationState::GivenUp | PublicationState::Lost
                );
                if is_back && shown.contains(&row.name) {
                    self.settle(state, core, PublicationState::Published)?;
                }
                continue;
            }
            if !state.spool.contains(&row.name.key()) {
                // A state directory that was lost does not know what was pruned there, so it warns
                // of nothing.
                if self.settle_unshippable(state, row)? && knows_target {
                    result.forgotten.push(row.name.stamp.to_string());
                }
                continue;
            }
            if let Some(publication) = spooled_publication(state, self.newest.packed(), &row.name) {
                pending.push(publication);
                continue;
            }
            let cause = format!("the objects of {} in the spool are damaged", row.name);
            if self.is_newest(&row.name) {
                result.failure = Some(cause);
                break;
            }
            self.settle(state, core, PublicationState::GivenUp)?;
            let label = self.inspected.folder.target.label();
            let text = format!("{cause}: {label} will not have that snapshot");
            result.warnings.push(text);
        }
        Ok(pending)
    }

    /// Returns the snapshots up to `newest` that wait for the target in the spool, oldest first.
    /// The others are left to the next backup, which knows what becomes of them.
    fn spooled(
        &self,
        state: &State,
        newest: &ManifestName,
        result: &mut PublishResult,
    ) -> Result<Vec<Publication>, PushError> {
        let name = &self.inspected.name;
        let mut pending = Vec::new();
        for waiting in waiting_snapshots(&state.catalog, name)? {
            if waiting.sequence > newest.sequence || !state.spool.contains(&waiting.key()) {
                continue;
            }
            match spooled_publication(state, None, &waiting) {
                Some(publication) => pending.push(publication),
                None if waiting == *newest => {
                    let cause = format!("the objects of {waiting} in the spool are damaged");
                    result.failure = Some(cause);
                }
                None => {}
            }
        }
        Ok(pending)
    }

    /// Returns whether `name` is the snapshot of this push.
    fn is_newest(&self, name: &ManifestName) -> bool {
        *name == self.newest.name()
    }

    /// Records what became of the snapshot `core` on the target.
    fn settle(
        &self,
        state: &State,
        core: &Hash,
        outcome: PublicationState,
    ) -> Result<(), PushError> {
        let now = crate::base::clock::now();
        Ok(state
            .catalog
            .set_publication(&self.inspected.name, core, outcome, now)?)
    }

    /// Records what the publication came to, snapshot by snapshot.
    fn record_published(
        &self,
        state: &State,
        published: Published,
        result: &mut PublishResult,
    ) -> Result<(), PushError> {
        result.copied = published.copied;
        let incomplete = published.incomplete.iter().map(|(name, _)| name);
        let crowded_out = published.crowded_out.iter().map(|one| &one.manifest);
        let named = published.done.iter().chain(incomplete).chain(crowded_out);
        let named: NameSet<'_> = named.collect();
        let rows = state.catalog.snapshots()?;
        let rows = rows.iter().filter(|row| named.contains(&row.name));
        let cores: HashMap<&ManifestName, &Hash> =
            rows.map(|row| (&row.name, &row.known.core)).collect();
        for name in &published.done {
            if let Some(core) = cores.get(name) {
                self.settle(state, core, PublicationState::Published)?;
            }
        }
        for (name, error) in &published.incomplete {
            // The target can never have this older snapshot whole; the newer one does not need it.
            if self.is_newest(name) {
                result.failure = Some(with_causes(error));
            } else if let Some(core) = cores.get(name) {
                self.settle(state, core, PublicationState::GivenUp)?;
                result.given_up.push(name.stamp.to_string());
            }
        }
        for (name, error) in &published.postponed {
            match self.is_newest(name) {
                true => result.failure = Some(with_causes(error)),
                false => result.postponed.push(name.stamp.to_string()),
            }
        }
        for one in &published.crowded_out {
            let (name, stamp) = (&one.manifest, one.manifest.stamp.to_string());
            if self.is_newest(name) {
                result.failure = Some(with_next_step(&one.error));
            } else if let (true, Some(core)) = (one.is_passed_by, cores.get(name)) {
                self.settle(state, core, PublicationState::GivenUp)?;
                let label = self.inspected.folder.target.label();
                result.warnings.push(format!(
                    "{label} will not have snapshot {stamp}: there was no room for what it needs, and a later one \
                     that took notice of a prune is there"
                ));
            } else {
                result.crowded_out.push(stamp);
            }
        }
        if !published.siblings.is_empty() {
            let warning = fork_warning(self.inspected, &published.siblings);
            result.warnings.push(warning);
        }
        Ok(())
    }

    /// Returns what the publication may use in addition to the spool.
    fn support(
        &self,
        state: &State,
        confirmed: &ConfirmedObjects<'_>,
    ) -> Result<Support, PushError> {
        let shipped = confirmed.shipped.lock();
        let confirmed = shipped.map_or_else(
            |_| HashSet::new(),
            |shipped| {
                let hashes = shipped.iter();
                let hashes = hashes.filter_map(|(key, _)| ObjectKey::archive_hash(key.as_str()));
                hashes.collect()
            },
        );
        // From before the archives that marks name were forgotten.
        let seen = self.inspected.seen.as_ref().ok();
        let seen = seen.filter(|_| self.inspected.write_only);
        Ok(Support {
            copy_sources: self.copy_sources.clone(),
            copy_sources_away: self.copy_sources_away,
            damaged: state.catalog.damaged_copies()?,
            scratch: state.spool.scratch(),
            confirmed,
            remembered: seen.map(|seen| seen.archives.clone()),
        })
    }

    /// Settles a snapshot that the spool lacks: it is on the target already (another state
    /// directory put it there), or the target does not get it, because a new target gets no
    /// history. Returns whether the operator should know of that: the snapshot is newer than one of
    /// the target, and no prune deleted it.
    fn settle_unshippable(&self, state: &State, row: &SnapshotRow) -> Result<bool, PushError> {
        let core = &row.known.core;
        let Ok(seen) = &self.inspected.seen else {
            self.settle(state, core, PublicationState::GivenUp)?;
            return Ok(false);
        };
        if seen.manifests.contains(&row.name) {
            self.settle(state, core, PublicationState::Published)?;
            return Ok(false);
        }
        self.settle(state, core, PublicationState::GivenUp)?;
        let mut there = seen.manifests.iter();
        let is_between = there.any(|name| name.sequence < row.name.sequence);
        Ok(is_between && !seen.pruned.contains(core))
    }

    /// Returns whether the catalog remembers no `version` under `key`, or the target was emptied
    /// since.
    fn is_due(&self, state: &State, key: &str, version: &str) -> Result<bool, PushError> {
        let there = state.catalog.meta(key)?;
        let seen = self.inspected.seen.as_ref();
        let emptied = seen.is_ok_and(|seen| seen.manifests.is_empty());
        Ok(there.as_deref() != Some(version) || emptied)
    }
}
