//! A folder as a target: a local disk, a USB stick, a network mount.
//!
//! Why not `object_store`'s `LocalFileSystem`: a put that is killed leaves its staged `name#1`
//! beside the objects for ever, and it follows symlinks. Here a put writes `<host>/.tmp/put-…`,
//! flushes it, renames it to its name, and flushes every directory from there up to the root (also
//! those it did not make itself: a neighbour's put may have made them a moment ago and not flushed
//! them yet). So whatever has its name is complete, and it is durable before `put` returns.
//!
//! A put that fails removes its file. One that is killed leaves it, unlocked; [`Folder::open`]
//! removes it then. A put in any other process keeps its file locked (`flock`) until the rename, and
//! there is a minute between making and locking, so nobody's running put is ever disturbed. Where
//! locks don't work the age alone decides, and it is a day.
//!
//! A folder may be on a disk that somebody else writes to, so everything is reached from its open directory: no
//! planted link leads a read, a write or a delete out of it, and a FIFO never makes an open wait.

mod steps;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::key::{check_key, check_prefix, is_key, is_key_in};
use super::reserve;
use super::throttle::{self, Limits, Throttle};
use super::{
    Body, ErrorKind, Listed, OpenError, PutMode, PutOutcome, Target, TargetError, TargetSpec,
};
use crate::openat::{Chosen, Dir, Kind, Meta, chmod_fd};
use crate::panics::{Panicked, caught_now};
use steps::Held;

const SCRATCH: &str = ".tmp";
const ABANDONED_AGE: Duration = Duration::from_secs(60);
/// Where the file system knows no locks.
const ABANDONED_AGE_UNLOCKED: Duration = Duration::from_secs(24 * 3600);
const STREAM_CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
    label: String,
    limits: Limits,
}

impl Folder {
    /// Makes the folder, durably, if it is not there, and clears what killed puts left in it.
    pub fn open(path: &Path, spec: &TargetSpec) -> Result<Self, OpenError> {
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

    /// Runs `work` on the root, off the asynchronous threads.
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

    fn check(&self, operation: &'static str, key: &str) -> Result<(), TargetError> {
        check_key(key)
            .map_err(|e| TargetError::new(operation, key, &self.label, ErrorKind::Permanent, e))
    }
}

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
        // A symlink where none may be.
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => ErrorKind::Permanent,
        _ => ErrorKind::Unavailable,
    }
}

/// Opens the root. A link of another user's may lead to it only if what it leads to is that user's as well: otherwise
/// the owner of the directory that the folder is in could have another repository pruned.
fn open_root(root: &Path) -> io::Result<Dir> {
    let chosen = Chosen::open(root)?;
    match chosen.is_dir() {
        true => Ok(chosen.dir().clone()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn make_durably(root: &Path) -> io::Result<()> {
    let (mut at, mut missing) = (root, Vec::new());
    let mut dir = loop {
        match (open_root(at), at.parent(), at.file_name()) {
            (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(name);
                let is_here = parent.as_os_str().is_empty();
                at = if is_here { Path::new(".") } else { parent };
            }
            (opened, ..) => break opened?,
        }
    };
    while let Some(name) = missing.pop() {
        let made = dir.make_dirs(name, 0o777)?;
        dir.sync()?;
        dir = made;
    }
    Ok(())
}

/// Removes what killed puts left, in every host's folder that we may look into.
fn clear_abandoned(root: &Path) -> io::Result<()> {
    let root = open_root(root)?;
    let found = steps::read_dir(&root)?.into_iter();
    let folders = found.filter(|(_, held)| *held == Held::Folder);
    // Hosts' folders, and the root itself for objects right below it.
    for host in folders.map(|(name, _)| name).chain([String::new()]) {
        // Another host's folder may not be ours to read or clear.
        let Ok(scratch) = root.sub(&host).and_then(|host| host.sub(SCRATCH)) else {
            continue;
        };
        for (name, _) in steps::read_dir(&scratch).unwrap_or_default() {
            let opened = scratch.open_file(&name);
            if opened.is_ok_and(|(file, _)| is_abandoned(&file)) {
                let _ = steps::remove(&scratch, &name);
            }
        }
    }
    Ok(())
}

fn is_abandoned(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    let Some(age) = modified.ok().and_then(|time| time.elapsed().ok()) else {
        return false;
    };
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => age >= ABANDONED_AGE,
        Err(Errno::WOULDBLOCK) => false,
        Err(_) => age >= ABANDONED_AGE_UNLOCKED,
    }
}

/// A file in a host's scratch folder; dropped before it is renamed away, it is removed.
struct Scratch {
    dir: Dir,
    name: String,
    file: File,
    renamed: bool,
}

impl Scratch {
    fn create(host: &Dir) -> io::Result<Self> {
        let dir = host.make_dirs(SCRATCH, 0o777)?;
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("put-{}", crate::ids::hex(&random));
        let file = steps::create_file(&dir, &name)?;
        // Best effort: see the module's words on file systems without locks.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Self {
            dir,
            name,
            file,
            renamed: false,
        })
    }

    fn fill(&mut self, body: &Body, limit: Option<&Throttle>) -> io::Result<()> {
        match body {
            Body::Bytes(bytes) => {
                throttle::copy(&mut bytes.as_ref(), &mut self.file, limit)?;
            }
            Body::File(path) | Body::Shared(path) => {
                let (mut source, meta) = open_source(path)?;
                let copied = throttle::copy(&mut source, &mut self.file, limit)?;
                if copied != meta.len() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} changed while it was read", path.display()),
                    ));
                }
            }
        }
        self.file.sync_all()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = steps::remove(&self.dir, &self.name);
        }
    }
}

