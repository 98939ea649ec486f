//! Whole snapshots of a host from one target to another: to seed a new target, or to pull where nobody
//! can push to.
//!
//! Ciphertext only. Manifests are copied if they verify, archives and pages if they are what their names
//! say, in the order in which a push writes them; so the copy at no time names what it does not have. What
//! the other side has already is not moved again: a run that broke off goes on where it was, and one that
//! finds an archive lost there brings it back.
//!
//! *Beside a prune of the other side.* What a plan leans on may be marked, heeded and swept before a manifest
//! gets there, for a copy can take days. So once a manifest's signature is there and before it is itself, the
//! marks, then archives and pages are looked at again: one that is marked or gone keeps the manifest back. And a prune,
//! before it sweeps, looks for signatures without their manifest, and waits. Whichever of the two looks last sees
//! the other.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::copy::{Streak, copy_archive};
use super::error::ShipError;
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, MANIFESTS, ObjectKey, RECEIPTS, TABLES, TOMBSTONES};
use crate::base::progress::{Progress, ProgressEvent};
use crate::format::chain::{Chain, Finding, VerifiedSnapshot};
use crate::format::manifest::{ArchiveRow, MAX_SMALL_OBJECT_BYTES};
use crate::format::signature::Trust;
use crate::repository::{HostFolder, RepositoryError, parse_page, require_hash};
use crate::storage::{Body, ErrorKind, PutMode, TargetError};

/// As many as become visible together.
const MANIFESTS_AT_ONCE: usize = 16;
const CONDEMNED: &str = "archives that it needs are marked to be deleted there; once `prune` has done so (after the \
                         next backup) they can be copied anew";

/// Signed facts about a host that stand on their own, and travel with its snapshots.
const STATEMENTS: [&str; 2] = [TOMBSTONES, RECEIPTS];

/// One host's way from target to target.
#[derive(Debug)]
pub struct SyncRequest {
    pub from: HostFolder,
    pub to: HostFolder,
    pub trust: Trust,
    /// For archives on their way.
    pub scratch: PathBuf,
    /// Archives moved at once.
    pub concurrency: usize,
}

/// A snapshot to bring over, and what the other side lacks of it.
#[derive(Debug)]
pub struct PlannedSnapshot {
    pub snapshot: VerifiedSnapshot,
    /// Without those that an earlier one of the plan brings.
    pub archives: Vec<(ArchiveRow, PutMode)>,
    pages: Vec<Hash>,
    /// Pages of earlier snapshots and directories of them, that it names; the other side may have them.
    known: Vec<Hash>,
    signature_there: bool,
    pub is_there: bool,
    /// Asked for by its name, so brought even where it was pruned.
    is_wanted: bool,
    /// The other side is about to delete archives that it needs.
    is_condemned: bool,
}

impl PlannedSnapshot {
    /// Whether nothing of it is to be moved.
    pub fn is_complete(&self) -> bool {
        self.is_there && self.signature_there && self.archives.is_empty() && self.pages.is_empty()
    }

    /// What of `tables/` it needs.
    fn tables(&self) -> impl Iterator<Item = &Hash> {
        self.snapshot.manifest.pages.iter().chain(&self.known)
    }
}

#[derive(Debug)]
pub struct SyncPlan {
    /// Oldest first.
    pub snapshots: Vec<PlannedSnapshot>,
    /// Of the archives to move.
    pub bytes: u64,
    /// What is odd about the side that is read.
    pub findings: Vec<Finding>,
    signers: Vec<String>,
}

/// How a sync ended.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Snapshots that were brought over, or completed.
    pub copied: u64,
    /// Snapshots that were there in full.
    pub were_there: u64,
    pub archives: u64,
    /// Of everything that was moved.
    pub bytes: u64,
    /// Snapshots that could not be brought over, and why.
    pub failed: Vec<(String, String)>,
    /// Tombstones and receipts that could not be read, and why.
    pub unread: Vec<String>,
}

impl SyncReport {
    /// Snapshots of which it says what became of them.
    fn told(&self) -> usize {
        self.copied as usize + self.failed.len()
    }

    fn fail(&mut self, planned: &PlannedSnapshot, why: impl Into<String>) {
        let stamp = planned.snapshot.stamp().to_string();
        self.failed.push((stamp, why.into()));
    }
}

