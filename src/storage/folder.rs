//! A folder as a target: a local disk, a USB stick, a network mount.
//!
//! A put ([`put`]) writes `<host>/.tmp/put-…`, flushes it, renames it, and flushes every directory
//! from there up to the root, including those that it did not create: a concurrent put may have
//! created them a moment ago without flushing them yet. So an object that has its name is complete,
//! and durable before `put` returns. (`object_store`'s `LocalFileSystem` leaves the staged `name#1`
//! of a killed put beside the objects permanently, and follows symlinks.)
//!
//! Other users may write to the folder's disk, so everything is reached from its open directory: no
//! planted link leads a read, a write or a delete out of it, and a FIFO never makes an open wait.

mod list;
mod put;
pub(super) mod reserve;
mod root;
mod scratch_file;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::stream::BoxStream;
use rustix::io::Errno;

use super::contract::{Body, Listed, PutMode, PutOutcome, Storage};
use super::error::{ErrorKind, OpenError, TargetError};
use super::key::{is_key, require_key, require_prefix};
use super::meter;
use super::size_error::SizeError;
use super::spec::TargetSpec;
use super::throttle::{self, Limits, Throttle};
use crate::base::openat::Dir;
use crate::base::panics::{Panicked, caught_now};
use list::{list, list_keys, sizes};
use put::put;
use root::{make_durably, open_root};
use scratch_file::clear_abandoned;
use steps::FolderEntry;

const STREAM_CHUNK_BYTES: usize = 256 << 10;

/// A target that is a folder of this machine.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
    label: String,
    limits: Limits,
}

impl Folder {
    /// Opens the folder: creates it durably if it is absent, and removes the files of killed puts.
    pub(super) fn open(path: &Path, spec: &TargetSpec) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder {
            path: path.to_owned(),
            source,
        };
        let root = std::path::absolute(path).map_err(failed)?;
        make_durably(&root).map_err(failed)?;
        clear_abandoned(&root).map_err(failed)?;
        Ok(Self {
            root,
            label: spec.label(),
            limits: Limits::of(spec),
        })
    }

    /// Runs `work` on the open root, off the asynchronous threads.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Dir) -> io::Result<T> + Send + 'static,
    ) -> Result<T, TargetError> {
        let root = self.root.clone();
        let work = move || caught_now(|| work(&open_root(&root)?));
        let task = tokio::task::spawn_blocking(work).await;
        let done = task.unwrap_or_else(|e| Err(Panicked::of_task(e)));
        let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
        done.map_err(|error| self.error(operation, key, error))
    }

    fn error(&self, operation: &'static str, key: &str, error: io::Error) -> TargetError {
        TargetError::new(operation, key, &self.label, kind_of(&error), error)
    }

    /// Refuses an invalid key.
    fn check(&self, operation: &'static str, key: &str) -> Result<(), TargetError> {
        require_key(operation, key, &self.label)
    }
}

/// Returns what an error means for the caller.
fn kind_of(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::InvalidInput
        | Io::InvalidData
        | Io::NotADirectory
        | Io::IsADirectory
        | Io::FileTooLarge
        | Io::UnexpectedEof => ErrorKind::Permanent,
        // A symlink where none is allowed.
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => ErrorKind::Permanent,
        _ => ErrorKind::Unavailable,
    }
}

/// Opens an object; returns the file and its size.
fn open_object(root: &Dir, key: &str) -> io::Result<(File, u64)> {
    let (folder, name) = steps::split(key);
    let (file, meta) = root.sub(folder)?.open_file(name)?;
    Ok((file, meta.len()))
}

fn read_range(
    root: &Dir,
    key: &str,
    range: Range<u64>,
    limit: Option<&Throttle>,
) -> io::Result<Bytes> {
    let (mut file, bytes) = open_object(root, key)?;
    if range.start > range.end || range.end > bytes {
        return Err(SizeError::BeyondEnd { bytes }.into());
    }
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut buffer = vec![0; length];
    file.seek(SeekFrom::Start(range.start))?;
    throttle::read_exact(&mut file, &mut buffer, limit)?;
    Ok(buffer.into())
}

/// Reads the next piece of `file`, of which `left` bytes are still to come.
fn read_piece(file: &mut File, left: u64, limit: Option<&Throttle>) -> io::Result<Bytes> {
    let length = usize::try_from(left).map_or(STREAM_CHUNK_BYTES, |l| l.min(STREAM_CHUNK_BYTES));
    let mut buffer = vec![0; length];
    throttle::read_exact(file, &mut buffer, limit)?;
    Ok(buffer.into())
}

#[async_trait::async_trait]
impl Storage for Folder {
    fn label(&self) -> &str {
        &self.label
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let folder = require_prefix(prefix, &self.label)?.to_owned();
        self.run("list", prefix, move |root| list(root, &folder))
            .await
    }

