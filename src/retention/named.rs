//! Which snapshots go where they are named, instead of what a policy says: exactly these, and never the
//! newest, the newest of which nothing is missing, or a pinned one.

use super::{Reason, Reasons};
use crate::base::ids::Stamp;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamedError {
    #[error(
        "snapshot {0} is the newest and stays: the next one follows it. Run `sealift backup` first, then forget it"
    )]
    Newest(Stamp),
    #[error("snapshot {0} is the newest of which nothing is missing, and stays")]
    Whole(Stamp),
    #[error("snapshot {0} is pinned and stays; `sealift pin --remove {0}` unpins it")]
    Pinned(Stamp),
    #[error(
        "snapshot {0} is the last before a source shrank, and stays; if the source is as it should be, say so first: \
         `sealift ack shrunk`"
    )]
    BeforeShrink(Stamp),
    #[error(
        "snapshot {0} is the last before a source failed, and stays; mend that source, or remove it from the \
         configuration, and back up first"
    )]
    BeforeFailure(Stamp),
    #[error("{text:?} names several snapshots; name one by its sequence: {}", sequences.join(", "))]
    Ambiguous {
        text: String,
        sequences: Vec<String>,
    },
}

/// A snapshot that may be named.
#[derive(Debug, Clone)]
pub struct Nameable {
    pub sequence: Option<u64>,
    pub stamp: Stamp,
    /// The last 16 digits of its manifests' names.
    pub hashes: Vec<String>,
}

impl Nameable {
    fn is(&self, text: &str) -> bool {
        let is_sequence = self.sequence.is_some_and(|n| text.parse() == Ok(n));
        let is_hash = self.hashes.iter().any(|hash| hash == text);
        is_sequence || is_hash || self.stamp.to_string() == text
    }
}

/// Returns the place of the one that `text` names: a stamp, a sequence or a hash.
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

/// Refuses a named snapshot that stays for a reason of its own: `reasons` are those of an empty policy.
pub fn may_go(stamp: Stamp, reasons: &Reasons) -> Result<(), NamedError> {
    if reasons.contains(&Reason::Newest) {
        return Err(NamedError::Newest(stamp));
    }
    if reasons.contains(&Reason::Whole) {
        return Err(NamedError::Whole(stamp));
    }
    if reasons.contains(&Reason::Pinned) {
        return Err(NamedError::Pinned(stamp));
    }
    if reasons.contains(&Reason::BeforeShrink) {
        return Err(NamedError::BeforeShrink(stamp));
    }
    if reasons.contains(&Reason::BeforeFailure) {
        return Err(NamedError::BeforeFailure(stamp));
    }
    Ok(())
}
