//! Why a target cannot be opened, and why an operation on it failed.

use std::path::PathBuf;

/// What an error means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// Credentials are wrong, missing or insufficient.
    Denied,
    /// The object is in a storage class that cannot be read at once; [`super::Storage::thaw`]
    /// requests it.
    Frozen,
    /// The network, the server or the disk failed, and kept failing as long as it was retried.
    Unavailable,
    /// A retry would fail in the same way.
    Permanent,
}

/// One failed operation on a target; `Display` names operation, object and target.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {key} on {target}")]
pub struct TargetError {
    /// The operation as a verb: `put`, `get`, `list`.
    pub operation: &'static str,
    /// The object's key, or the prefix of a listing.
    pub key: String,
    /// The target's name and URL, without secrets.
    pub target: String,
    /// What the error means for the caller.
    pub kind: ErrorKind,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl TargetError {
    pub(crate) fn new(
        operation: &'static str,
        key: &str,
        target: &str,
        kind: ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            operation,
            key: key.to_owned(),
            target: target.to_owned(),
            kind,
            source: source.into(),
        }
    }
}

/// Why a target cannot be opened. URLs in it are without secrets.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL has a known scheme but does not name a target.
    #[error("{url} is not a target: {reason}")]
    Malformed {
        /// The URL, without secrets.
        url: String,
        /// A clause without its object's name.
        reason: String,
    },
    /// The URL has an unknown scheme.
    #[error(
        "{0} is not a target: sealift knows file, s3, gs, az, https (WebDAV), rsync, sftp and memory URLs, and paths"
    )]
    Scheme(String),
    /// The folder exists and cannot be opened, or cannot be created.
    #[error("cannot open the folder {path}")]
    Folder {
        /// The folder's path.
        path: PathBuf,
        /// Why it cannot be opened.
        #[source]
        source: std::io::Error,
    },
    /// The folder must exist and does not.
    #[error(
        "there is no folder {}: is the disk mounted? If the folder is new, or was emptied on purpose, create it: mkdir -p {}",
        .0.display(),
        .0.display()
    )]
    Absent(PathBuf),
    /// No credentials were found, or only a part of them.
    #[error("no credentials for {target}: {reason}")]
    Credentials {
        /// The target's label.
        target: String,
        /// What is missing, and where to set it.
        reason: String,
    },
    /// A value of the environment, a file or the command line is unusable. The value itself is
    /// never shown.
    #[error("{name} {what} (it is for the target {target})")]
    Setting {
        /// The target's label.
        target: String,
        /// The variable, or the setting with file and line.
        name: String,
        /// What is wrong, to follow the name.
        what: String,
    },
    /// A setting of the target's own configuration is unusable.
    #[error("{fault} (it is for the target {target})")]
    Fault {
        /// The target's label.
        target: String,
        /// The setting, and what is wrong with it.
        fault: Fault,
    },
    /// A file of credentials cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file's path.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: std::io::Error,
    },
    /// The client library cannot be set up.
    #[error("cannot open {target}")]
    Client {
        /// The target's label.
        target: String,
        /// Why it cannot be set up.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    pub(super) fn setting(target: &str, name: &str, what: impl Into<String>) -> Self {
        Self::Setting {
            target: target.to_owned(),
            name: name.to_owned(),
            what: what.into(),
        }
    }
}

/// An unusable setting of a target's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting's name in the configuration: `url`, `endpoint`, `region`, `ssh`, `class`,
    /// `data_class`.
    pub key: &'static str,
    /// What is wrong, to follow the name. Never the value, which may hold a secret.
    pub(super) what: String,
}

impl Fault {
    /// Returns what is wrong with a target that has this storage class, if the class is at fault.
    pub(super) fn of_class(&self) -> Option<String> {
        match (self.key, self.what.starts_with("only")) {
            ("class" | "data_class", true) => Some(format!(
                "{} is set, but it has no storage classes",
                self.key
            )),
            ("class" | "data_class", false) => Some(format!("{} is not a storage class", self.key)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let colon = if self.key.ends_with("class") { ":" } else { "" };
        write!(f, "{}{colon} {}", self.key, self.what)
    }
}
