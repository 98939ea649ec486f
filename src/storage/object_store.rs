//! A bucket, a WebDAV folder or memory as a target, through the library `object_store`.
//!
//! `object_store` retries what is safe to repeat, with backoff and jitter. It leaves interrupted
//! conditional puts, broken listings and broken bodies alone, so those are retried here: puts in
//! [`put`], listings in this file, bodies in [`resume`].

mod azure;
mod connect;
mod google;
pub(super) mod open;
mod put;
pub(super) mod server;
mod webdav;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::contract::{Body, FOLDERS_OF_ARCHIVES, Listed, PutMode, PutOutcome, Storage, Thaw};
use super::error::{ErrorKind, TargetError};
use super::http::classify::is_worth_another_listing;
use super::http::exchange::HttpContact;
use super::http::faults::{Endless, IDLE};
use super::http::listing_guard::Circle;
use super::http::resume;
use super::http::store_error::{StoreError, attempt};
use super::key::{is_key, require_key, require_prefix};
use super::retry::jittered_pause;
use super::s3::thaw::Thawer;
use super::size_error::SizeError;

/// Tries of a put or a listing beyond those of `object_store`.
const ATTEMPTS: u32 = 4;

/// Most keys that one answer to a listing holds.
const OBJECTS_IN_AN_ANSWER: usize = 1000;

/// A target behind `object_store`.
#[derive(Debug)]
pub(super) struct ObjectTarget {
    pub label: String,
    /// The store for listings, reads and small puts.
    pub store: Arc<dyn ObjectStore>,
    /// The same store with the longer deadline that a whole archive needs.
    pub bulk: Arc<dyn ObjectStore>,
    /// The folder in the store, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Whether the store lists a whole tree at once (most WebDAV servers refuse to).
    pub lists_deep: bool,
    /// Whether the store supports conditional puts, as far as it has shown.
    pub conditional_puts: AtomicBool,
    /// How long to retry a failing request.
    pub retry: Duration,
    /// Memory for the bodies of files during a put; one permit is 1 MiB.
    pub bodies: tokio::sync::Semaphore,
    /// Storage class of data archives. `None`: that of `class`.
    pub data_class: Option<String>,
    /// Storage class of all other objects. `None`: the bucket's default.
    pub class: Option<String>,
    /// Whether an object may be in a class that cannot be read at once.
    pub may_freeze: bool,
    /// Requests frozen objects. `None`: the store has no such request.
    pub thawer: Option<Thawer>,
    pub contact: Arc<HttpContact>,
}

fn endless(source: Endless) -> object_store::Error {
    object_store::Error::Generic {
        store: "listing",
        source: source.into(),
    }
}

impl ObjectTarget {
    fn error(&self, operation: &'static str, key: &str, error: StoreError) -> TargetError {
        TargetError::new(operation, key, &self.label, error.kind(), error)
    }

