//! A destination of sealed objects: list, put, get, delete, and nothing else.
//!
//! Keys are `/`-separated paths below the target's URL, the host's folder first. An object is
//! written once, whole or not at all, and is durable when `put` returns. Whether an error is worth
//! another try is decided where it arises ([`ErrorKind`]); `Target`s retry transient faults
//! themselves, within a bounded time, so a caller treats every error as final for this run.
//!
//! [`open`] turns a [`TargetSpec`] into a folder of our own making (`folder`), another machine by the system's
//! `rsync` (`rsync`) or by sftp over the system's `ssh` (`sftp`), or one of the stores that `object_store` speaks
//! to (`object`, `remote`). Secrets come from the environment and the usual files, never from here, and no label
//! or error carries one.

mod address;
mod aws;
mod aws_profile;
mod connector;
mod environment;
mod explain;
mod failure;
mod folder;
mod foreign;
mod google;
mod isolated;
mod key;
mod machine_name;
mod object;
mod patience;
mod proxy;
mod remote;
mod reserve;
mod resume;
mod retry_after;
mod roots;
mod rsync;
mod s3_listing;
mod setting;
mod sftp;
mod spec;
mod ssh;
mod store_error;
mod thaw;
mod throttle;
mod unavailable;

use std::{collections::HashMap, fmt, ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::panics;
use address::Address;
pub use environment::Environment;
pub use isolated::{isolated, panicked};
pub use reserve::is_full;
pub use spec::{Fault, TargetSpec};

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub bytes: u64,
    /// When it was written, by the target's clock, if the listing tells.
    pub modified: Option<DateTime<Utc>>,
}

/// What to put: bytes at hand, or a file that stays as it is.
#[derive(Debug, Clone)]
pub enum Body {
    Bytes(Bytes),
    File(PathBuf),
    /// A durable file that its owner never writes to again, needs for nobody else, and removes when it is
    /// through: a folder on the same file system may keep it under a second name instead of copying it.
    Shared(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// An object that is there already stays, and the put succeeds with [`PutOutcome::Existed`].
    /// Stores that ignore conditional puts may write it again; names are content, so no harm.
    Create,
    /// Writes over a damaged object.
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    Written,
    Existed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    /// Credentials wrong, missing or not enough.
    Denied,
    /// In a storage class that cannot be read at once: [`Target::thaw`] asks for it.
    Frozen,
    /// The network, the server or the disk failed and went on failing.
    Unavailable,
    /// Retrying would give the same.
    Permanent,
}

/// What became of asking for an object that is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// It can be read some hours from now.
    Asked,
    /// Somebody asked before.
    UnderWay,
    /// It can be read now.
    Ready,
}

/// One failed operation on a target; `Display` names operation, object and target.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {key} on {target}")]
pub struct TargetError {
    pub operation: &'static str,
    pub key: String,
    /// The target's name and URL, free of secrets.
    pub target: String,
    pub kind: ErrorKind,
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

const LISTINGS_AT_ONCE: usize = 16;

/// Folders below a host's `archives/`: one for each first byte of a hash.
const FOLDERS_OF_ARCHIVES: usize = 256;

/// A place for objects. Implementations pass `tests/target_contract.rs`.
#[async_trait::async_trait]
pub trait Target: Send + Sync + fmt::Debug {
    /// For messages: the target's name, if it has one, and its URL without secrets.
    fn label(&self) -> &str;

    /// Whether its root may be the place of a disk that is not mounted just now: what is empty all of a sudden is not
    /// what it was then. (A folder here is looked at before it is opened.)
    fn may_be_unmounted(&self) -> bool {
        false
    }

    /// All objects whose key starts with `prefix` (a folder, ending in `/`), in no order.
    /// A folder that is not there is empty.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError>;

