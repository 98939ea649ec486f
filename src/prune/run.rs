//! Carries out a plan; [the module above](super) describes the order and its reasons.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;

use super::error::PruneError;
use super::{PlannedMark, PlannedSnapshot, PrunePlan, PruneRequest, STRAY_DAYS};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, MANIFESTS, MARKS, ObjectKey, Stamp};
use crate::format::manifest::{FORMAT, ManifestName};
use crate::format::signature::Signer;
use crate::format::statement::{Mark, MarkName, Tombstone, may_prune};
use crate::repository::RepositoryError;
use crate::storage::{ErrorKind, TargetError};

const CONCURRENT_DELETES: usize = 8;
/// Hashes that fit into one mark.
const MARKED_AT_ONCE: usize = 100_000;

/// What a prune did.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// Stamps of the deleted snapshots.
    pub forgotten: Vec<Stamp>,
    /// Archives that were deleted.
    pub swept_archives: u64,
    /// Bytes of these archives.
    pub swept_bytes: u64,
    /// Archives that were marked.
    pub marked_archives: u64,
    /// Bytes of these archives.
    pub marked_bytes: u64,
    /// Manifests that a push or sync is about to put there; until then no archive is deleted.
    pub under_way: Vec<ManifestName>,
    /// Why objects could not be deleted, one line each.
    pub stuck: Vec<String>,
    /// The recovery documents were deleted to make room, and there is no room yet to put them back.
    pub without_recovery: bool,
}

impl PruneRequest {
    /// Carries out `plan`, unless it is refused or the target changed since. `signer` signs marks
    /// and tombstones.
    pub async fn run(&self, plan: &PrunePlan, signer: &Signer) -> Result<PruneReport, PruneError> {
        if let Some(refusal) = &plan.refusal {
            return Err(refusal.clone().into());
        }
        let (host, key) = (&self.folder.host, signer.public_key());
        if !may_prune(host, key, &self.trust, &plan.signers) {
            return Err(PruneError::Signer(signer.fingerprint()));
        }
        // One listing for both checks: neither would see a manifest that arrives between two
        // listings.
        let listed = self.list_manifests().await?;
        let mut names: Vec<ManifestName> = listed
            .keys()
            .filter_map(|key| ManifestName::from_key(key))
            .collect();
        names.sort();
        if names != plan.manifests {
            let label = self.folder.target.label().to_owned();
            return Err(PruneError::Changed(label));
        }
        let mut report = PruneReport {
            under_way: self.publications_under_way(plan, &listed).await?,
            ..PruneReport::default()
        };
        let carried_out = self.carry_out(plan, signer, &mut report).await;
        self.keep_room(plan, &mut report).await;
        carried_out.map(|()| report)
    }

    async fn carry_out(
        &self,
        plan: &PrunePlan,
        signer: &Signer,
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        if report.under_way.is_empty() {
            self.sweep(plan, report).await?;
        }
        self.mark(plan, signer, report).await?;
        self.remove_marks(plan.stale(), report).await?;
        for snapshot in plan.forgotten() {
            if !self.forget(plan, snapshot, signer, report).await? {
                break;
            }
        }
        self.remove_remains(plan, report).await?;
        self.remove_lone_signatures(report).await
    }

    /// Lists manifests and signatures, each with the time of its arrival.
    async fn list_manifests(&self) -> Result<BTreeMap<String, Option<DateTime<Utc>>>, PruneError> {
        let host = format!("{}/", self.folder.host);
        let listed = self
            .folder
            .target
            .list(&format!("{host}{MANIFESTS}/"))
            .await?;
        let below = listed
            .into_iter()
            .filter_map(|one| Some((one.key.strip_prefix(&host)?.to_owned(), one.modified)));
        Ok(below.collect())
    }

    /// Returns the manifests whose signature is here and that are not: a push or sync under way may
    /// rely on any archive. Leaves out deleted snapshots and runs that died long ago.
    async fn publications_under_way(
        &self,
        plan: &PrunePlan,
        listed: &BTreeMap<String, Option<DateTime<Utc>>>,
    ) -> Result<Vec<ManifestName>, PruneError> {
        let oldest = self.now - chrono::Duration::days(STRAY_DAYS);
        let pending = listed.iter().filter_map(|(key, modified)| {
            let manifest = key.strip_suffix(".sig")?;
            let is_recent = modified.is_none_or(|modified| modified > oldest);
            let is_alone = !listed.contains_key(manifest);
            let name = ManifestName::from_key(manifest)?;
            (is_recent && is_alone).then_some(name)
        });
        let pending: Vec<ManifestName> = pending.collect();
        let buried = self.buried(plan, &pending).await?;
        let is_buried = |name: &ManifestName| buried.contains(&name.to_string());
        Ok(pending
            .into_iter()
            .filter(|name| !is_buried(name))
            .collect())
    }

