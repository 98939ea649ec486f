//! Puts through `object_store`.
//!
//! An object goes up in one put if it fits, so that a store shows it whole or not at all, on the
//! condition that nothing has its name yet. A store that does not support conditions is asked first
//! whether the object exists, and is remembered. A large file goes up in parts.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error as LibraryError, ObjectStoreExt as _, PutMode as StorePutMode,
    PutMultipartOptions, PutOptions, PutPayload,
};

use super::{ATTEMPTS, ObjectTarget};
use crate::base::panics::Panicked;
use crate::storage::contract::{Body, PutMode, PutOutcome};
use crate::storage::error::{ErrorKind, TargetError};
use crate::storage::http::classify::{is_out_of_time, is_unsupported, is_worth_another_put};
use crate::storage::http::store_error::{StoreError, attempt};
use crate::storage::http::tries::Tries;
use crate::storage::retry::jittered_pause;

/// Largest object that goes up in one put. Servers accept at most 5 GB, and a put that breaks off
/// starts over.
const ONE_PUT_BYTES: u64 = 100 << 20;
/// Puts of at least this size get the longer deadline.
const BULK_BYTES: u64 = 4 << 20;
/// Memory for the bodies of files during puts: two archives of the usual size.
pub(super) const BODY_MEBIBYTES: u32 = 128;
const PART_BYTES: usize = 16 << 20;
/// Longest time to find out whether a put that broke off was done after all.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// An object to put.
struct NewObject<'a> {
    key: &'a str,
    path: Path,
    mode: PutMode,
    /// The storage class, if one is set.
    class: Attributes,
}

impl ObjectTarget {
    /// Puts `body` into the storage class `class` (`None`: the bucket's default).
    pub(super) async fn put_into(
        &self,
        class: &Option<String>,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        let class = class
            .iter()
            .map(|class| (Attribute::StorageClass, class.clone()));
        let object = NewObject {
            key,
            path: self.path("put", key)?,
            mode,
            class: class.collect(),
        };
        // Held until the body is sent.
        let mut _memory = None;
        let payload = match body {
            Body::Bytes(bytes) => PutPayload::from(bytes),
            Body::File(source) | Body::Shared(source) => {
                let unreadable = |e: std::io::Error| self.permanent("put", key, e);
                let file = std::fs::File::open(&source).map_err(unreadable)?;
                let bytes = file.metadata().map_err(unreadable)?.len();
                if bytes > ONE_PUT_BYTES {
                    return self.put_parts(&object, file, bytes).await;
                }
                let mebibytes = u32::try_from(bytes >> 20).map_or(BODY_MEBIBYTES, |n| n + 1);
                let memory = self
                    .bodies
                    .acquire_many(mebibytes.min(BODY_MEBIBYTES))
                    .await;
                _memory = Some(memory.map_err(|e| self.permanent("put", key, e))?);
                read_exactly(file, bytes).await.map_err(unreadable)?
            }
        };
        self.put_payload(&object, payload).await
    }