    /// The keys that [`Self::list`] returns: some kinds of targets find out sizes one by one.
    async fn list_keys(&self, prefix: &str) -> Result<Vec<String>, TargetError> {
        let listed = self.list(prefix).await?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    /// What [`Self::list`] returns of each of `prefixes`.
    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        // Called here, for a closure could not borrow each prefix for as long as its listing takes.
        let mut listings = Vec::new();
        for prefix in prefixes {
            listings.push(self.list(prefix));
        }
        let listings = futures::stream::iter(listings).buffer_unordered(LISTINGS_AT_ONCE);
        listings.try_concat().await
    }

    /// Whether it costs less to list `folders` of the [`FOLDERS_OF_ARCHIVES`] than all of them, which hold `objects`
    /// objects. A kind of target for which one request lists everything says no, as rsync does.
    fn looks_in_part(&self, _folders: usize, _objects: usize) -> bool {
        false
    }

    /// Bytes of those of `keys` that are there now. `None`: to ask for each costs more than to list their folders.
    async fn sizes(&self, _keys: &[String]) -> Result<Option<HashMap<String, u64>>, TargetError> {
        Ok(None)
    }

    /// The names of the folders right below the target's root (host names), sorted.
    async fn list_folders(&self) -> Result<Vec<String>, TargetError>;

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError>;

    /// [`Self::put`] of what is seldom read: into the storage class for it, where the target has one.
    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        self.put(key, body, mode).await
    }

    /// A small object whole; more than `limit` bytes is an error.
    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError>;

    /// Bytes `range` of an object; a range beyond its end is an error.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError>;

    /// An object's bytes from `offset` on, as they come. The stream ends early only with an error.
    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError>;

    /// Whether an object that is there lies where it cannot be read ([`ErrorKind::Frozen`]).
    async fn is_frozen(&self, _key: &str) -> Result<bool, TargetError> {
        Ok(false)
    }

    /// Asks for an object that is frozen, to be readable for so many days.
    async fn thaw(&self, key: &str, _days: u16) -> Result<Thaw, TargetError> {
        let what = "this kind of target cannot be asked for that; use the provider's own tools";
        let kind = ErrorKind::Permanent;
        Err(TargetError::new("thaw", key, self.label(), kind, what))
    }

    /// Deletes an object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), TargetError>;

    /// Whether this kind of target keeps room for a prune of a full disk: a folder does, a store that grows
    /// does not.
    fn has_reserve(&self) -> bool {
        false
    }

    /// Keeps that room in a host's folder, unless it is kept already.
    async fn keep_reserve(&self, _host: &str) -> Result<(), TargetError> {
        Ok(())
    }

    /// Frees it. `false`: none was kept.
    async fn free_reserve(&self, _host: &str) -> Result<bool, TargetError> {
        Ok(false)
    }
}

/// Why a target cannot be used at all. URLs in it are free of secrets.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{url} is not a target: {reason}")]
    Malformed { url: String, reason: String },
    #[error(
        "{0} is not a target: sealift knows file, s3, gs, az, https (WebDAV), rsync, sftp and memory URLs, and paths"
    )]
    Scheme(String),
    #[error("cannot open the folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "there is no folder {}: is the disk mounted? If it is new, or was emptied on purpose, make it: mkdir -p {}",
        .0.display(),
        .0.display()
    )]
    Absent(PathBuf),
    #[error("no credentials for {target}: {reason}")]
    Credentials { target: String, reason: String },
    /// A value that would be of no use, from the environment, a file or the command line; never said itself.
    #[error("{name} {what} (it is for the target {target})")]
    Setting {
        target: String,
        /// The variable, or the setting with file and line.
        name: String,
        what: String,
    },
    #[error("{fault} (it is for the target {target})")]
    Fault { target: String, fault: Fault },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open {target}")]
    Client {
        target: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    fn setting(target: &str, name: &str, what: impl Into<String>) -> Self {
        Self::Setting {
            target: target.to_owned(),
            name: name.to_owned(),
            what: what.into(),
        }
    }
}

/// Says what is wrong with a target's URL, as far as it tells by itself.
pub fn check_url(url: &str) -> Result<(), OpenError> {
    Address::parse(url).map(drop)
}

