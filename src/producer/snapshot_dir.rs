//! A snapshot directory in the making: claimed by one process, published by one rename.
//!
//! `.partial-<stamp>` is created atomically, so two processes never work under one stamp, and is held by
//! a flock on the directory itself, so whoever finds one that is not locked knows its maker to be dead.
//! A stamp is free when neither `<stamp>` nor `invalid-<stamp>` exists *after* the partial directory was
//! created: a rival that published meanwhile had renamed its own partial directory away first.
//! Crash argument: nothing but the rename makes `<stamp>`, and everything below it was flushed before.
//!
//! The snapshots directory may be in a directory of another user's, who can rename what is there. So the
//! snapshot is made through its open directory, and what got its name is compared with that.

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

pub(super) const PARTIAL: &str = ".partial-";
pub(super) const INVALID: &str = "invalid-";
/// How many copies of a source that failed their check are kept.
const MOST_INVALID: usize = 3;
/// A day of seconds: more snapshots ahead of the clock than that are a mistake.
const MAX_BUMPS: usize = 86_400;

pub(super) struct PendingSnapshot {
    dir: Dir,
    name: String,
    /// Locked.
    pub partial: Dir,
    meta: Meta,
    pub stamp: Stamp,
    published: bool,
    /// Copies that failed their check, on their way to `invalid-<stamp>`. Locked, too.
    aside: Option<(Dir, Meta)>,
}

impl PendingSnapshot {
    /// Claims the first free second from `now` on.
    pub fn take(dir: &Path, now: DateTime<Utc>) -> io::Result<Self> {
        let dir = Dir::open_or_make(dir, 0o700)?;
        let mut stamp = Stamp::at(now).map_err(io::Error::other)?;
        for _ in 0..MAX_BUMPS {
            if let Some(pending) = Self::try_stamp(&dir, stamp)? {
                return Ok(pending);
            }
            stamp = match stamp.next() {
                next if next == stamp => break,
                next => next,
            };
        }
        Err(io::Error::other("no free stamp within a day"))
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

    /// The directory of what was set aside, if anything was.
    pub fn aside(&self) -> Option<&Dir> {
        self.aside.as_ref().map(|(dir, _)| dir)
    }

    /// Moves the copy `rel` out of the snapshot. Returns where it will be once the snapshot is published.
    pub fn set_aside(&mut self, rel: &OsStr) -> io::Result<PathBuf> {
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
            // To move a directory elsewhere is to write to it, and this one's owner may not.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.partial.set_mode(rel, 0o700)?;
                self.partial.rename(rel, &aside, rel)?;
            }
            moved => moved?,
        }
        self.remove_empty_parents(rel);
        Ok(self.destination(false).join(rel))
    }

    /// Removes what there is of the copy `rel`.
    pub fn discard(&self, rel: &OsStr) -> io::Result<()> {
        match self.partial.meta(rel) {
            Ok(meta) if meta.is_dir() => self.partial.remove_tree(rel)?,
            Ok(_) => self.partial.remove_file(rel)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        self.remove_empty_parents(rel);
        Ok(())
    }

    /// Removes the directories that were made for the copy `rel` and hold nothing else.
    fn remove_empty_parents(&self, rel: &OsStr) {
        let above = Path::new(rel).ancestors().skip(1);
        for dir in above.take_while(|dir| !dir.as_os_str().is_empty()) {
            // One that holds something is not removed.
            if self.partial.remove_dir(dir).is_err() {
                break;
            }
        }
    }

    fn final_name(&self, valid: bool) -> String {
        let prefix = if valid { "" } else { INVALID };
        format!("{prefix}{}", self.stamp)
    }

    /// Where a snapshot will be.
    pub fn destination(&self, valid: bool) -> PathBuf {
        self.dir.path_of(self.final_name(valid))
    }

    /// Flushes everything and gives it its name. Returns the directory, which is open.
    pub fn publish(mut self, valid: bool) -> io::Result<Dir> {
        let name = self.final_name(valid);
        self.partial.sync_file_system()?;
        if let Some((_, meta)) = &self.aside {
            // First: a run that dies in between has used the stamp up, and no snapshot names what is not there.
            let aside = self.final_name(false);
            self.dir.rename(self.aside_name(), &self.dir, &aside)?;
            if !self.dir.is_still(&aside, meta) {
                return Err(was_exchanged(&self.destination(false)));
            }
            self.aside = None;
        }
        self.dir.rename(&self.name, &self.dir, &name)?;
        let destination = self.destination(valid);
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

/// How often a directory is made again that another process cleared away before it was locked.
const MOST_MADE: usize = 16;

/// Makes the directory `name` in `dir`, ours alone and locked; `None` if there is one, or another process took it.
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
    // What was opened need not be what was made.
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || meta.permissions() & 0o077 != 0 {
        return Err(was_exchanged(&dir.path_of(name)));
    }
    // Another process took ours for a dead one, removed it, and has made its own since.
    if !made.is_empty()? {
        return Ok(None);
    }
    // Another process that clears up may take the new directory for a dead one until it is locked.
    match lock(dir, name, &made)? {
        true => Ok(Some((made, meta))),
        false => Ok(None),
    }
}

/// Deletes the `invalid-*` directories of `dir` of whose every source [`MOST_INVALID`] newer ones hold a copy; the one
/// of `newest` stays. Names those that it deleted, and what it could not do.
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
            let is_surplus = |place: &String| copies.get(place).is_some_and(|n| *n >= MOST_INVALID);
            if stamp == newest || !places.iter().all(is_surplus) {
                for place in places {
                    *copies.entry(place).or_default() += 1;
                }
                continue;
            }
            // It loses its name first: what is left of it if this process dies is cleared up by the next run.
            let partial = format!("{PARTIAL}{name}");
            dir.rename(&name, &dir, &partial)?;
            dir.remove_tree(&partial)?;
            notes.push(format!(
                "{name} was deleted: {MOST_INVALID} newer copies that failed their check are kept of each of its sources"
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

/// The places of the sources whose copies an `invalid-*` directory holds. One that says nothing of them is a kind of
/// its own.
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
        "{} was exchanged for something else while it was in use: see who else may write to its directory",
        path.display()
    ))
}

/// Removes the partial directories of processes that died; names those it could not remove.
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

/// Empties `partial` and removes its name if that still means it.
fn remove(dir: &Dir, name: impl AsRef<OsStr>, partial: &Dir) -> io::Result<()> {
    partial.clear()?;
    match dir.is_still(&name, &Meta::of_fd(partial)?) {
        true => dir.remove_dir(&name),
        false => Ok(()),
    }
}

/// Locks `partial`, which is `name` in `dir`; false if someone else has it or its name is gone.
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
        PendingSnapshot::take(snapshots, crate::base::clock::now()).unwrap()
    }

    #[test]
    fn a_snapshot_is_made_where_it_was_begun_and_not_where_its_name_leads_by_then() {
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
        let error = pending.publish(true).unwrap_err();
        assert!(error.to_string().contains("was exchanged"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // What was copied is removed, wherever it is.
        assert!(!moved.join("database").exists());
    }

    #[test]
    fn a_published_snapshot_is_open_and_private() {
        let temp = tempfile::tempdir().unwrap();
        let snapshots = temp.path().join("snapshots");
        let pending = pending(&snapshots);
        let stamp = pending.stamp.to_string();
        let dir = pending.publish(true).unwrap();
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
    fn a_leftover_that_is_a_link_is_named_and_what_it_leads_to_stays() {
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
