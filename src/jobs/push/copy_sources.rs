//! Which targets others can copy from.
//!
//! What a target lacks, and the spool no longer has, may lie on another one. Whether that one lets itself
//! be read is asked before anything is packed: credentials that only write, or a class of storage that must
//! thaw first, make it none to count on.

use std::collections::HashSet;

use futures::StreamExt as _;

use super::inspect_targets::Survey;
use crate::base::ids::{Hash, ObjectKey};
use crate::base::panics::caught;
use crate::repository::HostFolder;
use crate::state::catalog::{Catalog, CatalogArchive, CatalogError};
use crate::state::spool::Spool;
use crate::storage::ErrorKind;

/// Whether others can copy from a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Donor {
    Yes,
    /// Nothing is there yet that could be tried, or the network failed.
    Unknown,
    No,
}

/// What each target is to the others. One small archive of each is tried, of those that another lacks if
/// there are any.
pub(super) async fn ask(
    surveys: &[Survey],
    archives: &[CatalogArchive],
    spool: &Spool,
) -> Vec<Donor> {
    if surveys.len() < 2 {
        return vec![Donor::No; surveys.len()];
    }
    let needed = needed_copies(surveys, archives, spool);
    let asked = surveys.iter().map(async |survey| {
        let Ok(seen) = &survey.seen else {
            return Donor::No;
        };
        if survey.write_only {
            return Donor::No;
        }
        let is_there = |archive: &&CatalogArchive| {
            seen.archives.get(&archive.row.blake3) == Some(&archive.row.bytes)
        };
        let bytes = |archive: &&CatalogArchive| archive.row.bytes;
        let needed = needed.iter().copied().filter(is_there).min_by_key(bytes);
        let any = || archives.iter().filter(is_there).min_by_key(bytes);
        let Some(smallest) = needed.or_else(any) else {
            return Donor::Unknown;
        };
        let key = survey.folder.key(&smallest.row.key());
        match caught(survey.folder.target.get_range(&key, 0..1)).await {
            Ok(Ok(_)) => Donor::Yes,
            // A network that fails now is no reason to store everything again.
            Ok(Err(error)) if error.kind == ErrorKind::Unavailable => Donor::Unknown,
            Ok(Err(_)) | Err(_) => Donor::No,
        }
    });
    let asked: Vec<_> = asked.collect();
    futures::stream::iter(asked)
        .buffered(surveys.len())
        .collect()
        .await
}

/// Archives that a target which answered lacks, and the spool too.
fn needed_copies<'a>(
    surveys: &[Survey],
    archives: &'a [CatalogArchive],
    spool: &Spool,
) -> Vec<&'a CatalogArchive> {
    let seen: Vec<_> = surveys
        .iter()
        .filter_map(|s| s.seen.as_ref().ok())
        .collect();
    let lacking = |archive: &&CatalogArchive| {
        let row = &archive.row;
        let lacks = |seen: &&super::inspect_targets::Seen| {
            seen.archives.get(&row.blake3) != Some(&row.bytes)
        };
        seen.iter().any(lacks) && spool.size(&row.key()) != Some(row.bytes)
    };
    archives.iter().filter(lacking).collect()
}

/// The folders to copy from, for the target `at`.
pub(super) fn donors(surveys: &[Survey], asked: &[Donor], at: usize) -> Vec<HostFolder> {
    let others = surveys.iter().zip(asked).enumerate();
    others
        .filter(|(other, (_, donor))| *other != at && **donor != Donor::No)
        .map(|(_, (survey, _))| survey.folder.clone())
        .collect()
}

/// Whether another than the target `at` may have what that one lacks, and does not answer now.
pub(super) fn is_any_away(surveys: &[Survey], at: usize) -> bool {
    let mut others = surveys.iter().enumerate().filter(|(other, _)| *other != at);
    others.any(|(_, survey)| survey.seen.is_err() && !survey.write_only)
}

/// Damaged archives are none to copy from any more: the next run stores their content again.
pub(super) fn note_damaged(catalog: &Catalog, keys: &[ObjectKey]) -> Result<(), CatalogError> {
    let archives = keys.iter();
    catalog.add_damaged_copies(archives.filter_map(|key| ObjectKey::archive_hash(key.as_str())))
}

/// What lies on targets that can be read.
pub(super) fn on_donors(surveys: &[Survey], asked: &[Donor]) -> HashSet<(Hash, u64)> {
    let donors = surveys
        .iter()
        .zip(asked)
        .filter(|(_, donor)| **donor != Donor::No);
    let seen = donors.filter_map(|(survey, _)| survey.seen.as_ref().ok());
    seen.flat_map(|seen| seen.archives.iter().map(|(hash, bytes)| (*hash, *bytes)))
        .collect()
}
