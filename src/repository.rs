//! One host's folder on a target: what is in it, and which of it to believe.
//!
//! Reads only. Everything small is fetched whole, within limits, and nothing is believed by its
//! name: pages must hash to theirs, manifests pass through a [`Gathering`].

mod known;
mod statements;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::ids::{ARCHIVES, ArchiveId, Hash, HostName, MANIFESTS, ObjectKey};
use crate::manifest::chain::{Candidate, Chain, ChainError, Gathering};
use crate::manifest::signature::Trust;
use crate::manifest::{
    ArchiveRow, MAX_PAGE_BYTES, MAX_SIGNATURE_BYTES, MAX_SMALL_OBJECT_BYTES, Manifest,
    ManifestError, ManifestName, TablePage, recipient_set_name,
};
use crate::target::{ErrorKind, Listed, Target, TargetError};

pub use known::{parse_known, require_hash};
pub use statements::{Marks, SeenMark};

/// Small objects fetched at once.
const CONCURRENT_GETS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("page {page} of the archive table hashes to {found}: it is damaged or forged")]
    PageHash { page: Hash, found: Hash },
    #[error("page {page} of the archive table is malformed")]
    PageFormat {
        page: Hash,
        #[source]
        source: ManifestError,
    },
    #[error("page {page} of earlier snapshots cannot be used: {what}")]
    Known { page: Hash, what: String },
    #[error("manifest {0} is not what it was a moment ago: run it again")]
    Replaced(ManifestName),
    #[error("the archive table of {manifest} contradicts itself: {what}")]
    Table {
        manifest: ManifestName,
        what: String,
    },
}

/// A host's folder on a target.
#[derive(Debug, Clone)]
pub struct HostFolder {
    pub target: Arc<dyn Target>,
    pub host: HostName,
}

/// The archive table of one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveTable {
    pub rows: BTreeMap<ArchiveId, ArchiveRow>,
    /// The recipients of every set that a row names.
    pub sets: BTreeMap<String, Vec<String>>,
}

impl ArchiveTable {
    /// Joins the pages of `manifest`, which are believed by now.
    pub(crate) fn join(
        manifest: ManifestName,
        pages: impl IntoIterator<Item = TablePage>,
    ) -> Result<Self, RepositoryError> {
        let mut table = Self::default();
        for page in pages {
            table.take(&manifest, page)?;
        }
        Ok(table)
    }

    fn take(&mut self, manifest: &ManifestName, page: TablePage) -> Result<(), RepositoryError> {
        self.add(page).map_err(|what| RepositoryError::Table {
            manifest: manifest.clone(),
            what,
        })
    }

    fn add(&mut self, page: TablePage) -> Result<(), String> {
        for (name, members) in page.sets {
            if recipient_set_name(&members) != name {
                return Err(format!("recipient set {name} has other members"));
            }
            self.sets.insert(name, members);
        }
        for row in page.rows {
            if !self.sets.contains_key(&row.recipient_set) {
                return Err(format!("archive {} has an unknown recipient set", row.id));
            }
            let id = row.id;
            if self.rows.insert(id, row).is_some() {
                return Err(format!("archive {id} stands in it twice"));
            }
        }
        Ok(())
    }
}

