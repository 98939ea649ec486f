//! Where the packer reads a part of the snapshot.

use crate::state::staged_snapshot::Part;

/// Where a file is read, which decides how far the packer must expect it to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a directory that the producer staged. Nothing changes there, except that a later staging
    /// may hard-link its files.
    Staged,
    /// In place, in a tree that its owner may change at any time.
    Live,
}

impl Origin {
    pub(super) fn of(part: &Part) -> Self {
        match part.staged {
            true => Self::Staged,
            false => Self::Live,
        }
    }
}
