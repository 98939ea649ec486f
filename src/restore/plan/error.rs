//! Why a restore cannot be planned.

use crate::base::ids::{ArchiveId, Stamp};
use crate::format::chain::ChainError;
use crate::format::index::Skipped;

/// Of all files. A hole costs an index nothing, and a restore a second for every few gigabytes.
pub(super) const MAX_HOLE_BYTES: u64 = 16 << 40;

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("cannot tell which snapshot is meant")]
    Chain(#[from] ChainError),
    #[error("refusing {stamp} as the latest: {finding} (name a snapshot to restore an older one)")]
    Doubtful { stamp: Stamp, finding: String },
    #[error("snapshot {stamp} is not to be trusted: {finding}")]
    Lineage { stamp: Stamp, finding: String },
    #[error(
        "snapshot {stamp} has sequence {sequence}, but at least {at_least} was asked for: newer ones are hidden or deleted"
    )]
    TooOld {
        stamp: Stamp,
        sequence: u64,
        at_least: u64,
    },
    #[error("the index is for snapshot {found}, the manifest for {expected}")]
    OtherSnapshot { found: String, expected: String },
    #[error("the index names archive {0}, which the manifest's table lacks")]
    UnknownArchive(ArchiveId),
    #[error("hard link {link:?} in the index names {target:?}, which is no earlier file")]
    HardLink { link: String, target: String },
    #[error("the snapshot holds no {path:?}{}", near_misses(near))]
    NoSuchPath { path: String, near: Vec<String> },
    #[error("the snapshot has no {path:?}: {reason}")]
    Lacked { path: String, reason: String },
    #[error("the index has too many entries")]
    TooManyEntries,
    #[error(
        "its files have {0} bytes of holes, and more than {MAX_HOLE_BYTES} are refused: they take no room, but are hashed"
    )]
    Holes(u64),
}

fn near_misses(near: &[String]) -> String {
    match near.is_empty() {
        true => String::new(),
        false => format!(" (is it {}?)", near.join(" or ")),
    }
}

/// Says why a path is missing, if the snapshot's own list of missing sources does.
pub(super) fn explain_lack(error: PlanError, skipped: &[Skipped]) -> PlanError {
    let PlanError::NoSuchPath { path, near } = error else {
        return error;
    };
    let is_it = |one: &&Skipped| {
        is_at_or_below(path.as_bytes(), one.path.as_bytes())
            || is_at_or_below(one.path.as_bytes(), path.as_bytes())
    };
    match skipped.iter().find(is_it) {
        Some(one) => PlanError::Lacked {
            path,
            reason: one.reason.clone(),
        },
        None => PlanError::NoSuchPath { path, near },
    }
}

fn is_at_or_below(path: &[u8], dir: &[u8]) -> bool {
    let rest = path.strip_prefix(dir);
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