    fn permanent(
        &self,
        operation: &'static str,
        key: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> TargetError {
        TargetError::new(operation, key, &self.label, ErrorKind::Permanent, source)
    }

    /// Returns the store's path for a key, which must be valid.
    fn path(&self, operation: &'static str, key: &str) -> Result<Path, TargetError> {
        require_key(operation, key, &self.label)?;
        self.below_prefix(operation, key)
    }

    fn below_prefix(&self, operation: &'static str, key: &str) -> Result<Path, TargetError> {
        Path::parse(format!("{}/{key}", self.prefix)).map_err(|e| {
            self.permanent(
                operation,
                key,
                StoreError::from(object_store::Error::from(e)),
            )
        })
    }

    /// Returns the key of a listed path. `None`: the path is not one of our objects.
    fn key_of(&self, path: &Path) -> Option<String> {
        let path = path.as_ref();
        let key = match self.prefix.as_str() {
            "" => path,
            prefix => path.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        is_key(key).then(|| key.to_owned())
    }

    /// Lists everything below `folder`, or at least what is after `offset`. Retries a broken
    /// answer, which `object_store` does not.
    async fn list_all(
        &self,
        folder: Path,
        offset: Option<&Path>,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let began = Instant::now();
        for tries in 1.. {
            let listed = match self.lists_deep {
                true => attempt(self.list_deep(&folder, offset)).await,
                false => attempt(self.list_shallow(folder.clone())).await,
            };
            match listed {
                Err(error)
                    if tries < ATTEMPTS
                        && is_worth_another_listing(
                            error.inner(),
                            began.elapsed() < self.retry,
                        ) =>
                {
                    tracing::info!(%folder, tries, %error, "listing broke off, trying again");
                    tokio::time::sleep(jittered_pause(tries)).await;
                }
                done => return done,
            }
        }
        Ok(Vec::new())
    }

    /// Lists in one request and its continuations, if the server lists by prefix.
    async fn list_deep(
        &self,
        folder: &Path,
        offset: Option<&Path>,
    ) -> object_store::Result<Vec<ObjectMeta>> {
        let mut listing = match offset {
            Some(offset) => self.store.list_with_offset(Some(folder), offset),
            None => self.store.list(Some(folder)),
        };
        let (mut found, mut circle) = (Vec::new(), Circle::default());
        loop {
            let next = tokio::time::timeout(IDLE, listing.try_next()).await;
            let Some(object) = next.map_err(|_| endless(Endless::Idle))?? else {
                return Ok(found);
            };
            circle.check(object.location.as_ref()).map_err(endless)?;
            found.push(object);
        }
    }

    /// Lists folder by folder.
    async fn list_shallow(&self, folder: Path) -> object_store::Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let listed = self.store.list_with_delimiter(Some(&folder)).await?;
            found.extend(listed.objects);
            // A server that lists a folder within itself must not send us round in circles.
            let deeper = |path: &Path| path.as_ref().len() > folder.as_ref().len();
            folders.extend(listed.common_prefixes.into_iter().filter(deeper));
        }
        Ok(found)
    }

    /// Reads the whole range of `opened`.
    async fn collect(
        &self,
        key: &str,
        path: Path,
        start: u64,
        opened: resume::OpenedObject,
    ) -> Result<Bytes, TargetError> {
        let wanted = opened.end - start;
        let mut body = resume::read(Arc::clone(&self.store), path, start, opened, self.retry);
        let mut all = BytesMut::with_capacity(usize::try_from(wanted).unwrap_or(0));
        while let Some(bytes) = body.next().await {
            all.extend_from_slice(&bytes.map_err(|e| self.error("get", key, e))?);
        }
        Ok(all.freeze())
    }
}

#[async_trait::async_trait]
impl Storage for ObjectTarget {
    fn label(&self) -> &str {
        &self.label
    }

    fn trouble(&self) -> Option<String> {
        self.contact.cause()
    }

    /// Each folder takes a request. A listing of everything takes one for each thousand objects, or
    /// one for each folder if the server lists only one level.
    fn looks_in_part(&self, folders: usize, objects: usize) -> bool {
        let whole = match self.lists_deep {
            true => objects / OBJECTS_IN_AN_ANSWER,
            false => FOLDERS_OF_ARCHIVES,
        };
        folders * 2 <= whole
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let failed = |error| self.error("list", prefix, error);
        let folder = require_prefix(prefix, &self.label)?;
        let folder = self.below_prefix("list", folder)?;
        let found = self.list_all(folder, None).await.map_err(failed)?;
        let listed = found.into_iter().filter_map(|meta| {
            Some(Listed {
                key: self.key_of(&meta.location)?,
                bytes: meta.size,
                modified: Some(meta.last_modified),
            })
        });
        Ok(listed.collect())
    }

