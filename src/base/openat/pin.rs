//! An entry of any kind, held by a descriptor that cannot read its content.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::attributes::{list_xattrs, place_path, xattrs_of_path};
use super::{Dir, Meta};

/// An entry that was opened with `O_PATH`: also a link itself, a FIFO without waiting, or a
/// directory that this user may not list. So its metadata, its text and its attributes are those of
/// one thing.
#[derive(Debug)]
pub struct Pin {
    fd: OwnedFd,
    meta: Meta,
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens `rel`, of whatever kind.
    pub fn pin(&self, rel: impl AsRef<OsStr>) -> io::Result<Pin> {
        let fd = self.open_place(rel)?;
        let meta = Meta::of_fd(&fd)?;
        Ok(Pin { fd, meta })
    }
}

impl Pin {
    /// Returns the metadata as of the opening.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Returns the text of the symbolic link. Fails for anything else.
    pub fn read_link(&self) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// Returns its extended attributes, of a link its own. Without `/proc` the result is empty for
    /// everything but a directory: no system call reads the attributes of a thing that is open with
    /// `O_PATH`.
    pub fn xattrs(&self) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
        match xattrs_of_path(&place_path(self.fd.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        if !self.meta.is_dir() {
            return Ok(BTreeMap::new());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        list_xattrs(rustix::fs::openat(&self.fd, c".", flags, Mode::empty())?)
    }
}
