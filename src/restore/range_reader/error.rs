//! Why a part of an archive cannot be read.

use std::sync::Arc;

use crate::base::ids::{ArchiveId, ObjectKey};
use crate::format::manifest::ArchiveRow;
use crate::restore::cold_storage::Frozen;
use crate::restore::fetch::ArchiveError;
use crate::restore::open::OpenArchiveError;
use crate::storage::{ErrorKind, TargetError};

/// Why a part of an archive cannot be read. All readers that waited for it get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RangeError {
    /// An archive is missing, unreadable or damaged.
    #[error("archive {archive} ({key}) on {target} {}", judge(.source))]
    Archive {
        /// The archive.
        archive: ArchiveId,
        /// Its object.
        key: ObjectKey,
        /// The target's label.
        target: String,
        /// What is wrong with it.
        #[source]
        source: Arc<ArchiveError>,
    },
    /// An archive is in cold storage.
    #[error("{0}")]
    Frozen(Frozen),
    /// The index names an archive that the table lacks.
    #[error("archive {0} is in the index and not in the table of the snapshot")]
    NotInTable(ArchiveId),
}

impl RangeError {
    /// Returns the error of the archive `row` on `target`.
    pub(super) fn new(row: &ArchiveRow, target: &str, source: ArchiveError) -> Self {
        if let ArchiveError::Fetch(error) = &source
            && error.kind == ErrorKind::Frozen
        {
            return Self::Frozen(Frozen {
                archives: vec![(row.key(), row.bytes)],
                needed: 1,
            });
        }
        Self::Archive {
            archive: row.id,
            key: row.key(),
            target: target.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Whether the archive is not what its row says: another target may have it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Archive { source, .. } if is_damage(source))
    }
}

/// Whether `error` means that the object itself is wrong.
pub(super) fn is_damage(error: &ArchiveError) -> bool {
    match error {
        ArchiveError::Size { .. } | ArchiveError::Hash(_) | ArchiveError::Stream(_) => true,
        ArchiveError::Open(error) => matches!(
            error,
            OpenArchiveError::Truncated | OpenArchiveError::Corrupt(_)
        ),
        // A range beyond the object's end, among others.
        ArchiveError::Fetch(error) => error.kind == ErrorKind::Permanent,
        _ => false,
    }
}

fn judge(error: &ArchiveError) -> &'static str {
    match error {
        ArchiveError::Fetch(TargetError {
            kind: ErrorKind::NotFound,
            ..
        }) => "is missing there: another target may have it",
        error if is_damage(error) => "is damaged there: another target may have it",
        _ => "cannot be read",
    }
}
