//! Sizes of one host's backups as its manifests, its archive tables and a listing show them.
//!
//! Each page of the archive table is read once, however many manifests name it, and only one small
//! record per archive is kept: the first snapshot that needs it, and whether another one does.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _};

use super::growth::growth;
use super::{ClassSize, Ratios, SnapshotSizes, StatsSource, StoredBackups, StoredClasses};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::chain::Chain;
use crate::format::manifest::ArchiveKind;
use crate::jobs::error::JobError;
use crate::repository::{HostFolder, RepositoryError};
use crate::state::catalog::Catalog;

/// Pages fetched at a time.
const CONCURRENT_GETS: usize = 16;

/// The snapshots that need an object, as indices by sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Users {
    first: u32,
    /// Whether another snapshot needs it, too.
    is_shared: bool,
}

impl Users {
    fn one(snapshot: u32) -> Self {
        Self {
            first: snapshot,
            is_shared: false,
        }
    }

    fn add(&mut self, other: Self) {
        self.is_shared |= other.is_shared || other.first != self.first;
        self.first = self.first.min(other.first);
    }
}

/// An archive that a snapshot needs.
struct NeededArchive {
    kind: ArchiveKind,
    users: Users,
    /// Whether the newest snapshot needs it.
    is_current: bool,
    /// Its size on the target. `None`: it is missing there.
    present_bytes: Option<u64>,
}

/// The sizes on a target in the course of the job.
pub(super) struct Measured {
    snapshots: Vec<SnapshotSizes>,
    archives: HashMap<Hash, NeededArchive>,
    unused: ClassSize,
    others: ClassSize,
    /// Bytes of the content of all data archives; `None`: unknown.
    content_bytes: Option<u64>,
}

/// Reads the tables of the snapshots in `chain`, and lists the objects in `folder`.
pub(super) async fn measure(folder: &HostFolder, chain: &Chain) -> Result<Measured, JobError> {
    let (snapshots, pages) = snapshots_and_pages(chain);
    let mut measured = Measured {
        archives: needed(folder, pages, snapshots.len()).await?,
        snapshots,
        unused: ClassSize::default(),
        others: ClassSize::default(),
        content_bytes: None,
    };
    let host = format!("{}/", folder.host);
    for object in folder.target.list(&host).await? {
        let key = object.key.strip_prefix(&host).unwrap_or(&object.key);
        if key.starts_with('.') {
            // The reserve of a folder, and puts under way, are no objects.
            continue;
        }
        let archive = ObjectKey::archive_hash(key);
        match archive.map(|hash| measured.archives.get_mut(&hash)) {
            Some(Some(needed)) => needed.present_bytes = Some(object.bytes),
            Some(None) => measured.unused.add(object.bytes),
            None => measured.others.add(object.bytes),
        }
    }
    measured.share_out();
    Ok(measured)
}

/// Returns the snapshots by sequence, and for each page of an archive table its users. A revision
/// of a manifest is the same snapshot.
fn snapshots_and_pages(chain: &Chain) -> (Vec<SnapshotSizes>, HashMap<Hash, (Users, u32)>) {
    let mut snapshots: Vec<SnapshotSizes> = Vec::new();
    let mut indices: HashMap<Hash, u32> = HashMap::new();
    let mut pages: HashMap<Hash, (Users, u32)> = HashMap::new();
    for one in &chain.snapshots {
        let (core, manifest) = (&one.manifest.core, &one.manifest);
        let index = *indices.entry(manifest.core_hash).or_insert_with(|| {
            snapshots.push(SnapshotSizes {
                stamp: core.stamp,
                sequence: core.sequence,
                bytes: core.totals.bytes,
                new_bytes: core.totals.new_bytes,
                unique_bytes: Some(0),
                stored_bytes: Some(0),
            });
            snapshots.len() as u32 - 1
        });
        for page in &manifest.pages {
            let entry = pages.entry(*page).or_insert((Users::one(index), index));
            entry.0.add(Users::one(index));
            entry.1 = entry.1.max(index);
        }
    }
    (snapshots, pages)
}

