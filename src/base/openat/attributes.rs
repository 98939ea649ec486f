//! Owner, mode, times and extended attributes, by descriptor or by an entry's name in an open
//! directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use rustix::io::Errno;

use super::Dir;

/// The extended attributes of access lists: of a thing itself, and of a directory for what is
/// created in it.
pub const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Longest list or value of extended attributes, in bytes: some file systems allow more than the
/// usual 64 KiB.
const MOST_BYTES: usize = 1 << 20;

/// An owner as the kernel accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOwner {
    /// `None`: stays as it is.
    uid: Option<Uid>,
    gid: Gid,
}

impl FileOwner {
    /// Makes an owner of both ids. Fails for the number that the kernel reads as "leave it as it
    /// is".
    pub fn new(uid: u32, gid: u32) -> io::Result<Self> {
        if uid == u32::MAX || gid == u32::MAX {
            let what = format!("{uid}:{gid} is no owner");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Self {
            uid: Some(Uid::from_raw(uid)),
            gid: Gid::from_raw(gid),
        })
    }

    /// Makes an owner that changes the group only: an ordinary user can set a group that he is in.
    pub fn only_group(gid: u32) -> io::Result<Self> {
        let owner = Self::new(0, gid)?;
        Ok(Self { uid: None, ..owner })
    }
}

/// Returns the times to set this modification time (seconds, nanoseconds) and leave the access time
/// as it is.
pub fn mtime(seconds: i64, nanoseconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT as _,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds as _,
        },
    }
}

/// Sets the owner of an open thing.
pub fn chown_fd(fd: impl AsFd, owner: FileOwner) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, owner.uid, Some(owner.gid))?)
}

/// Sets the permission bits of an open thing.
pub fn chmod_fd(fd: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))?)
}

/// Sets the times of an open thing, see [`mtime`].
pub fn set_mtime_fd(fd: impl AsFd, times: &Timestamps) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, times)?)
}

/// Sets an extended attribute of an open file or directory.
pub fn set_xattr_fd(fd: impl AsFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute of an open file or directory. A missing one is no error.
pub fn remove_xattr_fd(fd: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives an open directory that this process created our group and mode 0700, and removes its
/// access lists: things created in it inherit nothing of the directory above (set-gid, a default
/// access list).
pub(super) fn inherit_nothing(dir: &Dir) -> io::Result<()> {
    for name in ACCESS_LISTS {
        remove_xattr_fd(dir, OsStr::new(name))?;
    }
    let meta = super::Meta::of_fd(dir)?;
    let ours = rustix::process::getegid().as_raw();
    if meta.gid() != ours {
        // A file system that chooses owners itself (NFS with `root_squash`) has no group to inherit
        // either.
        let _ = FileOwner::only_group(ours).and_then(|owner| chown_fd(dir, owner));
    }
    match super::Meta::of_fd(dir)?.permissions() {
        0o700 => Ok(()),
        _ => chmod_fd(dir, 0o700),
    }
}

/// Returns the extended attributes of an open file or directory; none if the file system has none.
/// An attribute that vanished since it was listed, or that only root may read, is left out.
pub fn list_xattrs(fd: impl AsFd) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let fd = fd.as_fd();
    read_xattrs(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
}

/// Does the same as [`list_xattrs`] for `path`, whose last component is followed.
pub(super) fn xattrs_of_path(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    read_xattrs(
        |buffer| rustix::fs::listxattr(path, buffer),
        |name, buffer| rustix::fs::getxattr(path, name, buffer),
    )
}

/// Lists attributes with `list` and reads each with `get`.
fn read_xattrs(
    mut list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    mut get: impl FnMut(&OsStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let names = match grown(&mut list) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(found),
        other => other?,
    };
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = OsStr::from_bytes(name);
        if let Ok(value) = grown(|buffer| get(name, buffer)) {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

/// Calls `read` with longer and longer buffers until everything fits. (rustix does not offer the
/// call that returns the length alone.)
fn grown(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut small = [0; 512];
    match read(&mut small) {
        Err(Errno::RANGE) => {}
        other => return Ok(small[..other?].to_vec()),
    }
    let mut buffer = vec![0; 4096];
    loop {
        match read(&mut buffer) {
            Err(Errno::RANGE) if buffer.len() < MOST_BYTES => {
                let longer = (buffer.len() * 4).min(MOST_BYTES);
                buffer.resize(longer, 0);
            }
            other => {
                buffer.truncate(other?);
                return Ok(buffer);
            }
        }
    }
}

impl Dir {
    /// Sets the owner of `rel`, of a link itself.
    pub fn set_owner(&self, rel: impl AsRef<OsStr>, owner: FileOwner) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (owner.uid, Some(owner.gid));
        Ok(rustix::fs::chownat(dir.as_fd(), name, uid, gid, flags)?)
    }

    /// Sets the permission bits of `rel`. Fails for a link, which has none.
    pub fn set_mode(&self, rel: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
        let place = self.open_place(rel)?;
        if super::Meta::of_fd(&place)?.is_symlink() {
            return Err(rustix::io::Errno::LOOP.into());
        }
        // `fchmod` does not accept an O_PATH descriptor, and `fchmodat` would follow a link that
        // was put there meanwhile.
        let path = place_path(place.as_fd());
        Ok(rustix::fs::chmod(
            &path,
            Mode::from_raw_mode(mode & 0o7777),
        )?)
    }

    /// Sets the times of `rel`, of a link itself.
    pub fn set_mtime(&self, rel: impl AsRef<OsStr>, times: &Timestamps) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(dir.as_fd(), name, times, flags)?)
    }

    /// Sets an extended attribute of `rel`, of a link itself. There is no `lsetxattrat`, and FIFOs
    /// and links cannot be opened for `fsetxattr`; so this uses the path in `/proc` of the open
    /// directory, which no other process can exchange.
    pub fn set_xattr(&self, rel: impl AsRef<OsStr>, name: &OsStr, value: &[u8]) -> io::Result<()> {
        let (dir, entry) = self.parent(rel.as_ref())?;
        let path = place_path(dir.as_fd()).join(entry);
        let flags = XattrFlags::empty();
        Ok(rustix::fs::lsetxattr(&path, name, value, flags)?)
    }

    /// Returns the extended attributes of `rel`, of a link itself. Fails without `/proc`.
    #[cfg(test)]
    pub(super) fn xattrs(&self, rel: impl AsRef<OsStr>) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
        let (dir, entry) = self.parent(rel.as_ref())?;
        let path = place_path(dir.as_fd()).join(entry);
        read_xattrs(
            |buffer| rustix::fs::llistxattr(&path, buffer),
            |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
        )
    }
}

/// Returns the path in `/proc` of an open descriptor: the kernel resolves it to the open thing,
/// whatever was renamed.
pub(super) fn place_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