/// A snapshot of which all but the manifest is there, and the archives that it needs.
struct Ready<'a> {
    planned: &'a PlannedSnapshot,
    needed: Vec<Hash>,
}

impl SyncRequest {
    /// Looks at both sides. `wanted` names snapshots as `list` does; empty: all.
    pub async fn plan(&self, wanted: &[String]) -> Result<SyncPlan, ShipError> {
        let chain = self.from.chain(&self.trust).await?;
        let mut chosen = choose(&chain, wanted)?;
        // Before the archives: a mark goes after what it names.
        let marked = self.marked().await?;
        let (mut archives, tables, manifests) = futures::future::try_join3(
            self.to.archives_present(),
            self.to.list(TABLES),
            self.to.list(MANIFESTS),
        )
        .await?;
        if wanted.is_empty() {
            self.leave_out_pruned(&chain, &manifests, &mut chosen)
                .await?;
        }
        let mut pages: HashSet<Hash> = HashSet::new();
        let mut directories: HashMap<Hash, Vec<Hash>> = HashMap::new();
        let mut plan = SyncPlan {
            snapshots: Vec::new(),
            bytes: 0,
            findings: chain.findings.clone(),
            signers: chain.signers(),
        };
        for snapshot in chosen {
            let table = self.from.table(&snapshot.manifest).await?;
            let mut missing = Vec::new();
            let name = snapshot.manifest.name();
            let is_there = manifests.contains_key(name.key().as_str());
            let mut is_condemned = false;
            for row in table.rows.into_values() {
                is_condemned |= !is_there && marked.contains(&row.blake3);
                let mode = match archives.insert(row.blake3, row.bytes) {
                    Some(bytes) if bytes == row.bytes => continue,
                    Some(_) => PutMode::Replace,
                    None => PutMode::Create,
                };
                plan.bytes += row.bytes;
                missing.push((row, mode));
            }
            let known = self.history_of(&snapshot, &mut directories).await?;
            is_condemned |= !is_there && known.iter().any(|page| marked.contains(page));
            let lacks = |page: &&Hash| {
                let is_there = tables.contains_key(ObjectKey::table(page).as_str());
                !is_there && pages.insert(**page)
            };
            let lacking = snapshot.manifest.pages.iter().chain(&known).filter(lacks);
            plan.snapshots.push(PlannedSnapshot {
                archives: missing,
                pages: lacking.copied().collect(),
                known,
                signature_there: manifests.contains_key(name.signature_key().as_str()),
                is_there,
                is_wanted: !wanted.is_empty(),
                is_condemned,
                snapshot,
            });
        }
        Ok(plan)
    }

    /// What the marks of the other side name. Whoever stands for one: the host may heed it.
    async fn marked(&self) -> Result<HashSet<Hash>, ShipError> {
        let marks = self.to.marks(&self.trust, &[]).await?;
        if marks.unread > 0 {
            return Err(ShipError::UnreadMarks {
                target: self.to.target.label().to_owned(),
                count: marks.unread,
            });
        }
        let named = marks
            .seen
            .into_iter()
            .flat_map(|one| [one.mark.archives, one.mark.pages]);
        Ok(named.flatten().collect())
    }