/// The folders of `target` whose names could be those of hosts, sorted.
pub async fn possible_hosts(target: &Arc<dyn Target>) -> Result<Vec<HostName>, TargetError> {
    let names = target.list_folders().await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The hosts that have a folder with manifests on `target`, sorted.
pub async fn hosts(target: &Arc<dyn Target>) -> Result<Vec<HostName>, TargetError> {
    hosts_among(target, possible_hosts(target).await?).await
}

/// Those of `possible` that have a folder with manifests on `target`.
pub async fn hosts_among(
    target: &Arc<dyn Target>,
    possible: Vec<HostName>,
) -> Result<Vec<HostName>, TargetError> {
    let folders = possible.into_iter().map(|host| HostFolder {
        target: Arc::clone(target),
        host,
    });
    let found = futures::stream::iter(folders)
        .map(|folder| async move {
            let any = !folder.manifest_names().await?.is_empty();
            Ok::<_, TargetError>(any.then_some(folder.host))
        })
        .buffered(CONCURRENT_GETS);
    found
        .try_filter_map(async |host| Ok(host))
        .try_collect()
        .await
}

impl HostFolder {
    pub fn new(target: Arc<dyn Target>, host: HostName) -> Self {
        Self { target, host }
    }

    /// The key on the target of an object of this host.
    pub fn key(&self, key: &ObjectKey) -> String {
        self.below(key.as_str())
    }

    fn below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    /// Every object below `folder` (such as `archives`): its key below the host's folder, and bytes.
    pub async fn list(&self, folder: &str) -> Result<HashMap<String, u64>, TargetError> {
        let listed = self.target.list(&self.below(&format!("{folder}/"))).await?;
        let host = self.below("");
        let below = |key: &str| key.strip_prefix(&host).map(str::to_owned);
        let found = listed.into_iter();
        Ok(found
            .filter_map(|object| Some((below(&object.key)?, object.bytes)))
            .collect())
    }

    /// The manifests that are here, oldest sequence first; believed by nobody yet.
    pub async fn manifest_names(&self) -> Result<Vec<ManifestName>, TargetError> {
        let folder = self.below(&format!("{MANIFESTS}/"));
        let listed = self.target.list_keys(&folder).await?;
        let host = self.below("");
        let below = listed.iter().filter_map(|key| key.strip_prefix(&host));
        let mut names: Vec<ManifestName> = below.filter_map(ManifestName::from_key).collect();
        names.sort();
        Ok(names)
    }

    /// The manifests of `sequences` that are here; believed by nobody yet.
    pub async fn manifest_names_of(
        &self,
        sequences: &BTreeSet<u64>,
    ) -> Result<Vec<ManifestName>, TargetError> {
        let folder = self.below(&format!("{MANIFESTS}/"));
        let listed = self.target.list_keys(&folder).await?;
        let host = self.below("");
        let below = listed.iter().filter_map(|key| key.strip_prefix(&host));
        // Of thousands of names few are asked for.
        let sequence = |key: &str| {
            let name = key.strip_prefix(MANIFESTS)?.strip_prefix('/')?;
            name.split_once('-')?.0.parse::<u64>().ok()
        };
        let asked = below.filter(|key| sequence(key).is_some_and(|n| sequences.contains(&n)));
        let mut names: Vec<ManifestName> = asked.filter_map(ManifestName::from_key).collect();
        names.sort();
        Ok(names)
    }

    /// A manifest with its signature; `None` if it vanished meanwhile.
    async fn candidate(
        &self,
        name: ManifestName,
        bytes: u64,
        signature_bytes: Option<u64>,
    ) -> Result<Option<Candidate>, TargetError> {
        let (key, signature_key) = (name.key(), name.signature_key());
        let read_signature = async {
            match signature_bytes.is_some_and(|bytes| bytes > MAX_SIGNATURE_BYTES) {
                true => Ok(None),
                false => self.get_if_there(&signature_key, MAX_SIGNATURE_BYTES).await,
            }
        };
        let is_usual = bytes <= MAX_SMALL_OBJECT_BYTES
            && signature_bytes.is_some_and(|bytes| bytes <= MAX_SIGNATURE_BYTES);
        // Both at once: each request of its own is a whole call of rsync.
        let (signature, manifest) = match is_usual {
            true => {
                let read_manifest = self.get_if_there(&key, MAX_SMALL_OBJECT_BYTES);
                futures::future::try_join(read_signature, read_manifest).await?
            }
            false => (read_signature.await?, None),
        };
        // Signatures come before manifests and go after them: without one it is being deleted, or planted.
        // Nor can it be what its name promises if it is there to choke us: either is refused unread.
        let manifest = match signature.is_none() || bytes > MAX_SMALL_OBJECT_BYTES {
            // Nor is it asked for: rsync, for one, would fetch all of it.
            true if bytes > MAX_SMALL_OBJECT_BYTES => Some(Vec::new()),
            true => (bytes == 0 || self.is_there(&key).await?).then(Vec::new),
            false if is_usual => manifest,
            false => self.get_if_there(&key, MAX_SMALL_OBJECT_BYTES).await?,
        };
        Ok(manifest.map(|manifest| Candidate {
            name,
            manifest,
            signature,
        }))
    }

    /// Whether an object that is not empty is there.
    async fn is_there(&self, key: &ObjectKey) -> Result<bool, TargetError> {
        match self.target.get_range(&self.key(key), 0..1).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get_if_there(
        &self,
        key: &ObjectKey,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        let key = self.key(key);
        match self.target.get(&key, limit).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The host's verified snapshots.
    pub async fn chain(&self, trust: &Trust) -> Result<Chain, RepositoryError> {
        let listed = self.list(MANIFESTS).await?;
        let named = listed
            .iter()
            .filter_map(|(key, bytes)| Some((ManifestName::from_key(key)?, *bytes)));
        let mut named: Vec<(ManifestName, u64)> = named.collect();
        named.sort();
        let mut candidates = futures::stream::iter(named)
            .map(|(name, bytes)| {
                let signature_bytes = listed.get(name.signature_key().as_str()).copied();
                self.candidate(name, bytes, signature_bytes)
            })
            .buffered(CONCURRENT_GETS);
        let mut gathering = Gathering::new(&self.host, trust);
        while let Some(candidate) = candidates.try_next().await? {
            candidate.into_iter().for_each(|one| gathering.take(one));
        }
        let mut chain = gathering.finish()?;
        self.check_history(&mut chain).await?;
        let missing = chain
            .missing()
            .iter()
            .map(|k| (k.sequence, k.stamp))
            .collect();
        let deleted = self.deletions(trust, &chain.signers(), &missing).await?;
        chain.accept_deletions(&deleted);
        Ok(chain)
    }

    /// The archive table of `manifest`, every page of which must hash to its name.
    pub async fn table(&self, manifest: &Manifest) -> Result<ArchiveTable, RepositoryError> {
        let mut pages = futures::stream::iter(&manifest.pages)
            .map(|page| self.page(page))
            .buffered(CONCURRENT_GETS);
        let mut table = ArchiveTable::default();
        while let Some(page) = pages.try_next().await? {
            table.take(&manifest.name(), page)?;
        }
        Ok(table)
    }

    pub(crate) async fn page(&self, page: &Hash) -> Result<TablePage, RepositoryError> {
        let key = self.key(&ObjectKey::table(page));
        let bytes = self.target.get(&key, MAX_PAGE_BYTES).await?;
        parse_page(page, &bytes)
    }

    /// Bytes of every archive that is here, from one listing.
    pub async fn archives_present(&self) -> Result<HashMap<Hash, u64>, TargetError> {
        let folder = self.below(&format!("{ARCHIVES}/"));
        Ok(self.archives_of(&self.target.list(&folder).await?))
    }

    fn archives_of(&self, listed: &[Listed]) -> HashMap<Hash, u64> {
        let host = self.below("");
        let archive = |key: &str| ObjectKey::archive_hash(key.strip_prefix(&host)?);
        let found = listed.iter();
        found
            .filter_map(|object| Some((archive(&object.key)?, object.bytes)))
            .collect()
    }

    /// Bytes of those of the archives `named` that are here, and of every archive whose hash begins with a byte of
    /// `shards`.
    pub async fn archives_among(
        &self,
        named: &HashSet<Hash>,
        shards: &Range<u16>,
    ) -> Result<HashMap<Hash, u64>, TargetError> {
        let mut shards: BTreeSet<u16> = shards.clone().collect();
        let keys: Vec<ObjectKey> = named.iter().map(ObjectKey::archive).collect();
        let mut found = HashMap::new();
        match self.sizes(&keys).await? {
            Some(sizes) => {
                let sizes = sizes.into_iter();
                found
                    .extend(sizes.filter_map(|(key, n)| Some((ObjectKey::archive_hash(&key)?, n))));
            }
            None => shards.extend(named.iter().map(|hash| u16::from(hash.0[0]))),
        }
        let prefix = |shard: u16| self.below(&format!("{ARCHIVES}/{shard:02x}/"));
        let prefixes: Vec<String> = shards.into_iter().map(prefix).collect();
        found.extend(self.archives_of(&self.target.list_each(&prefixes).await?));
        Ok(found)
    }

    /// Bytes of those of `keys` that are here now. `None`: this kind of target lists instead.
    pub async fn sizes(
        &self,
        keys: &[ObjectKey],
    ) -> Result<Option<HashMap<String, u64>>, TargetError> {
        let full: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        let Some(found) = self.target.sizes(&full).await? else {
            return Ok(None);
        };
        let sized = keys.iter().zip(&full);
        let sized = sized.filter_map(|(key, full)| Some((key.to_string(), *found.get(full)?)));
        Ok(Some(sized.collect()))
    }
}

/// A page that must hash to `page`.
pub(crate) fn parse_page(page: &Hash, bytes: &[u8]) -> Result<TablePage, RepositoryError> {
    let found = Hash::sha256(bytes);
    if found != *page {
        return Err(RepositoryError::PageHash { page: *page, found });
    }
    TablePage::parse(bytes).map_err(|source| RepositoryError::PageFormat {
        page: *page,
        source,
    })
}
