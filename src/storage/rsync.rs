//! Another machine as a target, by the system's `rsync`: over ssh, or as a client of an rsync
//! daemon.
//!
//! Only rsync's own operations are used (list, send, fetch, delete), so a key restricted to
//! `rrsync` suffices. Each call costs a handshake; so requests that arrive during a call wait and
//! go together in the next one ([`batch`]). rsync writes to a temporary name, compares a checksum
//! of the whole, flushes and renames, so an object is complete or absent. rsync has no ranges: an
//! object is fetched whole into a temporary file and read from there.

mod arguments;
mod batch;
mod listing;
mod outcome;
mod process;
mod ssh_master;
mod transfer;

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use super::contract::{Body, Listed, PutMode, PutOutcome, Storage};
use super::error::{ErrorKind, TargetError};
use super::folder::reserve;
use super::key::{require_key, require_prefix};
use super::meter;
use super::process_failure::ProcessFailure;
use super::retry::ProcessDeadlines;
use super::size_error::SizeError;
use super::spec::TargetSpec;
use super::url::RsyncAddress;
use crate::base::panics::Panicked;
use arguments::Arguments;
use batch::Batcher;
use process::Transport;
use ssh_master::Master;
use transfer::{Fetched, QueuedGet, QueuedPut, fetch, place, send, temporary_folder};

const STREAM_CHUNK_BYTES: usize = 256 << 10;
/// Maximum size of a small object. A larger one is not fetched; one within this but above the
/// caller's limit is reported with its size.
const MOST_SMALL_BYTES: u64 = 64 << 20;
/// Maximum size of a large object, above that of any archive that can be configured. A larger one
/// was planted to fill this machine's disk.
const MOST_LARGE_BYTES: u64 = 5 << 30;
/// Tries of a listing during which a file vanished (an upload got its name).
const LISTINGS: usize = 4;

/// A target that rsync reaches.
#[derive(Debug)]
pub(super) struct Rsync {
    label: String,
    transport: Arc<Transport>,
    puts: Batcher<QueuedPut, Result<PutOutcome, Arc<ProcessFailure>>>,
    replaces: Batcher<QueuedPut, Result<PutOutcome, Arc<ProcessFailure>>>,
    smalls: Batcher<QueuedGet, Result<Fetched, Arc<ProcessFailure>>>,
    larges: Batcher<QueuedGet, Result<Fetched, Arc<ProcessFailure>>>,
}

impl Rsync {
    pub(super) fn new(address: RsyncAddress, spec: &TargetSpec) -> Self {
        let transport = Arc::new(Transport {
            address,
            ssh: spec.ssh.clone(),
            upload: spec.upload.clone(),
            download: spec.download.clone(),
            deadlines: ProcessDeadlines::of(spec),
            master: Master::default(),
        });
        let send = |mode| {
            let transport = Arc::clone(&transport);
            Batcher::new(move |puts| {
                let transport = Arc::clone(&transport);
                Box::pin(async move { send(&transport, puts, mode).await })
            })
        };
        let fetch = |most_bytes| {
            let transport = Arc::clone(&transport);
            Batcher::new(move |gets| {
                let transport = Arc::clone(&transport);
                Box::pin(async move { fetch(&transport, gets, most_bytes).await })
            })
        };
        Self {
            label: spec.label(),
            puts: send(PutMode::Create),
            replaces: send(PutMode::Replace),
            smalls: fetch(MOST_SMALL_BYTES),
            larges: fetch(MOST_LARGE_BYTES),
            transport,
        }
    }

    /// Refuses an invalid key.
    fn refuse(&self, operation: &'static str, key: &str) -> Result<(), TargetError> {
        require_key(operation, key, &self.label)
    }

    fn error(
        &self,
        operation: &'static str,
        key: &str,
        kind: ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> TargetError {
        TargetError::new(operation, key, &self.label, kind, source)
    }

    /// Returns how to make a [`TargetError`] of a failure of this operation.
    fn failed(
        &self,
        operation: &'static str,
        key: &str,
    ) -> impl Fn(Arc<ProcessFailure>) -> TargetError + use<'_> {
        let key = key.to_owned();
        move |failure| self.error(operation, &key, failure.kind, failure)
    }

    /// Returns rsync's listing of `below`; empty if it does not exist.
    async fn listing(&self, how: [&str; 3], below: &str) -> Result<String, Arc<ProcessFailure>> {
        let mut left = LISTINGS;
        loop {
            let mut arguments = Arguments::new();
            arguments.add(how);
            arguments.remote(below);
            let output = match self.transport.run(arguments, 0, &|_| {}).await {
                Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(String::new()),
                other => other.map_err(Arc::new)?,
            };
            left -= 1;
            if output.is_absent() && output.stdout.trim().is_empty() {
                return Ok(String::new());
            }
            if output.is_complete() || left == 0 {
                return output.complete().map_err(Arc::new);
            }
        }
    }

    /// Fetches an object through one of the two queues.
    async fn fetched(
        &self,
        key: &str,
        batcher: &Batcher<QueuedGet, Result<Fetched, Arc<ProcessFailure>>>,
    ) -> Result<Fetched, TargetError> {
        self.refuse("get", key)?;
        let get = QueuedGet {
            key: key.to_owned(),
            attempt: Arc::new(meter::attempt()),
        };
        let done = batcher.submit(get).await;
        done.unwrap_or_else(|| Err(Arc::new(ProcessFailure::interrupted())))
            .map_err(self.failed("get", key))
    }
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
    File::open(path)?.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.into())
}

