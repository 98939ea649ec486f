//! Why an archive could not be read.

use std::fmt;
use std::io;

use super::PARALLEL_ARCHIVES;
use crate::base::error_chain::with_causes;
use crate::base::ids::{ArchiveId, ObjectKey};
use crate::restore::open::OpenArchiveError;
use crate::restore::plan::ArchiveJob;
use crate::storage::{ErrorKind, TargetError};

/// Why the content of one archive could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The target did not deliver it.
    #[error("it could not be fetched: {}", with_causes(.0))]
    Fetch(TargetError),
    /// The target delivered fewer or more bytes than the manifest states.
    #[error("it has {found} bytes, the manifest says {expected}")]
    Size {
        /// Bytes that were delivered, or `more than N`.
        found: String,
        /// Bytes that the manifest states.
        expected: u64,
    },
    /// The named hash (`BLAKE3`, or the one of its `age header`) is not the manifest's.
    #[error("its {0} is not the manifest's: it is damaged or another one")]
    Hash(&'static str),
    /// It cannot be decrypted or decompressed.
    #[error("{0}")]
    Open(OpenArchiveError),
    /// Its tar stream contradicts the index.
    #[error("its tar stream is not what the index says: {0}")]
    Stream(String),
    /// This machine could not write its content.
    #[error("cannot write its content: {0}")]
    Write(io::Error),
    /// It was not requested, because the target had failed too often before.
    #[error("it was not requested: the target delivered none of the last {PARALLEL_ARCHIVES}")]
    NotAsked,
    /// A thread of this process ended early.
    #[error("the restore was stopped")]
    Stopped,
}

impl ArchiveError {
    /// Returns the same error for another reader of the archive.
    pub(in crate::restore) fn again(&self) -> Self {
        match self {
            Self::Fetch(error) => {
                let cause = error.source.to_string();
                let (key, target) = (&error.key, &error.target);
                let again = TargetError::new(error.operation, key, target, error.kind, cause);
                Self::Fetch(again)
            }
            Self::Size { found, expected } => Self::Size {
                found: found.clone(),
                expected: *expected,
            },
            Self::Hash(hash) => Self::Hash(hash),
            Self::Open(error) => Self::Open(error.clone()),
            Self::Stream(what) => Self::Stream(what.clone()),
            Self::Write(error) => Self::Write(io::Error::new(error.kind(), error.to_string())),
            Self::NotAsked => Self::NotAsked,
            Self::Stopped => Self::Stopped,
        }
    }

    /// Whether the archive is encrypted to none of the identities.
    pub fn lacks_identity(&self) -> bool {
        matches!(self, Self::Open(OpenArchiveError::NoMatchingKey { .. }))
    }

    /// Whether the identities, the network or this machine's disk are the cause: it says nothing
    /// against the archive.
    pub fn spares_the_archive(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::Write(_)) || self.lacks_identity()
    }
}

/// An archive that could not be read.
#[derive(Debug)]
pub struct Damaged {
    /// The archive's number in the table.
    pub archive: ArchiveId,
    /// The archive's key below the host's folder.
    pub key: ObjectKey,
    /// Why.
    pub error: ArchiveError,
    /// The numbers of the plan's entries that lack bytes because of it.
    pub entries: Vec<u32>,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive {} ({}): {}", self.archive, self.key, self.error)
    }
}

impl Damaged {
    /// Whether it is in cold storage, whole but not readable.
    pub fn is_frozen(&self) -> bool {
        matches!(&self.error, ArchiveError::Fetch(error) if error.kind == ErrorKind::Frozen)
    }

    /// Returns what the failure of `job` means for the restore.
    pub(in crate::restore) fn of_job(job: &ArchiveJob, error: ArchiveError) -> Self {
        Self {
            archive: job.row.id,
            key: job.row.key(),
            error,
            entries: job.pieces.iter().map(|piece| piece.entry).collect(),
        }
    }

    pub(super) fn not_asked(job: &ArchiveJob) -> Self {
        Self::of_job(job, ArchiveError::NotAsked)
    }

    /// Whether the target does not answer, or refuses.
    pub(in crate::restore) fn is_the_targets_fault(&self) -> bool {
        let kind = match &self.error {
            ArchiveError::Fetch(error) => error.kind,
            _ => return false,
        };
        matches!(kind, ErrorKind::Unavailable | ErrorKind::Denied)
    }
}

/// Returns `damaged`, or the cause if this machine could not open or write an archive: then no
/// other target and no older snapshot helps.
pub(in crate::restore) fn without_local_failures(
    damaged: Vec<Damaged>,
) -> Result<Vec<Damaged>, io::Error> {
    let (mut rest, mut cause) = (Vec::new(), None);
    for one in damaged {
        match one.error {
            ArchiveError::Write(source) => cause = Some(source),
            ArchiveError::Open(error @ OpenArchiveError::NoMemory) => {
                cause = Some(io::Error::new(io::ErrorKind::OutOfMemory, error));
            }
            error => rest.push(Damaged { error, ..one }),
        }
    }
    cause.map_or(Ok(rest), Err)
}
