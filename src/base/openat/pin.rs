//! An entry of whatever kind, held by a descriptor that cannot read it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::attributes::{list_xattrs, place_path, xattrs_of_path};
use super::{Dir, Meta};

/// What had a name when it was opened: a link itself, a FIFO without a wait, a directory that may not be
/// listed. Its metadata, its text and its attributes are those of one thing.
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
    /// Opens `rel`, whatever it is, as a place only.
    pub fn pin(&self, rel: impl AsRef<OsStr>) -> io::Result<Pin> {
        let fd = self.open_place(rel)?;
        let meta = Meta::of_fd(&fd)?;
        Ok(Pin { fd, meta })
    }
}

impl Pin {
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The text of the symbolic link that it is.
    pub fn read_link(&self) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, "", Vec::new())?.into_bytes())
    }

    /// [`list_xattrs`] of what it is, of a link its own. Without `/proc` only a directory has any: no call
    /// reads those of a thing that cannot be opened.
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
