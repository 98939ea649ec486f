//! Looks which objects of the publications a target has now.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt as _, TryStreamExt as _};

use super::super::error::ShipError;
use super::{PUBLISH_CONCURRENCY, Publication, Support};
use crate::base::ids::{Hash, MANIFESTS, ObjectKey, TABLES};
use crate::format::manifest::ArchiveRow;
use crate::repository::HostFolder;
use crate::storage::{ErrorKind, TargetError};

/// The objects on the target, with their sizes: at least all that are there of those that the
/// publications need.
///
/// A snapshot of a small file names few of the thousands of objects that a target may hold, so they
/// are requested one by one if that is cheap. The answer is as reliable as a listing at the same
/// moment.
pub(super) struct PresentObjects {
    /// Archives, by BLAKE3.
    pub archives: HashMap<Hash, u64>,
    /// Pages, signatures and manifests, by key.
    pub small: HashMap<String, u64>,
}

impl PresentObjects {
    /// Looks at the target, or uses the memory of `support` if the target cannot be read.
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
            // Small objects are put again, and a target keeps those that it has.
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

/// Returns the keys of all objects that the publications need, and of their manifests.
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

/// Splits objects into archives, by BLAKE3, and the others, by key.
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

/// Lists archives, by BLAKE3, and the small objects, by key.
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

/// Returns whether an archive is there that the target confirmed and does not list. If it may not
/// be read, the confirmation must do.
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
