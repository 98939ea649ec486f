//! Reads one host's folder on a target, and decides which of its objects to believe.
//!
//! Small objects are fetched whole, within limits. No object is believed by its name: pages must
//! hash to theirs, and manifests pass through a [`Gathering`]. Only [`probe`] and [`receipts`]
//! write.

mod error;
mod known;
pub mod probe;
pub mod read_archive;
mod receipts;
mod statements;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::base::ids::{ARCHIVES, ArchiveId, Hash, HostName, MANIFESTS, ObjectKey};
use crate::base::panics::{Panicked, caught_now};
use crate::format::chain::{Chain, CheckedManifest, Gathering, UnverifiedManifest};
use crate::format::manifest::{
    ArchiveRow, MAX_PAGE_BYTES, MAX_SIGNATURE_BYTES, MAX_SMALL_OBJECT_BYTES, Manifest,
    ManifestName, TablePage, recipient_set_name,
};
use crate::format::signature::Trust;
use crate::storage::{ErrorKind, Listed, Storage, TargetError};

pub use error::RepositoryError;
pub use known::{parse_known, require_hash};
pub use receipts::{ReceiptListing, StoredReceipt, StoredReceipts};
pub use statements::{Marks, SeenMark};

/// Small objects fetched at a time.
const CONCURRENT_GETS: usize = 16;
/// Manifests checked at a time: a hostile one takes much memory.
const CONCURRENT_CHECKS: usize = 2;

/// A host's folder on a target.
#[derive(Debug, Clone)]
pub struct HostFolder {
    /// The opened storage.
    pub target: Arc<dyn Storage>,
    /// The host; its name is the folder's.
    pub host: HostName,
}

/// The archive table of one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveTable {
    /// Every archive, by its id.
    pub rows: BTreeMap<ArchiveId, ArchiveRow>,
    /// The recipients of every set that a row names, by the set's name.
    pub sets: BTreeMap<String, Vec<String>>,
}

impl ArchiveTable {
    /// Joins the pages of `manifest`, each of which hashed to its name.
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
                return Err(format!("archive {id} is in it twice"));
            }
        }
        Ok(())
    }
}