    /// Puts an object in one request, which is repeated if it broke off.
    async fn put_payload(
        &self,
        object: &NewObject<'_>,
        payload: PutPayload,
    ) -> Result<PutOutcome, TargetError> {
        let NewObject { key, path, .. } = object;
        let began = Instant::now();
        let (mut attempts, mut tries) = (1, 0);
        loop {
            let in_time = || began.elapsed() < self.retry;
            let mut error = match self.put_once(object, payload.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tries += error.tries.count.max(1);
            if attempts == ATTEMPTS || !is_worth_another_put(error.inner(), in_time()) {
                if attempts > 1 {
                    let took = began.elapsed();
                    error.tries = Tries { count: tries, took };
                }
                return Err(self.error("put", key, error));
            }
            tracing::info!(%path, attempts, %error, "put broke off, trying again");
            // A server that let a deadline pass would not answer this question either.
            if object.mode == PutMode::Create && !is_out_of_time(error.inner()) {
                let left = self.retry.saturating_sub(began.elapsed());
                let bytes = payload.content_length() as u64;
                if self.is_seen(path, bytes, left.min(LONGEST_LOOK)).await {
                    return Ok(PutOutcome::Existed);
                }
            }
            tokio::time::sleep(jittered_pause(attempts)).await;
            attempts += 1;
        }
    }

    async fn put_once(
        &self,
        object: &NewObject<'_>,
        payload: PutPayload,
    ) -> Result<PutOutcome, StoreError> {
        let options = |mode| PutOptions {
            mode,
            attributes: object.class.clone(),
            ..PutOptions::default()
        };
        let path = &object.path;
        let bytes = payload.content_length() as u64;
        let store = match bytes >= BULK_BYTES {
            true => &self.bulk,
            false => &self.store,
        };
        if object.mode == PutMode::Create {
            if self.conditional_puts.load(Ordering::Relaxed) {
                let create = options(StorePutMode::Create);
                match attempt(store.put_opts(path, payload.clone(), create)).await {
                    Ok(_) => return Ok(PutOutcome::Written),
                    Err(error) if is_already_there(&error) => return Ok(PutOutcome::Existed),
                    Err(error) if is_unsupported(error.inner()) => {
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
        attempt(store.put_opts(path, payload, overwrite)).await?;
        Ok(PutOutcome::Written)
    }

    /// Whether the object of a put that broke off exists after all, as far as `left` suffices to
    /// find out. A server that has it already may answer before it has read the body and hang up,
    /// which arrives here as a broken connection each time. Or the put was done and its answer
    /// lost.
    async fn is_seen(&self, path: &Path, bytes: u64, left: Duration) -> bool {
        match tokio::time::timeout(left, self.is_there(path, bytes)).await {
            Ok(Ok(is_there)) => is_there,
            Ok(Err(error)) => {
                tracing::info!(%path, %error, "cannot find out whether it exists");
                false
            }
            Err(_) => false,
        }
    }

    /// Whether the object exists in full: a store without conditions may also show a put that broke
    /// off half-way.
    async fn is_there(&self, path: &Path, bytes: u64) -> Result<bool, StoreError> {
        match attempt(self.store.head(path)).await {
            Ok(meta) => Ok(meta.size == bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            // Credentials for pushing may list without being allowed to read an archive.
            Err(error) if error.kind() == ErrorKind::Denied => {
                let folder = path.parent().unwrap_or_default();
                let beside = attempt(self.store.list_with_delimiter(Some(&folder))).await?;
                let mut beside = beside.objects.iter();
                Ok(beside.any(|meta| meta.location == *path && meta.size == bytes))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a large file in parts; each part is read, sent and dropped before the next.
    async fn put_parts(
        &self,
        object: &NewObject<'_>,
        file: std::fs::File,
        bytes: u64,
    ) -> Result<PutOutcome, TargetError> {
        let NewObject { key, path, .. } = object;
        let failed = |error| self.error("put", key, error);
        if object.mode == PutMode::Create && self.is_there(path, bytes).await.map_err(failed)? {
            return Ok(PutOutcome::Existed);
        }
        let options = PutMultipartOptions {
            attributes: object.class.clone(),
            ..PutMultipartOptions::default()
        };
        let mut upload = match attempt(self.bulk.put_multipart_opts(path, options)).await {
            Err(error) if is_unsupported(error.inner()) => {
                let payload = read_exactly(file, bytes).await;
                let payload = payload.map_err(|e| self.permanent("put", key, e))?;
                return self.put_payload(object, payload).await;
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
                let part = upload.put_part(part.into());
                attempt(part).await.map_err(failed)?;
                (file, left) = (rest, left - length);
            }
            attempt(upload.complete()).await.map_err(failed)
        };
        match sent.await {
            Ok(_) => Ok(PutOutcome::Written),
            Err(error) => {
                // The provider charges for parts until the upload is aborted.
                if let Err(error) = upload.abort().await {
                    tracing::warn!(key, %error, "could not abort the upload");
                }
                Err(error)
            }
        }
    }
}

fn is_already_there(error: &StoreError) -> bool {
    matches!(error.inner(), LibraryError::AlreadyExists { .. })
}

/// Reads the next `bytes` bytes of `file`, off the asynchronous threads.
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

/// Reads a file that has `bytes` bytes.
async fn read_exactly(file: std::fs::File, bytes: u64) -> std::io::Result<PutPayload> {
    read_piece(file, bytes).await.map(|(all, _)| all.into())
}
