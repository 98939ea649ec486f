//! Reads what a prune must know about a target.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};

use super::error::PruneError;
use crate::base::ids::{ARCHIVES, Hash, MANIFESTS, ObjectKey, TABLES, TOMBSTONES};
use crate::format::chain::{Chain, Finding};
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::Trust;
use crate::format::statement::Tombstone;
use crate::repository::{HostFolder, Marks, RepositoryError};
use crate::storage::ErrorKind;

const CONCURRENT_GETS: usize = 16;
/// Tombstones that are read to find the last prune: those of the highest sequences.
const TOMBSTONES_READ: usize = 8;

/// A snapshot that arrives later than this after its stamp is late: a backup takes hours, and a
/// laptop sleeps at night.
const LATE: chrono::Duration = chrono::Duration::hours(36);

/// What a prune knows about a target.
pub(super) struct Inventory {
    /// The verified snapshots.
    pub chain: Chain,
    /// Manifests without a signature, of deleted snapshots: a prune that died left them, or a sync
    /// beside it. They do not verify and need no objects.
    pub remains: Vec<ManifestName>,
    /// The marks of earlier prunes.
    pub marks: Marks,
    /// The highest sequence at the last prune that deleted a snapshot; `None`: there was none.
    pub pruned_at: Option<u64>,
    archives: HashMap<Hash, PresentArchive>,
    /// When manifests arrived, by the target's clock, if it gives times.
    arrived: HashMap<ManifestName, DateTime<Utc>>,
    /// The archives on every page that a manifest names, with their sizes.
    pages: HashMap<Hash, Vec<(Hash, u64)>>,
    /// Everything in `tables/`, and when it arrived.
    tables: HashMap<Hash, Option<DateTime<Utc>>>,
    /// The pages that each directory of earlier snapshots names.
    directories: HashMap<Hash, Vec<Hash>>,
    /// A directory that a manifest names cannot be read, so it is unknown which pages are needed.
    pub history_is_unclear: bool,
}

/// An archive on the target.
struct PresentArchive {
    bytes: u64,
    /// When it arrived, by the target's clock; `None`: the target gives no times.
    since: Option<DateTime<Utc>>,
}

impl Inventory {
    /// Reads the target.
    pub(super) async fn take(folder: &HostFolder, trust: &Trust) -> Result<Self, PruneError> {
        // The archives first: nothing is decided about archives that arrive later.
        let below = format!("{}/{ARCHIVES}/", folder.host);
        let listed = folder.target.list(&below).await?;
        let tables = folder
            .target
            .list(&format!("{}/{TABLES}/", folder.host))
            .await?;
        let chain = folder.chain(trust).await?;
        let marks = folder.marks(trust, &chain.signers()).await?;
        let remains = remains(folder, trust, &chain).await?;
        let manifests = folder
            .target
            .list(&format!("{}/{MANIFESTS}/", folder.host))
            .await?;
        let host = format!("{}/", folder.host);
        let archives = listed.into_iter().filter_map(|one| {
            let hash = ObjectKey::archive_hash(one.key.strip_prefix(&host)?)?;
            let (bytes, since) = (one.bytes, one.modified);
            Some((hash, PresentArchive { bytes, since }))
        });
        let arrived = manifests.into_iter().filter_map(|one| {
            let name = ManifestName::from_key(one.key.strip_prefix(&host)?)?;
            Some((name, one.modified?))
        });
        let wanted: HashSet<Hash> = chain
            .snapshots
            .iter()
            .flat_map(|one| one.manifest.pages.iter().copied())
            .collect();
        let pages = futures::stream::iter(wanted)
            .map(async |hash| {
                let page = folder.page(&hash).await?;
                let archives = page
                    .rows
                    .iter()
                    .map(|row| (row.blake3, row.bytes))
                    .collect();
                Ok::<_, PruneError>((hash, archives))
            })
            .buffer_unordered(CONCURRENT_GETS)
            .try_collect()
            .await?;
        let tables = tables.into_iter().filter_map(|one| {
            let file = one.key.strip_prefix(&host)?.strip_prefix(TABLES)?;
            let name = file.strip_prefix('/')?.strip_suffix(".json")?;
            Some((name.parse().ok()?, one.modified))
        });
        let (directories, history_is_unclear) = read_directories(folder, &chain).await?;
        Ok(Self {
            pruned_at: last_prune(folder, trust, &chain).await?,
            archives: archives.collect(),
            arrived: arrived.collect(),
            tables: tables.collect(),
            directories,
            history_is_unclear,
            chain,
            remains,
            marks,
            pages,
        })
    }