/// Returns the folders of `target` whose names could be those of hosts, sorted.
pub async fn possible_hosts(target: &Arc<dyn Storage>) -> Result<Vec<HostName>, TargetError> {
    let names = target.list_folders().await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Returns the hosts that have a folder with manifests on `target`, sorted.
pub async fn hosts(target: &Arc<dyn Storage>) -> Result<Vec<HostName>, TargetError> {
    hosts_among(target, possible_hosts(target).await?).await
}

/// Returns the hosts of `possible` that have a folder with manifests on `target`.
pub async fn hosts_among(
    target: &Arc<dyn Storage>,
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
    /// Returns the folder of `host`, which need not exist.
    pub fn new(target: Arc<dyn Storage>, host: HostName) -> Self {
        Self { target, host }
    }

    /// Returns the key on the target of an object of this host.
    pub fn key(&self, key: &ObjectKey) -> String {
        self.below(key.as_str())
    }

    fn below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    /// Lists the objects below `folder` (such as `archives`): size by key below the host's folder.
    pub async fn list(&self, folder: &str) -> Result<HashMap<String, u64>, TargetError> {
        let listed = self.target.list(&self.below(&format!("{folder}/"))).await?;
        let host = self.below("");
        let below = |key: &str| key.strip_prefix(&host).map(str::to_owned);
        let found = listed.into_iter();
        Ok(found
            .filter_map(|object| Some((below(&object.key)?, object.bytes)))
            .collect())
    }

    /// Lists the manifests by name, lowest sequence first. Nothing is verified.
    pub async fn manifest_names(&self) -> Result<Vec<ManifestName>, TargetError> {
        let folder = self.below(&format!("{MANIFESTS}/"));
        let listed = self.target.list_keys(&folder).await?;
        let host = self.below("");
        let below = listed.iter().filter_map(|key| key.strip_prefix(&host));
        let mut names: Vec<ManifestName> = below.filter_map(ManifestName::from_key).collect();
        names.sort();
        Ok(names)
    }

    /// Lists the manifests of `sequences` by name, lowest sequence first. Nothing is verified.
    pub(crate) async fn manifest_names_of(
        &self,
        sequences: &BTreeSet<u64>,
    ) -> Result<Vec<ManifestName>, TargetError> {
        let folder = self.below(&format!("{MANIFESTS}/"));
        // By the order of bytes, in which nine digits may be before eight.
        let Some(first) = sequences.iter().map(|n| format!("{n:08}-")).min() else {
            return Ok(Vec::new());
        };
        let from = format!("{folder}{first}");
        let listed = self.target.list_keys_from(&folder, &from).await?;
        let host = self.below("");
        let below = listed.iter().filter_map(|key| key.strip_prefix(&host));
        // Of thousands of names only a few are parsed in full.
        let sequence = |key: &str| {
            let name = key.strip_prefix(MANIFESTS)?.strip_prefix('/')?;
            name.split_once('-')?.0.parse::<u64>().ok()
        };
        let asked = below.filter(|key| sequence(key).is_some_and(|n| sequences.contains(&n)));
        let mut names: Vec<ManifestName> = asked.filter_map(ManifestName::from_key).collect();
        names.sort();
        Ok(names)
    }

    /// Reads a manifest and its signature. Returns `None` if the manifest was deleted since the
    /// listing.
    async fn candidate(
        &self,
        name: ManifestName,
        bytes: u64,
        signature_bytes: Option<u64>,
    ) -> Result<Option<UnverifiedManifest>, TargetError> {
        let (key, signature_key) = (name.key(), name.signature_key());
        let read_signature = async {
            match signature_bytes.is_some_and(|bytes| bytes > MAX_SIGNATURE_BYTES) {
                true => Ok(None),
                false => self.get_if_there(&signature_key, MAX_SIGNATURE_BYTES).await,
            }
        };
        let is_usual = bytes <= MAX_SMALL_OBJECT_BYTES
            && signature_bytes.is_some_and(|bytes| bytes <= MAX_SIGNATURE_BYTES);
        // Both at once: for rsync each request is a process of its own.
        let (signature, manifest) = match is_usual {
            true => {
                let read_manifest = self.get_if_there(&key, MAX_SMALL_OBJECT_BYTES);
                futures::future::try_join(read_signature, read_manifest).await?
            }
            false => (read_signature.await?, None),
        };
        // A signature is put before its manifest and deleted after it. A manifest without one is
        // being deleted, or was planted; one that is too large was planted. Either is refused
        // without being read.
        let manifest = match signature.is_none() || bytes > MAX_SMALL_OBJECT_BYTES {
            // Nor is one byte of it requested: rsync would fetch all of it.
            true if bytes > MAX_SMALL_OBJECT_BYTES => Some(Vec::new()),
            true => (bytes == 0 || self.is_there(&key).await?).then(Vec::new),
            false if is_usual => manifest,
            false => self.get_if_there(&key, MAX_SMALL_OBJECT_BYTES).await?,
        };
        Ok(manifest.map(|manifest| UnverifiedManifest {
            name,
            manifest,
            signature,
        }))
    }

    /// Checks a manifest on a thread of its own: it takes longer to check hundreds than to read
    /// them.
    async fn checked(&self, candidate: UnverifiedManifest) -> CheckedManifest {
        let (host, name) = (self.host.clone(), candidate.name.clone());
        let check = move || caught_now(|| candidate.check(&host));
        let checked = tokio::task::spawn_blocking(check).await;
        let checked = checked.unwrap_or_else(|error| Err(Panicked::of_task(error)));
        checked.unwrap_or_else(|panicked| {
            CheckedManifest::refused(name, format!("it could not be checked: {panicked}"))
        })
    }

    /// Returns whether an object that is not empty is there.
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

    /// Reads and verifies every manifest, and returns the host's snapshots.
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
            .buffered(CONCURRENT_GETS)
            .map(async |candidate| match candidate? {
                Some(candidate) => Ok(Some(self.checked(candidate).await)),
                None => Ok::<_, TargetError>(None),
            })
            .buffered(CONCURRENT_CHECKS);
        let mut gathering = Gathering::new(&self.host, trust);
        while let Some(checked) = candidates.try_next().await? {
            let checked = checked.into_iter();
            checked.for_each(|one| gathering.take(one));
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

    /// Reads the archive table of `manifest`. Every page must hash to its name.
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

    /// Returns the size of every archive that is here, by BLAKE3, from one listing.
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

    /// Returns the sizes of those of the archives `named` that are on the target, and of every
    /// archive there whose hash begins with a byte of `shards`.
    pub(crate) async fn archives_among(
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

    /// Returns the sizes of the objects of `keys` that are here now, or `None` if a listing is as
    /// cheap on this kind of target.
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

/// Parses a page of the archive table, which must hash to `page`.
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
