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
    surveys: &[InspectedTarget],
    archives: &[CatalogArchive],
    spool: &Spool,
) -> Vec<CopySource> {
    if surveys.len() < 2 {
        return vec![CopySource::No; surveys.len()];
    }
    let needed = needed_copies(surveys, archives, spool);
    let probes = surveys.iter().map(async |survey| {
        let Ok(seen) = &survey.seen else {
            return CopySource::No;
        };
        if survey.write_only {
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
        let key = survey.folder.key(&smallest.row.key());
        match caught(survey.folder.target.get_range(&key, 0..1)).await {
            Ok(Ok(_)) => CopySource::Yes,
            // A network that fails now is no reason to store everything again.
            Ok(Err(error)) if error.kind == ErrorKind::Unavailable => CopySource::Unknown,
            Ok(Err(_)) | Err(_) => CopySource::No,
        }
    });
    let probes: Vec<_> = probes.collect();
    futures::stream::iter(probes)
        .buffered(surveys.len())
        .collect()
        .await
}

/// Returns the archives that the spool lacks, and a target that answered lacks as well.
fn needed_copies<'a>(
    surveys: &[InspectedTarget],
    archives: &'a [CatalogArchive],
    spool: &Spool,
) -> Vec<&'a CatalogArchive> {
    let seen: Vec<_> = surveys
        .iter()
        .filter_map(|survey| survey.seen.as_ref().ok())
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
    surveys: &[InspectedTarget],
    copy_sources: &[CopySource],
    target: usize,
) -> Vec<HostFolder> {
    let others = surveys.iter().zip(copy_sources).enumerate();
    others
        .filter(|(other, (_, source))| *other != target && **source != CopySource::No)
        .map(|(_, (survey, _))| survey.folder.clone())
        .collect()
}

/// Returns whether a target other than that of this index did not answer and may have what that one
/// lacks.
pub(super) fn is_any_away(surveys: &[InspectedTarget], target: usize) -> bool {
    let others = surveys.iter().enumerate();
    let mut others = others.filter(|(other, _)| *other != target);
    others.any(|(_, survey)| survey.seen.is_err() && !survey.write_only)
}

/// Remembers damaged archives: they are not copied again, and the next push stores their content
/// again.
pub(super) fn note_damaged(catalog: &Catalog, keys: &[ObjectKey]) -> Result<(), CatalogError> {
    let archives = keys.iter();
    catalog.add_damaged_copies(archives.filter_map(|key| ObjectKey::archive_hash(key.as_str())))
}

/// Returns the archives, with their sizes, on targets that others can copy from.
pub(super) fn archives_on(
    surveys: &[InspectedTarget],
    copy_sources: &[CopySource],
) -> HashSet<(Hash, u64)> {
    let sources = surveys
        .iter()
        .zip(copy_sources)
        .filter(|(_, source)| **source != CopySource::No);
    let seen = sources.filter_map(|(survey, _)| survey.seen.as_ref().ok());
    seen.flat_map(|seen| seen.archives.iter().map(|(hash, bytes)| (*hash, *bytes)))
        .collect()
}
