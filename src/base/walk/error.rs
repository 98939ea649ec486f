//! Why a tree cannot be walked at all.

use std::io;
use std::path::PathBuf;

use super::exclude::BadLine;

/// Why a tree cannot be walked.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The root cannot be listed.
    #[error("cannot read the directory {}", path.display())]
    Root {
        /// The root.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The root is on a pseudo file system.
    #[error(
        "{} is on a {kind} file system, which has no files that could be restored: name another directory",
        path.display()
    )]
    Pseudo {
        /// The root.
        path: PathBuf,
        /// The file system's name, such as `proc`.
        kind: &'static str,
    },
    /// An exclude line is malformed.
    #[error("{pattern:?} is not an exclude pattern")]
    Pattern {
        /// The line.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: BadLine,
    },
}
