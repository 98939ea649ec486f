//! Why there is no snapshot, or why a source is missing from it: the cause and the next step.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::atocore_error::AtoCoreError;
use crate::base::command::CommandError;
use crate::base::sqlite::SqliteError;
use crate::base::walk::WalkError;
use crate::state::staged_snapshot::LeftOut;

/// Why no snapshot was made, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The configuration names no source.
    #[error("there is nothing to back up: the configuration names no source")]
    NoSources,
    /// A source that was requested by name is not configured.
    #[error("no source is named {name:?}; the sources are {}", known.join(", "))]
    UnknownInclude {
        /// The name in the request.
        name: String,
        /// The names of all configured sources.
        known: Vec<String>,
    },
    /// The snapshots directory, or a snapshot in it, cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation: a verb and, if need be, a preposition.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source failed that is required, or is the only one.
    #[error("no snapshot was made: the source {name:?} could not be taken")]
    Source {
        /// The source's name.
        name: String,
        /// Why.
        #[source]
        source: Box<SourceError>,
    },
    /// All sources failed.
    #[error("no snapshot was made: every source failed{}", indented(&reasons(failed)))]
    EverySource {
        /// The sources, each with its cause.
        failed: Vec<LeftOut>,
    },
    /// The snapshot failed its validation.
    #[error("the snapshot is not valid ({}) and will not be packed; it is kept as {}{}", errors.join(", "), dir.display(), indented(details))]
    Invalid {
        /// The snapshot's directory.
        dir: PathBuf,
        /// Codes, each once.
        errors: Vec<String>,
        /// The findings behind the codes, for people.
        details: Vec<String>,
    },
}

impl ProduceError {
    /// Returns the next step. `None`: the causes say all there is to say.
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

/// Why one source could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its path does not exist.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// A tree that is to be copied is no directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// `mountpoint = true`, and nothing is mounted at its path.
    #[error("nothing is mounted at {}, and `mountpoint = true` requires a mounted disk", .0.display())]
    NotMounted(PathBuf),
    /// A path of `must_exist` is missing in the tree.
    #[error("{} lacks {}, which `must_exist` names", path.display(), marker.display())]
    NoMarker {
        /// The tree's path.
        path: PathBuf,
        /// The missing path, below the tree's.
        marker: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A command cannot be started.
    #[error("cannot start `{line}`")]
    Start {
        /// The command line, shortened.
        line: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command ended without success, or did not end in time.
    #[error("`{line}` failed, {status}: {stderr}")]
    Command {
        /// The command line, shortened.
        line: String,
        /// The exit status and its meaning.
        status: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// A source's command succeeded with no output.
    #[error("`{line}` wrote nothing to its standard output: {stderr}")]
    Empty {
        /// The command line, shortened.
        line: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// Another process held the source's lock file for too long.
    #[error("the lock file {} stayed locked for {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The source's `lock_timeout`.
        waited: Duration,
    },
    /// A file cannot be read or its copy cannot be written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The operation: a verb and, if need be, a preposition.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source failed, and so did its `after`.
    #[error("its `after` failed as well ({after})")]
    Both {
        /// Why `after` failed.
        after: String,
        /// Why the source failed.
        #[source]
        source: Box<SourceError>,
    },
    /// A tree cannot be walked.
    #[error(transparent)]
    Walk(WalkError),
    /// A database cannot be copied.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// AtoCore made no snapshot that can be adopted.
    #[error(transparent)]
    AtoCore(#[from] AtoCoreError),
    /// The vector store would be copied while AtoCore may write to it.
    #[error(
        "AtoCore made no snapshot, and nothing holds it still while this host copies its vector store"
    )]
    Unguarded,
    /// `before` did not print the path that `{snapshot}` stands for.
    #[error("`{line}` printed no line for `{{snapshot}}` in `path`")]
    NoSnapshotPath {
        /// The command line, shortened.
        line: String,
    },
}

impl From<CommandError> for SourceError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Start { line, source } => Self::Start { line, source },
            CommandError::Failed {
                line,
                status,
                stderr,
                ..
            } => Self::Command {
                line,
                status,
                stderr,
            },
        }
    }
}

impl SourceError {
    /// Returns the next step for the operator.
    pub fn next(&self) -> String {
        let next = match self {
            Self::Missing(_) => {
                "check that it is mounted and that `path` is right; set `optional = true` if it may be missing"
            }
            Self::NotMounted(_) => {
                "mount the disk, then back up again; if it is no longer a separate disk, remove `mountpoint`"
            }
            Self::NoMarker { .. } => {
                "check that its disk is mounted and has its content; if that file is gone for good, remove it \
                 from `must_exist`"
            }
            Self::NotADirectory(_) => {
                "correct `path`; a single file is a source of kind \"sqlite\" or \"json\", or a tree with \
                 `stage = false`"
            }
            Self::Start { .. } => {
                "check that the program is installed; a service has its own PATH, so give the full path"
            }
            Self::Command { .. } => {
                "run the command by hand as the user that runs sealift; `timeout` limits how long it may take"
            }
            Self::Empty { .. } => {
                "run the command by hand as the user that runs sealift; set `allow_empty = true` if it may print \
                 nothing"
            }
            Self::Locked { .. } => {
                "find the process that holds the lock; `lock_timeout` sets how long sealift waits"
            }
            Self::Io { source, .. } => return next_for(source).to_owned(),
            Self::Both { source, .. } => {
                let next = source.next();
                return format!(
                    "{next}; and check that the service that `before` stopped runs again"
                );
            }
            Self::Walk(_) => "check the owner and mode of the directory, then back up again",
            Self::Sqlite(error) => return next_for_database(error).to_owned(),
            Self::AtoCore(error) => return error.next(),
            Self::Unguarded => {
                "give the source \"chroma\" a `lock`, or a `before` and an `after`: docs/operations.md, \"With the \
                 vector store\""
            }
            Self::NoSnapshotPath { .. } => {
                "let `before` print the directory of the snapshot as its last line, as the scripts in \
                 deploy/quiesce do"
            }
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
            "check owner and mode; the user that runs sealift cannot read it"
        }
        _ if is_full(error) => "make room on the snapshots directory's disk, then back up again",
        _ => "check that it can be read by hand; if it fails twice, suspect the disk",
    }
}

fn next_for_database(error: &SqliteError) -> &'static str {
    match error {
        SqliteError::Busy { .. } => {
            "end the program or the transaction that holds it; `lock_timeout` sets how long sealift waits"
        }
        SqliteError::Unchecked { .. } => {
            "back up again; if it fails twice, check the database by hand"
        }
        SqliteError::ReadOnlyPlace { .. } => {
            "mount it writable, or copy the database and that file to a writable directory, and name the copy"
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

/// Returns what makes an I/O error of the operation `what` on `path` a [`ProduceError`].
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProduceError {
    let path = path.to_owned();
    move |source| ProduceError::Io { what, path, source }
}

/// Returns the next step for a source whose copy failed validation.
pub(super) fn next_for_invalid(kind: &str) -> &'static str {
    match kind {
        "json" => {
            "correct the file and back up again; if its program reads it although it is not JSON, configure it \
             as a tree with `stage = false`"
        }
        _ => {
            "back up again; if it fails twice, check the live database by hand and suspect the disk"
        }
    }
}

/// Whether a path does not exist.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns what makes an I/O error of the operation `what` on `path` a [`SourceError`].
pub(super) fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Io { what, path, source }
}
