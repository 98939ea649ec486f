//! A snapshot directory in the making: claimed by one process, published by one rename.
//!
//! `.partial-<stamp>` is created atomically, so two processes never work under one stamp, and is held by
//! a flock on the directory itself, so whoever finds one that is not locked knows its maker to be dead.
//! A stamp is free when neither `<stamp>` nor `invalid-<stamp>` exists *after* the partial directory was
//! created: a rival that published meanwhile had renamed its own partial directory away first.
//! Crash argument: nothing but the rename makes `<stamp>`, and everything below it was flushed before.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FlockOperation;

use crate::ids::Stamp;

pub(super) const PARTIAL: &str = ".partial-";
pub(super) const INVALID: &str = "invalid-";
/// A day of seconds: more snapshots ahead of the clock than that are a mistake.
const MAX_BUMPS: usize = 86_400;

pub(super) struct Claim {
    dir: PathBuf,
    pub partial: PathBuf,
    pub stamp: Stamp,
    /// The flock.
    _lock: File,
    published: bool,
}

impl Claim {
    /// Claims the first free second from `now` on.
    pub fn take(dir: &Path, now: DateTime<Utc>) -> io::Result<Self> {
        private_dir(dir)?;
        let mut stamp = Stamp::at(now).map_err(io::Error::other)?;
        for _ in 0..MAX_BUMPS {
            if let Some(claim) = Self::try_stamp(dir, stamp)? {
                return Ok(claim);
            }
            stamp = match stamp.next() {
                next if next == stamp => break,
                next => next,
            };
        }
        Err(io::Error::other("no free stamp within a day"))
    }

    fn try_stamp(dir: &Path, stamp: Stamp) -> io::Result<Option<Self>> {
        let partial = dir.join(format!("{PARTIAL}{stamp}"));
        match DirBuilder::new().mode(0o700).create(&partial) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            other => other?,
        }
        // Someone clearing up may take the new directory for a dead one until it is locked.
        let Some(lock) = lock_dir(&partial)? else {
            return Ok(None);
        };
        let taken = |name: String| fs::symlink_metadata(dir.join(name)).is_ok();
        if taken(stamp.to_string()) || taken(format!("{INVALID}{stamp}")) {
            fs::remove_dir(&partial)?;
            return Ok(None);
        }
        Ok(Some(Self {
            dir: dir.to_owned(),
            partial,
            stamp,
            _lock: lock,
            published: false,
        }))
    }

    /// Where a snapshot will stand.
    pub fn destination(&self, valid: bool) -> PathBuf {
        let prefix = if valid { "" } else { INVALID };
        self.dir.join(format!("{prefix}{}", self.stamp))
    }

    /// Flushes everything and gives it its name.
    pub fn publish(mut self, valid: bool) -> io::Result<PathBuf> {
        let destination = self.destination(valid);
        rustix::fs::syncfs(File::open(&self.partial)?)?;
        fs::rename(&self.partial, &destination)?;
        self.published = true;
        crate::fs::sync_dir(&self.dir)?;
        Ok(destination)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.published {
            let _ = remove_tree(&self.partial);
        }
    }
}

/// Removes the partial directories of processes that died; names those it could not remove.
pub(super) fn clear_stale(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut notes = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            continue;
        }
        let path = entry.path();
        let removed = match lock_dir(&path) {
            Ok(Some(_lock)) => remove_tree(&path),
            Ok(None) => continue,
            Err(e) => Err(e),
        };
        if let Err(e) = removed {
            notes.push(format!(
                "cannot remove the leftover {}: {e}",
                path.display()
            ));
        }
    }
    Ok(notes)
}

/// The lock on `path`; `None` if someone else has it or the directory is gone.
fn lock_dir(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    let ours = file.metadata()?;
    let same = |now: fs::Metadata| (now.dev(), now.ino()) == (ours.dev(), ours.ino());
    Ok(fs::symlink_metadata(path).is_ok_and(same).then_some(file))
}

/// Creates a directory and its missing parents, for us alone.
pub(super) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes a tree whose directories may have lost their write permission.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}
