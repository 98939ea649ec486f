//! Why an object was not shipped or copied.

use std::io;

use crate::base::ids::ObjectKey;
use crate::format::manifest::ManifestName;
use crate::repository::RepositoryError;
use crate::state::spool::SpoolError;
use crate::storage::TargetError;

/// Why a snapshot, or one of its objects, was not shipped.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The snapshots or pages on a target cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An archive could not be copied from another target.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// There are prune marks whose content is unknown.
    #[error(
        "{target} holds {count} prune marks that were not read, for there are too many or they are too large: what they \
         name is unknown. See who writes there, and remove them from marks/ (`sealift prune` writes those again \
         that are needed)"
    )]
    UnreadMarks {
        /// Label of the target.
        target: String,
        /// How many were not read.
        count: usize,
    },
    /// An object that should be shipped is not in the spool.
    #[error("{0} was to be shipped, but is not in the spool")]
    NotInSpool(ObjectKey),
    /// No source has the objects of a snapshot.
    #[error(
        "cannot publish {manifest} on {target}: {count} of its objects are neither there nor in the spool, nor on a \
         target that can be read ({first})"
    )]
    Incomplete {
        /// The snapshot.
        manifest: ManifestName,
        /// Label of the target.
        target: String,
        /// How many objects are missing.
        count: usize,
        /// Keys of the first few.
        first: String,
    },
    /// The target is full.
    #[error("there is no room for {manifest} on {target}: {cause}")]
    NoRoom {
        /// The snapshot.
        manifest: ManifestName,
        /// Label of the target.
        target: String,
        /// The target's error and its causes.
        cause: String,
    },
    /// The caller's list of archives and pages is not the manifest's.
    #[error(
        "cannot publish {manifest}: it names {count} archives and pages that were not handed over ({first})"
    )]
    Unlisted {
        /// The snapshot.
        manifest: ManifestName,
        /// How many were not handed over.
        count: usize,
        /// Keys of the first few.
        first: String,
    },
}

/// Why an archive was not copied from target to target.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the two targets failed; the error says which.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The archive is not whole where it should be copied from.
    #[error(
        "{key} on {target} is damaged ({how}); it was not copied: `verify --data` finds all that are"
    )]
    Damaged {
        /// The archive.
        key: ObjectKey,
        /// Label of the target that was read.
        target: String,
        /// How it differs from its row.
        how: String,
    },
    /// The local file that an archive passes through cannot be made or written.
    #[error("cannot write {path}, where archives are kept on their way from target to target")]
    Scratch {
        /// The directory of the file.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}
