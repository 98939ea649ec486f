//! Which targets others can copy from.
//!
//! An archive that a target and the spool lack may be on another target. Before packing, a probe
//! read checks whether a target can serve as copy source; write-only credentials and cold storage
//! cannot.

use std::collections::HashSet;

use futures::StreamExt as _;

use super::inspect_targets::{InspectedTarget, TargetInventory};
use crate::base::ids::{Hash, ObjectKey};
use crate::base::panics::caught;
use crate::repository::HostFolder;
use crate::state::catalog::{Catalog, CatalogArchive, CatalogError};
use crate::state::spool::Spool;
use crate::storage::ErrorKind;

/// Whether others can copy from a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopySource {
    /// A probe read succeeded.
    Yes,
    /// There is nothing to probe yet, or the network failed.
    Unknown,
    /// It did not answer, or its archives cannot be read now.
    No,
}

/// Probes each target with its smallest archive, preferably one that another target lacks. Returns
/// one answer per target, in their order.
pub(super) async fn probe(
    inspected_targets: &[InspectedTarget],
    archives: &[CatalogArchive],
    spool: &Spool,
) -> Vec<CopySource> {
    if inspected_targets.len() < 2 {
        return vec![CopySource::No; inspected_targets.len()];
    }
    let needed = needed_copies(inspected_targets, archives, spool);
    let probes = inspected_targets.iter().map(async |inspected| {
        let Ok(seen) = &inspected.seen else {
            return CopySource::No;
        };
        if inspected.write_only {
            return CopySource::No;
        }
        let is_there = |archive: &&CatalogArchive| {
            seen.archives.get(&archive.row.blake3) == Some(&archive.row.bytes)
        };
        let bytes = |archive: &&CatalogArchive| archive.row.bytes;
        let needed = needed.iter().copied().filter(is_there).min_by_key(bytes);
        let any = || archives.iter().filter(is_there).min_by_key(bytes);
        let Some(smallest) = needed.or_else(any) else {
            return CopySource::Unknown;
        };
        let key = inspected.folder.key(&smallest.row.key());
        match caught(inspected.folder.target.get_range(&key, 0..1)).await {
            Ok(Ok(_)) => CopySource::Yes,
            // A network that fails now is no reason to store everything again.
            Ok(Err(error)) if error.kind == ErrorKind::Unavailable => CopySource::Unknown,
            Ok(Err(_)) | Err(_) => CopySource::No,
        }
    });
    let probes: Vec<_> = probes.collect();
    futures::stream::iter(probes)
        .buffered(inspected_targets.len())
        .collect()
        .await
}

/// Returns the archives that the spool lacks, and a target that answered lacks as well.
fn needed_copies<'a>(
    inspected_targets: &[InspectedTarget],
    archives: &'a [CatalogArchive],
    spool: &Spool,
) -> Vec<&'a CatalogArchive> {
    let seen: Vec<_> = inspected_targets
        .iter()
        .filter_map(|inspected| inspected.seen.as_ref().ok())
        .collect();
    let is_needed = |archive: &&CatalogArchive| {
        let row = &archive.row;
        // It is unknown whether a target lacks an archive that was not looked at.
        let lacks = |seen: &&TargetInventory| {
            seen.scope.covers(&row.blake3) && seen.archives.get(&row.blake3) != Some(&row.bytes)
        };
        seen.iter().any(lacks) && spool.size(&row.key()) != Some(row.bytes)
    };
    archives.iter().filter(is_needed).collect()
}

/// Returns the folders that the target of this index can copy from.
pub(super) fn folders_for(
    inspected_targets: &[InspectedTarget],
    copy_sources: &[CopySource],
    target: usize,
) -> Vec<HostFolder> {
    let others = inspected_targets.iter().zip(copy_sources).enumerate();
    others
        .filter(|(other, (_, source))| *other != target && **source != CopySource::No)
        .map(|(_, (inspected, _))| inspected.folder.clone())
        .collect()
}

/// Returns whether a target other than that of this index did not answer and may have what that one
/// lacks.
pub(super) fn is_any_away(inspected_targets: &[InspectedTarget], target: usize) -> bool {
    let others = inspected_targets.iter().enumerate();
    let mut others = others.filter(|(other, _)| *other != target);
    others.any(|(_, inspected)| inspected.seen.is_err() && !inspected.write_only)
}

/// Remembers damaged archives: they are not copied again, and the next push stores their content
/// again.
pub(super) fn note_damaged(catalog: &Catalog, keys: &[ObjectKey]) -> Result<(), CatalogError> {
    let archives = keys.iter();
    catalog.add_damaged_copies(archives.filter_map(|key| ObjectKey::archive_hash(key.as_str())))
}

/// Returns the archives, with their sizes, on targets that others can copy from.
pub(super) fn archives_on(
    inspected_targets: &[InspectedTarget],
    copy_sources: &[CopySource],
) -> HashSet<(Hash, u64)> {
    let sources = inspected_targets
        .iter()
        .zip(copy_sources)
        .filter(|(_, source)| **source != CopySource::No);
    let seen = sources.filter_map(|(inspected, _)| inspected.seen.as_ref().ok());
    seen.flat_map(|seen| seen.archives.iter().map(|(hash, bytes)| (*hash, *bytes)))
        .collect()
}
