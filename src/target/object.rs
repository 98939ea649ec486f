//! A bucket, a WebDAV folder or a piece of memory as a target, through `object_store`.
//!
//! One put per object where it fits (a store shows it whole or not at all), with the condition that
//! nothing is there yet. A store that knows no conditions is asked first whether the object is
//! there, and is remembered. `object_store` retries what is safe to repeat, with backoff and jitter;
//! it leaves interrupted conditional puts and broken bodies alone, so those are tried again here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error as StoreFailure, ObjectStore, ObjectStoreExt as _,
    PutMode as StorePutMode, PutMultipartOptions, PutOptions, PutPayload,
};

use super::explain::explain;
use super::key::{check_key, check_prefix, is_key};
use super::patience::with_tries;
use super::resume;
use super::s3_listing::{Circle, Endless, IDLE};
use super::store_error::{
    StoreError, is_out_of_time, is_unsupported, is_worth_another_listing, is_worth_another_put,
    kind_of,
};
use super::thaw::Thawer;
use super::{Body, ErrorKind, Listed, PutMode, PutOutcome, Target, TargetError, Thaw};
use crate::panics::Panicked;

/// Beyond this an object goes up in parts: servers take at most 5 GB in one put, and a put that
/// breaks starts over.
const ONE_PUT_BYTES: u64 = 100 << 20;
/// Of files' bodies in memory at once: two archives of the usual size.
pub(super) const BODY_MEBIBYTES: u32 = 128;
const PART_BYTES: usize = 16 << 20;
const ATTEMPTS: u32 = 4;
/// For the question whether a put that broke off was done after all.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// An answer to a listing has so many keys.
const OBJECTS_IN_AN_ANSWER: usize = 1000;

#[derive(Debug)]
pub(super) struct ObjectTarget {
    pub label: String,
    /// For listings, reads and small puts.
    pub store: Arc<dyn ObjectStore>,
    /// The same place, with the patience that a whole archive needs.
    pub bulk: Arc<dyn ObjectStore>,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// Whether the store lists a whole tree at once (most WebDAV servers refuse to).
    pub lists_deep: bool,
    pub conditional_puts: AtomicBool,
    /// For how long a failing request is tried again.
    pub retry: Duration,
    /// Room for the bodies of files being put, a permit for each MiB.
    pub bodies: tokio::sync::Semaphore,
    /// Storage classes of data archives, and of all else; `None`: the bucket's own.
    pub data_class: Option<String>,
    pub class: Option<String>,
    /// Whether an object may lie where it cannot be read at once,
    pub may_freeze: bool,
    /// and who asks for it then.
    pub thawer: Option<Thawer>,
}

type StoreResult<T> = Result<T, StoreFailure>;

/// Puts of at least this size get the patient client.
const BULK_BYTES: u64 = 4 << 20;

fn endless(source: Endless) -> StoreFailure {
    StoreFailure::Generic {
        store: "listing",
        source: source.into(),
    }
}

impl ObjectTarget {
    fn error(&self, operation: &'static str, key: &str, error: StoreFailure) -> TargetError {
        let kind = kind_of(&error);
        TargetError::new(operation, key, &self.label, kind, StoreError(error))
    }