    /// Returns the manifests that tombstones of the snapshots `names` list.
    async fn buried(
        &self,
        plan: &PrunePlan,
        names: &[ManifestName],
    ) -> Result<HashSet<String>, PruneError> {
        if names.is_empty() {
            return Ok(HashSet::new());
        }
        let wanted = |name: &ManifestName| {
            let same = |s: &ManifestName| (s.sequence, s.stamp) == (name.sequence, name.stamp);
            names.iter().any(same)
        };
        let read = self.folder.tombstones(&self.trust, &plan.signers, wanted);
        let buried = read.await?.into_iter().flat_map(|one| one.manifests);
        Ok(buried.collect())
    }

    /// Deletes the archives and pages of ripe marks, then the marks.
    async fn sweep(&self, plan: &PrunePlan, report: &mut PruneReport) -> Result<(), PruneError> {
        let archives = plan.to_sweep();
        if plan.ripe().next().is_none() {
            return Ok(());
        }
        let history = plan
            .ripe()
            .flat_map(|mark| &mark.pages)
            .map(ObjectKey::table);
        let keys = archives
            .keys()
            .map(ObjectKey::archive)
            .chain(history)
            .collect();
        let left: HashSet<ObjectKey> = self.delete_all(keys, report).await?;
        for (hash, bytes) in &archives {
            if !left.contains(&ObjectKey::archive(hash)) {
                report.swept_archives += 1;
                report.swept_bytes += bytes;
            }
        }
        if !self.sweep_pages(plan, report).await? {
            // The marks stay, because they name the pages that the next run must look at.
            return Ok(());
        }
        let done = |mark: &&PlannedMark| {
            let archives = mark.archives.keys().map(ObjectKey::archive);
            let mut keys = archives.chain(mark.pages.iter().map(ObjectKey::table));
            !mark.is_unclear && !keys.any(|key| left.contains(&key))
        };
        self.remove_marks(plan.ripe().filter(done), report).await
    }

    /// Deletes the table pages that no manifest names and that list an archive of a ripe mark: no
    /// later manifest has them. Returns false if not all could be read and deleted.
    async fn sweep_pages(
        &self,
        plan: &PrunePlan,
        report: &mut PruneReport,
    ) -> Result<bool, PruneError> {
        let dead: HashSet<Hash> = plan.ripe().flat_map(|mark| &mark.dead).copied().collect();
        let read = futures::stream::iter(&plan.pages)
            .map(async |hash| (ObjectKey::table(hash), self.folder.page(hash).await));
        let read: Vec<_> = read.buffer_unordered(CONCURRENT_DELETES).collect().await;
        let mut going = Vec::new();
        let mut unread = false;
        for (key, page) in read {
            match page {
                Ok(page) => {
                    let mut rows = page.rows.iter();
                    if self.gone || rows.any(|row| dead.contains(&row.blake3)) {
                        going.push(key);
                    }
                }
                Err(RepositoryError::Target(error)) if error.kind == ErrorKind::NotFound => {}
                Err(RepositoryError::Target(error)) if error.kind == ErrorKind::Unavailable => {
                    return Err(error.into());
                }
                Err(RepositoryError::Target(error)) => {
                    report.stuck.push(with_causes(&error));
                    unread = true;
                }
                // It is unknown which archives a damaged page names, so it stays.
                Err(_) => {}
            }
        }
        Ok(self.delete_all(going, report).await?.is_empty() && !unread)
    }

    /// Puts marks for the archives and pages to mark.
    async fn mark(
        &self,
        plan: &PrunePlan,
        signer: &Signer,
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        let (archives, pages) = (&plan.to_mark, &plan.to_mark_pages);
        if archives.is_empty() && pages.is_empty() {
            return Ok(());
        }
        let host = &self.folder.host;
        let archives_of = archives.keys().copied().collect::<Vec<_>>();
        let pages = pages.iter().copied().collect::<Vec<_>>();
        let parts = archives_of.chunks(MARKED_AT_ONCE).map(<[Hash]>::to_vec);
        let parts = parts.map(|archives| (archives, Vec::new()));
        let page_parts = pages.chunks(MARKED_AT_ONCE).map(<[Hash]>::to_vec);
        let mut parts: Vec<(Vec<Hash>, Vec<Hash>)> = parts
            .chain(page_parts.map(|pages| (Vec::new(), pages)))
            .collect();
        // Usually there is one part of each, and one mark takes both.
        if let [(_, first), (_, second)] = &mut parts[..]
            && first.is_empty()
        {
            *first = std::mem::take(second);
            parts.retain(|(archives, pages)| !archives.is_empty() || !pages.is_empty());
        }
        for (archives, pages) in parts {
            let mark = Mark::new(host.clone(), self.now, archives, pages);
            for (key, bytes) in mark.map_err(PruneError::Random)?.sign(signer)? {
                self.put(&key, bytes).await?;
            }
        }
        report.marked_archives = archives.len() as u64;
        report.marked_bytes = archives.values().sum();
        Ok(())
    }