/// The path of a target that is a folder here.
pub fn folder_path(url: &str) -> Option<PathBuf> {
    match Address::parse(url) {
        Ok(Address::Folder(path)) => Some(path),
        _ => None,
    }
}

/// Whether ssh leads to the target.
pub fn is_over_ssh(url: &str) -> bool {
    matches!(
        Address::parse(url),
        Ok(Address::Rsync(rsync::Remote::Ssh { .. }) | Address::Sftp(_))
    )
}

/// Whether the target is reached through programs: rsync or ssh.
pub fn runs_programs(url: &str) -> bool {
    matches!(
        Address::parse(url),
        Ok(Address::Rsync(_) | Address::Sftp(_))
    )
}

/// Opens a target with the process's environment. Nothing is asked of a server yet; a folder is
/// made if it is not there.
pub fn open(spec: &TargetSpec) -> Result<Arc<dyn Target>, OpenError> {
    open_with(spec, &Environment::of_process())
}

/// [`open`], where a target that cannot be opened now (credentials, folder) is one that fails every
/// request. What can never be opened is an error still.
pub fn open_or_unavailable(spec: &TargetSpec) -> Result<Arc<dyn Target>, OpenError> {
    match open(spec) {
        Err(error @ (OpenError::Malformed { .. } | OpenError::Scheme(_))) => Err(error),
        Err(error) => Ok(Arc::new(unavailable::Unavailable::new(spec.label(), error))),
        opened => opened,
    }
}

/// [`open_or_unavailable`] for pushing: a folder must be there, for one that is made anew may be the place
/// where a disk is not mounted. `below` is a folder that must be in it, if it ever held something.
pub fn open_existing(spec: &TargetSpec, below: Option<&str>) -> Result<Arc<dyn Target>, OpenError> {
    if let Address::Folder(path) = Address::parse(&spec.url)? {
        let needed = below.map_or_else(|| path.clone(), |below| path.join(below));
        if let Err(reason) = check_folder(&needed) {
            return Ok(Arc::new(unavailable::Unavailable::new(
                spec.label(),
                reason,
            )));
        }
    }
    open_or_unavailable(spec)
}

/// A folder must be at `path`. That it cannot be looked at is not that it is not there.
pub fn check_folder(path: &std::path::Path) -> Result<(), OpenError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            let path = path.to_owned();
            Err(OpenError::Folder { path, source })
        }
        _ => Err(OpenError::Absent(path.to_owned())),
    }
}

/// [`open`] with an environment of one's own.
pub fn open_with(
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<Arc<dyn Target>, OpenError> {
    let opened = panics::caught_now(|| connect(spec, environment));
    let opened = opened.unwrap_or_else(|panicked| {
        Err(OpenError::Client {
            target: spec.label(),
            source: Box::new(panicked),
        })
    });
    opened.map(isolated)
}

fn connect(spec: &TargetSpec, environment: &Environment) -> Result<Arc<dyn Target>, OpenError> {
    let address = Address::parse(&spec.url)?;
    let wrong = |fault: Fault| match fault.of_class() {
        Some(reason) => OpenError::Malformed {
            url: address::without_secrets(&spec.url),
            reason,
        },
        None => OpenError::Fault {
            target: spec.label(),
            fault,
        },
    };
    spec.check_settings(&address).map_err(wrong)?;
    if let Some(doubt) = machine_name::doubt(&spec.url, spec.ssh.as_deref()) {
        return Err(OpenError::setting(&spec.label(), "its URL", doubt));
    }
    match address {
        Address::Folder(path) => Ok(Arc::new(folder::Folder::open(&path, spec)?)),
        Address::Rsync(remote) => Ok(Arc::new(rsync::Rsync::new(remote, spec))),
        Address::Sftp(place) => Ok(Arc::new(sftp::Sftp::new(place, spec))),
        address => Ok(Arc::new(remote::open(&address, spec, environment)?)),
    }
}