#[async_trait::async_trait]
impl Storage for Rsync {
    fn label(&self) -> &str {
        &self.label
    }

    fn may_be_unmounted(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<String> {
        self.transport.deadlines.contact.cause()
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        require_prefix(prefix, &self.label)?;
        let output = self.listing(["-r", "--list-only", "--no-human-readable"], prefix);
        let output = output.await.map_err(self.failed("list", prefix))?;
        Ok(listing::files(&output, prefix))
    }

    async fn list_folders(&self) -> Result<Vec<String>, TargetError> {
        let output = self.listing(["--dirs", "--list-only", "--no-human-readable"], "");
        let output = output.await.map_err(self.failed("list", "/"))?;
        Ok(listing::folders(&output))
    }

    async fn put(&self, key: &str, body: Body, mode: PutMode) -> Result<PutOutcome, TargetError> {
        self.refuse("put", key)?;
        self.send_one(key, body, mode).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        let batcher = match limit <= MOST_SMALL_BYTES {
            true => &self.smalls,
            false => &self.larges,
        };
        let fetched = self.fetched(key, batcher).await?;
        let read = || -> io::Result<Bytes> {
            let bytes = fs::metadata(&fetched.path)?.len();
            if bytes > limit {
                return Err(SizeError::TooLarge { bytes, limit }.into());
            }
            Ok(Bytes::from(fs::read(&fetched.path)?))
        };
        read().map_err(|e| self.error("get", key, ErrorKind::Permanent, e))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let fetched = self.fetched(key, &self.larges).await?;
        let read = || -> io::Result<Bytes> {
            let bytes = fs::metadata(&fetched.path)?.len();
            match range.start > range.end || range.end > bytes {
                true => Err(SizeError::BeyondEnd { bytes }.into()),
                false => read_range(&fetched.path, range),
            }
        };
        read().map_err(|e| self.error("get", key, ErrorKind::Permanent, e))
    }

    fn has_ranges(&self) -> bool {
        false
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let fetched = self.fetched(key, &self.larges).await?;
        let permanent = |e| self.error("get", key, ErrorKind::Permanent, e);
        let bytes = fs::metadata(&fetched.path).map_err(permanent)?.len();
        if offset > bytes {
            return Err(permanent(SizeError::BeyondEnd { bytes }.into()));
        }
        let (label, key) = (self.label.clone(), key.to_owned());
        let stream = futures::stream::try_unfold(offset, move |at| {
            let (fetched, label, key) = (fetched.clone(), label.clone(), key.clone());
            async move {
                if at == bytes {
                    return Ok(None);
                }
                let end = bytes.min(at + STREAM_CHUNK_BYTES as u64);
                let path = fetched.path.clone();
                let read = tokio::task::spawn_blocking(move || read_range(&path, at..end)).await;
                let piece = read
                    .unwrap_or_else(|e| Err(io::Error::other(Panicked::of_task(e))))
                    .map_err(|e| TargetError::new("get", &key, &label, ErrorKind::Permanent, e))?;
                // The reader of the stream counts the piece now.
                fetched.attempt.reached(bytes - end);
                Ok(Some((piece, end)))
            }
        });
        Ok(Box::pin(stream))
    }

    async fn delete(&self, key: &str) -> Result<(), TargetError> {
        self.refuse("delete", key)?;
        self.delete_one(key).await
    }

    fn has_reserve(&self) -> bool {
        true
    }

    async fn keep_reserve(&self, host: &str) -> Result<(), TargetError> {
        self.refuse("keep room in", host)?;
        let (key, body) = (reserve::key(host), Body::Bytes(reserve::content(host)));
        let sent = self.send_one(&key, body, PutMode::Create).await;
        sent.map(drop)
    }

    /// Returns `true` even if there was none: rsync does not report it.
    async fn free_reserve(&self, host: &str) -> Result<bool, TargetError> {
        self.refuse("free room in", host)?;
        let deleted = self.delete_one(&reserve::key(host)).await;
        deleted.map(|()| true)
    }
}

impl Rsync {
    async fn send_one(
        &self,
        key: &str,
        body: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, TargetError> {
        let batcher = match mode {
            PutMode::Create => &self.puts,
            PutMode::Replace => &self.replaces,
        };
        let put = QueuedPut {
            key: key.to_owned(),
            body,
            attempt: meter::attempt(),
        };
        let done = batcher.submit(put).await;
        done.unwrap_or_else(|| Err(Arc::new(ProcessFailure::interrupted())))
            .map_err(self.failed("put", key))
    }

    async fn delete_one(&self, key: &str) -> Result<(), TargetError> {
        let failed = self.failed("delete", key);
        let local = |error: io::Error| failed(Arc::new(ProcessFailure::local(&error)));
        let folder = temporary_folder().map_err(local)?;
        place(folder.path(), key).map_err(local)?;
        let mut arguments = Arguments::new();
        // Nothing is sent or created: only this one name is deleted, in the folders on the way.
        arguments.add(["-r", "--existing", "--ignore-existing", "--delete"]);
        let slashes = key.match_indices('/').map(|(at, _)| &key[..at + 1]);
        for name in slashes.chain([key]) {
            arguments.add([format!("--include=/{name}")]);
        }
        arguments.add(["--exclude=*"]);
        arguments.local(folder.path());
        arguments.remote("");
        let output = self.transport.run(arguments, 0, &|_| {}).await;
        let output = output.map_err(|failure| failed(Arc::new(failure)))?;
        match output.is_absent() {
            true => Ok(()),
            false => {
                let done = output.complete().map(drop);
                done.map_err(|failure| failed(Arc::new(failure)))
            }
        }
    }
}
