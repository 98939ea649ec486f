//! Why a record is refused.

use std::io;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RestoredError {
    /// Reading it failed.
    #[error("cannot read restored.jsonl")]
    Read(#[source] io::Error),
    /// It is of a later version.
    #[error("restored.jsonl is of version {0}; this sealift reads version 1: use a newer one")]
    Version(u64),
    /// It ends before its last line.
    #[error("restored.jsonl is truncated: it ends after line {line}")]
    Truncated {
        /// The number of its last complete line; 0: there is none.
        line: u64,
    },
    /// A line breaks a rule.
    #[error("line {line} of restored.jsonl is malformed: {what}")]
    Malformed {
        /// The number of the line, from 1.
        line: u64,
        /// The rule that it breaks.
        what: String,
    },
    /// Its content does not have the hash in its last line.
    #[error("restored.jsonl is damaged: its last line has the hash of other content")]
    Damaged,
}
