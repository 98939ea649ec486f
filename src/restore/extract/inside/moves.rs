//! The renames: forward, and back after a failure.

use std::ffi::OsStr;
use std::io;

use super::plan::{EntryMove, EntryState, MovePlan, OWNER_WRITES};
use crate::base::openat::Dir;

/// The three directories between which entries move.
pub(super) struct Moves<'a> {
    to: &'a Dir,
    /// Holds the new entries.
    tree: &'a Dir,
    /// Takes the old entries. `None`: there are none.
    pub(super) aside: Option<Dir>,
}

impl<'a> Moves<'a> {
    /// Makes or opens the directory for the old content.
    pub(super) fn begin(to: &'a Dir, tree: &'a Dir, plan: &MovePlan) -> io::Result<Self> {
        let aside = match &plan.aside {
            None => None,
            Some(name) => Some(to.make_dirs(name, 0o777)?),
        };
        if aside.is_some() {
            to.sync()?;
        }
        Ok(Self { to, tree, aside })
    }

    /// Brings one entry to its new state, whatever state it is in.
    pub(super) fn forward(&self, item: &EntryMove) -> io::Result<()> {
        let name = item.name()?;
        let waits = item.new.is_some() && self.tree.try_meta(&name)?.is_some();
        let mut there = self.to.try_meta(&name)?;
        // If a new entry was planned and no longer waits, it is the one that is there.
        let is_old = item.old.is_some() && (waits || item.new.is_none());
        // If the old entry is aside already, the one that is there came since.
        if let (Some(old), Some(_)) = (&item.old, &there)
            && is_old
            && !self.is_aside(&name)?
        {
            self.put_aside(&name, old)?;
            there = None;
        }
        let Some(new) = item.new.filter(|_| waits) else {
            return Ok(());
        };
        match &there {
            None => move_entry(self.tree, &name, self.to, &name, &new),
            // Such as `lost+found`: a rename replaces an empty directory.
            Some(empty) if empty.is_dir() && self.tree.rename(&name, self.to, &name).is_ok() => {
                Ok(())
            }
            Some(other) => {
                self.put_aside(&name, &EntryState::of(other))?;
                move_entry(self.tree, &name, self.to, &name, &new)
            }
        }
    }

    fn is_aside(&self, name: &OsStr) -> io::Result<bool> {
        match &self.aside {
            None => Ok(false),
            Some(aside) => Ok(aside.try_meta(name)?.is_some()),
        }
    }

    /// Moves `name` aside, under a name that is free there.
    fn put_aside(&self, name: &OsStr, state: &EntryState) -> io::Result<()> {
        let Some(aside) = &self.aside else {
            let what = format!(
                "{} appeared while the restore put its files in place: move it away",
                self.to.path_of(name).display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        };
        let mut free = name.to_owned();
        for number in 2u32.. {
            if aside.try_meta(&free)?.is_none() {
                break;
            }
            free = name.to_owned();
            free.push(format!(".{number}"));
        }
        move_entry(self.to, name, aside, &free, state)
    }

    /// Moves the entries back to where they were, the last one first.
    pub(super) fn undo(&self, items: &[EntryMove]) -> io::Result<()> {
        items.iter().rev().try_for_each(|item| self.backward(item))
    }

    fn backward(&self, item: &EntryMove) -> io::Result<()> {
        let name = item.name()?;
        let is_there = self.to.try_meta(&name)?.is_some();
        match &item.new {
            Some(new) if is_there && self.tree.try_meta(&name)?.is_none() => {
                move_entry(self.to, &name, self.tree, &name, new)?;
            }
            // It has not moved yet.
            _ if is_there => return Ok(()),
            _ => {}
        }
        match (&item.old, &self.aside) {
            (Some(old), Some(aside)) if aside.try_meta(&name)?.is_some() => {
                move_entry(aside, &name, self.to, &name, old)
            }
            _ => Ok(()),
        }
    }

    /// Removes the empty directory for the old content, and flushes.
    pub(super) fn withdraw(&self, plan: &MovePlan) -> io::Result<()> {
        if let Some(aside) = &plan.aside {
            self.to.remove_dir(aside)?;
        }
        self.to.sync()
    }

    /// Flushes both directories.
    pub(super) fn finish(&self) -> io::Result<()> {
        if let Some(aside) = &self.aside {
            aside.sync()?;
        }
        self.to.sync()
    }
}

/// Renames to a name that is free. If the file system cannot check that in the same step, the
/// caller has just looked.
fn move_entry(
    from: &Dir,
    name: &OsStr,
    to: &Dir,
    to_name: &OsStr,
    state: &EntryState,
) -> io::Result<()> {
    writable(from, name, state, || {
        match from.rename_new(name, to, to_name) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                from.rename(name, to, to_name)
            }
            other => other,
        }
    })?;
    set_mode_again(to, to_name, state)
}

/// Runs a rename of `name`. A directory that its owner may not write gets the permission first.
fn writable(
    dir: &Dir,
    name: &OsStr,
    state: &EntryState,
    rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let Some(mode) = state.mode.filter(|_| !is_root) else {
        return rename();
    };
    dir.set_mode(name, mode | OWNER_WRITES)?;
    let renamed = rename();
    if renamed.is_err() {
        let _ = dir.set_mode(name, mode);
    }
    renamed
}

pub(super) fn set_mode_again(dir: &Dir, name: &OsStr, state: &EntryState) -> io::Result<()> {
    match state.mode {
        Some(mode) => dir.set_mode(name, mode),
        None => Ok(()),
    }
}
