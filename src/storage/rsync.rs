//! Another machine, by the system's `rsync`: over ssh, or as a client of an rsync daemon.
//!
//! Only what rsync itself does is used (list, send, fetch, delete), so a key restricted to `rrsync` will do.
//! Each call costs a handshake; so requests that come while a call is under way wait and go together in the
//! next one ([`batch`]). rsync writes to a temporary name, compares a checksum of the whole, flushes and
//! renames: an object is complete or absent. It knows no ranges: an object is fetched whole, into a temporary
//! file, and read from there.

mod batch;
mod listing;
mod process;
mod ssh_master;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use tempfile::TempDir;

use super::folder::reserve;
use super::key::{check_key, check_prefix};
use super::process_failure::Failure;
use super::retry::Patience;
use super::{Body, ErrorKind, Listed, PutMode, PutOutcome, Storage, TargetError, TargetSpec};
use crate::base::panics::Panicked;
use batch::Batcher;
pub(super) use process::Remote;
use process::{Arguments, Transport};
use ssh_master::Master;

const STREAM_CHUNK_BYTES: usize = 256 << 10;
/// Small objects beyond this are not fetched at all; below it the one who asked is told how large they are.
const MOST_SMALL_BYTES: u64 = 64 << 20;
/// Nor are large ones beyond this, more than the largest archive that can be configured: they were planted to
/// fill the disk here.
const MOST_LARGE_BYTES: u64 = 5 << 30;
/// An archive, generously: for the deadline of fetching it.
const USUAL_LARGE_BYTES: u64 = 1 << 30;
/// A listing in which something vanished meanwhile (an upload got its name) is taken again.
const LISTINGS: usize = 4;

#[derive(Debug)]
pub(super) struct Rsync {
    label: String,
    transport: Arc<Transport>,
    puts: Batcher<Put, Result<PutOutcome, Arc<Failure>>>,
    replaces: Batcher<Put, Result<PutOutcome, Arc<Failure>>>,
    smalls: Batcher<String, Result<Fetched, Arc<Failure>>>,
    larges: Batcher<String, Result<Fetched, Arc<Failure>>>,
}

#[derive(Debug)]
struct Put {
    key: String,
    body: Body,
}

/// A fetched object, in a folder that goes with the last of a batch.
#[derive(Debug, Clone)]
struct Fetched {
    path: PathBuf,
    _folder: Arc<TempDir>,
}

impl Rsync {
    pub fn new(remote: Remote, spec: &TargetSpec) -> Self {
        let transport = Arc::new(Transport {
            remote,
            ssh: spec.ssh.clone(),
            upload: spec.upload.clone(),
            download: spec.download.clone(),
            patience: Patience::of(spec),
            master: Master::default(),
        });
        let send = |replace| {
            let transport = Arc::clone(&transport);
            Batcher::new(move |puts| {
                let transport = Arc::clone(&transport);
                Box::pin(async move { send(&transport, puts, replace).await })
            })
        };
        let fetch = |most_bytes| {
            let transport = Arc::clone(&transport);
            Batcher::new(move |keys| {
                let transport = Arc::clone(&transport);
                Box::pin(async move { fetch(&transport, keys, most_bytes).await })
            })
        };
        Self {
            label: spec.label(),
            puts: send(false),
            replaces: send(true),
            smalls: fetch(MOST_SMALL_BYTES),
            larges: fetch(MOST_LARGE_BYTES),
            transport,
        }
    }

    fn refuse(&self, operation: &'static str, key: &str) -> Result<(), TargetError> {
        check_key(key).map_err(|e| self.error(operation, key, ErrorKind::Permanent, e))
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

    fn failed(
        &self,
        operation: &'static str,
        key: &str,
    ) -> impl Fn(Arc<Failure>) -> TargetError + use<'_> {
        let key = key.to_owned();
        move |failure| self.error(operation, &key, failure.kind, failure)
    }