    fn permanent(
        &self,
        operation: &'static str,
        key: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> TargetError {
        TargetError::new(operation, key, &self.label, ErrorKind::Permanent, source)
    }

    fn path(&self, operation: &'static str, key: &str) -> Result<Path, TargetError> {
        check_key(key).map_err(|e| self.permanent(operation, key, e))?;
        self.below_prefix(operation, key)
    }

    fn below_prefix(&self, operation: &'static str, key: &str) -> Result<Path, TargetError> {
        Path::parse(format!("{}/{key}", self.prefix))
            .map_err(|e| self.permanent(operation, key, StoreError(e.into())))
    }

    /// The key of a listed path; `None` for what is not ours.
    fn key_of(&self, path: &Path) -> Option<String> {
        let path = path.as_ref();
        let key = match self.prefix.as_str() {
            "" => path,
            prefix => path.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        is_key(key).then(|| key.to_owned())
    }

    /// Everything below `folder`. A broken answer is asked for again: `object_store` does not do that.
    async fn list_all(&self, folder: Path) -> StoreResult<Vec<object_store::ObjectMeta>> {
        let began = Instant::now();
        for attempt in 1.. {
            let listed = match self.lists_deep {
                true => self.list_deep(&folder).await,
                false => self.list_shallow(folder.clone()).await,
            };
            match listed {
                Err(error)
                    if attempt < ATTEMPTS
                        && is_worth_another_listing(&error, began.elapsed() < self.retry) =>
                {
                    tracing::info!(%folder, attempt, %error, "listing broke off, trying again");
                    tokio::time::sleep(resume::pause(attempt)).await;
                }
                done => return done,
            }
        }
        Ok(Vec::new())
    }

    /// `list`, by a server that lists what is below a prefix.
    async fn list_deep(&self, folder: &Path) -> StoreResult<Vec<object_store::ObjectMeta>> {
        let mut listing = self.store.list(Some(folder));
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

    /// `list`, folder by folder.
    async fn list_shallow(&self, folder: Path) -> StoreResult<Vec<object_store::ObjectMeta>> {
        let mut found = Vec::new();
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let listed = self.store.list_with_delimiter(Some(&folder)).await?;
            found.extend(listed.objects);
            // A server that lists a folder in itself must not send us round in circles.
            let deeper = |path: &Path| path.as_ref().len() > folder.as_ref().len();
            folders.extend(listed.common_prefixes.into_iter().filter(deeper));
        }
        Ok(found)
    }

    async fn put_payload(
        &self,
        key: &str,
        path: &Path,
        payload: PutPayload,
        mode: PutMode,
        class: &Attributes,
    ) -> Result<PutOutcome, TargetError> {
        let began = Instant::now();
        let mut attempt = 1;
        loop {
            let in_time = || began.elapsed() < self.retry;
            match self.put_once(path, payload.clone(), mode, class).await {
                Ok(done) => return Ok(done),
                Err(error) if attempt < ATTEMPTS && is_worth_another_put(&error, in_time()) => {
                    tracing::info!(%path, attempt, %error, "put broke off, trying again");
                    // Of a server that let a deadline pass no answer is to be had here either.
                    if mode == PutMode::Create && !is_out_of_time(&error) {
                        let left = self.retry.saturating_sub(began.elapsed());
                        let bytes = payload.content_length() as u64;
                        if self.is_seen(path, bytes, left.min(LONGEST_LOOK)).await {
                            return Ok(PutOutcome::Existed);
                        }
                    }
                    tokio::time::sleep(resume::pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) if attempt > 1 => {
                    let what = explain(&error);
                    let what = with_tries(what, attempt, began.elapsed());
                    let (label, kind) = (&self.label, kind_of(&error));
                    return Err(TargetError::new("put", key, label, kind, what));
                }
                Err(error) => return Err(self.error("put", key, error)),
            }
        }
    }

    async fn put_once(
        &self,
        path: &Path,
        payload: PutPayload,
        mode: PutMode,
        class: &Attributes,
    ) -> StoreResult<PutOutcome> {
        let options = |mode| PutOptions {
            mode,
            attributes: class.clone(),
            ..PutOptions::default()
        };
        let bytes = payload.content_length() as u64;
        let store = match bytes >= BULK_BYTES {
            true => &self.bulk,
            false => &self.store,
        };
        if mode == PutMode::Create {
            if self.conditional_puts.load(Ordering::Relaxed) {
                let create = options(StorePutMode::Create);
                match store.put_opts(path, payload.clone(), create).await {
                    Ok(_) => return Ok(PutOutcome::Written),
                    Err(StoreFailure::AlreadyExists { .. }) => return Ok(PutOutcome::Existed),
                    Err(error) if is_unsupported(&error) => {
                        self.conditional_puts.store(false, Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.is_there(path, bytes).await? {
                return Ok(PutOutcome::Existed);
            }
        }
        let overwrite = options(StorePutMode::Overwrite);
        store.put_opts(path, payload, overwrite).await?;
        Ok(PutOutcome::Written)
    }

    /// Whether the object of a put that broke off is there after all, as far as can be told within `left`: a
    /// server that has it already may answer before it has read the body and hang up, and then what arrives
    /// here is a broken connection, each time. Or the put was done, and its answer lost.
    async fn is_seen(&self, path: &Path, bytes: u64, left: Duration) -> bool {
        match tokio::time::timeout(left, self.is_there(path, bytes)).await {
            Ok(Ok(is_there)) => is_there,
            Ok(Err(error)) => {
                tracing::info!(%path, %error, "cannot tell whether it is there");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether the object is there in full: what knows no conditions may also show a put that broke
    /// off half-way.
    async fn is_there(&self, path: &Path, bytes: u64) -> StoreResult<bool> {
        match self.store.head(path).await {
            Ok(meta) => Ok(meta.size == bytes),
            Err(StoreFailure::NotFound { .. }) => Ok(false),
            // Credentials for pushing may list, and read no archive.
            Err(error) if kind_of(&error) == ErrorKind::Denied => {
                let folder = path.parent().unwrap_or_default();
                let beside = self.store.list_with_delimiter(Some(&folder)).await?;
                let mut beside = beside.objects.iter();
                Ok(beside.any(|meta| meta.location == *path && meta.size == bytes))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a large file in parts; a part is read, sent and forgotten before the next.
    async fn put_parts(
        &self,
        key: &str,
        path: &Path,
        file: std::fs::File,
        bytes: u64,
        mode: PutMode,
        class: &Attributes,
    ) -> Result<PutOutcome, TargetError> {
        let failed = |error| self.error("put", key, error);
        if mode == PutMode::Create && self.is_there(path, bytes).await.map_err(failed)? {
            return Ok(PutOutcome::Existed);
        }
        let options = PutMultipartOptions {
            attributes: class.clone(),
            ..PutMultipartOptions::default()
        };
        let mut upload = match self.bulk.put_multipart_opts(path, options).await {
            Err(error) if is_unsupported(&error) => {
                let payload = read_exactly(file, bytes).await;
                let payload = payload.map_err(|e| self.permanent("put", key, e))?;
                return self.put_payload(key, path, payload, mode, class).await;
            }
            other => other.map_err(failed)?,
        };
        let sent = async {
            let mut file = file;
            let mut left = bytes;
            while left > 0 {
                let length = left.min(PART_BYTES as u64);
                let read = read_piece(file, length).await;
                let (part, rest) = read.map_err(|e| self.permanent("put", key, e))?;
                upload.put_part(part.into()).await.map_err(failed)?;
                (file, left) = (rest, left - length);
            }
            upload.complete().await.map_err(failed)
        };
        match sent.await {
            Ok(_) => Ok(PutOutcome::Written),
            Err(error) => {
                // The parts sent so far cost money until somebody aborts them.
                if let Err(error) = upload.abort().await {
                    tracing::warn!(key, %error, "could not abort the upload");
                }
                Err(error)
            }
        }
    }

    async fn put_into(
        &self,
        class: &Option<String>,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        let class = class
            .iter()
            .map(|class| (Attribute::StorageClass, class.clone()));
        let class: Attributes = class.collect();
        let path = self.path("put", key)?;
        // Kept until the body is sent.
        let mut _room = None;
        let payload = match body {
            Body::Bytes(bytes) => PutPayload::from(bytes),
            Body::File(source) | Body::Shared(source) => {
                let unreadable = |e: std::io::Error| self.permanent("put", key, e);
                let file = std::fs::File::open(&source).map_err(unreadable)?;
                let bytes = file.metadata().map_err(unreadable)?.len();
                if bytes > ONE_PUT_BYTES {
                    return self.put_parts(key, &path, file, bytes, mode, &class).await;
                }
                let mebibytes = u32::try_from(bytes >> 20).map_or(BODY_MEBIBYTES, |n| n + 1);
                let room = self
                    .bodies
                    .acquire_many(mebibytes.min(BODY_MEBIBYTES))
                    .await;
                _room = Some(room.map_err(|e| self.permanent("put", key, e))?);
                read_exactly(file, bytes).await.map_err(unreadable)?
            }
        };
        self.put_payload(key, &path, payload, mode, &class).await
    }

    /// `bytes` bytes, as they were promised when the range was opened.
    async fn collect(
        &self,
        key: &str,
        path: Path,
        start: u64,
        opened: resume::Opened,
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

async fn read_piece(file: std::fs::File, bytes: u64) -> std::io::Result<(Bytes, std::fs::File)> {
    use std::io::Read as _;
    let read = move || {
        let mut file = file;
        let mut buffer = vec![0; usize::try_from(bytes).map_err(std::io::Error::other)?];
        file.read_exact(&mut buffer)?;
        Ok((Bytes::from(buffer), file))
    };
    let task = tokio::task::spawn_blocking(read);
    let given_up = |error| std::io::Error::other(Panicked::of_task(error));
    task.await.map_err(given_up)?
}

async fn read_exactly(file: std::fs::File, bytes: u64) -> std::io::Result<PutPayload> {
    read_piece(file, bytes).await.map(|(all, _)| all.into())
}

#[async_trait::async_trait]
impl Target for ObjectTarget {
    fn label(&self) -> &str {
        &self.label
    }

    /// Each folder takes a request; a listing of all takes one for each thousand objects, or, where a server lists
    /// one level only, one for each folder.
    fn looks_in_part(&self, folders: usize, objects: usize) -> bool {
        let whole = match self.lists_deep {
            true => objects / OBJECTS_IN_AN_ANSWER,
            false => super::FOLDERS_OF_ARCHIVES,
        };
        folders * 2 <= whole
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let failed = |error| self.error("list", prefix, error);
        let folder = check_prefix(prefix).map_err(|e| self.permanent("list", prefix, e))?;
        let folder = self.below_prefix("list", folder)?;
        let found = self.list_all(folder).await.map_err(failed)?;
        let listed = found.into_iter().filter_map(|meta| {
            Some(Listed {
                key: self.key_of(&meta.location)?,
                bytes: meta.size,
                modified: Some(meta.last_modified),
            })
        });
        Ok(listed.collect())
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let root = self.below_prefix("list", "")?;
        let listed = self.store.list_with_delimiter(Some(&root)).await;
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
            let what = format!("it has {bytes} bytes, more than the {limit} expected");
            return Err(self.permanent("get", key, what));
        }
        self.collect(key, path, 0, opened).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let path = self.path("get", key)?;
        let beyond = |bytes| format!("the range {range:?} is beyond its end ({bytes} bytes)");
        if range.start >= range.end {
            let meta = self.store.head(&path).await;
            let bytes = meta.map_err(|e| self.error("get", key, e))?.size;
            return match range.start == range.end && range.end <= bytes {
                true => Ok(Bytes::new()),
                false => Err(self.permanent("get", key, beyond(bytes))),
            };
        }
        let opened = resume::open(&self.store, &path, range.start, Some(range.end)).await;
        let opened = opened.map_err(|e| self.error("get", key, e))?;
        if opened.bytes < range.end {
            return Err(self.permanent("get", key, beyond(opened.bytes)));
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
            let bytes = self.store.head(&path).await.map_err(failed)?.size;
            if offset == bytes {
                return Ok(futures::stream::empty().boxed());
            }
            if offset > bytes {
                let what = format!("offset {offset} is beyond its end ({bytes} bytes)");
                return Err(self.permanent("get", key, what));
            }
        }
        let opened = resume::open(&self.store, &path, offset, None)
            .await
            .map_err(failed)?;
        let body = resume::read(Arc::clone(&self.store), path, offset, opened, self.retry);
        let (label, key) = (self.label.clone(), key.to_owned());
        let named = move |error: StoreFailure| {
            let kind = match kind_of(&error) {
                // The body of an object that could be opened: the way is at fault, not the object.
                ErrorKind::Permanent => ErrorKind::Unavailable,
                kind => kind,
            };
            TargetError::new("get", &key, &label, kind, StoreError(error))
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
            let what = "there is no request for that; use the provider's own tools";
            return Err(self.permanent("thaw", key, what));
        };
        let asked = thawer.thaw(&path, days).await;
        asked.map_err(|e| TargetError::new("thaw", key, &self.label, e.kind(), e))
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        let path = self.path("delete", key)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(StoreFailure::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("delete", key, error)),
        }
    }
}
