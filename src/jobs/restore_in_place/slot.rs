//! A name in an open directory, and the renames between such names, each durable when it returns.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::base::openat::{Dir, Meta};

/// A name in an open directory.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) dir: Dir,
    pub(super) name: OsString,
}

impl Slot {
    /// Returns the path, for messages, checks and commands.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path_of(&self.name)
    }

    /// Returns what has the name. `None`: nothing.
    pub(super) fn meta(&self) -> io::Result<Option<Meta>> {
        self.dir.try_meta(&self.name)
    }

    /// Returns whether something has the name.
    pub(super) fn is_taken(&self) -> io::Result<bool> {
        Ok(self.meta()?.is_some())
    }

    /// Returns the name with this ending, such as `-wal`.
    pub(super) fn with(&self, ending: &[u8]) -> Self {
        Self {
            dir: self.dir.clone(),
            name: OsString::from_vec([self.name.as_bytes(), ending].concat()),
        }
    }

    /// Renames to a name that is free; a taken one is an error.
    pub(super) fn move_to(&self, to: &Self) -> io::Result<()> {
        match self.dir.rename_new(&self.name, &to.dir, &to.name) {
            // This file system cannot check it in the same step.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                if to.is_taken()? {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.dir.rename(&self.name, &to.dir, &to.name)?;
            }
            other => other?,
        }
        self.sync_with(to)
    }

    /// Exchanges the two in one step. Fails with `Unsupported` if the file system cannot do that.
    pub(super) fn exchange(&self, other: &Self) -> io::Result<()> {
        self.dir.exchange(&self.name, &other.dir, &other.name)?;
        self.sync_with(other)
    }

    fn sync_with(&self, to: &Self) -> io::Result<()> {
        // The new name first: if only one of the two is on disk, nothing is without a name.
        to.dir.sync()?;
        self.dir.sync()
    }

    /// Returns the first name of this one, `NAME.2`, `NAME.3` and so on that is free.
    pub(super) fn free(&self) -> io::Result<Self> {
        let mut free = self.clone();
        for number in 2u32.. {
            if !free.is_taken()? {
                break;
            }
            free = self.with(format!(".{number}").as_bytes());
        }
        Ok(free)
    }

    /// Removes what has the name, a tree with all that is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.dir.remove_tree(&self.name)?;
        self.dir.sync()
    }

    /// Opens the file for reading.
    pub(super) fn open_file(&self) -> io::Result<File> {
        Ok(self.dir.open_file(&self.name)?.0)
    }

    /// Opens the directory.
    pub(super) fn open_dir(&self) -> io::Result<Dir> {
        self.dir.sub(&self.name)
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }
}
