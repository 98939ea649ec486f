//! Carries out a sync plan, oldest snapshot first.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::super::copy::{Streak, copy_archive};
use super::super::error::ShipError;
use super::{PlannedCopy, SyncPlan, SyncReport, SyncRequest};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, ObjectKey, RECEIPTS, TABLES, TOMBSTONES};
use crate::base::progress::{Progress, ProgressEvent};
use crate::format::manifest::{ArchiveRow, MAX_SMALL_OBJECT_BYTES};
use crate::repository::{parse_page, require_hash};
use crate::storage::{Body, ErrorKind, Meter, PutMode, TargetError, metered};

/// Snapshots that become visible together.
const MANIFESTS_AT_ONCE: usize = 16;
const CONDEMNED: &str = "archives that it needs are marked to be deleted there; once `prune` has done so (after the \
                         next backup) they can be copied again";

/// Folders of signed statements about the host, which travel with its snapshots.
const STATEMENTS: [&str; 2] = [TOMBSTONES, RECEIPTS];

impl SyncReport {
    /// Returns the number of snapshots that the report accounts for.
    fn accounted(&self) -> usize {
        self.copied as usize + self.failed.len()
    }

    fn fail(&mut self, planned: &PlannedCopy, why: impl Into<String>) {
        let stamp = planned.snapshot.stamp().to_string();
        self.failed.push((stamp, why.into()));
    }
}

/// A snapshot whose objects are there, except for the manifest.
struct Ready<'a> {
    planned: &'a PlannedCopy,
    /// The archives that it needs.
    needed: Vec<Hash>,
}

impl SyncRequest {
    /// Copies the snapshots of `plan`, oldest first. A snapshot that cannot be copied does not stop
    /// the others, unless a side does not answer.
    pub async fn run(
        &self,
        plan: SyncPlan,
        progress: &Arc<dyn Progress>,
    ) -> Result<SyncReport, ShipError> {
        let mut report = SyncReport::default();
        // Archives that could not be copied, and why: every snapshot that needs one fails.
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
                report.fail(planned, "not tried: too many copies before it failed");
                continue;
            }
            let brought = self.bring(planned, &mut lost, &streak, &mut report, progress);
            match brought.await {
                Ok(needed) => ready.push(Ready { planned, needed }),
                Err(why) => report.fail(planned, why),
            }
            // The oldest become visible soon; later ones in larger groups, because each group lists
            // the other side.
            if ready.len() >= enough {
                let some = std::mem::take(&mut ready);
                self.bring_manifests(some, &plan.signers, &mut report)
                    .await?;
                enough = (enough * 2).min(MANIFESTS_AT_ONCE);
            }
        }
        let planned: Vec<_> = ready.iter().map(|one| one.planned).collect();
        let accounted = report.accounted();
        let brought = self.bring_manifests(ready, &plan.signers, &mut report);
        match brought.await {
            Err(error) if streak.is_over() => {
                let accounted = report.accounted() - accounted;
                for planned in &planned[accounted..] {
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

    /// Puts the manifests of snapshots whose objects are all there still.
    async fn bring_manifests(
        &self,
        ready: Vec<Ready<'_>>,
        signers: &[String],
        report: &mut SyncReport,
    ) -> Result<(), ShipError> {
        if ready.is_empty() {
            return Ok(());
        }
        // In this order: a mark is removed after the objects that it names.
        let marked = self.marked().await?;
        let (archives, tables) =
            futures::future::try_join(self.to.archives_present(), self.to.list(TABLES)).await?;
        let unasked = ready.iter().filter(|one| !one.planned.is_wanted);
        let unasked = unasked.map(|one| &one.planned.snapshot);
        let unasked = unasked.map(|s| (s.sequence(), s.stamp())).collect();
        let pruned = self.to.deletions(&self.trust, signers, &unasked).await?;
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
                        format!("{gone} was deleted there meanwhile; run it again"),
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

    /// Copies a snapshot except for its manifest: archives, pages, signature, in this order.
    /// Returns the archives that it needs, or why it failed.
    async fn bring(
        &self,
        planned: &PlannedCopy,
        lost: &mut HashMap<Hash, String>,
        streak: &Streak,
        report: &mut SyncReport,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<Hash>, String> {
        let copied: Vec<(&ArchiveRow, Result<u64, String>)> =
            futures::stream::iter(&planned.archives)
                .map(async |(row, mode)| {
                    if streak.is_over() {
                        return (
                            row,
                            Err("not tried: too many copies before it failed".to_owned()),
                        );
                    }
                    let target = self.to.target.label();
                    let meter = Meter::of_copy(progress, target);
                    let copying = copy_archive(&self.from, &self.to, row, *mode, &self.scratch);
                    let copied = metered(Some(&meter), copying).await;
                    streak.note(&copied);
                    if let Ok(bytes) = copied {
                        progress.report(&ProgressEvent::BytesShipped { target, bytes });
                    }
                    meter.close();
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
        let text = |error: ShipError| with_causes(&error);
        let table = self.from.table(&planned.snapshot.manifest).await;
        let table = table.map_err(|error| text(error.into()))?;
        let needed = table.rows.values();
        if let Some(why) = needed.filter_map(|row| lost.get(&row.blake3)).next() {
            return Err(why.clone());
        }
        self.bring_small(planned, report).await.map_err(text)?;
        Ok(table.rows.values().map(|row| row.blake3).collect())
    }

    async fn bring_small(
        &self,
        planned: &PlannedCopy,
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

    /// Copies tombstones and receipts. One that cannot be read is reported and stops nothing else.
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