    async fn list_keys_from(&self, prefix: &str, from: &str) -> Result<Vec<String>, TargetError> {
        let failed = |error| self.error("list", prefix, error);
        let folder = require_prefix(prefix, &self.label)?;
        let folder = self.below_prefix("list", folder)?;
        // A key equal to the offset is not listed, so the offset is one byte shorter.
        let offset = match from.char_indices().next_back() {
            Some((last, _)) if from.starts_with(prefix) && last > prefix.len() => {
                Some(self.below_prefix("list", &from[..last])?)
            }
            _ => None,
        };
        let found = self.list_all(folder, offset.as_ref()).await;
        let found = found.map_err(failed)?.into_iter();
        let keys = found.filter_map(|meta| self.key_of(&meta.location));
        Ok(keys.filter(|key| key.as_str() >= from).collect())
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let root = self.below_prefix("list", "")?;
        let listed = attempt(self.store.list_with_delimiter(Some(&root))).await;
        let listed = listed.map_err(|e| self.error("list", "/", e))?;
        let folders = listed.common_prefixes.iter();
        let mut names: Vec<String> = folders
            .filter_map(|path| self.key_of(path))
            .filter(|name| !name.contains('/'))
            .collect();
        names.sort();
        Ok(names)
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.put_into(&self.class, key, body, mode).await
    }

    async fn put_cold(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        let class = match self.data_class {
            Some(_) => &self.data_class,
            None => &self.class,
        };
        self.put_into(class, key, body, mode).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        let path = self.path("get", key)?;
        let opened = resume::open(&self.store, &path, 0, None).await;
        let opened = opened.map_err(|e| self.error("get", key, e))?;
        if opened.bytes > limit {
            let bytes = opened.bytes;
            let error = SizeError::TooLarge { bytes, limit };
            return Err(self.permanent("get", key, error));
        }
        self.collect(key, path, 0, opened).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let path = self.path("get", key)?;
        if range.start >= range.end {
            let meta = attempt(self.store.head(&path)).await;
            let bytes = meta.map_err(|e| self.error("get", key, e))?.size;
            return match range.start == range.end && range.end <= bytes {
                true => Ok(Bytes::new()),
                false => Err(self.permanent("get", key, SizeError::BeyondEnd { bytes })),
            };
        }
        let opened = resume::open(&self.store, &path, range.start, Some(range.end)).await;
        let opened = opened.map_err(|e| self.error("get", key, e))?;
        if opened.bytes < range.end {
            let error = SizeError::BeyondEnd {
                bytes: opened.bytes,
            };
            return Err(self.permanent("get", key, error));
        }
        self.collect(key, path, range.start, opened).await
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let path = self.path("get", key)?;
        let failed = |error| self.error("get", key, error);
        if offset > 0 {
            // No server answers a range that starts at the very end.
            let meta = attempt(self.store.head(&path)).await;
            let bytes = meta.map_err(failed)?.size;
            if offset == bytes {
                return Ok(futures::stream::empty().boxed());
            }
            if offset > bytes {
                return Err(self.permanent("get", key, SizeError::BeyondEnd { bytes }));
            }
        }
        let opened = resume::open(&self.store, &path, offset, None)
            .await
            .map_err(failed)?;
        let body = resume::read(Arc::clone(&self.store), path, offset, opened, self.retry);
        let (label, key) = (self.label.clone(), key.to_owned());
        let named = move |error: StoreError| {
            let kind = match error.kind() {
                // The object could be opened, so the network is at fault.
                ErrorKind::Permanent => ErrorKind::Unavailable,
                kind => kind,
            };
            TargetError::new("get", &key, &label, kind, error)
        };
        Ok(body.map_err(named).boxed())
    }

    async fn is_frozen(&self, key: &str) -> Result<bool, TargetError> {
        if !self.may_freeze {
            return Ok(false);
        }
        match self.get_range(key, 0..1).await {
            Err(error) if error.kind == ErrorKind::Frozen => Ok(true),
            other => other.map(|_| false),
        }
    }

    async fn thaw(&self, key: &str, days: u16) -> Result<Thaw, TargetError> {
        let path = self.path("thaw", key)?;
        let Some(thawer) = &self.thawer else {
            let what = "this kind of store has no request to thaw; use the provider's own tools";
            return Err(self.permanent("thaw", key, what));
        };
        let requested = thawer.thaw(&path, days).await;
        requested.map_err(|e| TargetError::new("thaw", key, &self.label, e.kind(), e))
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        let path = self.path("delete", key)?;
        match attempt(self.store.delete(&path)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(self.error("delete", key, error))
            }
            _ => Ok(()),
        }
    }
}
