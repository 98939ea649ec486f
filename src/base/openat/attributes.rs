//! Owner, mode, times and extended attributes, by descriptor or by an entry's name in an open directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use rustix::io::Errno;

use super::Dir;

/// Who may do what with a thing beyond its mode, and with what is made in it.
pub const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Some file systems allow more than the 64 KiB that are usual.
const MOST_BYTES: usize = 1 << 20;

/// Who owns a thing, as the kernel takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOwner {
    /// `None`: as it is.
    uid: Option<Uid>,
    gid: Gid,
}

impl FileOwner {
    /// Fails for the number that means "leave it as it is" to the kernel.
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

    /// Only the group; an ordinary user can set one that he is in.
    pub fn only_group(gid: u32) -> io::Result<Self> {
        let owner = Self::new(0, gid)?;
        Ok(Self { uid: None, ..owner })
    }
}

/// That modification time (seconds, nanoseconds); the access time stays as it is.
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

pub fn chown_fd(fd: impl AsFd, owner: FileOwner) -> io::Result<()> {
    Ok(rustix::fs::fchown(fd, owner.uid, Some(owner.gid))?)
}

pub fn chmod_fd(fd: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))?)
}

pub fn set_mtime_fd(fd: impl AsFd, times: &Timestamps) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, times)?)
}

pub fn set_xattr_fd(fd: impl AsFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?)
}

/// Takes the attribute away. It is no error that there is none.
pub fn remove_xattr_fd(fd: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives the open directory, which this process made, our group and mode 0700, and takes its access lists away: what is
/// made in it inherits nothing of the directory that it was made in (set-gid, a default access list).
pub(super) fn inherit_nothing(dir: &Dir) -> io::Result<()> {
    for name in ACCESS_LISTS {
        remove_xattr_fd(dir, OsStr::new(name))?;
    }
    let meta = super::Meta::of_fd(dir)?;
    let ours = rustix::process::getegid().as_raw();
    if meta.gid() != ours {
        // A file system with owners of its own (NFS with `root_squash`) has no group to inherit either.
        let _ = FileOwner::only_group(ours).and_then(|owner| chown_fd(dir, owner));
    }
    match super::Meta::of_fd(dir)?.permissions() {
        0o700 => Ok(()),
        _ => chmod_fd(dir, 0o700),
    }
}

/// The extended attributes of an open file or directory. A file system that has none returns none; one
/// that vanished since it was listed, or that only root may read, is left out.
pub fn list_xattrs(fd: impl AsFd) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let fd = fd.as_fd();
    read_xattrs(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
}

/// The same of `path`, of which the last component is followed.
pub(super) fn xattrs_of_path(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    read_xattrs(
        |buffer| rustix::fs::listxattr(path, buffer),
        |name, buffer| rustix::fs::getxattr(path, name, buffer),
    )
}

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

/// Reads into a longer buffer until all fits. (An empty one would ask for the length, but not through these
/// functions.)
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
    /// Of a link its own owner.
    pub fn set_owner(&self, rel: impl AsRef<OsStr>, owner: FileOwner) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (owner.uid, Some(owner.gid));
        Ok(rustix::fs::chownat(dir.as_fd(), name, uid, gid, flags)?)
    }

    /// Fails for a link, which has no mode.
    pub fn set_mode(&self, rel: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
        let place = self.open_place(rel)?;
        if super::Meta::of_fd(&place)?.is_symlink() {
            return Err(rustix::io::Errno::LOOP.into());
        }
        // `fchmod` takes no such descriptor, and `fchmodat` would follow a link that came in between.
        let path = place_path(place.as_fd());
        Ok(rustix::fs::chmod(
            &path,
            Mode::from_raw_mode(mode & 0o7777),
        )?)
    }

    /// Of a link its own time.
    pub fn set_mtime(&self, rel: impl AsRef<OsStr>, times: &Timestamps) -> io::Result<()> {
        let (dir, name) = self.parent(rel.as_ref())?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(dir.as_fd(), name, times, flags)?)
    }

    /// Of a link its own attribute. There is no `lsetxattrat`, and FIFOs and links cannot be opened for
    /// `fsetxattr`; so it goes through `/proc`, whose link to the open directory cannot be exchanged.
    pub fn set_xattr(&self, rel: impl AsRef<OsStr>, name: &OsStr, value: &[u8]) -> io::Result<()> {
        let (dir, entry) = self.parent(rel.as_ref())?;
        let path = place_path(dir.as_fd()).join(entry);
        let flags = XattrFlags::empty();
        Ok(rustix::fs::lsetxattr(&path, name, value, flags)?)
    }

    /// [`list_xattrs`] of whatever `rel` is, of a link its own. Without `/proc` a thing that is neither a file
    /// nor a directory has none.
    pub fn xattrs(&self, rel: impl AsRef<OsStr>) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
        let (dir, entry) = self.parent(rel.as_ref())?;
        let path = place_path(dir.as_fd()).join(entry);
        read_xattrs(
            |buffer| rustix::fs::llistxattr(&path, buffer),
            |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
        )
    }
}

/// The name of an open descriptor: the kernel resolves it to what is open, whatever was renamed.
pub(super) fn place_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
