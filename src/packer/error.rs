//! Why packing failed.

use std::io;
use std::path::Path;

use super::seal::SealError;
use crate::base::ids::ArchiveId;
use crate::base::walk::WalkError;
use crate::format::signature::SignatureError;
use crate::state::catalog::CatalogError;
use crate::state::spool::SpoolError;

/// Why a snapshot could not be packed, or a catalog not reindexed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A root directory or file of the snapshot cannot be read.
    #[error("cannot read {path}, a part of the snapshot; check that it exists and is readable")]
    Part {
        /// Its path on the host.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Two parts provide the same path.
    #[error("two sources have {0} in the snapshot: give one of them another `to`")]
    Collision(String),
    /// The snapshot, named by its stamp, is not valid.
    #[error("snapshot {0} failed validation; nothing of it was packed")]
    Invalid(String),
    /// A temporary file or the cache of the last snapshot cannot be written.
    #[error("cannot write {path} (is the state directory full or read-only?)")]
    Scratch {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A part's directory cannot be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// An archive cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The catalog cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The spool cannot be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The history is longer than the format allows.
    #[error(
        "there are more earlier snapshots than a manifest can name: \
         forget some (`sealift prune`), then run again"
    )]
    TooManyKnown,
    /// The signer does not sign.
    #[error("cannot sign the manifest")]
    Sign(#[source] SignatureError),
    /// The system has no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    /// An archive's tar stream does not have the length that was written.
    #[error("archive {0} was sealed with another length than written; nothing was published")]
    StreamMismatch(ArchiveId),
    /// The system starts no further thread.
    #[error("cannot start a thread (is there a limit on processes or memory?); run again")]
    Thread {
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A thread ended without reporting why.
    #[error("a thread ended early; nothing was published; run again")]
    ThreadEnded,
    /// The snapshot uses an archive that is not complete.
    #[error("archive {0} is not sealed yet; nothing was published")]
    Unsealed(ArchiveId),
    /// The caller's [`super::LookAtRest`] failed.
    #[error("cannot look at the archives of earlier snapshots")]
    Rest(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller's [`super::OnSealed`] failed.
    #[error("packing was stopped; sealed archives are kept for the next run")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Returns the error of a temporary file or of the cache at `path`.
pub(super) fn scratch_error(path: &Path, source: io::Error) -> PackError {
    PackError::Scratch {
        path: path.display().to_string(),
        source,
    }
}
