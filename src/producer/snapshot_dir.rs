//! A snapshot directory in the making: created by one process, published by one rename.
//!
//! `.partial-<stamp>` is created atomically, so two processes never work under one stamp. Its maker
//! holds a flock on the directory, so an unlocked one belongs to a dead process. A stamp is free if
//! neither `<stamp>` nor `invalid-<stamp>` exists *after* the partial directory was created: a
//! rival that published meanwhile had renamed its own partial directory away first.
//!
//! Crash argument: only the rename makes `<stamp>`, and everything below it was flushed before.
//!
//! The snapshots directory may be in a directory of another user, who can rename its entries. So
//! the snapshot is made through its open directory, and the directory that got the name is compared
//! with the open one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use rustix::fs::FlockOperation;

use super::backup_metadata::Metadata;
use crate::base::ids::Stamp;
use crate::base::openat::{Dir, Meta};

/// The name prefix of a directory in the making.
pub(super) const PARTIAL: &str = ".partial-";
/// The name prefix of copies that failed their check.
pub(super) const INVALID: &str = "invalid-";
/// Copies of one source that failed their check and are kept.
const MOST_INVALID: usize = 3;
/// Seconds that a stamp may run ahead of the clock: a day. More is a mistake.
const MAX_BUMPS: usize = 86_400;

/// Whether a snapshot passed its validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    /// It gets its stamp as its name.
    Valid,
    /// It is kept as `invalid-<stamp>`.
    Invalid,
}

/// A snapshot in the making. Dropped before it is published, it removes itself.
pub(super) struct PendingSnapshot {
    /// The snapshots directory.
    dir: Dir,
    /// The name of `partial`.
    name: String,
    /// The directory in the making, locked.
    pub partial: Dir,
    meta: Meta,
    pub stamp: Stamp,
    published: bool,
    /// The directory of copies that failed their check, which will be `invalid-<stamp>`; locked,
    /// too. `None`: no copy failed.
    aside: Option<(Dir, Meta)>,
}

impl PendingSnapshot {
    /// Creates the directory for the first free second from `now` on.
    pub(crate) fn create(
        dir: &Path,
        now: DateTime<Utc>,
        taken: &BTreeSet<Stamp>,
    ) -> io::Result<Self> {
        let dir = Dir::open_or_make(dir, 0o700)?;
        let mut stamp = Stamp::at(now).map_err(io::Error::other)?;
        for _ in 0..MAX_BUMPS {
            if !taken.contains(&stamp)
                && let Some(pending) = Self::try_stamp(&dir, stamp)?
            {
                return Ok(pending);
            }
            stamp = match stamp.next() {
                next if next == stamp => break,
                next => next,
            };
        }
        Err(io::Error::other("no free stamp within a day"))
    }

    /// Creates the directory for a snapshot that has this stamp already.
    pub(crate) fn create_as(dir: &Path, stamp: Stamp) -> io::Result<Self> {
        let dir = Dir::open_or_make(dir, 0o700)?;
        let pending = Self::try_stamp(&dir, stamp)?;
        pending.ok_or_else(|| {
            let what = format!("there is a snapshot {stamp} already");
            io::Error::new(io::ErrorKind::AlreadyExists, what)
        })
    }

    fn try_stamp(dir: &Dir, stamp: Stamp) -> io::Result<Option<Self>> {
        let name = format!("{PARTIAL}{stamp}");
        let Some((partial, meta)) = make_locked(dir, &name)? else {
            return Ok(None);
        };
        let taken = |name: String| dir.meta(name).is_ok();
        if taken(stamp.to_string()) || taken(format!("{INVALID}{stamp}")) {
            dir.remove_dir(&name)?;
            return Ok(None);
        }
        Ok(Some(Self {
            dir: dir.clone(),
            name,
            partial,
            meta,
            stamp,
            published: false,
            aside: None,
        }))
    }

    fn aside_name(&self) -> String {
        format!("{PARTIAL}{INVALID}{}", self.stamp)
    }

    /// Returns the directory of the copies that were set aside, if there are any.
    pub(crate) fn aside(&self) -> Option<&Dir> {
        self.aside.as_ref().map(|(dir, _)| dir)
    }

