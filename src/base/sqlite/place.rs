//! Names a database by its open directory and its name in it, so that no path is resolved twice.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::header::{HEAD_BYTES, SIDECARS};
use crate::base::openat::Dir;

/// The place of a database: an open directory, and one name in it.
#[derive(Debug)]
pub struct Place {
    dir: OwnedFd,
    name: OsString,
    /// For messages only.
    path: PathBuf,
}

/// Opens the regular file `name` in `dir` for reading; follows no link and waits for no FIFO.
pub(super) fn open_regular(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags | OFlags::NOCTTY, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

impl Place {
    /// Returns the place of `path`, whose directory is opened now (links to it are followed).
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            dir: rustix::fs::openat(CWD, dir, flags, Mode::empty())?,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Returns the place of `name`, a single component, in the open directory `dir`; messages name
    /// it `path`.
    pub fn within(dir: impl AsFd, name: &OsStr, path: &Path) -> io::Result<Self> {
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        Ok(Self {
            dir: dir.as_fd().try_clone_to_owned()?,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Returns the place of `rel` below `root`.
    pub fn below(root: &Dir, rel: &OsStr) -> io::Result<Self> {
        let (dir, name) = root.parent_of(rel)?;
        Self::within(&dir, name, &root.path_of(rel))
    }

    /// Returns the path that messages name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens the database's file for reading. Anything but a regular file is an error; a link is
    /// not followed.
    pub fn open(&self) -> io::Result<File> {
        open_regular(self.dir(), self.name())
    }

    fn sidecar(&self, ending: &[u8]) -> OsString {
        OsString::from_vec([self.name(), ending].concat())
    }

    fn stat(&self, ending: &[u8]) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.dir, self.sidecar(ending), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Returns whether anything has the name of the database's log.
    pub(super) fn has_wal(&self) -> bool {
        self.stat(b"-wal").is_ok()
    }

    /// Returns the size of the database's log and its journal in bytes.
    pub(super) fn journal_bytes(&self) -> u64 {
        let bytes = |ending| self.stat(ending).map_or(0, |stat| stat.st_size);
        let sum = bytes(b"-wal").saturating_add(bytes(b"-journal"));
        u64::try_from(sum).unwrap_or(0)
    }

    /// Returns whether a sidecar holds content that belongs to the database: then the file alone is
    /// not the database.
    pub fn has_live_journal(&self) -> bool {
        let has_content = |stat: &Stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size > 0
        };
        if self.stat(b"-wal").is_ok_and(|stat| has_content(&stat)) {
            return true;
        }
        // A journal kept for reuse has its header zeroed (journal_mode=PERSIST) or is empty
        // (TRUNCATE).
        self.stat(b"-journal").is_ok_and(|stat| has_content(&stat))
            && open_regular(self.dir(), self.sidecar(b"-journal").as_bytes())
                .and_then(|file| read_head(&file, 8))
                .is_ok_and(|head| head.iter().any(|byte| *byte != 0))
    }

    /// Removes a copy of ours, and the files that SQLite may have left beside it.
    pub(super) fn remove_with_sidecars(&self) {
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
        for ending in SIDECARS {
            let _ = rustix::fs::unlinkat(&self.dir, self.sidecar(ending), AtFlags::empty());
        }
    }
}

/// Returns the first bytes of an open file.
pub(super) fn read_head(mut file: &File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.by_ref().take(bytes).read_to_end(&mut head)?;
    Ok(head)
}
