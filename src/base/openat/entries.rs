//! Lists an open directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{OFlags, RawDir};

use super::{Dir, Kind, Meta};

const BUFFER_BYTES: usize = 32 << 10;

/// An entry as its directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// One component of a path.
    pub name: OsString,
    /// Never `Unknown`: `stat` is called if the file system does not list kinds.
    pub kind: Kind,
    /// The inode as listed; that of a mount point is the one below the mount.
    pub ino: u64,
}

impl Dir {
    /// Passes each entry but `.` and `..` to `take`; an error of `take` ends the listing. If the
    /// file system does not list kinds, `stat` is called for each entry; one that vanished
    /// meanwhile is left out.
    pub fn for_each_entry(
        &self,
        take: impl FnMut(&OsStr, Kind, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        // A descriptor of its own, so that two listings of one `Dir` do not share a position.
        let flags = super::ENTER | OFlags::CLOEXEC;
        let own = rustix::fs::openat(self, c".", flags, rustix::fs::Mode::empty())?;
        self.list_by(&own, &mut Vec::new(), take)
    }

    /// Does the same as [`Self::for_each_entry`] for a directory that only the caller holds and has
    /// not listed yet, with a buffer that can be used for many directories.
    pub fn for_each_entry_once(
        &self,
        buffer: &mut Vec<MaybeUninit<u8>>,
        take: impl FnMut(&OsStr, Kind, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        self.list_by(self.as_fd(), buffer, take)
    }

    fn list_by(
        &self,
        fd: impl AsFd,
        buffer: &mut Vec<MaybeUninit<u8>>,
        mut take: impl FnMut(&OsStr, Kind, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        buffer.resize(BUFFER_BYTES, MaybeUninit::uninit());
        let mut entries = RawDir::new(fd, buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match Kind::from(entry.file_type()) {
                Kind::Unknown => match self.try_meta(name)? {
                    Some(meta) => meta.kind(),
                    None => continue,
                },
                kind => kind,
            };
            take(name, kind, entry.ino())?;
        }
        Ok(())
    }

    /// Returns all entries but `.` and `..`, in the file system's order.
    pub fn entries(&self) -> io::Result<Vec<DirEntry>> {
        let mut found = Vec::new();
        self.for_each_entry(|name, kind, ino| {
            found.push(DirEntry {
                name: name.to_owned(),
                kind,
                ino,
            });
            Ok(())
        })?;
        Ok(found)
    }

    /// Returns whether the directory has no entries.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.entries()?.is_empty())
    }

    /// Returns the metadata of the entry `name` of this directory, of a link itself, with a single
    /// system call.
    pub fn meta_of_entry(&self, name: &OsStr) -> io::Result<Meta> {
        Meta::of_entry(self.as_fd(), name)
    }
}
