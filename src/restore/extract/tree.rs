//! File system operations below one directory.
//!
//! Every operation is relative to the open directory, so nobody who renames things above it matters,
//! and a path longer than the kernel takes is walked in parts. Paths come from the index, whose
//! reader has refused `..` and the like; links are made only when all content is in place, and no
//! entry lies below one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{self as sys, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

/// The kernel's limit is 4096 with the final zero; some is left for `/proc/self/fd/N/`.
const MAX_PATH_BYTES: usize = 3900;

const NEW_FILE: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::WRONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn new_file_mode(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777) | Mode::RUSR | Mode::WUSR
}

pub(super) struct Tree {
    root: OwnedFd,
}

/// A directory below the root that is open.
pub(super) struct Parent {
    path: Vec<u8>,
    dir: OwnedFd,
}

/// A directory and what is left of a path below it.
struct At<'a> {
    dir: Option<OwnedFd>,
    root: BorrowedFd<'a>,
    rest: &'a [u8],
}

impl At<'_> {
    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(self.root, AsFd::as_fd)
    }
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    fn at<'a>(&'a self, path: &'a [u8]) -> io::Result<At<'a>> {
        let mut at = At {
            dir: None,
            root: self.root.as_fd(),
            rest: path,
        };
        while at.rest.len() > MAX_PATH_BYTES {
            let cut = at.rest[..MAX_PATH_BYTES].iter().rposition(|b| *b == b'/');
            let cut = cut.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at.dir = Some(sys::openat(
                at.dir(),
                &at.rest[..cut],
                flags,
                Mode::empty(),
            )?);
            at.rest = &at.rest[cut + 1..];
        }
        Ok(at)
    }

    /// A directory that only we can enter, until it gets its real mode.
    pub(super) fn make_dir(&self, path: &[u8]) -> io::Result<()> {
        let at = self.at(path)?;
        Ok(sys::mkdirat(at.dir(), at.rest, Mode::RWXU)?)
    }

    /// A new file with the permissions of `mode`, as far as the process gives any, and such that we can go on
    /// with it. (Others cannot come to it yet: the tree's root is ours alone.)
    pub(super) fn create(&self, path: &[u8], mode: u32) -> io::Result<File> {
        self.open(path, NEW_FILE, new_file_mode(mode))
    }

    /// [`Self::create`] in a directory that may be open already, and stays open for the next.
    pub(super) fn create_in(
        &self,
        parent: &mut Option<Parent>,
        path: &[u8],
        mode: u32,
    ) -> io::Result<File> {
        let Some(cut) = path.iter().rposition(|byte| *byte == b'/') else {
            return self.create(path, mode);
        };
        let (above, name) = (&path[..cut], &path[cut + 1..]);
        let open = match parent {
            Some(open) if open.path == above => open,
            _ => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let dir = self.open(above, flags, Mode::empty())?.into();
                let path = above.to_vec();
                parent.insert(Parent { path, dir })
            }
        };
        Ok(sys::openat(&open.dir, name, NEW_FILE, new_file_mode(mode))?.into())
    }

    pub(super) fn open_to_write(&self, path: &[u8]) -> io::Result<File> {
        self.open(path, OFlags::WRONLY, Mode::empty())
    }

    pub(super) fn open_to_read(&self, path: &[u8]) -> io::Result<File> {
        self.open(path, OFlags::RDONLY, Mode::empty())
    }

    fn open(&self, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<File> {
        let at = self.at(path)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(at.dir(), at.rest, flags, mode)?.into())
    }

    pub(super) fn link(&self, first: &[u8], path: &[u8]) -> io::Result<()> {
        let (first, at) = (self.at(first)?, self.at(path)?);
        let flags = AtFlags::empty();
        Ok(sys::linkat(
            first.dir(),
            first.rest,
            at.dir(),
            at.rest,
            flags,
        )?)
    }

    pub(super) fn symlink(&self, text: &[u8], path: &[u8]) -> io::Result<()> {
        let at = self.at(path)?;
        Ok(sys::symlinkat(text, at.dir(), at.rest)?)
    }

    /// A FIFO or a device.
    pub(super) fn node(
        &self,
        path: &[u8],
        kind: FileType,
        device: Option<(u32, u32)>,
    ) -> io::Result<()> {
        let at = self.at(path)?;
        let device = device.map_or(0, |(major, minor)| sys::makedev(major, minor));
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(sys::mknodat(at.dir(), at.rest, kind, mode, device)?)
    }

    pub(super) fn set_owner(&self, path: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = owner(uid, gid)?;
        let at = self.at(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(sys::chownat(at.dir(), at.rest, uid, gid, flags)?)
    }

    /// Not for symlinks, which have no mode and would be followed.
    pub(super) fn set_mode(&self, path: &[u8], mode: u32) -> io::Result<()> {
        let at = self.at(path)?;
        let mode = Mode::from_raw_mode(mode);
        Ok(sys::chmodat(at.dir(), at.rest, mode, AtFlags::empty())?)
    }

    pub(super) fn set_mtime(&self, path: &[u8], mtime_ns: i64) -> io::Result<()> {
        let at = self.at(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(sys::utimensat(at.dir(), at.rest, &times(mtime_ns), flags)?)
    }

    pub(super) fn set_xattr(&self, path: &[u8], name: &[u8], value: &[u8]) -> io::Result<()> {
        // There is no `lsetxattrat`, and FIFOs and links cannot be opened for `fsetxattr`.
        let at = self.at(path)?;
        let mut full = format!("/proc/self/fd/{}/", at.dir().as_raw_fd()).into_bytes();
        full.extend_from_slice(at.rest);
        let (full, name) = (OsStr::from_bytes(&full), OsStr::from_bytes(name));
        let flags = sys::XattrFlags::empty();
        Ok(sys::lsetxattr(full, name, value, flags)?)
    }

    pub(super) fn remove_file(&self, path: &[u8]) -> io::Result<()> {
        let at = self.at(path)?;
        Ok(sys::unlinkat(at.dir(), at.rest, AtFlags::empty())?)
    }

    /// Writes everything of this file system to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(sys::syncfs(&self.root)?)
    }
}

/// The ids as the kernel takes them.
pub(super) fn owner(uid: u32, gid: u32) -> io::Result<(Option<Uid>, Option<Gid>)> {
    // To the kernel it means to leave the owner as he is.
    if uid == u32::MAX || gid == u32::MAX {
        let what = format!("{uid}:{gid} is nobody");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

/// That modification time, and the access time left alone.
pub(super) fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: sys::UTIME_OMIT as _,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
        },
    }
}