    /// A few files are looked up one by one ([`Storage::sizes`]).
    fn looks_in_part(&self, _folders: usize, _objects: usize) -> bool {
        true
    }

    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        let mut folders = Vec::new();
        for prefix in prefixes {
            folders.push(require_prefix(prefix, &self.label)?.to_owned());
        }
        let first = prefixes.first().map_or("/", String::as_str);
        self.run("list", first, move |root| {
            let mut found = Vec::new();
            for folder in &folders {
                found.extend(list(root, folder)?);
            }
            Ok(found)
        })
        .await
    }

    async fn list_keys(&self, prefix: &str) -> Result<Vec<String>, TargetError> {
        let folder = require_prefix(prefix, &self.label)?.to_owned();
        self.run("list", prefix, move |root| list_keys(root, &folder, ""))
            .await
    }

    async fn list_keys_from(&self, prefix: &str, from: &str) -> Result<Vec<String>, TargetError> {
        let folder = require_prefix(prefix, &self.label)?.to_owned();
        let from = from.to_owned();
        self.run("list", prefix, move |root| list_keys(root, &folder, &from))
            .await
    }

    async fn sizes(&self, keys: &[String]) -> Result<Option<HashMap<String, u64>>, TargetError> {
        let Some(first) = keys.first() else {
            return Ok(Some(HashMap::new()));
        };
        for key in keys {
            self.check("look at", key)?;
        }
        let keys = keys.to_vec();
        let found = self.run("look at", first, move |root| sizes(root, &keys));
        Ok(Some(found.await?))
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let folders = |root: &Dir| {
            let is_ours =
                |(name, held): &(String, FolderEntry)| *held == FolderEntry::Folder && is_key(name);
            let found = steps::read_dir(root)?.into_iter().filter(is_ours);
            let mut names: Vec<String> = found.map(|(name, _)| name).collect();
            names.sort();
            Ok(names)
        };
        self.run("list", "/", folders).await
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.check("put", key)?;
        let (name, limit) = (key.to_owned(), self.limits.upload.clone());
        let attempt = meter::attempt();
        self.run("put", key, move |root| {
            let done = put(root, &name, &body, mode, limit.as_deref(), &attempt)?;
            attempt.keep();
            Ok(done)
        })
        .await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        self.check("get", key)?;
        let (name, throttle) = (key.to_owned(), self.limits.download.clone());
        self.run("get", key, move |root| {
            let (_, bytes) = open_object(root, &name)?;
            if bytes > limit {
                return Err(SizeError::TooLarge { bytes, limit }.into());
            }
            read_range(root, &name, 0..bytes, throttle.as_deref())
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        self.check("get", key)?;
        let (name, throttle) = (key.to_owned(), self.limits.download.clone());
        self.run("get", key, move |root| {
            read_range(root, &name, range, throttle.as_deref())
        })
        .await
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        self.check("get", key)?;
        let name = key.to_owned();
        let open = move |root: &Dir| {
            let (mut file, bytes) = open_object(root, &name)?;
            let left = bytes.checked_sub(offset);
            let left = left.ok_or(SizeError::BeyondEnd { bytes })?;
            file.seek(SeekFrom::Start(offset))?;
            Ok((file, left))
        };
        let opened = self.run("get", key, open).await?;
        let (folder, key) = (self.clone(), key.to_owned());
        let stream = futures::stream::try_unfold(opened, move |(mut file, left)| {
            let (folder, key) = (folder.clone(), key.clone());
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let throttle = folder.limits.download.clone();
                let read = move |_: &Dir| {
                    let piece = read_piece(&mut file, left, throttle.as_deref())?;
                    Ok((piece, file))
                };
                let (piece, file) = folder.run("get", &key, read).await?;
                let left = left - piece.len() as u64;
                Ok(Some((piece, (file, left))))
            }
        });
        Ok(Box::pin(stream))
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.check("delete", key)?;
        let key_text = key.to_owned();
        self.run("delete", key, move |root| {
            let (folder, name) = steps::split(&key_text);
            let dir = match root.sub(folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            steps::remove(&dir, name)?;
            dir.sync()
        })
        .await
    }

    fn has_reserve(&self) -> bool {
        true
    }

    async fn keep_reserve(&self, host: &str) -> Result<(), TargetError> {
        self.check("keep room in", host)?;
        let (key, body) = (reserve::key(host), Body::Bytes(reserve::content(host)));
        let attempt = meter::attempt();
        self.run("keep room in", host, move |root| {
            put(root, &key, &body, PutMode::Create, None, &attempt).map(drop)
        })
        .await
    }

    async fn free_reserve(&self, host: &str) -> Result<bool, TargetError> {
        self.check("free room in", host)?;
        let key = reserve::key(host);
        self.run("free room in", host, move |root| {
            let (folder, name) = steps::split(&key);
            let dir = match root.sub(folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                other => other?,
            };
            let was_there = steps::is_file(&dir, name)?;
            steps::remove(&dir, name)?;
            dir.sync()?;
            Ok(was_there)
        })
        .await
    }
}
