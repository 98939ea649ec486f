//! A destination of sealed objects: list, put, get, delete, and nothing else.
//!
//! Keys are `/`-separated paths below the target's URL, the host's folder first. An object is
//! written once, whole or not at all, and is durable when `put` returns. Whether an error is worth
//! another try is decided where it arises ([`ErrorKind`]); `Target`s retry transient faults
//! themselves, within a bounded time, so a caller treats every error as final for this run.

use std::{fmt, ops::Range, path::PathBuf};

use bytes::Bytes;
use futures::stream::BoxStream;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub bytes: u64,
}

/// What to put: bytes at hand, or a file that stays as it is.
#[derive(Debug, Clone)]
pub enum Body {
    Bytes(Bytes),
    File(PathBuf),
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
    /// The network, the server or the disk failed and went on failing.
    Unavailable,
    /// Retrying would give the same.
    Permanent,
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

/// A place for objects. Implementations pass `tests/target_contract.rs`.
#[async_trait::async_trait]
pub trait Target: Send + Sync + fmt::Debug {
    /// For messages: the URL without secrets.
    fn label(&self) -> &str;

    /// All objects whose key starts with `prefix` (a folder, ending in `/`), in no order.
    /// A folder that is not there is empty.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError>;

    /// The names of the folders right below the target's root (host names), sorted.
    async fn list_folders(&self) -> Result<Vec<String>, TargetError>;

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError>;

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

    /// Deletes an object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), TargetError>;
}