/// Gives `source` a second name, if it then is like the file that a copy would be: its owner, its group
/// and its permissions are those of `scratch`. False: copy it.
fn share(source: &Path, scratch: &Scratch, to: (&Dir, &str)) -> io::Result<bool> {
    let (file, is) = open_source(source)?;
    let should_be = Meta::of_fd(&scratch.file)?;
    let alike = |key: fn(&Meta) -> u64| key(&is) == key(&should_be);
    let has_acl = || {
        let name = "system.posix_acl_access";
        rustix::fs::fgetxattr(&scratch.file, name, &mut [0_u8; 0][..]).is_ok()
    };
    let same_place = alike(Meta::dev);
    let same_owner = alike(|meta| u64::from(meta.uid())) && alike(|meta| u64::from(meta.gid()));
    if !same_place || !same_owner || has_acl() {
        return Ok(false);
    }
    if is.mode() != should_be.mode() {
        chmod_fd(&file, should_be.permissions())?;
        file.sync_all()?;
    }
    // Unless something is there, or it cannot be done.
    let (from, name) = Dir::open_parent(source)?;
    Ok(from.link(&name, to.0, to.1).is_ok())
}

/// Opens a file of the spool's.
fn open_source(path: &Path) -> io::Result<(File, Meta)> {
    let (dir, name) = Dir::open_parent(path)?;
    dir.open_file(&name)
}

fn put(
    root: &Dir,
    key: &str,
    body: &Body,
    mode: PutMode,
    limit: Option<&Throttle>,
) -> io::Result<PutOutcome> {
    let (folder, name) = steps::split(key);
    let chain = steps::make_dirs(root, folder)?;
    let (Some(dir), Some(host)) = (chain.last(), chain.get(1).or(chain.first())) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let there = steps::is_file(dir, name)?;
    let outcome = if there && mode == PutMode::Create {
        PutOutcome::Existed
    } else {
        let mut scratch = Scratch::create(host)?;
        if let (Body::Shared(source), PutMode::Create) = (body, mode)
            && share(source, &scratch, (dir, name))?
        {
            chain.iter().rev().try_for_each(Dir::sync)?;
            return Ok(PutOutcome::Written);
        }
        scratch.fill(body, limit)?;
        let from = (&scratch.dir, scratch.name.as_str());
        let renamed = match mode {
            PutMode::Create => steps::rename_new(from, (dir, name))?,
            PutMode::Replace => from.0.rename(from.1, dir, name).map(|()| true)?,
        };
        scratch.renamed = renamed;
        match renamed {
            true => PutOutcome::Written,
            false => PutOutcome::Existed,
        }
    };
    // Also for what existed: whoever put it may not have come to this yet.
    chain.iter().rev().try_for_each(Dir::sync)?;
    Ok(outcome)
}

