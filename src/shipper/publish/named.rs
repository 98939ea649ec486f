//! Reads what a manifest names from its own pages and directories.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt as _, TryStreamExt as _};

use super::super::error::ShipError;
use super::{PUBLISH_CONCURRENCY, Publication, first_of, incomplete};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::known::Directory;
use crate::format::manifest::{ArchiveRow, ManifestName, TablePage};
use crate::repository::{ArchiveTable, HostFolder, RepositoryError, parse_known, parse_page};
use crate::state::spool::Spool;
use crate::storage::ErrorKind;

/// Fails unless `publication` lists exactly the archives that the manifest's pages name, and every
/// page and directory of earlier snapshots. The publication checks only what is listed.
pub(super) async fn require_all_listed(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
) -> Result<(), ShipError> {
    let name = publication.manifest.name();
    let pages = futures::stream::iter(&publication.manifest.pages)
        .map(|hash| read_page(folder, spool, &name, hash))
        .buffered(PUBLISH_CONCURRENCY)
        .try_collect::<Vec<_>>()
        .await?;
    let table = ArchiveTable::join(name.clone(), pages)?;
    let handed_over: HashMap<Hash, &ArchiveRow> = publication
        .archives
        .iter()
        .map(|row| (row.blake3, row))
        .collect();
    let rows = table.rows.values();
    let unlisted = rows
        .filter(|row| handed_over.get(&row.blake3) != Some(row))
        .map(ArchiveRow::key);
    let mut unlisted: Vec<ObjectKey> = unlisted.collect();
    let known = known_names(folder, spool, publication).await?;
    let listed: HashSet<&Hash> = publication.known.iter().collect();
    let known = known.iter().filter(|name| !listed.contains(name));
    unlisted.extend(known.map(ObjectKey::table));
    if unlisted.is_empty() {
        return Ok(());
    }
    Err(ShipError::Unlisted {
        manifest: name,
        count: unlisted.len(),
        first: first_of(&unlisted),
    })
}

/// Returns the pages of earlier snapshots that the manifest names, and the directories of such
/// pages. Directories are read from the spool, or from the target if the spool lacks them.
async fn known_names(
    folder: &HostFolder,
    spool: &Spool,
    publication: &Publication,
) -> Result<Vec<Hash>, ShipError> {
    let manifest = &publication.manifest;
    let Some(named) = manifest.core.known.pages() else {
        return Ok(Vec::new());
    };
    let mut names = [&named.pages[..], &named.directories].concat();
    for name in &named.directories {
        let key = ObjectKey::table(name);
        let directory = match (publication.at_hand.get(name), spool.contains(&key)) {
            (Some(bytes), _) => parse_known(name, bytes, Directory::parse)?,
            (None, true) => parse_known(name, &spool.read(&key)?, Directory::parse)?,
            (None, false) => match folder.directory(name).await {
                Err(RepositoryError::Target(error)) if error.kind == ErrorKind::NotFound => {
                    return Err(incomplete(folder, &manifest.name(), &[key]));
                }
                other => other?,
            },
        };
        names.extend(directory.directory);
    }
    Ok(names)
}

/// Reads a page from the spool, or from the target if the spool lacks it.
async fn read_page(
    folder: &HostFolder,
    spool: &Spool,
    manifest: &ManifestName,
    hash: &Hash,
) -> Result<TablePage, ShipError> {
    let key = ObjectKey::table(hash);
    if spool.contains(&key) {
        return Ok(parse_page(hash, &spool.read(&key)?)?);
    }
    match folder.page(hash).await {
        Err(RepositoryError::Target(error)) if error.kind == ErrorKind::NotFound => {
            Err(incomplete(folder, manifest, &[key]))
        }
        other => Ok(other?),
    }
}