    /// The pages of earlier snapshots that `snapshot` names, and the directories of them. Those of `directories`
    /// were read before.
    async fn history_of(
        &self,
        snapshot: &VerifiedSnapshot,
        directories: &mut HashMap<Hash, Vec<Hash>>,
    ) -> Result<Vec<Hash>, ShipError> {
        let Some(named) = snapshot.manifest.core.known.pages() else {
            return Ok(Vec::new());
        };
        let mut history = [&named.pages[..], &named.directories].concat();
        for name in &named.directories {
            let pages = match directories.entry(*name) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.from.directory(name).await?.directory),
            };
            history.extend(pages.iter());
        }
        Ok(history)
    }

    /// What was pruned on the other side is not brought back, unless it is asked for.
    async fn leave_out_pruned(
        &self,
        chain: &Chain,
        manifests: &HashMap<String, u64>,
        chosen: &mut Vec<VerifiedSnapshot>,
    ) -> Result<(), ShipError> {
        let lacks =
            |s: &&VerifiedSnapshot| !manifests.contains_key(s.manifest.name().key().as_str());
        let missing = chosen.iter().filter(lacks);
        let missing = missing.map(|s| (s.sequence(), s.stamp())).collect();
        let signers = chain.signers();
        let pruned = self.to.deletions(&self.trust, &signers, &missing).await?;
        chosen.retain(|s| !lacks(&s) || !pruned.contains(&s.manifest.core_hash));
        Ok(())
    }

    /// Does what `plan` says, oldest snapshot first. One that cannot be brought over keeps none of the
    /// others from it, unless a side is gone.
    pub async fn run(
        &self,
        plan: SyncPlan,
        progress: &dyn Progress,
    ) -> Result<SyncReport, ShipError> {
        let mut report = SyncReport::default();
        // Archives that an earlier snapshot should have brought, and did not.
        let mut lost: HashMap<Hash, String> = HashMap::new();
        let mut ready = Vec::new();
        let mut enough = 1;
        let streak = Streak::default();
        for planned in &plan.snapshots {
            if planned.is_complete() {
                report.were_there += 1;
                continue;
            }
            if planned.is_condemned {
                report.fail(planned, CONDEMNED);
                continue;
            }
            if streak.is_over() {
                report.fail(planned, "not tried: too many before it failed");
                continue;
            }
            let brought = self.bring(planned, &mut lost, &streak, &mut report, progress);
            match brought.await {
                Ok(needed) => ready.push(Ready { planned, needed }),
                Err(why) => report.fail(planned, why),
            }
            // The oldest soon; later many at once, for each time the other side is listed.
            if ready.len() >= enough {
                let some = std::mem::take(&mut ready);
                self.bring_manifests(some, &plan.signers, &mut report)
                    .await?;
                enough = (enough * 2).min(MANIFESTS_AT_ONCE);
            }
        }
        let planned: Vec<_> = ready.iter().map(|one| one.planned).collect();
        let told = report.told();
        let brought = self.bring_manifests(ready, &plan.signers, &mut report);
        match brought.await {
            Err(error) if streak.is_over() => {
                let told = report.told() - told;
                for planned in &planned[told..] {
                    report.fail(planned, with_causes(&error));
                }
            }
            brought => brought?,
        }
        if !streak.is_over() {
            self.copy_statements(&mut report).await?;
        }
        Ok(report)
    }

    /// Those of which nothing went meanwhile.
    async fn bring_manifests(
        &self,
        ready: Vec<Ready<'_>>,
        signers: &[String],
        report: &mut SyncReport,
    ) -> Result<(), ShipError> {
        if ready.is_empty() {
            return Ok(());
        }
        // In this order: a mark is removed after what it names.
        let marked = self.marked().await?;
        let (archives, tables) =
            futures::future::try_join(self.to.archives_present(), self.to.list(TABLES)).await?;
        let uninvited = ready.iter().filter(|one| !one.planned.is_wanted);
        let uninvited = uninvited.map(|one| &one.planned.snapshot);
        let uninvited = uninvited.map(|s| (s.sequence(), s.stamp())).collect();
        let pruned = self.to.deletions(&self.trust, signers, &uninvited).await?;
        for Ready { planned, needed } in ready {
            let manifest = &planned.snapshot.manifest;
            if !planned.is_there {
                if needed
                    .iter()
                    .chain(planned.tables())
                    .any(|hash| marked.contains(hash))
                {
                    report.fail(planned, CONDEMNED);
                    continue;
                }
                let archives = needed.iter().filter(|hash| !archives.contains_key(*hash));
                let pages = planned.tables().map(ObjectKey::table);
                let pages = pages.filter(|key| !tables.contains_key(key.as_str()));
                if let Some(gone) = archives.map(ObjectKey::archive).chain(pages).next() {
                    report.fail(
                        planned,
                        format!("{gone} went there meanwhile; run it again"),
                    );
                    continue;
                }
                if !planned.is_wanted && pruned.contains(&manifest.core_hash) {
                    report.fail(planned, "it was pruned there meanwhile");
                    continue;
                }
                let whole = self.from.manifest(manifest).await?;
                report.bytes += self.put(&manifest.name().key(), whole.bytes.into()).await?;
            }
            report.copied += 1;
        }
        Ok(())
    }

    /// All of a snapshot but its manifest: archives, pages, signature, in this order. Gives the archives that it
    /// needs.
    async fn bring(
        &self,
        planned: &PlannedSnapshot,
        lost: &mut HashMap<Hash, String>,
        streak: &Streak,
        report: &mut SyncReport,
        progress: &dyn Progress,
    ) -> Result<Vec<Hash>, String> {
        let copied: Vec<(&ArchiveRow, Result<u64, String>)> =
            futures::stream::iter(&planned.archives)
                .map(async |(row, mode)| {
                    if streak.is_over() {
                        return (row, Err("not tried: too many before it failed".to_owned()));
                    }
                    let copied = copy_archive(&self.from, &self.to, row, *mode, &self.scratch);
                    let copied = copied.await;
                    streak.note(&copied);
                    if let Ok(bytes) = copied {
                        let target = self.to.target.label();
                        progress.report(&ProgressEvent::BytesShipped { target, bytes });
                    }
                    (row, copied.map_err(|error| with_causes(&error)))
                })
                .buffer_unordered(self.concurrency.max(1))
                .collect()
                .await;
        for (row, copied) in copied {
            match copied {
                Ok(bytes) => {
                    report.archives += 1;
                    report.bytes += bytes;
                }
                Err(why) => drop(lost.insert(row.blake3, why)),
            }
        }
        let told = |error: ShipError| with_causes(&error);
        let table = self.from.table(&planned.snapshot.manifest).await;
        let table = table.map_err(|error| told(error.into()))?;
        let needed = table.rows.values();
        if let Some(why) = needed.filter_map(|row| lost.get(&row.blake3)).next() {
            return Err(why.clone());
        }
        self.bring_small(planned, report).await.map_err(told)?;
        Ok(table.rows.values().map(|row| row.blake3).collect())
    }

    async fn bring_small(
        &self,
        planned: &PlannedSnapshot,
        report: &mut SyncReport,
    ) -> Result<(), ShipError> {
        for page in &planned.pages {
            let key = ObjectKey::table(page);
            let bytes = self.get(&key).await?;
            match planned.known.contains(page) {
                true => require_hash(page, &bytes)?,
                false => drop(parse_page(page, &bytes)?),
            }
            report.bytes += self.put(&key, bytes).await?;
        }
        let name = planned.snapshot.manifest.name();
        if !planned.signature_there {
            let key = name.signature_key();
            report.bytes += self.put(&key, self.get(&key).await?).await?;
        }
        Ok(())
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, TargetError> {
        let key = self.from.key(key);
        self.from.target.get(&key, MAX_SMALL_OBJECT_BYTES).await
    }

    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<u64, TargetError> {
        let length = bytes.len() as u64;
        let (key, body) = (self.to.key(key), Body::Bytes(bytes));
        self.to.target.put(&key, body, PutMode::Create).await?;
        Ok(length)
    }

    /// One that cannot be read keeps nothing else back.
    async fn copy_statements(&self, report: &mut SyncReport) -> Result<(), ShipError> {
        for folder in STATEMENTS {
            let (here, there) =
                futures::future::try_join(self.from.list(folder), self.to.list(folder)).await?;
            let missing = here.keys().filter(|key| !there.contains_key(*key));
            let copied: Vec<Option<TargetError>> = futures::stream::iter(missing)
                .map(async |key| {
                    let from = format!("{}/{key}", self.from.host);
                    let bytes = match self.from.target.get(&from, MAX_SMALL_OBJECT_BYTES).await {
                        Ok(bytes) => bytes,
                        Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
                        Err(error) => return Ok(Some(error)),
                    };
                    let (to, body) = (format!("{}/{key}", self.to.host), Body::Bytes(bytes));
                    self.to.target.put(&to, body, PutMode::Create).await?;
                    Ok(None)
                })
                .buffer_unordered(self.concurrency.max(1))
                .try_collect()
                .await?;
            let unread = copied.iter().flatten();
            report.unread.extend(unread.map(|error| with_causes(error)));
        }
        Ok(())
    }
}

fn choose(chain: &Chain, wanted: &[String]) -> Result<Vec<VerifiedSnapshot>, ShipError> {
    if wanted.is_empty() {
        return Ok(chain.snapshots.clone());
    }
    let mut chosen = Vec::new();
    for text in wanted {
        let snapshot = chain.resolve(text).map_err(RepositoryError::from)?;
        chosen.push(snapshot.clone());
    }
    chosen.sort_by_key(|snapshot| snapshot.manifest.name());
    chosen.dedup_by_key(|snapshot| snapshot.manifest.name());
    Ok(chosen)
}