    /// Moves the copy `rel` out of the snapshot. Returns its path after publication.
    pub(crate) fn set_aside(&mut self, rel: &OsStr) -> io::Result<PathBuf> {
        let aside = match &self.aside {
            Some((aside, _)) => aside.clone(),
            None => {
                let made = make_locked(&self.dir, &self.aside_name())?;
                let taken = || io::Error::from(io::ErrorKind::AlreadyExists);
                let (aside, meta) = made.ok_or_else(taken)?;
                self.aside = Some((aside.clone(), meta));
                aside
            }
        };
        let parent = Path::new(rel).parent().unwrap_or(Path::new(""));
        aside.make_dirs(parent, 0o700)?;
        match self.partial.rename(rel, &aside, rel) {
            // Moving a directory writes its `..`, and the owner may not write this one.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.partial.set_mode(rel, 0o700)?;
                self.partial.rename(rel, &aside, rel)?;
            }
            moved => moved?,
        }
        self.remove_empty_parents(rel);
        Ok(self.destination(Validity::Invalid).join(rel))
    }

    /// Removes the copy `rel`, whole or not, if it exists.
    pub(crate) fn discard(&self, rel: &OsStr) -> io::Result<()> {
        match self.partial.meta(rel) {
            Ok(meta) if meta.is_dir() => self.partial.remove_tree(rel)?,
            Ok(_) => self.partial.remove_file(rel)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        self.remove_empty_parents(rel);
        Ok(())
    }

    /// Removes the directories above the copy `rel` that hold nothing else.
    fn remove_empty_parents(&self, rel: &OsStr) {
        let above = Path::new(rel).ancestors().skip(1);
        for dir in above.take_while(|dir| !dir.as_os_str().is_empty()) {
            // A directory that is not empty stays.
            if self.partial.remove_dir(dir).is_err() {
                break;
            }
        }
    }

    fn final_name(&self, validity: Validity) -> String {
        let prefix = match validity {
            Validity::Valid => "",
            Validity::Invalid => INVALID,
        };
        format!("{prefix}{}", self.stamp)
    }

    /// Returns the path of the snapshot after publication.
    pub(crate) fn destination(&self, validity: Validity) -> PathBuf {
        self.dir.path_of(self.final_name(validity))
    }

    /// Flushes everything and renames the directory to its final name. Returns it, still open.
    pub(crate) fn publish(mut self, validity: Validity) -> io::Result<Dir> {
        let name = self.final_name(validity);
        self.partial.sync_file_system()?;
        if let Some((_, meta)) = &self.aside {
            // This comes first: if the run dies in between, the stamp is used up, and no snapshot
            // refers to missing copies.
            let aside = self.final_name(Validity::Invalid);
            self.dir.rename(self.aside_name(), &self.dir, &aside)?;
            if !self.dir.is_still(&aside, meta) {
                return Err(was_exchanged(&self.destination(Validity::Invalid)));
            }
            self.aside = None;
        }
        self.dir.rename(&self.name, &self.dir, &name)?;
        let destination = self.destination(validity);
        if !self.dir.is_still(&name, &self.meta) {
            return Err(was_exchanged(&destination));
        }
        self.published = true;
        self.dir.sync()?;
        Ok(Dir::from_fd(self.partial.try_clone_fd()?, &destination))
    }
}

impl Drop for PendingSnapshot {
    fn drop(&mut self) {
        if !self.published {
            let _ = remove(&self.dir, &self.name, &self.partial);
            if let Some((aside, _)) = &self.aside {
                let _ = remove(&self.dir, self.aside_name(), aside);
            }
        }
    }
}

/// Attempts to make a directory that other processes clear away before it is locked.
const MOST_MADE: usize = 16;

/// Makes the directory `name` in `dir`, private and locked. `None`: it exists, or another process
/// took it.
fn make_locked(dir: &Dir, name: &str) -> io::Result<Option<(Dir, Meta)>> {
    for _ in 1..MOST_MADE {
        match try_make_locked(dir, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Ok(None) if is_gone(dir, name) => {}
            made => return made,
        }
    }
    try_make_locked(dir, name)
}

fn is_gone(dir: &Dir, name: &str) -> bool {
    let looked = dir.meta(name);
    looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn try_make_locked(dir: &Dir, name: &str) -> io::Result<Option<(Dir, Meta)>> {
    let made = match dir.make_dir(name, 0o700) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        other => other?,
    };
    let meta = Meta::of_fd(&made)?;
    // The directory that was opened need not be the one that was made.
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || meta.permissions() & 0o077 != 0 {
        return Err(was_exchanged(&dir.path_of(name)));
    }
    // Another process took ours for abandoned, removed it, and has made its own since.
    if !made.is_empty()? {
        return Ok(None);
    }
    // Until it is locked, another process may take the new directory for abandoned and remove it.
    match lock(dir, name, &made)? {
        true => Ok(Some((made, meta))),
        false => Ok(None),
    }
}

/// Deletes an `invalid-*` directory of `dir` if [`MOST_INVALID`] newer ones hold a copy of each of
/// its sources. That of `newest` stays. Returns notes on those that it deleted or could not delete.
pub(super) fn bound_invalid(dir: &Path, newest: Stamp) -> Vec<String> {
    let mut notes = Vec::new();
    let bounded = Dir::open(dir).and_then(|dir| {
        let mut stamps: Vec<Stamp> = Vec::new();
        for entry in dir.entries()? {
            let name = entry.name.to_str();
            let stamp = name.and_then(|name| name.strip_prefix(INVALID));
            stamps.extend(stamp.and_then(|stamp| stamp.parse::<Stamp>().ok()));
        }
        stamps.sort_unstable();
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        for stamp in stamps.into_iter().rev() {
            let name = format!("{INVALID}{stamp}");
            let places = places(&dir, &name);
            let is_surplus =
                |place: &String| copies.get(place).is_some_and(|number| *number >= MOST_INVALID);
            if stamp == newest || !places.iter().all(is_surplus) {
                for place in places {
                    *copies.entry(place).or_default() += 1;
                }
                continue;
            }
            // It is renamed first: if this process dies, the next run removes the rest.
            let partial = format!("{PARTIAL}{name}");
            dir.rename(&name, &dir, &partial)?;
            dir.remove_tree(&partial)?;
            notes.push(format!(
                "{name} was deleted: for each of its sources, {MOST_INVALID} newer copies that failed their check are kept"
            ));
        }
        Ok(())
    });
    let note = |error| {
        let dir = dir.display();
        format!("cannot delete older `{INVALID}*` directories in {dir}: {error}")
    };
    notes.extend(bounded.map_err(note).err());
    notes
}