fn list(root: &Dir, folder: &str) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let dir = match root.sub(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for (name, held) in steps::read_dir(&dir)? {
            if !is_key_in(&folder, &name) {
                continue;
            }
            let key = match folder.as_str() {
                "" => name,
                folder => [folder, "/", &name].concat(),
            };
            match held {
                Held::Folder => folders.push(key),
                Held::File { bytes, modified } => found.push(Listed {
                    key,
                    bytes,
                    modified,
                }),
            }
        }
    }
    Ok(found)
}

/// The keys that [`list`] returns of one folder and those below, without a look at each file.
fn list_keys(root: &Dir, folder: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let dir = match root.sub(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        dir.for_each_entry(|name, kind, _| {
            let Some(name) = name.to_str() else {
                return Ok(());
            };
            if !is_key_in(&folder, name) {
                return Ok(());
            }
            let key = match folder.as_str() {
                "" => name.to_owned(),
                folder => [folder, "/", name].concat(),
            };
            match kind {
                Kind::Dir => folders.push(key),
                Kind::File => found.push(key),
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// What [`list`] says of these keys.
fn sizes(root: &Dir, keys: &[String]) -> io::Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    for key in keys {
        let (folder, name) = steps::split(key);
        let looked = root.sub(folder).and_then(|dir| dir.try_meta(name));
        match looked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(Some(meta)) if meta.is_file() => drop(found.insert(key.clone(), meta.len())),
            Ok(_) => {}
        }
    }
    Ok(found)
}

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
        return Err(beyond_end(bytes));
    }
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut buffer = vec![0; length];
    file.seek(SeekFrom::Start(range.start))?;
    throttle::read_exact(&mut file, &mut buffer, limit)?;
    Ok(buffer.into())
}

fn beyond_end(bytes: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the range is beyond its end ({bytes} bytes)"),
    )
}

/// The next piece of `file`, of which `left` bytes should still come.
fn read_piece(file: &mut File, left: u64, limit: Option<&Throttle>) -> io::Result<Bytes> {
    let length = usize::try_from(left).map_or(STREAM_CHUNK_BYTES, |l| l.min(STREAM_CHUNK_BYTES));
    let mut buffer = vec![0; length];
    throttle::read_exact(file, &mut buffer, limit)?;
    Ok(buffer.into())
}

#[async_trait::async_trait]
impl Target for Folder {
    fn label(&self) -> &str {
        &self.label
    }

    /// Single files are looked at one by one ([`Target::sizes`]).
    fn looks_in_part(&self, _folders: usize, _objects: usize) -> bool {
        true
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, TargetError> {
        let folder = check_prefix(prefix)
            .map_err(|e| TargetError::new("list", prefix, &self.label, ErrorKind::Permanent, e))?
            .to_owned();
        self.run("list", prefix, move |root| list(root, &folder))
            .await
    }

    async fn list_each(&self, prefixes: &[String]) -> Result<Vec<Listed>, TargetError> {
        let mut folders = Vec::new();
        for prefix in prefixes {
            let failed = |e| TargetError::new("list", prefix, &self.label, ErrorKind::Permanent, e);
            folders.push(check_prefix(prefix).map_err(failed)?.to_owned());
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
        let folder = check_prefix(prefix)
            .map_err(|e| TargetError::new("list", prefix, &self.label, ErrorKind::Permanent, e))?
            .to_owned();
        self.run("list", prefix, move |root| list_keys(root, &folder))
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
            let is_ours = |(name, held): &(String, Held)| *held == Held::Folder && is_key(name);
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
        self.run("put", key, move |root| {
            put(root, &name, &body, mode, limit.as_deref())
        })
        .await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, TargetError> {
        self.check("get", key)?;
        let (name, throttle) = (key.to_owned(), self.limits.download.clone());
        self.run("get", key, move |root| {
            let (_, bytes) = open_object(root, &name)?;
            if bytes > limit {
                let what = format!("it has {bytes} bytes, more than the {limit} expected");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
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
            let left = bytes.checked_sub(offset).ok_or_else(|| beyond_end(bytes))?;
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
        self.run("keep room in", host, move |root| {
            put(root, &key, &body, PutMode::Create, None).map(drop)
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

#[cfg(test)]
mod tests;
