//! What is on a target, as far as pruning must know it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};

use super::PruneError;
use crate::ids::{ARCHIVES, Hash, MANIFESTS, ObjectKey, TABLES, TOMBSTONES};
use crate::manifest::chain::{Chain, Finding};
use crate::manifest::signature::Trust;
use crate::manifest::statement::{Mark, MarkName, Tombstone};
use crate::manifest::{Manifest, ManifestName};
use crate::repository::HostFolder;

const CONCURRENT_GETS: usize = 16;
/// Tombstones that are read to know when the last prune was: those of the highest sequences.
const TOMBSTONES_READ: usize = 8;

/// A backup takes hours, and a laptop sleeps over a night.
const LATE: chrono::Duration = chrono::Duration::hours(36);

pub(super) struct Inventory {
    pub chain: Chain,
    /// Manifests without their signature of snapshots that were deleted: what a prune left that died, or a sync
    /// that ran beside it. Nobody believes them, and nothing is needed for them.
    pub remains: Vec<ManifestName>,
    pub marks: Vec<(MarkName, Mark)>,
    /// The highest sequence that was there at the last prune that forgot something.
    pub pruned_at: Option<u64>,
    archives: HashMap<Hash, Lies>,
    /// When manifests came, by the target's clock, where it tells.
    arrived: HashMap<ManifestName, DateTime<Utc>>,
    /// The archives of every page that a manifest names, and their bytes.
    pages: HashMap<Hash, Vec<(Hash, u64)>>,
    listed_pages: Vec<Hash>,
}

struct Lies {
    bytes: u64,
    /// By the target's clock.
    since: Option<DateTime<Utc>>,
}

impl Inventory {
    pub async fn take(folder: &HostFolder, trust: &Trust) -> Result<Self, PruneError> {
        // The archives first: one that comes later is none of what is decided on.
        let below = format!("{}/{ARCHIVES}/", folder.host);
        let listed = folder.target.list(&below).await?;
        let (marks, tables) =
            futures::future::try_join(folder.marks(), folder.list(TABLES)).await?;
        let chain = folder.chain(trust).await?;
        let remains = remains(folder, trust, &chain).await?;
        let manifests = folder
            .target
            .list(&format!("{}/{MANIFESTS}/", folder.host))
            .await?;
        let host = format!("{}/", folder.host);
        let archives = listed.into_iter().filter_map(|one| {
            let hash = ObjectKey::archive_hash(one.key.strip_prefix(&host)?)?;
            let (bytes, since) = (one.bytes, one.modified);
            Some((hash, Lies { bytes, since }))
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
        let listed_pages = tables.keys().filter_map(|key| {
            let file = key.strip_prefix(TABLES)?.strip_prefix('/')?;
            file.strip_suffix(".json")?.parse().ok()
        });
        Ok(Self {
            pruned_at: last_prune(folder, trust, &chain).await?,
            archives: archives.collect(),
            arrived: arrived.collect(),
            listed_pages: listed_pages.collect(),
            chain,
            remains,
            marks,
            pages,
        })
    }

    /// Whether the first of a snapshot's manifests came long after its stamp.
    pub fn is_late(&self, names: &[ManifestName]) -> bool {
        let arrived = names.iter().filter_map(|name| self.arrived.get(name)).min();
        let stamped = names.first().map(|name| name.stamp.time());
        matches!((arrived, stamped), (Some(arrived), Some(stamped)) if *arrived - stamped > LATE)
    }

    pub fn names(&self) -> Vec<ManifestName> {
        let snapshots = self.chain.snapshots.iter();
        let mut names: Vec<ManifestName> = snapshots.map(|one| one.manifest.name()).collect();
        names.extend(self.remains.iter().cloned());
        names.sort();
        names
    }

    pub fn named_by<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = Hash> + 'a {
        self.rows_of(manifest).map(|(archive, _)| archive)
    }

    fn rows_of<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = (Hash, u64)> + 'a {
        let pages = manifest
            .pages
            .iter()
            .filter_map(|page| self.pages.get(page));
        pages.flatten().copied()
    }

    /// Whether all that a manifest names is here. What came after the archives were listed seems to lack some, and
    /// an older one stays for it.
    pub fn is_whole(&self, manifest: &Manifest) -> bool {
        self.rows_of(manifest).all(|(archive, bytes)| {
            let lies = self.archives.get(&archive);
            lies.is_some_and(|lies| lies.bytes == bytes)
        })
    }

    /// Those of `archives` that are here, and their bytes.
    pub fn present<'a>(&self, archives: impl Iterator<Item = &'a Hash>) -> BTreeMap<Hash, u64> {
        let here = |hash: &'a Hash| Some((*hash, self.archives.get(hash)?.bytes));
        archives.filter_map(here).collect()
    }

    /// Archives that were written before `time`.
    pub fn strays(&self, time: DateTime<Utc>) -> impl Iterator<Item = Hash> {
        let old = move |lies: &Lies| lies.since.is_some_and(|since| since < time);
        let archives = self.archives.iter();
        archives
            .filter(move |(_, lies)| old(lies))
            .map(|(hash, _)| *hash)
    }

    pub fn unnamed_pages(&self) -> Vec<Hash> {
        let listed = self.listed_pages.iter();
        listed
            .filter(|page| !self.pages.contains_key(*page))
            .copied()
            .collect()
    }
}

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
