//! Fetches the earlier snapshots that a manifest names, page by page.
//!
//! Each page must hash to its name, so pages cannot name each other in a circle. The number of
//! pages, their size and the order of their rows are limited, so a hostile signer cannot make a
//! reader fetch or hold more than that.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _};

use super::error::RepositoryError;
use super::{CONCURRENT_GETS, HostFolder};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::chain::{Chain, Finding};
use crate::format::known::{
    Directory, KnownPage, KnownPages, KnownRef, MAX_KNOWN_OBJECT_BYTES, MAX_KNOWN_PAGES,
};
use crate::format::manifest::{
    Known, MAX_SMALL_OBJECT_BYTES, Manifest, ManifestError, ManifestName,
};
use crate::storage::{ErrorKind, TargetError};

/// The snapshots on pages that were read, by the page's name.
pub(super) type Cache = HashMap<Hash, Vec<Known>>;

impl HostFolder {
    /// Reads the earlier snapshots that `manifest` names, in order.
    pub async fn known(&self, manifest: &Manifest) -> Result<Vec<Known>, RepositoryError> {
        self.known_by(&manifest.core.known, &mut Cache::new()).await
    }

    pub(super) async fn known_by(
        &self,
        known: &KnownRef,
        cache: &mut Cache,
    ) -> Result<Vec<Known>, RepositoryError> {
        let named = match known {
            KnownRef::Inline(known) => return Ok(known.clone()),
            KnownRef::Pages(named) => named,
        };
        let mut rows: Vec<Known> = Vec::new();
        for group in self.known_page_names(named).await?.chunks(CONCURRENT_GETS) {
            let missing = group.iter().filter(|page| !cache.contains_key(*page));
            let read = futures::stream::iter(missing)
                .map(async |page| Ok::<_, RepositoryError>((*page, self.known_page(page).await?)))
                .buffered(CONCURRENT_GETS)
                .try_collect::<Vec<_>>()
                .await?;
            cache.extend(read.into_iter().map(|(name, page)| (name, page.known)));
            for page in group {
                let more = &cache[page];
                if rows.last().zip(more.first()).is_some_and(|(a, b)| a >= b) {
                    let what = "its rows do not follow those of the page before it".to_owned();
                    return Err(RepositoryError::Known { page: *page, what });
                }
                rows.extend(more);
            }
        }
        Ok(rows)
    }

    /// Returns the pages that `named` names, itself or through its directories, in order.
    pub async fn known_page_names(&self, named: &KnownPages) -> Result<Vec<Hash>, RepositoryError> {
        let mut directories = futures::stream::iter(&named.directories)
            .map(async |name| Ok::<_, RepositoryError>((name, self.directory(name).await?)))
            .buffered(CONCURRENT_GETS);
        let mut pages: Vec<Hash> = Vec::new();
        while let Some((name, directory)) = directories.try_next().await? {
            pages.extend(directory.directory);
            if pages.len() > MAX_KNOWN_PAGES {
                let what = "the manifest names too many pages".to_owned();
                return Err(RepositoryError::Known { page: *name, what });
            }
        }
        pages.extend(&named.pages);
        Ok(pages)
    }

    /// A page of earlier snapshots.
    pub async fn known_page(&self, page: &Hash) -> Result<KnownPage, RepositoryError> {
        parse_known(page, &self.get_known(page).await?, KnownPage::parse)
    }

    /// A directory of such pages.
    pub async fn directory(&self, name: &Hash) -> Result<Directory, RepositoryError> {
        parse_known(name, &self.get_known(name).await?, Directory::parse)
    }

    /// Whether the object `name` of `tables/` is a page of earlier snapshots, or a directory of
    /// them.
    pub async fn is_history(&self, name: &Hash) -> Result<bool, TargetError> {
        let bytes = self.get_known(name).await?;
        let is_page = parse_known(name, &bytes, KnownPage::parse).is_ok();
        Ok(is_page || parse_known(name, &bytes, Directory::parse).is_ok())
    }

    async fn get_known(&self, name: &Hash) -> Result<bytes::Bytes, TargetError> {
        let key = self.key(&ObjectKey::table(name));
        self.target.get(&key, MAX_KNOWN_OBJECT_BYTES).await
    }

    /// The manifest `name`, whose signature is not checked.
    pub async fn manifest_named(&self, name: &ManifestName) -> Result<Manifest, RepositoryError> {
        let key = self.key(&name.key());
        let bytes = self.target.get(&key, MAX_SMALL_OBJECT_BYTES).await?;
        Manifest::parse_named(name, &bytes).map_err(|_| RepositoryError::Replaced(name.clone()))
    }

    /// Reads the manifest of a snapshot in a chain again, because a chain does not keep the bytes.
    pub async fn manifest(&self, of: &Manifest) -> Result<Manifest, RepositoryError> {
        let read = self.manifest_named(&of.name()).await?;
        match read.digest == of.digest {
            true => Ok(read),
            false => Err(RepositoryError::Replaced(of.name())),
        }
    }

    /// Compares the chain with the earlier snapshots that its newest manifest names; at a fork,
    /// that each of them names.
    pub(super) async fn check_history(&self, chain: &mut Chain) -> Result<(), RepositoryError> {
        let mut cache = Cache::new();
        for head in chain.heads() {
            let name = head.manifest.name();
            match self.known_by(&head.manifest.core.known, &mut cache).await {
                Ok(known) => chain.hold_against(&name, known),
                Err(RepositoryError::Target(error)) if error.kind == ErrorKind::Unavailable => {
                    return Err(error.into());
                }
                // A prune deleted the manifest and its page since the listing.
                Err(RepositoryError::Target(error))
                    if error.kind == ErrorKind::NotFound && !self.is_there(&name.key()).await? => {}
                Err(error) => {
                    let why = crate::base::error_chain::with_causes(&error);
                    chain.findings.push(Finding::History(name, why));
                }
            }
        }
        Ok(())
    }

    /// Adds a finding to `chain` unless `manifest`, which is not its newest, follows from the
    /// snapshots that are here.
    pub async fn check_lineage(
        &self,
        chain: &mut Chain,
        manifest: &Manifest,
    ) -> Result<(), RepositoryError> {
        let whole = self.manifest(manifest).await?;
        match self.known(&whole).await {
            Ok(known) => chain.check_lineage_of(&whole.name(), &known),
            Err(RepositoryError::Target(error)) if error.kind == ErrorKind::Unavailable => {
                return Err(error.into());
            }
            Err(error) => {
                let why = crate::base::error_chain::with_causes(&error);
                chain.findings.push(Finding::History(whole.name(), why));
            }
        }
        Ok(())
    }
}

/// Parses a page of earlier snapshots, or a directory of such pages, which must hash to `name`.
pub fn parse_known<T>(
    name: &Hash,
    bytes: &[u8],
    parse: impl FnOnce(&[u8]) -> Result<T, ManifestError>,
) -> Result<T, RepositoryError> {
    require_hash(name, bytes)?;
    let wrong = |what: String| RepositoryError::Known { page: *name, what };
    parse(bytes).map_err(|error| wrong(error.to_string()))
}

/// Fails unless `bytes` hash to `name`.
pub fn require_hash(name: &Hash, bytes: &[u8]) -> Result<(), RepositoryError> {
    let found = Hash::sha256(bytes);
    if found == *name {
        return Ok(());
    }
    let what = format!("it hashes to {found}: it is damaged or forged");
    Err(RepositoryError::Known { page: *name, what })
}
