//! Why a tree cannot be walked at all.

use std::io;
use std::path::PathBuf;

use super::exclude::BadLine;

#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("cannot read the directory {}", path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is on a {kind} file system, which has no files that could be restored: name another directory",
        path.display()
    )]
    Pseudo { path: PathBuf, kind: &'static str },
    #[error("{pattern:?} is no exclude pattern")]
    Pattern {
        pattern: String,
        #[source]
        source: BadLine,
    },
}
