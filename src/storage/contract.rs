//! The contract of a target.
//!
//! Keys are `/`-separated paths below the target's URL, the host's folder first. An object is
//! written once, whole or not at all, and is durable when `put` returns.

use std::{collections::HashMap, fmt, ops::Range, path::PathBuf};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::error::{ErrorKind, TargetError};

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The object's key, from the target's root.
    pub key: String,
    /// Size of the object.
    pub bytes: u64,
    /// Time of writing by the target's clock. `None`: the listing does not report it.
    pub modified: Option<DateTime<Utc>>,
}

/// The content of an object to put. A file must not change before the put returns.
#[derive(Debug, Clone)]
pub enum Body {
    /// Content in memory.
    Bytes(Bytes),
    /// The content of a file, which is copied.
    File(PathBuf),
    /// The content of a durable file that its owner never writes to again, uses for nothing else,
    /// and removes once it is uploaded. A folder on the same file system may hard-link it instead
    /// of copying it.
    Shared(PathBuf),
}

/// Whether a put may write over an existing object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Keeps an object that is there already; the put then succeeds with [`PutOutcome::Existed`].
    /// A store that ignores conditional puts may write it again, which is harmless: an object's
    /// name is derived from its content.
    Create,
    /// Writes over a damaged object.
    Replace,
}

/// What a successful put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object was written.
    Written,
    /// The object was there already and was kept.
    Existed,
}

/// The state of a frozen object after a request to thaw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thaw {
    /// The request was accepted; the object becomes readable some hours from now.
    Asked,
    /// An earlier request is still in progress.
    UnderWay,
    /// The object can be read now.
    Ready,
}

/// Number of listings that [`Storage::list_each`] requests at a time.
const LISTINGS_AT_ONCE: usize = 16;

/// Number of folders below a host's `archives/`: one for each first byte of a hash.
pub(super) const FOLDERS_OF_ARCHIVES: usize = 256;

/// A place for objects. Every implementation passes `tests/storage/contract.rs`.
#[async_trait::async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// Returns the target's name, if it has one, and its URL without secrets, for messages.
    fn label(&self) -> &str;

    /// Whether the root may be the mount point of a disk that is not mounted now. An empty root
    /// then does not prove that its objects are gone. (A local folder is checked before it is
    /// opened and needs no such doubt.)
    fn may_be_unmounted(&self) -> bool {
        false
    }

    /// Returns what the last attempt of a request failed with, while it is retried. `None`: nothing
    /// is wrong, as far as is known. A caller that stops waiting reports it.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Lists all objects whose key starts with `prefix`, in no order. `prefix` is a folder and ends
    /// in `/`; an absent folder has no objects.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError>;

    /// Lists the keys that [`Self::list`] returns. Some kinds of targets must look up each size
    /// separately, so this may be cheaper.
    async fn list_keys(&self, prefix: &str) -> Result<Vec<String>, TargetError> {
        let listed = self.list(prefix).await?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    /// Lists those of the keys below `prefix` that are not before `from` in the order of bytes. A
    /// store that lists in this order begins there instead of at the first of thousands.
    async fn list_keys_from(&self, prefix: &str, from: &str) -> Result<Vec<String>, TargetError> {
        let mut keys = self.list_keys(prefix).await?;
        keys.retain(|key| key.as_str() >= from);
        Ok(keys)
    }

    /// Lists the objects that [`Self::list`] returns for each of `prefixes`.
    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        // The calls are made here because a closure could not borrow each prefix for as long as its
        // listing takes.
        let mut listings = Vec::new();
        for prefix in prefixes {
            listings.push(self.list(prefix));
        }
        let listings = futures::stream::iter(listings).buffer_unordered(LISTINGS_AT_ONCE);
        listings.try_concat().await
    }

    /// Whether listing `folders` of the 256 folders of archives costs less than listing all of
    /// them, which hold `objects` objects. A kind of target that lists everything in one request,
    /// such as rsync, answers no.
    fn looks_in_part(&self, _folders: usize, _objects: usize) -> bool {
        false
    }

    /// Returns the sizes of those of `keys` that exist. `None`: looking up each key costs more than
    /// listing the folders.
    async fn sizes(&self, _keys: &[String]) -> Result<Option<HashMap<String, u64>>, TargetError> {
        Ok(None)
    }

    /// Lists the folders right below the target's root (host names), sorted.
    async fn list_folders(&self) -> Result<Vec<String>, TargetError>;

    /// Writes an object, whole and durably, or nothing.
    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError>;

    /// Writes an object that is seldom read, like [`Self::put`], into the target's storage class
    /// for such objects, if it has one.
    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        self.put(key, body, mode).await
    }

    /// Reads a small object whole. An object of more than `limit` bytes is an error.
    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError>;

    /// Reads the bytes `range` of an object. A range beyond its end is an error.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError>;

    /// Whether [`Self::get_range`] costs only about as much as the bytes that it returns. rsync
    /// fetches the whole object for it.
    fn has_ranges(&self) -> bool {
        true
    }

    /// Streams an object's bytes from `offset` to its end. The stream ends early only with an
    /// error.
    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError>;

    /// Whether an existing object is in a storage class that cannot be read at once
    /// ([`ErrorKind::Frozen`]).
    async fn is_frozen(&self, _key: &str) -> Result<bool, TargetError> {
        Ok(false)
    }

    /// Requests that a frozen object become readable for `days` days.
    async fn thaw(&self, key: &str, _days: u16) -> Result<Thaw, TargetError> {
        let what = "this kind of target cannot thaw objects; use the provider's own tools";
        let kind = ErrorKind::Permanent;
        Err(TargetError::new("thaw", key, self.label(), kind, what))
    }

    /// Deletes an object. An absent object is no error.
    async fn delete(&self, key: &str) -> Result<(), TargetError>;

    /// Whether this kind of target keeps a reserve for a prune of a full disk. A folder does; a
    /// store that grows on demand does not.
    fn has_reserve(&self) -> bool {
        false
    }

    /// Writes the reserve into a host's folder, unless it is there.
    async fn keep_reserve(&self, _host: &str) -> Result<(), TargetError> {
        Ok(())
    }

    /// Deletes the reserve. `false`: there was none.
    async fn free_reserve(&self, _host: &str) -> Result<bool, TargetError> {
        Ok(false)
    }
}
