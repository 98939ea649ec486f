//! Sends and fetches the objects of many requests in one call of rsync.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::arguments::Arguments;
use super::listing;
use super::process::Transport;
use crate::storage::contract::{Body, PutMode, PutOutcome};
use crate::storage::error::ErrorKind;
use crate::storage::meter::TransferAttempt;
use crate::storage::process_failure::ProcessFailure;

/// Size of an archive, generously, for the deadline of fetching it.
const USUAL_LARGE_BYTES: u64 = 1 << 30;

/// Makes rsync print how many bytes of the call it has moved, once a second.
const PROGRESS: &str = "--info=progress2";

/// A put that waits for its call.
#[derive(Debug)]
pub(super) struct QueuedPut {
    pub key: String,
    pub body: Body,
    pub attempt: TransferAttempt,
}

/// An object that waits for the call that fetches it.
#[derive(Debug)]
pub(super) struct QueuedGet {
    pub key: String,
    pub attempt: Arc<TransferAttempt>,
}

/// A fetched object, in a temporary folder that is removed with the last object of its batch.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub path: PathBuf,
    /// Counts the bytes that were fetched and not passed on yet.
    pub attempt: Arc<TransferAttempt>,
    _folder: Arc<TempDir>,
}

/// Creates a temporary folder of this machine.
pub(super) fn temporary_folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("sealift-rsync-").tempdir()
}

/// Returns an object's path below `folder`, and creates the folders that lead there.
pub(super) fn place(folder: &Path, key: &str) -> io::Result<PathBuf> {
    let path = folder.join(key);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    Ok(path)
}

/// Sends all of `puts` in one call: bytes from temporary files, files from where they are. Returns
/// the results in the same order.
pub(super) async fn send(
    transport: &Transport,
    puts: Vec<QueuedPut>,
    mode: PutMode,
) -> Vec<Result<PutOutcome, Arc<ProcessFailure>>> {
    let staged = stage(&puts);
    let sent = match &staged {
        Ok((folder, keys)) => {
            let mut arguments = Arguments::new();
            arguments.upload();
            arguments.add(["-rLW", "--fsync", "--mkpath", "--out-format=%i %n"]);
            arguments.add([PROGRESS]);
            // An existing object is whole. Sound content may have the size and time of a damaged
            // object.
            arguments.add(match mode {
                PutMode::Replace => ["--ignore-times"],
                PutMode::Create => ["--ignore-existing"],
            });
            arguments.files_from(keys);
            arguments.local(folder.path());
            arguments.remote("");
            let sizes: Vec<u64> = puts.iter().map(QueuedPut::bytes).collect();
            let sizes = puts.iter().map(|put| &put.attempt).zip(sizes);
            let sizes: Vec<(&TransferAttempt, u64)> = sizes.collect();
            let bytes = sizes.iter().map(|(_, bytes)| bytes).sum();
            let moved = |total| spread(total, &sizes);
            transport.run(arguments, bytes, &moved).await
        }
        Err(error) => Err(ProcessFailure::local(error)),
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
    let outcome = |put: &QueuedPut| {
        if !staged.contains(&put.key) {
            return Err(Arc::new(ProcessFailure::unreadable(put.path())));
        }
        match (&failure, written.contains(&put.key)) {
            // rsync names a file when it begins to send it, so after a failure the name proves
            // nothing.
            (Some(failure), _) => Err(Arc::clone(failure)),
            (None, true) => Ok(PutOutcome::Written),
            (None, false) if mode == PutMode::Replace => Err(Arc::new(ProcessFailure::new(
                ErrorKind::Denied,
                "the server refuses to overwrite objects (rrsync -no-overwrite)",
            ))),
            (None, false) => Ok(PutOutcome::Existed),
        }
    };
    let settle = |put: &QueuedPut| {
        let outcome = outcome(put);
        if outcome.is_ok() {
            put.attempt.keep();
        }
        outcome
    };
    puts.iter().map(settle).collect()
}

/// Counts `total` bytes of a call: rsync moves one object after the other, of the sizes given.
fn spread(total: u64, objects: &[(&TransferAttempt, u64)]) {
    let mut left = total;
    for (attempt, bytes) in objects {
        attempt.reached(left.min(*bytes));
        left = left.saturating_sub(*bytes);
    }
}

impl QueuedPut {
    /// Size of the body; 0 if its file cannot be read.
    fn bytes(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(path) | Body::Shared(path) => {
                fs::metadata(path).map_or(0, |meta| meta.len())
            }
        }
    }

    /// Path of the body's file; empty for bytes.
    fn path(&self) -> &Path {
        match &self.body {
            Body::Bytes(_) => Path::new(""),
            Body::File(path) | Body::Shared(path) => path,
        }
    }
}

/// Makes a folder of objects as they will be on the target; returns it and the keys in it. Omits
/// files that cannot be read.
fn stage(puts: &[QueuedPut]) -> io::Result<(TempDir, Vec<String>)> {
    let folder = temporary_folder()?;
    let mut keys = Vec::new();
    for put in puts {
        let place = place(folder.path(), &put.key)?;
        match &put.body {
            Body::Bytes(bytes) => match File::create_new(&place) {
                Ok(mut file) => file.write_all(bytes)?,
                // Another put of this batch has the same key, and so the same content.
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

/// Fetches all of `keys` in one call. Returns the results in the same order. Objects larger than
/// `most_bytes` are not fetched.
pub(super) async fn fetch(
    transport: &Transport,
    gets: Vec<QueuedGet>,
    most_bytes: u64,
) -> Vec<Result<Fetched, Arc<ProcessFailure>>> {
    let keys: Vec<String> = gets.iter().map(|get| get.key.clone()).collect();
    let folder = match temporary_folder() {
        Ok(folder) => Arc::new(folder),
        Err(error) => {
            let failure = Arc::new(ProcessFailure::local(&error));
            return keys.iter().map(|_| Err(Arc::clone(&failure))).collect();
        }
    };
    let mut arguments = Arguments::new();
    arguments.add(["-r".to_owned(), format!("--max-size={most_bytes}")]);
    let first = gets.iter().find(|get| get.attempt.counts());
    // Older programs that have no such option can fetch what nothing counts.
    if first.is_some() {
        arguments.add([PROGRESS]);
    }
    let inner = transport.address.inner();
    let names: Vec<String> = keys.iter().map(|key| format!("{inner}{key}")).collect();
    arguments.files_from(&names);
    arguments.outer();
    arguments.local(folder.path());
    let bytes = most_bytes.min(USUAL_LARGE_BYTES) * keys.len() as u64;
    let moved = |total| {
        // The sizes are unknown, so all bytes count for one of the objects.
        if let Some(get) = first {
            get.attempt.reached(total);
        }
    };
    let output = transport
        .run(arguments, bytes, &moved)
        .await
        .map_err(Arc::new);
    // From now on each object counts for itself.
    moved(0);
    let found = |get: &QueuedGet| {
        let key = &get.key;
        let path = folder.path().join(&inner).join(key);
        if path.is_file() {
            let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
            get.attempt.reached(bytes);
            return Ok(Fetched {
                path,
                attempt: Arc::clone(&get.attempt),
                _folder: Arc::clone(&folder),
            });
        }
        Err(match &output {
            Err(failure) => Arc::clone(failure),
            Ok(output) if output.is_complete() => Arc::new(ProcessFailure::too_large(most_bytes)),
            Ok(output) => Arc::new(output.why_not(&format!("{inner}{key}"))),
        })
    };
    gets.iter().map(found).collect()
}
