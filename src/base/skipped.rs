//! A thing that a snapshot lacks, and why: the walk, the producer and the packer report it, and the
//! index carries it to readers.

use serde::{Deserialize, Serialize};

/// A thing that the snapshot lacks or holds torn, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// The path within the snapshot, or within the tree that is walked; lossy if it is not UTF-8.
    pub path: String,
    /// One line for the operator, such as `permission denied`.
    pub reason: String,
}
