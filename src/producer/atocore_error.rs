//! Why AtoCore made no snapshot that this host can use.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::ids::Stamp;
use crate::base::units::size;
use crate::storage::ServiceError;

/// Why AtoCore made no snapshot that this host can use.
#[derive(Debug, thiserror::Error)]
pub enum AtoCoreError {
    /// There is no answer.
    #[error("AtoCore at {url} did not answer")]
    NoAnswer {
        /// The URL of the request.
        url: String,
        /// Why.
        #[source]
        source: ServiceError,
    },
    /// Ingestion ran for the whole time.
    #[error("AtoCore answered 409: ingestion is running; nothing was copied")]
    Busy {
        /// How long it was asked.
        waited: Duration,
    },
    /// It answered with another status.
    #[error("AtoCore at {url} answered {status}{said}; nothing was copied")]
    Refused {
        /// The URL of the request.
        url: String,
        /// The status.
        status: u16,
        /// The begin of the answer, after a colon; empty: there is none.
        said: String,
    },
    /// The answer names no snapshot.
    #[error("the answer of AtoCore at {url} {what}")]
    Unreadable {
        /// The URL of the request.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The directory does not exist on this host.
    #[error("backup_root {root} is not here{}", looked_at(root, here))]
    NotHere {
        /// The directory, as AtoCore names it.
        root: String,
        /// The directory, as this host names it.
        here: PathBuf,
    },
    /// The directory is not where AtoCore's snapshots may be.
    #[error("backup_root {root} is not directly below {}", allowed.join(" or "))]
    Elsewhere {
        /// The directory, as AtoCore names it.
        root: String,
        /// Where it may be.
        allowed: Vec<String>,
    },
    /// The directory cannot be a new snapshot.
    #[error("backup_root {root} {what}")]
    NotASnapshot {
        /// The directory, as AtoCore names it.
        root: String,
        /// Why.
        what: String,
    },
    /// The directory failed the validation of this host.
    #[error("AtoCore's snapshot {stamp} is not valid ({}): {}", errors.join(", "), details.join("; "))]
    Invalid {
        /// Its stamp.
        stamp: Stamp,
        /// Codes, each once.
        errors: Vec<String>,
        /// The findings behind the codes.
        details: Vec<String>,
    },
    /// It is not adopted, and stays.
    #[error(transparent)]
    Unadopted(UnadoptedSnapshot),
    /// The directory cannot be read, or its copy cannot be written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// A verb phrase that the path completes.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A snapshot that AtoCore made for this host, and that this host does not adopt.
#[derive(Debug)]
pub struct UnadoptedSnapshot {
    /// Why.
    pub error: Box<AtoCoreError>,
    /// Its directory.
    pub path: PathBuf,
    /// Size of its files in bytes.
    pub bytes: u64,
    /// The command that deletes it.
    pub command: String,
}

impl std::fmt::Display for UnadoptedSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for UnadoptedSnapshot {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

fn looked_at(root: &str, here: &std::path::Path) -> String {
    match here.to_str() == Some(root) {
        true => String::new(),
        false => format!(" (on this host: {})", here.display()),
    }
}

impl AtoCoreError {
    /// Returns the next step for the operator.
    pub fn next(&self) -> String {
        let next = match self {
            Self::NoAnswer { source, .. } => match source {
                ServiceError::Token { .. } => {
                    "check `token_file`, and that the user that runs sealift can read it"
                }
                ServiceError::ClearText => "use https, or set `insecure = true`",
                ServiceError::Late(_) => {
                    "look at AtoCore's log; `timeout` says how long sealift waits"
                }
                _ => "check that AtoCore runs and that `url` is right",
            },
            Self::Busy { waited } => {
                return format!(
                    "back up again when the ingestion has ended; sealift asked for {} s, which `timeout` sets",
                    waited.as_secs()
                );
            }
            Self::Refused { status, .. } => match status {
                300..=399 => {
                    "name the URL to which it redirects in `url`: redirects are not followed"
                }
                401 | 403 => "check the token in `token_file`",
                404 | 405 => "check `url`: AtoCore answers below /admin/backup",
                _ => "look at AtoCore's log",
            },
            Self::Unadopted(one) => {
                return format!(
                    "{}; nothing else deletes AtoCore's snapshot {} ({}): once it is of no use, `{}`",
                    one.error.next(),
                    one.path.display(),
                    size(one.bytes),
                    one.command
                );
            }
            Self::Unreadable { .. } => "check that `url` is that of AtoCore, and AtoCore's version",
            Self::NotHere { .. } => {
                "set root_map = [\"<directory in the container>:<directory on this host>\"]"
            }
            Self::Elsewhere { .. } => {
                "set `dir` in [snapshots], or `allow_root`, to the directory that holds AtoCore's snapshots; \
                 or correct `root_map`"
            }
            Self::NotASnapshot { .. } => {
                "look at AtoCore's log, and at the directory; compare the clocks of host and container"
            }
            Self::Invalid { .. } => {
                "back up again; if it fails twice, suspect the disk or AtoCore's database itself"
            }
            Self::Io { .. } => {
                "check owner and mode: the user that runs sealift must be able to read AtoCore's snapshots"
            }
        };
        next.to_owned()
    }
}
