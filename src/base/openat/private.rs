//! A new directory that only this user can enter, locked while it is in use, and removed when its
//! owner is dropped.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::attributes::inherit_nothing;
use super::{Dir, Meta};
use crate::base::ids::{hex, unhex};

/// Random bytes in a directory's name.
const RANDOM_BYTES: usize = 8;
/// How often a directory is created again after another user moved or exchanged it in that moment.
const MOST_TRIES: usize = 64;
/// The name of the file whose owner shows how this file system chooses owners.
const PROBE: &str = "owner";

/// A private directory (0700, our group, without access lists) in a directory that may belong to
/// another user, who can rename it and put another one in its place. So it is used through
/// [`Self::dir`] only, and its removal empties the open directory and then removes the name only if
/// it is still this directory's.
#[derive(Debug)]
pub struct PrivateDir {
    parent: Dir,
    name: OsString,
    dir: Dir,
    meta: Meta,
    /// Whether it stays, or was removed already.
    kept: AtomicBool,
}

impl PrivateDir {
    /// Creates `<prefix><16 hex digits>` in `parent` and locks it (`flock`; it stays unlocked if
    /// the file system has no locks). Calls `registered` with the name before the directory is
    /// created.
    pub fn make(
        parent: &Dir,
        prefix: &OsStr,
        mut registered: impl FnMut(&OsStr),
    ) -> io::Result<Self> {
        for _ in 0..MOST_TRIES {
            let mut random = [0; RANDOM_BYTES];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let mut name = prefix.to_owned();
            name.push(hex(&random));
            registered(&name);
            let dir = match parent.make_dir(&name, 0o700) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                // The parent's owner exchanged or moved it before it was open.
                Err(error) if is_exchanged(&error) => continue,
                other => other?,
            };
            let meta = Meta::of_fd(&dir)?;
            // If we are root, another directory of root's may have been put there; but that is not
            // empty.
            if !dir.is_empty()? || !is_made_by_us(&dir, &meta) {
                continue;
            }
            if let Err(error) = inherit_nothing(&dir) {
                if parent.is_still(&name, &meta) {
                    let _ = parent.remove_dir(&name);
                }
                return Err(error);
            }
            let meta = Meta::of_fd(&dir)?;
            let _ = rustix::fs::flock(dir.as_fd(), FlockOperation::NonBlockingLockExclusive);
            // Another process may have removed it as abandoned before it was locked.
            if parent.is_still(&name, &meta) {
                return Ok(Self {
                    parent: parent.clone(),
                    name,
                    dir,
                    meta,
                    kept: AtomicBool::new(false),
                });
            }
        }
        let gone = parent.path().display();
        Err(io::Error::other(format!(
            "cannot keep a new directory in {gone}: that directory is gone, or another user moves new directories away"
        )))
    }

    /// Takes over the directory `name`, which an ended process left in `parent`. `None`: a running
    /// process holds its lock.
    pub fn adopt(parent: &Dir, name: &OsStr) -> io::Result<Option<Self>> {
        let dir = parent.sub(name)?;
        let meta = Meta::of_fd(&dir)?;
        let lock = FlockOperation::NonBlockingLockExclusive;
        // If the file system has no locks, nothing shows that its process is still running.
        if rustix::fs::flock(dir.as_fd(), lock) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(None);
        }
        Ok(Some(Self {
            parent: parent.clone(),
            name: name.to_owned(),
            dir,
            meta,
            kept: AtomicBool::new(false),
        }))
    }

    /// Returns the open directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the directory in which it was created.
    pub fn parent(&self) -> &Dir {
        &self.parent
    }

    /// Returns its name in [`Self::parent`].
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns its metadata as of its creation.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Returns whether its name still leads to it.
    pub fn is_in_place(&self) -> bool {
        self.parent.is_still(&self.name, &self.meta)
    }

    /// Keeps it from being removed: it is no longer a temporary directory.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Empties it and removes its name, once. Fails if another thing has that name, and leaves that
    /// alone.
    pub fn remove(&self) -> io::Result<()> {
        if self.kept.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let removed = self.take_away();
        if removed.is_err() {
            self.kept.store(false, Ordering::Relaxed);
        }
        removed
    }

    fn take_away(&self) -> io::Result<()> {
        self.dir.clear()?;
        match self.parent.try_meta(&self.name)? {
            None => Ok(()),
            Some(now) if now.is_same(&self.meta) => self.parent.remove_dir(&self.name),
            Some(_) => Err(io::Error::other(format!(
                "{} was exchanged for something else while it was in use; its content is removed",
                self.parent.path_of(&self.name).display()
            ))),
        }
    }

    /// Returns whether `name` is `prefix` and 16 hex digits.
    pub fn is_named(name: &OsStr, prefix: &OsStr) -> bool {
        let rest = name.as_bytes().strip_prefix(prefix.as_bytes());
        let text = rest.and_then(|rest| std::str::from_utf8(rest).ok());
        text.is_some_and(|text| text.len() == 2 * RANDOM_BYTES && unhex(text).is_some())
    }

    /// Removes from `parent` this user's directories `<prefix><16 hex digits>` that are older than
    /// `age` and whose process has ended. One that cannot be removed does no harm and stays.
    pub fn remove_abandoned(parent: &Dir, prefix: &OsStr, age: Duration) {
        let uid = rustix::process::geteuid().as_raw();
        for entry in parent.entries().unwrap_or_default() {
            if !Self::is_named(&entry.name, prefix) {
                continue;
            }
            let Ok(dir) = parent.sub(&entry.name) else {
                continue;
            };
            let is_ours =
                Meta::of_fd(&dir).is_ok_and(|meta| meta.uid() == uid && is_old(&meta, age));
            let lock = FlockOperation::NonBlockingLockExclusive;
            if is_ours && rustix::fs::flock(dir.as_fd(), lock).is_ok() {
                let Ok(meta) = Meta::of_fd(&dir) else {
                    continue;
                };
                if dir.clear().is_ok() && parent.is_still(&entry.name, &meta) {
                    let _ = parent.remove_dir(&entry.name);
                }
            }
        }
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Returns whether this process created the open directory. A file system that gives every new
/// entry another owner (NFS with `root_squash`, FAT) gives that owner to a file in the directory,
/// too.
fn is_made_by_us(dir: &Dir, meta: &Meta) -> bool {
    if meta.uid() == rustix::process::geteuid().as_raw() {
        return true;
    }
    let probe = dir.create_file(PROBE, 0o600);
    let owner = probe
        .and_then(|file| Meta::of_fd(&file))
        .map(|meta| meta.uid());
    let _ = dir.remove_file(PROBE);
    owner.is_ok_and(|uid| uid == meta.uid())
}

fn is_exchanged(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_old(meta: &Meta, age: Duration) -> bool {
    let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(
        u64::try_from(meta.mtime()).unwrap_or(0),
    ));
    age.is_zero() || modified.is_some_and(|time| time.elapsed().is_ok_and(|old| old >= age))
}
