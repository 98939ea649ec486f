//! Why a restore cannot be planned.

use crate::base::ids::{ArchiveId, Stamp};
use crate::base::path_choice::is_at_or_below;
use crate::format::chain::ChainError;
use crate::format::index::Skipped;

/// Bytes of holes, in all files, that a restore accepts. A hole costs an index nothing, and a
/// restore a second for every few gigabytes.
pub(super) const MAX_HOLE_BYTES: u64 = 16 << 40;

/// Why a restore cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The request names no snapshot, or several.
    #[error("cannot find the snapshot")]
    Chain(#[from] ChainError),
    /// A newer manifest cannot be read, so the latest snapshot is unknown.
    #[error("refusing {stamp} as the latest: {finding} (name a snapshot to restore an older one)")]
    Doubtful {
        /// The newest readable snapshot.
        stamp: Stamp,
        /// What is wrong with the newer manifest.
        finding: String,
        /// The next step, if the finding has one of its own.
        next: Option<&'static str>,
    },
    /// The snapshot does not descend from those before it.
    #[error("snapshot {stamp} cannot be trusted: {finding}")]
    Lineage {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// The contradiction.
        finding: String,
    },
    /// The snapshot's sequence number is lower than the request allows.
    #[error(
        "snapshot {stamp} has sequence {sequence}, but at least {at_least} was requested: newer ones are hidden or deleted"
    )]
    TooOld {
        /// The snapshot's stamp.
        stamp: Stamp,
        /// The snapshot's sequence number.
        sequence: u64,
        /// The lowest number that the request allows.
        at_least: u64,
    },
    /// The index belongs to another snapshot.
    #[error("the index is for snapshot {found}, the manifest for {expected}")]
    OtherSnapshot {
        /// Stamp and host of the index.
        found: String,
        /// Stamp and host of the manifest.
        expected: String,
    },
    /// The index names an archive that is not in the table.
    #[error("the index names archive {0}, which the manifest's table lacks")]
    UnknownArchive(ArchiveId),
    /// The first name of a hard link is not a file before it.
    #[error("hard link {link:?} in the index names {target:?}, which is no earlier file")]
    HardLink {
        /// The link's path.
        link: String,
        /// The path of its first name.
        target: String,
    },
    /// The snapshot has no such path.
    #[error("no {path:?} in this snapshot{}", near_misses(near))]
    NoSuchPath {
        /// The requested path.
        path: String,
        /// Up to three similar paths of the snapshot, quoted.
        near: Vec<String>,
    },
    /// The glob matches no path of the snapshot.
    #[error("nothing in this snapshot matches {glob:?}{}", near_matches(near))]
    NoMatch {
        /// The glob.
        glob: String,
        /// Up to three paths that it may mean, quoted.
        near: Vec<String>,
    },
    /// The snapshot has no such path, and its own list says why.
    #[error("no {path:?} in this snapshot: {reason}")]
    Lacked {
        /// The requested path.
        path: String,
        /// The reason in the list.
        reason: String,
    },
    /// The index has more entries than numbers fit 32 bits.
    #[error("the index has too many entries")]
    TooManyEntries,
    /// The files have too many bytes of holes.
    #[error(
        "its files have {0} bytes of holes, and more than {MAX_HOLE_BYTES} are refused: they take no space, but must be hashed"
    )]
    Holes(u64),
}

fn near_misses(near: &[String]) -> String {
    match near.is_empty() {
        true => String::new(),
        false => format!(". Did you mean {}?", near.join(" or ")),
    }
}

/// Returns `. There is A, B`, or nothing.
pub(crate) fn near_matches(near: &[String]) -> String {
    match near.is_empty() {
        true => String::new(),
        false => format!(". There is {}", near.join(", ")),
    }
}

/// Adds to a missing path the reason from the snapshot's list of skipped entries, if it has one.
pub(super) fn explain_lack(error: PlanError, skipped: &[Skipped]) -> PlanError {
    let PlanError::NoSuchPath { path, near } = error else {
        return error;
    };
    let is_it = |one: &&Skipped| {
        let (path, lacked) = (path.as_bytes(), one.path.as_bytes());
        is_at_or_below(path, lacked) || is_at_or_below(lacked, path)
    };
    match skipped.iter().find(is_it) {
        Some(one) => PlanError::Lacked {
            path,
            reason: one.reason.clone(),
        },
        None => PlanError::NoSuchPath { path, near },
    }
}