/// Reads the pages, and returns the archives that they name with their users.
async fn needed(
    folder: &HostFolder,
    pages: HashMap<Hash, (Users, u32)>,
    snapshots: usize,
) -> Result<HashMap<Hash, NeededArchive>, JobError> {
    let mut read = futures::stream::iter(pages)
        .map(async |(page, users)| Ok::<_, RepositoryError>((folder.page(&page).await?, users)))
        .buffer_unordered(CONCURRENT_GETS);
    let unreadable = |error: RepositoryError| {
        JobError::from(error).with_next(
            "if a prune is running there, run it again; else `sealift verify` shows what is damaged",
        )
    };
    let mut archives: HashMap<Hash, NeededArchive> = HashMap::new();
    while let Some((page, (users, last))) = read.try_next().await.map_err(unreadable)? {
        let is_current = last as usize + 1 == snapshots;
        for row in page.rows {
            let archive = archives.entry(row.blake3).or_insert(NeededArchive {
                kind: row.kind,
                users,
                is_current,
                present_bytes: None,
            });
            archive.users.add(users);
            archive.is_current |= is_current;
        }
    }
    Ok(archives)
}

impl Measured {
    /// Computes for each snapshot what it alone needs, and what it and the earlier ones need.
    fn share_out(&mut self) {
        let mut first: Vec<u64> = vec![0; self.snapshots.len()];
        let mut unique = first.clone();
        for archive in self.archives.values() {
            let (index, bytes) = (archive.users.first as usize, archive.present_bytes);
            first[index] += bytes.unwrap_or(0);
            if !archive.users.is_shared {
                unique[index] += bytes.unwrap_or(0);
            }
        }
        let mut stored = 0;
        for ((snapshot, first), unique) in self.snapshots.iter_mut().zip(first).zip(unique) {
            stored += first;
            snapshot.stored_bytes = Some(stored);
            snapshot.unique_bytes = Some(unique);
        }
    }

    /// Takes the content sizes of the archives from the host's `catalog`, if it knows all of them.
    pub(super) fn compare_with(&mut self, catalog: Option<&Catalog>) -> Result<(), JobError> {
        let Some(catalog) = catalog else {
            return Ok(());
        };
        let known = catalog.archives()?;
        let known: HashMap<Hash, u64> = known
            .iter()
            .map(|one| (one.row.blake3, one.tar_bytes))
            .collect();
        let data = self.archives.iter();
        let data = data.filter(|(_, one)| one.kind == ArchiveKind::Data);
        let present = data.filter(|(_, one)| one.present_bytes.is_some());
        let sizes = present.map(|(hash, _)| known.get(hash).copied());
        self.content_bytes = sizes.sum();
        Ok(())
    }

    /// Returns the report.
    pub(super) fn finish(self, folder: &HostFolder, chain: &Chain) -> StoredBackups {
        let mut stored = StoredClasses {
            manifests_and_tables: Some(self.others),
            unused_archives: Some(self.unused),
            ..StoredClasses::default()
        };
        let (mut missing, mut older_only_bytes) = (0, 0);
        for archive in self.archives.values() {
            let Some(bytes) = archive.present_bytes else {
                missing += 1;
                continue;
            };
            match archive.kind {
                ArchiveKind::Data => stored.data_archives.add(bytes),
                ArchiveKind::Index => stored.index_archives.add(bytes),
            }
            if !archive.is_current {
                older_only_bytes += bytes;
            }
        }
        stored.sum_up();
        let bytes = self.snapshots.iter().map(|one| one.bytes).sum();
        let (growth_unit, growth) = growth(&self.snapshots);
        let mut findings: Vec<String> = chain.findings.iter().map(ToString::to_string).collect();
        if missing > 0 {
            findings.push(format!(
                "{} that snapshots need: missing; `sealift verify` shows which",
                crate::base::units::count(missing, "archive")
            ));
        }
        let mut unknown = Vec::new();
        if self.content_bytes.is_none() {
            unknown.push(
                "deduplication and compression apart: only the catalog of the host knows how large its archives are \
                 unpacked"
                    .to_owned(),
            );
        }
        StoredBackups {
            target: folder.target.label().to_owned(),
            host: folder.host.clone(),
            source: StatsSource::Target,
            bytes,
            older_only_bytes: Some(older_only_bytes),
            ratios: Ratios::of(bytes, self.content_bytes, stored.data_archives.bytes),
            stored,
            growth_unit,
            growth,
            snapshots: self.snapshots,
            unknown,
            findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_shared_as_soon_as_two_snapshots_need_it() {
        let mut users = Users::one(4);
        users.add(Users::one(4));
        assert_eq!(users, Users::one(4));
        users.add(Users::one(7));
        assert!(users.is_shared && users.first == 4);
        users.add(Users::one(2));
        assert!(users.is_shared && users.first == 2);
    }
}
