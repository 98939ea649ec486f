//! Why remotes cannot be used.

use std::io;
use std::path::PathBuf;

use crate::base::ownership::Exposure;
use crate::config::error::{ConfigError, near};

/// Why the remotes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemotesError {
    /// Neither `HOME` nor `XDG_CONFIG_HOME` is set.
    #[error("neither HOME nor XDG_CONFIG_HOME names a directory, so there is no place for remotes")]
    NoHome,
    /// Other users can change the file.
    #[error(
        "{exposure}: others can change where the remotes in it lead, and which commands they run"
    )]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Names what others can change.
        exposure: Exposure,
    },
    /// The file cannot be read or written.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file's content is not valid.
    #[error(transparent)]
    Content(#[from] ConfigError),
    /// The text cannot be the name of a remote.
    #[error(
        "{0:?} cannot be the name of a remote: use up to 64 letters, digits, and inside it - _ and dots"
    )]
    Name(String),
    /// A remote of this name is there already.
    #[error("a remote is named {0} already")]
    Taken(String),
    /// No remote has this name.
    #[error("no remote is named {name}{}", near(nearest.as_deref()))]
    Unknown {
        /// The name.
        name: String,
        /// The remote whose name looks most like it.
        nearest: Option<String>,
    },
    /// A setting is not valid.
    #[error("{0}")]
    Setting(String),
    /// The table cannot be taken out of the file without changing others.
    #[error("cannot take [{name}] out of {}: remove it with an editor", file.display())]
    Entangled {
        /// The remote.
        name: String,
        /// The file.
        file: PathBuf,
    },
}