    /// What rsync prints of `below`; nothing if it is not there.
    async fn listing(&self, how: [&str; 3], below: &str) -> Result<String, Arc<Failure>> {
        let mut left = LISTINGS;
        loop {
            let mut arguments = Arguments::new();
            arguments.add(how);
            arguments.remote(below);
            let output = match self.transport.run(arguments, 0).await {
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

    async fn fetched(&self, key: &str, small: bool) -> Result<Fetched, TargetError> {
        self.refuse("get", key)?;
        let batcher = if small { &self.smalls } else { &self.larges };
        let done = batcher.submit(key.to_owned()).await;
        done.unwrap_or_else(|| Err(Arc::new(Failure::interrupted())))
            .map_err(self.failed("get", key))
    }
}

/// The object's place below `folder`, with the folders that lead there.
fn place(folder: &Path, key: &str) -> io::Result<PathBuf> {
    let path = folder.join(key);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    Ok(path)
}

/// Sends all of `puts` in one call: what is bytes from files, what is a file from where it lies.
async fn send(
    transport: &Transport,
    puts: Vec<Put>,
    replace: bool,
) -> Vec<Result<PutOutcome, Arc<Failure>>> {
    let staged = stage(&puts);
    let sent = match &staged {
        Ok((folder, keys)) => {
            let mut arguments = Arguments::new();
            arguments.upload();
            arguments.add(["-rLW", "--fsync", "--mkpath", "--out-format=%i %n"]);
            // What is there is whole. Content that replaces what is damaged may have its size and time.
            arguments.add(match replace {
                true => ["--ignore-times"],
                false => ["--ignore-existing"],
            });
            arguments.files_from(keys);
            arguments.local(folder.path());
            arguments.remote("");
            transport
                .run(arguments, puts.iter().map(Put::bytes).sum())
                .await
        }
        Err(error) => Err(Failure::local(error)),
    };
    let (written, failure) = match sent {
        Ok(output) => (listing::sent(&output.stdout), output.complete().err()),
        Err(failure) => (HashSet::new(), Some(failure)),
    };
    let failure = failure.map(Arc::new);
    let staged: HashSet<&String> = match &staged {
        Ok((_, keys)) => keys.iter().collect(),
        Err(_) => puts.iter().map(|put| &put.key).collect(),
    };
    let outcome = |put: &Put| {
        if !staged.contains(&put.key) {
            return Err(Arc::new(Failure::unreadable(put.path())));
        }
        match (&failure, written.contains(&put.key)) {
            // rsync names a file when it begins with it: after a failure that says nothing.
            (Some(failure), _) => Err(Arc::clone(failure)),
            (None, true) => Ok(PutOutcome::Written),
            (None, false) if replace => Err(Arc::new(Failure::new(
                ErrorKind::Denied,
                "the server keeps what is there (rrsync -no-overwrite)",
            ))),
            (None, false) => Ok(PutOutcome::Existed),
        }
    };
    puts.iter().map(outcome).collect()
}

impl Put {
    fn bytes(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(path) | Body::Shared(path) => {
                fs::metadata(path).map_or(0, |meta| meta.len())
            }
        }
    }

    fn path(&self) -> &Path {
        match &self.body {
            Body::Bytes(_) => Path::new(""),
            Body::File(path) | Body::Shared(path) => path,
        }
    }
}

/// A folder that looks as the target shall, and the keys in it. A file that cannot be read is left out.
fn stage(puts: &[Put]) -> io::Result<(TempDir, Vec<String>)> {
    let folder = tempfile::Builder::new()
        .prefix("sealift-rsync-")
        .tempdir()?;
    let mut keys = Vec::new();
    for put in puts {
        let place = place(folder.path(), &put.key)?;
        match &put.body {
            Body::Bytes(bytes) => match File::create_new(&place) {
                Ok(mut file) => file.write_all(bytes)?,
                // Two puts of one key have the same content.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            },
            Body::File(path) | Body::Shared(path) => {
                let path = std::path::absolute(path)?;
                if File::open(&path).is_err() {
                    continue;
                }
                match std::os::unix::fs::symlink(path, &place) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
            }
        }
        keys.push(put.key.clone());
    }
    Ok((folder, keys))
}

/// Fetches all of `keys` in one call; each is there afterwards, or not.
async fn fetch(
    transport: &Transport,
    keys: Vec<String>,
    most_bytes: u64,
) -> Vec<Result<Fetched, Arc<Failure>>> {
    let folder = match tempfile::Builder::new().prefix("sealift-rsync-").tempdir() {
        Ok(folder) => Arc::new(folder),
        Err(error) => {
            let failure = Arc::new(Failure::local(&error));
            return keys.iter().map(|_| Err(Arc::clone(&failure))).collect();
        }
    };
    let mut arguments = Arguments::new();
    arguments.add(["-r".to_owned(), format!("--max-size={most_bytes}")]);
    let inner = transport.remote.inner();
    let names: Vec<String> = keys.iter().map(|key| format!("{inner}{key}")).collect();
    arguments.files_from(&names);
    arguments.outer();
    arguments.local(folder.path());
    let bytes = most_bytes.min(USUAL_LARGE_BYTES) * keys.len() as u64;
    let output = transport.run(arguments, bytes).await.map_err(Arc::new);
    let found = |key: &String| {
        let path = folder.path().join(&inner).join(key);
        if path.is_file() {
            return Ok(Fetched {
                path,
                _folder: Arc::clone(&folder),
            });
        }
        Err(match &output {
            Err(failure) => Arc::clone(failure),
            Ok(output) if output.is_complete() => Arc::new(Failure::too_large(most_bytes)),
            Ok(output) => Arc::new(output.why_not(&format!("{inner}{key}"))),
        })
    };
    keys.iter().map(found).collect()
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
    File::open(path)?.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.into())
}

fn beyond_end(bytes: u64) -> io::Error {
    let what = format!("the range is beyond its end ({bytes} bytes)");
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[async_trait::async_trait]
impl Storage for Rsync {
    fn label(&self) -> &str {
        &self.label
    }

    fn may_be_unmounted(&self) -> bool {
        true
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        check_prefix(prefix).map_err(|e| self.error("list", prefix, ErrorKind::Permanent, e))?;
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
        let fetched = self.fetched(key, limit <= MOST_SMALL_BYTES).await?;
        let read = || {
            let bytes = fs::metadata(&fetched.path)?.len();
            if bytes > limit {
                let what = format!("it has {bytes} bytes, more than the {limit} expected");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
            }
            Ok(Bytes::from(fs::read(&fetched.path)?))
        };
        read().map_err(|e| self.error("get", key, ErrorKind::Permanent, e))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, TargetError> {
        let fetched = self.fetched(key, false).await?;
        let read = || {
            let bytes = fs::metadata(&fetched.path)?.len();
            match range.start > range.end || range.end > bytes {
                true => Err(beyond_end(bytes)),
                false => read_range(&fetched.path, range),
            }
        };
        read().map_err(|e| self.error("get", key, ErrorKind::Permanent, e))
    }

    async fn stream(
        &self,
        key: &str,
        offset: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, TargetError>>, TargetError> {
        let fetched = self.fetched(key, false).await?;
        let permanent = |e| self.error("get", key, ErrorKind::Permanent, e);
        let bytes = fs::metadata(&fetched.path).map_err(permanent)?.len();
        if offset > bytes {
            return Err(permanent(beyond_end(bytes)));
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

    /// Whether one was there rsync does not say.
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
        let put = Put {
            key: key.to_owned(),
            body,
        };
        let done = batcher.submit(put).await;
        done.unwrap_or_else(|| Err(Arc::new(Failure::interrupted())))
            .map_err(self.failed("put", key))
    }

    async fn delete_one(&self, key: &str) -> Result<(), TargetError> {
        let failed = self.failed("delete", key);
        let local = |error: io::Error| failed(Arc::new(Failure::local(&error)));
        let folder = tempfile::Builder::new()
            .prefix("sealift-rsync-")
            .tempdir()
            .map_err(local)?;
        place(folder.path(), key).map_err(local)?;
        let mut arguments = Arguments::new();
        // Nothing is sent, nothing is made: in the folders on the way, the one name goes.
        arguments.add(["-r", "--existing", "--ignore-existing", "--delete"]);
        let slashes = key.match_indices('/').map(|(at, _)| &key[..at + 1]);
        for name in slashes.chain([key]) {
            arguments.add([format!("--include=/{name}")]);
        }
        arguments.add(["--exclude=*"]);
        arguments.local(folder.path());
        arguments.remote("");
        let output = self.transport.run(arguments, 0).await;
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
