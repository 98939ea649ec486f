//! Why there is no snapshot, and why a source is not in one: the cause, and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::sqlite::SqliteError;
use crate::base::walk::WalkError;
use crate::state::staged_snapshot::LeftOut;

#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("there is nothing to back up: the configuration names no source")]
    NoSources,
    #[error("no source is named {name:?}; there is {}", known.join(", "))]
    UnknownInclude { name: String, known: Vec<String> },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A source that is required, or the only one.
    #[error("no snapshot was made: the source {name:?} could not be taken")]
    Source {
        name: String,
        #[source]
        source: Box<SourceError>,
    },
    #[error("no snapshot was made: every source failed{}", indented(&reasons(failed)))]
    EverySource { failed: Vec<LeftOut> },
    #[error("the snapshot is not valid ({}) and will not be packed; it is kept as {}{}", errors.join(", "), dir.display(), indented(details))]
    Invalid {
        dir: PathBuf,
        errors: Vec<String>,
        details: Vec<String>,
    },
}

impl ProduceError {
    /// The next step, if there is one to name beside the causes.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Source { source, .. } => Some(source.next()),
            Self::Invalid { .. } => Some(
                "back up again; if it fails twice, suspect the disk or the source itself"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn indented(details: &[String]) -> String {
    details.iter().map(|line| format!("\n  {line}")).collect()
}

fn reasons(failed: &[LeftOut]) -> Vec<String> {
    let reason = |one: &LeftOut| format!("{}: {}. Next: {}", one.source, one.cause, one.next);
    failed.iter().map(reason).collect()
}

/// Why one source could not be taken. [`SourceError::next`] says what to do about each.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("nothing is mounted at {}, and `mountpoint = true` says that there must be", .0.display())]
    NotMounted(PathBuf),
    #[error("{} lacks {}, which `must_exist` names", path.display(), marker.display())]
    NoMarker {
        path: PathBuf,
        marker: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("cannot start `{line}`")]
    Start {
        line: String,
        #[source]
        source: io::Error,
    },
    #[error("`{line}` failed, {status}: {stderr}")]
    Command {
        line: String,
        /// How it ended, with what that means.
        status: String,
        stderr: String,
    },
    #[error("`{line}` wrote nothing to its standard output: {stderr}")]
    Empty { line: String, stderr: String },
    #[error("the lock file {} stayed locked for {} s", path.display(), waited.as_secs())]
    Locked { path: PathBuf, waited: Duration },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("its `after` failed as well ({after})")]
    Both {
        after: String,
        #[source]
        source: Box<SourceError>,
    },
    #[error(transparent)]
    Walk(WalkError),
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

impl SourceError {
    /// What the operator is to do.
    pub fn next(&self) -> String {
        let next = match self {
            Self::Missing(_) => {
                "see that it is mounted and that `path` is right; `optional = true` says that it may be missing"
            }
            Self::NotMounted(_) => {
                "mount the disk, then back up again; if it is no longer one of its own, remove `mountpoint`"
            }
            Self::NoMarker { .. } => {
                "see that its disk is mounted and holds what it should; if that file is gone for good, remove it \
                 from `must_exist`"
            }
            Self::NotADirectory(_) => {
                "correct `path`; a single file is a source of kind \"sqlite\" or \"json\", or a tree with \
                 `stage = false`"
            }
            Self::Start { .. } => {
                "see that the program is installed; a service has a PATH of its own, so name it by its full path"
            }
            Self::Command { .. } => {
                "run the command by hand as the user that runs sealift; `timeout` says how long it may take"
            }
            Self::Empty { .. } => {
                "run the command by hand as the user that runs sealift; `allow_empty = true` says that it may print \
                 nothing"
            }
            Self::Locked { .. } => {
                "see which process holds the lock; `lock_timeout` says how long it is waited for"
            }
            Self::Io { source, .. } => return next_for(source).to_owned(),
            Self::Both { source, .. } => {
                let next = source.next();
                return format!("{next}; and see that what `before` stopped runs again");
            }
            Self::Walk(_) => "see who owns the directory and its mode; then back up again",
            Self::Sqlite(error) => return next_for_database(error).to_owned(),
        };
        next.to_owned()
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn next_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "see who owns it and its mode: the user that runs sealift must be allowed to read it"
        }
        _ if is_full(error) => "make room on the snapshots directory's disk, then back up again",
        _ => "see that it can be read by hand; if it fails twice, suspect the disk",
    }
}

fn next_for_database(error: &SqliteError) -> &'static str {
    match error {
        SqliteError::Busy { .. } => {
            "end the program or the transaction that holds it; `lock_timeout` says how long it is waited for"
        }
        SqliteError::Unchecked { .. } => {
            "back up again; if it fails twice, look at the database by hand"
        }
        SqliteError::ReadOnlyPlace { .. } => {
            "mount it writable, or copy the database together with that file to a directory that is, and name the copy"
        }
        SqliteError::Io { source, .. } => next_for(source),
        SqliteError::Sqlite { .. } if error.is_disk_full() => {
            "make room on the snapshots directory's disk, then back up again"
        }
        SqliteError::Sqlite { .. } => {
            "open the database by hand as the user that runs sealift; if it fails twice, suspect the disk"
        }
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProduceError {
    let path = path.to_owned();
    move |source| ProduceError::Io { what, path, source }
}

/// The next step for a source whose copy failed validation.
pub(super) fn next_for_invalid(kind: &str) -> &'static str {
    match kind {
        "json" => {
            "correct the file and back up again; one that its program reads although it is no JSON is a tree \
             with `stage = false`"
        }
        _ => {
            "back up again; if it fails twice, check the live database by hand and suspect the disk"
        }
    }
}

pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

pub(super) fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Io { what, path, source }
}