    /// Deletes each mark before its signature, so that a run that dies in between leaves no mark
    /// without a signature.
    async fn remove_marks(
        &self,
        marks: impl Iterator<Item = &PlannedMark>,
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        let names: Vec<&MarkName> = marks.map(|mark| &mark.name).collect();
        let keys = names.iter().map(|name| name.key()).collect();
        let left = self.delete_all(keys, report).await?;
        let gone = names.iter().filter(|name| !left.contains(&name.key()));
        let signatures = gone.map(|name| name.signature_key()).collect();
        self.delete_all(signatures, report).await?;
        Ok(())
    }

    /// Deletes one snapshot. Returns false if the target does not allow deletion.
    async fn forget(
        &self,
        plan: &PrunePlan,
        snapshot: &PlannedSnapshot,
        signer: &Signer,
        report: &mut PruneReport,
    ) -> Result<bool, PruneError> {
        self.entomb(plan, snapshot, signer).await?;
        let keys: Vec<ObjectKey> = snapshot.names.iter().map(ManifestName::key).collect();
        if !self.delete_all(keys, report).await?.is_empty() {
            return Ok(false);
        }
        report.forgotten.push(snapshot.stamp);
        let signatures = snapshot.names.iter().map(ManifestName::signature_key);
        self.delete_all(signatures.collect(), report).await?;
        Ok(true)
    }

    /// Puts a tombstone, unless a run that died has put it.
    async fn entomb(
        &self,
        plan: &PrunePlan,
        snapshot: &PlannedSnapshot,
        signer: &Signer,
    ) -> Result<(), PruneError> {
        let (sequence, stamp) = (snapshot.sequence, snapshot.stamp);
        let wanted = |name: &ManifestName| (name.sequence, name.stamp) == (sequence, stamp);
        let folder = &self.folder;
        let there = folder
            .tombstones(&self.trust, &plan.signers, wanted)
            .await?;
        if there.iter().any(|one| one.core == snapshot.core) {
            return Ok(());
        }
        let newest = plan.snapshots.iter().map(|one| one.sequence).max();
        let tombstone = Tombstone {
            format: FORMAT,
            host: folder.host.clone(),
            sequence,
            stamp,
            core: snapshot.core,
            manifests: snapshot.names.iter().map(ToString::to_string).collect(),
            deleted_at: self.now,
            by: signer.fingerprint(),
            newest: newest.unwrap_or(sequence),
        };
        for (key, bytes) in tombstone.sign(signer)? {
            self.put(&key, bytes).await?;
        }
        Ok(())
    }

    /// Deletes manifests and signatures of deleted snapshots: a run that died after the manifest
    /// left the signature, and a sync beside a prune may have left the manifest. A signature
    /// without a tombstone belongs to a push under way.
    async fn remove_remains(
        &self,
        plan: &PrunePlan,
        report: &mut PruneReport,
    ) -> Result<(), PruneError> {
        let manifests = plan.remains.iter().map(ManifestName::key);
        self.delete_all(manifests.collect(), report).await?;
        let listed = self.folder.list(MANIFESTS).await?;
        let manifest_of = |key: &String| {
            let manifest = key.strip_suffix(".sig")?;
            let name = ManifestName::from_key(manifest)?;
            (!listed.contains_key(manifest)).then_some(name)
        };
        let strays: Vec<ManifestName> = listed.keys().filter_map(manifest_of).collect();
        let buried = self.buried(plan, &strays).await?;
        let strays = strays
            .iter()
            .filter(|name| buried.contains(&name.to_string()));
        let keys = strays.map(ManifestName::signature_key).collect();
        self.delete_all(keys, report).await?;
        Ok(())
    }

    /// Deletes signatures without their mark: a run died before it wrote the mark, or could not
    /// remove the signature. If another prune is about to write the mark, that mark is unsigned,
    /// and the next prune replaces it.
    async fn remove_lone_signatures(&self, report: &mut PruneReport) -> Result<(), PruneError> {
        let listed = self.folder.list(MARKS).await?;
        let lone = listed.keys().filter_map(|key| {
            let mark = key.strip_suffix(".sig")?;
            let name = MarkName::from_key(mark)?;
            (!listed.contains_key(mark)).then(|| name.signature_key())
        });
        let lone = lone.collect();
        self.delete_all(lone, report).await?;
        Ok(())
    }

    /// Deletes objects and returns those that could not be deleted. Fails if the target does not
    /// answer.
    async fn delete_all(
        &self,
        keys: Vec<ObjectKey>,
        report: &mut PruneReport,
    ) -> Result<HashSet<ObjectKey>, TargetError> {
        let deletes = futures::stream::iter(keys).map(async |key| {
            let deleted = self.folder.target.delete(&self.folder.key(&key)).await;
            (key, deleted)
        });
        let deleted: Vec<_> = deletes.buffer_unordered(CONCURRENT_DELETES).collect().await;
        let mut left = HashSet::new();
        for (key, deleted) in deleted {
            match deleted {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::Unavailable => return Err(error),
                Err(error) => {
                    report.stuck.push(with_causes(&error));
                    left.insert(key);
                }
            }
        }
        Ok(left)
    }
}
