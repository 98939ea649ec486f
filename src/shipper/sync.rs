//! Copies whole snapshots of a host from one target to another: to seed a new target, or to pull
//! where nothing can be pushed.
//!
//! Only ciphertext moves. Manifests are copied if they verify, archives and pages if they hash to
//! their names, in the order of a push; so the copy at no time names an object that it does not
//! have. Objects that the other side has are not moved again: a sync that broke off continues, and
//! one that finds an archive lost there brings it back.
//!
//! *Beside a prune of the other side.* Archives that a plan relies on may be marked, followed and
//! swept before a manifest gets there, for a copy can take days. So the sync puts a manifest's
//! signature, then reads marks, archives and pages again, and holds the manifest back if one of its
//! objects is marked or gone. A prune, before it sweeps, looks for signatures without their
//! manifest, and waits. Whichever of the two looks last sees the other.

mod run;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::error::ShipError;
use crate::base::ids::{Hash, MANIFESTS, ObjectKey, TABLES};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::chain::{Chain, Finding, VerifiedSnapshot};
use crate::format::manifest::ArchiveRow;
use crate::format::signature::Trust;
use crate::repository::{HostFolder, RepositoryError};
use crate::storage::PutMode;

/// The two sides of a sync of one host.
#[derive(Debug)]
pub struct SyncRequest {
    /// The folder to read.
    pub from: HostFolder,
    /// The folder to write.
    pub to: HostFolder,
    /// The signers whose snapshots are copied.
    pub trust: Trust,
    /// A directory for archives that are being copied.
    pub scratch: PathBuf,
    /// Archives copied at a time.
    pub concurrency: usize,
}

/// A snapshot to copy, and the objects of it that the other side lacks.
#[derive(Debug)]
pub struct PlannedCopy {
    /// The snapshot.
    pub snapshot: VerifiedSnapshot,
    /// Archives to copy, without those that an earlier snapshot of the plan copies.
    pub archives: Vec<(ArchiveRow, PutMode)>,
    /// Pages and directories to copy.
    pages: Vec<Hash>,
    /// Pages of earlier snapshots, and directories of such pages, that it names; the other side may
    /// have them.
    known: Vec<Hash>,
    signature_there: bool,
    /// Its manifest is there.
    pub is_there: bool,
    /// The caller named it, so it is copied even if it was pruned there.
    is_wanted: bool,
    /// The other side is about to delete objects that it needs.
    is_condemned: bool,
}

impl PlannedCopy {
    /// Returns whether the other side has all of it.
    pub fn is_complete(&self) -> bool {
        self.is_there && self.signature_there && self.archives.is_empty() && self.pages.is_empty()
    }

    /// Returns the objects below `tables/` that it needs.
    fn tables(&self) -> impl Iterator<Item = &Hash> {
        self.snapshot.manifest.pages.iter().chain(&self.known)
    }
}

/// What a sync will copy.
#[derive(Debug)]
pub struct SyncPlan {
    /// Oldest first.
    pub snapshots: Vec<PlannedCopy>,
    /// Bytes of the archives to copy.
    pub bytes: u64,
    /// What is wrong with the chain on the side that is read.
    pub findings: Vec<Finding>,
    /// Which snapshots were chosen by a time, each a sentence.
    pub choices: Vec<String>,
    /// Fingerprints of the keys that signed its manifests.
    signers: Vec<String>,
}

/// What a sync did.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Snapshots that were copied or completed.
    pub copied: u64,
    /// Snapshots that the other side had in full.
    pub were_there: u64,
    /// Archives that were copied.
    pub archives: u64,
    /// Bytes of all objects that were copied.
    pub bytes: u64,
    /// Stamps of snapshots that could not be copied, and why.
    pub failed: Vec<(String, String)>,
    /// Why tombstones and receipts could not be read, one line each.
    pub unread: Vec<String>,
}

impl SyncRequest {
    /// Looks at both sides and plans the copy of the `wanted` snapshots; empty: all.
    pub async fn plan(&self, wanted: &[SnapshotChoice]) -> Result<SyncPlan, ShipError> {
        let chain = self.from.chain(&self.trust).await?;
        let mut choices = Vec::new();
        let mut chosen = choose(&chain, wanted, &mut choices)?;
        // Before the archives: a mark is removed after the objects that it names.
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
            choices,
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
            plan.snapshots.push(PlannedCopy {
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

    /// Returns the objects that the marks of the other side name, whatever their signer: the host
    /// may follow any of them.
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

    /// Returns the pages of earlier snapshots that `snapshot` names, and the directories of such
    /// pages. `directories` holds the directories that were read before.
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

    /// Removes from `chosen` the snapshots that were pruned on the other side.
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
}

/// Returns the `wanted` snapshots, or all. Adds to `choices` which ones a time means.
fn choose(
    chain: &Chain,
    wanted: &[SnapshotChoice],
    choices: &mut Vec<String>,
) -> Result<Vec<VerifiedSnapshot>, ShipError> {
    if wanted.is_empty() {
        return Ok(chain.snapshots.clone());
    }
    let mut chosen = Vec::new();
    for choice in wanted {
        let snapshot = chain.resolve(choice).map_err(RepositoryError::from)?;
        choices.extend(choice.explain(snapshot.stamp()));
        chosen.push(snapshot.clone());
    }
    chosen.sort_by_key(|snapshot| snapshot.manifest.name());
    chosen.dedup_by_key(|snapshot| snapshot.manifest.name());
    Ok(chosen)
}