/// Returns the places of the sources whose copies an `invalid-*` directory holds. All directories
/// without readable metadata share one place, the empty one.
fn places(dir: &Dir, name: &str) -> BTreeSet<String> {
    let read = dir.sub(name).map(|dir| Metadata::read(&dir));
    let places = match read {
        Ok(Ok(Some(metadata))) => metadata.places(),
        _ => BTreeSet::new(),
    };
    match places.is_empty() {
        true => BTreeSet::from([String::new()]),
        false => places,
    }
}

fn was_exchanged(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} was exchanged for something else while it was in use: check who else may write to its directory",
        path.display()
    ))
}

/// Removes the partial directories of processes that died. Returns a note on each that it could not
/// remove.
pub(super) fn clear_stale(dir: &Path) -> io::Result<Vec<String>> {
    let dir = match Dir::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut notes = Vec::new();
    for entry in dir.entries()? {
        if !entry.name.as_bytes().starts_with(PARTIAL.as_bytes()) {
            continue;
        }
        if let Err(e) = clear_one(&dir, &entry.name) {
            let path = dir.path_of(&entry.name);
            notes.push(format!(
                "cannot remove the leftover {}: {e}",
                path.display()
            ));
        }
    }
    Ok(notes)
}

fn clear_one(dir: &Dir, name: &OsStr) -> io::Result<()> {
    let partial = match dir.sub(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match lock(dir, name, &partial)? {
        true => remove(dir, name, &partial),
        false => Ok(()),
    }
}

/// Empties `partial`, and removes `name` if it still is that directory.
fn remove(dir: &Dir, name: impl AsRef<OsStr>, partial: &Dir) -> io::Result<()> {
    partial.clear()?;
    match dir.is_still(&name, &Meta::of_fd(partial)?) {
        true => dir.remove_dir(&name),
        false => Ok(()),
    }
}

/// Locks `partial`, which is `name` in `dir`. False: another process holds it, or it lost its name.
fn lock(dir: &Dir, name: impl AsRef<OsStr>, partial: &Dir) -> io::Result<bool> {
    match rustix::fs::flock(partial.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
        other => other?,
    }
    Ok(dir.is_still(name, &Meta::of_fd(partial)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    fn pending(snapshots: &Path) -> PendingSnapshot {
        PendingSnapshot::create(snapshots, crate::base::clock::now(), &BTreeSet::new()).unwrap()
    }

    #[test]
    fn a_snapshot_is_made_in_its_open_directory_even_if_its_name_is_exchanged() {
        let temp = tempfile::tempdir().unwrap();
        let (snapshots, outside) = (temp.path().join("snapshots"), temp.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        let pending = pending(&snapshots);
        let partial = pending.partial.path().to_owned();
        let moved = temp.path().join("moved");
        fs::rename(&partial, &moved).unwrap();
        std::os::unix::fs::symlink(&outside, &partial).unwrap();
        let mut file = pending.partial.create_file("database", 0o600).unwrap();
        file.write_all(b"secret").unwrap();
        assert!(moved.join("database").exists());
        let error = pending.publish(Validity::Valid).unwrap_err();
        assert!(error.to_string().contains("was exchanged"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // The copy is removed, wherever it is by now.
        assert!(!moved.join("database").exists());
    }

    #[test]
    fn a_published_snapshot_is_open_and_private() {
        let temp = tempfile::tempdir().unwrap();
        let snapshots = temp.path().join("snapshots");
        let pending = pending(&snapshots);
        let stamp = pending.stamp.to_string();
        let dir = pending.publish(Validity::Valid).unwrap();
        assert_eq!(dir.path(), snapshots.join(stamp));
        assert_eq!(Meta::of_fd(&dir).unwrap().permissions(), 0o700);
        assert_eq!(
            Meta::of_fd(Dir::open(&snapshots).unwrap())
                .unwrap()
                .permissions(),
            0o700
        );
    }

    #[test]
    fn a_leftover_that_is_a_symlink_is_reported_and_its_target_stays() {
        let temp = tempfile::tempdir().unwrap();
        let (snapshots, outside) = (temp.path().join("snapshots"), temp.path().join("outside"));
        fs::create_dir_all(snapshots.join(".partial-dead/deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, snapshots.join(".partial-link")).unwrap();
        let notes = clear_stale(&snapshots).unwrap();
        assert!(
            matches!(&notes[..], [note] if note.contains(".partial-link")),
            "{notes:?}"
        );
        assert!(outside.join("kept").exists());
        assert!(!snapshots.join(".partial-dead").exists());
    }
}
