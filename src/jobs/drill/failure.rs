//! What a failed restore says about the snapshot, as codes for receipts: no paths.

use serde::Serialize;

use crate::restore::{ArchiveError, Damaged, ExtractError, PlanError, RestoreError};
use crate::storage::ErrorKind;

/// Codes of what failed.
pub(super) mod code {
    /// The chain does not let the snapshot be trusted.
    pub(in crate::jobs) const CHAIN: &str = "chain";
    pub(in crate::jobs) const INDEX_DAMAGED: &str = "index_damaged";
    pub(in crate::jobs) const ARCHIVE_MISSING: &str = "archive_missing";
    pub(in crate::jobs) const ARCHIVE_DAMAGED: &str = "archive_damaged";
    /// The content of a file is not what was sealed.
    pub(in crate::jobs) const FILE_DAMAGED: &str = "file_damaged";
    /// A database fails its check, or has other rows than were sealed.
    pub(in crate::jobs) const DATABASE_DAMAGED: &str = "database_damaged";
    /// The check of a database did not end.
    pub(in crate::jobs) const DATABASE_UNCHECKED: &str = "database_unchecked";
    pub(in crate::jobs) const START_FAILED: &str = "start_failed";
    pub(in crate::jobs) const CHECK_FAILED: &str = "check_failed";
    pub(in crate::jobs) const STOP_FAILED: &str = "stop_failed";
}

/// What went wrong in a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DrillProblem {
    /// For the receipt.
    pub(crate) code: String,
    /// For the operator of the drill; it may name paths.
    pub(crate) text: String,
}

impl DrillProblem {
    pub(super) fn new(code: &str, text: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            text: text.into(),
        }
    }
}

/// Returns the codes if the snapshot is to blame for the error. `None`: the circumstances are, such
/// as the network, this machine's disk, or the identity.
pub(super) fn codes(error: &RestoreError) -> Option<Vec<&'static str>> {
    match error {
        RestoreError::Plan(PlanError::Doubtful { .. } | PlanError::Lineage { .. }) => {
            Some(vec![code::CHAIN])
        }
        RestoreError::Plan(PlanError::Chain(_) | PlanError::TooOld { .. }) => None,
        RestoreError::Plan(_) | RestoreError::Index { .. } | RestoreError::IndexContent { .. } => {
            Some(vec![code::INDEX_DAMAGED])
        }
        RestoreError::IndexArchives { damaged, .. } => of_archives(damaged, Vec::new()),
        RestoreError::Incomplete { archives, .. } if archives.is_empty() => {
            Some(vec![code::FILE_DAMAGED])
        }
        RestoreError::Incomplete { archives, .. } => of_archives(archives, Vec::new()),
        RestoreError::Extract(ExtractError::Databases(_)) => Some(vec![code::DATABASE_DAMAGED]),
        _ => None,
    }
}

fn of_archives(damaged: &[Damaged], mut codes: Vec<&'static str>) -> Option<Vec<&'static str>> {
    for one in damaged {
        let code = match &one.error {
            ArchiveError::Fetch(error) if error.kind == ErrorKind::NotFound => {
                code::ARCHIVE_MISSING
            }
            ArchiveError::NotAsked | ArchiveError::Stopped => continue,
            error if error.spares_the_archive() => return None,
            _ => code::ARCHIVE_DAMAGED,
        };
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    (!codes.is_empty()).then_some(codes)
}
