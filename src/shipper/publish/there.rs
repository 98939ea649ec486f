//! What a target has now of what is to be published there.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt as _, TryStreamExt as _};

use super::super::error::ShipError;
use super::{PUBLISH_CONCURRENCY, Publication, Support};
use crate::base::ids::{Hash, MANIFESTS, ObjectKey, TABLES};
use crate::format::manifest::ArchiveRow;
use crate::repository::HostFolder;
use crate::storage::{ErrorKind, TargetError};

/// What the target has now, of what the publications need at the least.
///
/// A small file's snapshot names few objects of the thousands that a target may hold, so they are asked for one by
/// one where that is cheap. What is found is as true as a listing of the same moment.
pub(super) struct There {
    pub archives: HashMap<Hash, u64>,
    /// Pages, signatures and manifests, by key.
    pub small: HashMap<String, u64>,
}

impl There {
    pub(super) async fn look(
        folder: &HostFolder,
        publications: &[Publication],
        support: &Support,
    ) -> Result<Self, ShipError> {
        let rows = || publications.iter().flat_map(|one| &one.archives);
        if let Some(remembered) = &support.remembered {
            let mut archives = remembered.clone();
            let confirmed = rows().filter(|row| support.confirmed.contains(&row.blake3));
            archives.extend(confirmed.map(|row| (row.blake3, row.bytes)));
            // Small ones are put again: what is there stays.
            let small = HashMap::new();
            return Ok(Self { archives, small });
        }
        let (mut archives, small) = match folder.sizes(&named(publications)).await? {
            Some(found) => by_kind(found),
            None => listed(folder).await?,
        };
        let mut asked_for = HashSet::new();
        let unlisted = rows().filter(|row| {
            let is_unlisted =
                support.confirmed.contains(&row.blake3) && !archives.contains_key(&row.blake3);
            is_unlisted && asked_for.insert(row.blake3)
        });
        let unlisted: Vec<&ArchiveRow> = unlisted.collect();
        let asked = futures::stream::iter(unlisted)
            .map(async |row| Ok::<_, TargetError>((row, is_there(folder, row).await?)))
            .buffer_unordered(PUBLISH_CONCURRENCY)
            .try_collect::<Vec<_>>()
            .await?;
        let found = asked.into_iter().filter(|(_, there)| *there);
        archives.extend(found.map(|(row, _)| (row.blake3, row.bytes)));
        Ok(Self { archives, small })
    }
}

/// Everything that the publications need there, and their manifests.
fn named(publications: &[Publication]) -> Vec<ObjectKey> {
    let mut named = BTreeSet::new();
    for one in publications {
        named.extend(one.archives.iter().map(ArchiveRow::key));
        let pages = one.manifest.pages.iter().chain(&one.known);
        named.extend(pages.map(ObjectKey::table));
        let name = one.manifest.name();
        named.extend([name.signature_key(), name.key()]);
    }
    named.into_iter().collect()
}

/// Archives, and the others.
fn by_kind(found: HashMap<String, u64>) -> (HashMap<Hash, u64>, HashMap<String, u64>) {
    let (mut archives, mut small) = (HashMap::new(), HashMap::new());
    for (key, bytes) in found {
        match ObjectKey::archive_hash(&key) {
            Some(hash) => drop(archives.insert(hash, bytes)),
            None => drop(small.insert(key, bytes)),
        }
    }
    (archives, small)
}

async fn listed(
    folder: &HostFolder,
) -> Result<(HashMap<Hash, u64>, HashMap<String, u64>), TargetError> {
    let (archives, mut small, manifests) = futures::future::try_join3(
        folder.archives_present(),
        folder.list(TABLES),
        folder.list(MANIFESTS),
    )
    .await?;
    small.extend(manifests);
    Ok((archives, small))
}

/// Whether an archive that the target confirmed, and does not list, is there. Where nobody may read, its
/// word must do.
async fn is_there(folder: &HostFolder, row: &ArchiveRow) -> Result<bool, TargetError> {
    let key = folder.key(&row.key());
    match folder.target.get_range(&key, 0..1).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind {
            ErrorKind::Denied | ErrorKind::Frozen => Ok(true),
            ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}