    /// Returns whether the first of a snapshot's manifests arrived long after its stamp.
    pub(super) fn is_late(&self, names: &[ManifestName]) -> bool {
        let arrived = names.iter().filter_map(|name| self.arrived.get(name)).min();
        let stamped = names.first().map(|name| name.stamp.time());
        matches!((arrived, stamped), (Some(arrived), Some(stamped)) if *arrived - stamped > LATE)
    }

    /// Returns the names of all manifests, sorted.
    pub(super) fn names(&self) -> Vec<ManifestName> {
        let snapshots = self.chain.snapshots.iter();
        let mut names: Vec<ManifestName> = snapshots.map(|one| one.manifest.name()).collect();
        names.extend(self.remains.iter().cloned());
        names.sort();
        names
    }

    /// Returns the archives that `manifest` names.
    pub(super) fn named_by<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = Hash> + 'a {
        self.rows_of(manifest).map(|(archive, _)| archive)
    }

    fn rows_of<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = (Hash, u64)> + 'a {
        let pages = manifest
            .pages
            .iter()
            .filter_map(|page| self.pages.get(page));
        pages.flatten().copied()
    }

    /// Returns whether all archives that `manifest` names are here. A snapshot that arrived after
    /// the archives were listed seems to lack some, so an older one stays in its place.
    pub(super) fn is_whole(&self, manifest: &Manifest) -> bool {
        self.rows_of(manifest).all(|(archive, bytes)| {
            let present = self.archives.get(&archive);
            present.is_some_and(|present| present.bytes == bytes)
        })
    }

    /// Returns the archives of `archives` that are here, with their sizes.
    pub(super) fn present<'a>(
        &self,
        archives: impl Iterator<Item = &'a Hash>,
    ) -> BTreeMap<Hash, u64> {
        let here = |hash: &'a Hash| Some((*hash, self.archives.get(hash)?.bytes));
        archives.filter_map(here).collect()
    }

    /// Returns the archives that arrived before `time`.
    pub(super) fn strays(&self, time: DateTime<Utc>) -> impl Iterator<Item = Hash> {
        let old = move |one: &PresentArchive| one.since.is_some_and(|since| since < time);
        let archives = self.archives.iter();
        archives
            .filter(move |(_, one)| old(one))
            .map(|(hash, _)| *hash)
    }

    /// Returns the pages of earlier snapshots that `manifest` names, and the directories of such
    /// pages.
    pub(super) fn history_of<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = Hash> + 'a {
        let named = manifest.core.known.pages();
        let directories = || named.into_iter().flat_map(|named| &named.directories);
        let inner = directories()
            .filter_map(|name| self.directories.get(name))
            .flatten();
        let pages = named.into_iter().flat_map(|named| &named.pages);
        directories().chain(inner).chain(pages).copied()
    }

    /// Returns the pages of `pages` that are here.
    pub(super) fn present_pages<'a>(
        &self,
        pages: impl Iterator<Item = &'a Hash>,
    ) -> BTreeSet<Hash> {
        pages
            .filter(|page| self.tables.contains_key(*page))
            .copied()
            .collect()
    }

    /// Returns the objects in `tables/` that are neither pages of a manifest's archive table nor in
    /// `history`.
    pub(super) fn unnamed_pages(&self, history: &HashSet<Hash>) -> Vec<Hash> {
        let listed = self.tables.keys();
        let is_named = |page: &&Hash| self.pages.contains_key(*page) || history.contains(*page);
        listed.filter(|page| !is_named(page)).copied().collect()
    }

    /// Returns the pages of `pages` that arrived before `time` and list earlier snapshots.
    pub(super) async fn stray_history(
        &self,
        folder: &HostFolder,
        pages: &[Hash],
        time: DateTime<Utc>,
    ) -> Result<Vec<Hash>, PruneError> {
        let is_old = |page: &&Hash| {
            let since = self.tables.get(*page).copied().flatten();
            since.is_some_and(|since| since < time)
        };
        let found = futures::stream::iter(pages.iter().filter(is_old))
            .map(async |page| match folder.is_history(page).await {
                Ok(true) => Ok(Some(*page)),
                Err(error) if error.kind == ErrorKind::Unavailable => Err(PruneError::from(error)),
                _ => Ok(None),
            })
            .buffer_unordered(CONCURRENT_GETS)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Reads every directory that a manifest names. Also returns whether one could not be read.
async fn read_directories(
    folder: &HostFolder,
    chain: &Chain,
) -> Result<(HashMap<Hash, Vec<Hash>>, bool), PruneError> {
    let named = chain
        .snapshots
        .iter()
        .filter_map(|one| one.manifest.core.known.pages());
    let wanted: HashSet<Hash> = named
        .flat_map(|named| named.directories.iter().copied())
        .collect();
    let read = futures::stream::iter(wanted)
        .map(async |name| match folder.directory(&name).await {
            Ok(directory) => Ok(Some((name, directory.directory))),
            Err(RepositoryError::Target(error)) if error.kind == ErrorKind::Unavailable => {
                Err(PruneError::from(error))
            }
            Err(_) => Ok(None),
        })
        .buffer_unordered(CONCURRENT_GETS)
        .try_collect::<Vec<_>>()
        .await?;
    let is_unclear = read.iter().any(Option::is_none);
    Ok((read.into_iter().flatten().collect(), is_unclear))
}

/// Returns the manifests that a dead prune, or a sync beside one, left without a signature.
async fn remains(
    folder: &HostFolder,
    trust: &Trust,
    chain: &Chain,
) -> Result<Vec<ManifestName>, PruneError> {
    let refused = chain.findings.iter().filter_map(|finding| match finding {
        Finding::Refused(name, _) => Some(name),
        _ => None,
    });
    let refused: Vec<&ManifestName> = refused.collect();
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let listed = folder.list(MANIFESTS).await?;
    let wanted = |name: &ManifestName| {
        let same = |r: &&ManifestName| (r.sequence, r.stamp) == (name.sequence, name.stamp);
        refused.iter().any(same)
    };
    let tombstones = folder.tombstones(trust, &chain.signers(), wanted).await?;
    let buried: HashSet<&String> = tombstones.iter().flat_map(|t| &t.manifests).collect();
    let is_remains = |name: &&ManifestName| {
        let is_unsigned = !listed.contains_key(name.signature_key().as_str());
        is_unsigned && buried.contains(&name.to_string())
    };
    Ok(refused.into_iter().filter(is_remains).cloned().collect())
}

/// Returns the highest sequence at the last prune that deleted a snapshot.
async fn last_prune(
    folder: &HostFolder,
    trust: &Trust,
    chain: &Chain,
) -> Result<Option<u64>, PruneError> {
    let listed = folder.list(TOMBSTONES).await?;
    let names = listed.keys().filter_map(|key| Tombstone::name_of(key));
    let mut names: Vec<ManifestName> = names.collect();
    names.sort();
    let newest: HashSet<ManifestName> = names.into_iter().rev().take(TOMBSTONES_READ).collect();
    let wanted = |name: &ManifestName| newest.contains(name);
    let read = folder.tombstones(trust, &chain.signers(), wanted).await?;
    Ok(read.iter().map(|tombstone| tombstone.newest).max())
}
