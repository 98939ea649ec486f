//! Deletes snapshots by name instead of by a policy: exactly the named ones, but never the newest,
//! the newest complete one, a pinned one, or one with a tag that keeps it.

use super::{Reason, Reasons};
use crate::base::ids::Stamp;
use crate::base::snapshot_choice::SnapshotName;

/// Why a named snapshot is not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamedError {
    /// It is the newest one.
    #[error(
        "snapshot {0} is the newest and stays: the next one follows it. Run `sealift backup` first, then forget it"
    )]
    Newest(Stamp),
    /// It is the newest complete one.
    #[error("snapshot {0} is the newest complete one and stays")]
    Whole(Stamp),
    /// The operator pinned it.
    #[error("snapshot {0} is pinned and stays; `sealift pin --remove {0}` unpins it")]
    Pinned(Stamp),
    /// It has a tag that keeps it.
    #[error(
        "snapshot {0} has a tag that [retention] keep_tags names, and stays; remove that tag from keep_tags first"
    )]
    Tagged(Stamp),
    /// Its tags are not known.
    #[error(
        "the tags of snapshot {0} are not known here, and it may have one that [retention] keep_tags names: `sealift \
         catalog rebuild --identity FILE` learns them; to delete it in any case, say --yes"
    )]
    TagsUnknown(Stamp),
    /// An alarm about a source that shrank keeps it.
    #[error(
        "snapshot {0} is the last before a source shrank, and stays; if the source is as it should be, acknowledge that \
         first: `sealift ack shrunk`"
    )]
    BeforeShrink(Stamp),
    /// A source that still fails keeps it.
    #[error(
        "snapshot {0} is the last before a source failed, and stays; repair that source, or remove it from the \
         configuration, and back up first"
    )]
    BeforeFailure(Stamp),
    /// It is the newest that a drill restored.
    #[error(
        "snapshot {0} is the last that a drill restored, and stays; drill a newer one first, or say --yes"
    )]
    Proven(Stamp),
    /// Several snapshots have this stamp or sequence.
    #[error("{text:?} names several snapshots; name one by its sequence: {}", sequences.join(", "))]
    Ambiguous {
        /// The name that was given.
        text: String,
        /// The sequences of the snapshots that have it.
        sequences: Vec<String>,
    },
}

/// The names of a snapshot.
#[derive(Debug, Clone)]
pub struct Nameable {
    /// `None`: it is not known, as for a local snapshot that the catalog lost.
    pub sequence: Option<u64>,
    /// The time of its creation.
    pub stamp: Stamp,
    /// The last 16 digits of the names of its manifests.
    pub hashes: Vec<String>,
}

impl Nameable {
    /// Returns whether `text` is one of the names.
    fn is(&self, text: &str) -> bool {
        let name = SnapshotName::parse(text);
        let hashes = self.hashes.iter().cloned();
        name.is_some_and(|name| name.is(self.stamp, self.sequence, hashes))
    }
}

/// Returns the index of the snapshot that `text` names by stamp, sequence or hash; `None` if none
/// has that name.
pub fn find(text: &str, all: &[Nameable]) -> Result<Option<usize>, NamedError> {
    let found = all.iter().enumerate().filter(|(_, one)| one.is(text));
    let found: Vec<(usize, &Nameable)> = found.collect();
    match found.as_slice() {
        [] => Ok(None),
        [(at, _)] => Ok(Some(*at)),
        several => {
            let sequences = several.iter().filter_map(|(_, one)| one.sequence);
            Err(NamedError::Ambiguous {
                text: text.to_owned(),
                sequences: sequences.map(|n| n.to_string()).collect(),
            })
        }
    }
}

/// Refuses to delete a snapshot that stays in spite of being named. `reasons`: those that an empty
/// policy leaves. `confirmed`: the operator accepts that tags are not
/// known, and that no proof is left.
pub fn may_go(stamp: Stamp, reasons: &Reasons, confirmed: bool) -> Result<(), NamedError> {
    let mut reasons = reasons.clone();
    if confirmed {
        reasons.remove(&Reason::TagsUnknown);
        reasons.remove(&Reason::Proven);
    }
    let refused = reasons.iter().find_map(|reason| match reason {
        Reason::Newest => Some(NamedError::Newest(stamp)),
        Reason::Whole => Some(NamedError::Whole(stamp)),
        Reason::Pinned => Some(NamedError::Pinned(stamp)),
        Reason::Tagged => Some(NamedError::Tagged(stamp)),
        Reason::TagsUnknown => Some(NamedError::TagsUnknown(stamp)),
        Reason::BeforeShrink => Some(NamedError::BeforeShrink(stamp)),
        Reason::BeforeFailure => Some(NamedError::BeforeFailure(stamp)),
        Reason::Proven => Some(NamedError::Proven(stamp)),
        _ => None,
    });
    refused.map_or(Ok(()), Err)
}
