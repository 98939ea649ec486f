//! The file system below one open directory.
//!
//! Another user may change what is below a source, a staging directory, a scratch directory or a
//! folder target while we work on it, and we may be root. So these places are reached through a
//! [`Dir`]: a descriptor that stays the same directory, whatever is renamed above it.
//!
//! - A path below it is resolved without following a symbolic link and without leaving it:
//!   `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, or component by component if the
//!   kernel has no such call.
//! - Nothing is checked by name and then used by name: `fstat` describes an open file, and its
//!   attributes are set by its descriptor.
//! - No open waits: a FIFO in a file's place is an error.
//!
//! Only the *first* step follows links: [`Dir::open`] opens a path that the operator chose, and
//! [`Chosen::open`] one that may lead through another user's directory.

mod attributes;
mod change;
mod chosen;
mod entries;
mod meta;
mod mount;
mod pin;
mod private;
mod remove;
mod resolve;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use attributes::{
    ACCESS_LISTS, FileOwner, chmod_fd, chown_fd, list_xattrs, mtime, remove_xattr_fd, set_mtime_fd,
    set_xattr_fd,
};
pub use chosen::Chosen;
pub use entries::DirEntry;
pub use meta::{Kind, Meta};
pub use pin::Pin;
pub use private::PrivateDir;
pub use resolve::Resolved;

/// Longest path that is passed to the kernel, in bytes. Its limit is 4096 with the final zero; the
/// difference leaves space for `/proc/self/fd/N/`.
const MAX_PATH_BYTES: usize = 3900;
/// How often `openat2` is repeated: it returns EAGAIN if a rename anywhere made it unsure whether
/// it left the directory.
const MOST_TRIES: usize = 64;

/// Opens a directory for listing.
const ENTER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// Opens a directory only to reach entries of it.
const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// An open directory. Cloning it shares the descriptor.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    /// The path by which it was opened: for messages only.
    path: Arc<Path>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a directory that the operator chose: links in its path are followed. A directory that
    /// this user may pass through but not list is opened, too; listing it fails later.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = |flags| rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
        let fd = match open(ENTER) {
            Err(Errno::ACCESS) => open(PASS)?,
            other => other?,
        };
        Ok(Self::from_fd(fd, path))
    }

    /// Does the same as [`Self::open`], after it created the missing directories of `path` with
    /// `mode`.
    pub fn open_or_make(path: &Path, mode: u32) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(mode).create(path)?;
        Self::open(path)
    }

    /// Opens the directory that `path` is in, and returns it with the last component of `path`.
    pub fn open_parent(path: &Path) -> io::Result<(Self, OsString)> {
        let Some(name) = path.file_name() else {
            let what = format!("{} names no entry of a directory", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok((Self::open(parent)?, name.to_owned()))
    }

    /// Makes a `Dir` of an open descriptor; messages name it `path`.
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Self {
        Self {
            fd: Arc::new(fd),
            path: path.into(),
        }
    }

    /// Returns the path by which it was opened. By now another directory may be there: use it in
    /// messages only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of an entry, for messages only.
    pub fn path_of(&self, rel: impl AsRef<OsStr>) -> PathBuf {
        let rel = rel.as_ref();
        match rel.is_empty() {
            true => self.path.to_path_buf(),
            false => self.path.join(rel),
        }
    }

    /// Creates a file without a name, for this user only: it is gone when it is closed. Fails with
    /// `Unsupported` if the file system has no such files.
    pub fn unnamed_file(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(self, c".", flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => Ok(other?.into()),
        }
    }

    /// Returns a new descriptor of the same directory.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Opens the directory `rel` below this one.
    pub fn sub(&self, rel: impl AsRef<OsStr>) -> io::Result<Self> {
        let rel = rel.as_ref();
        let fd = self.open_raw(rel, ENTER, Mode::empty())?;
        Ok(Self::from_fd(fd, &self.path_of(rel)))
    }

    /// Opens the regular file `rel` for reading, without changing its access time if that is
    /// allowed. Anything else under that name is an error.
    pub fn open_file(&self, rel: impl AsRef<OsStr>) -> io::Result<(File, Meta)> {
        let rel = rel.as_ref();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.open_raw(rel, flags | OFlags::NOATIME, Mode::empty()) {
            // Only the owner may read a file without changing its access time.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.open_raw(rel, flags, Mode::empty())?
            }
            other => other?,
        };
        let meta = Meta::of_fd(&fd)?;
        match meta.is_file() {
            true => Ok((fd.into(), meta)),
            false => Err(not_a_file()),
        }
    }

    /// Opens the existing regular file `rel` for writing.
    pub fn open_to_write(&self, rel: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_raw(rel.as_ref(), flags, Mode::empty())?;
        match Meta::of_fd(&fd)?.is_file() {
            true => Ok(fd.into()),
            false => Err(not_a_file()),
        }
    }

    /// Creates the file `rel`; an existing one is an error.
    pub fn create_file(&self, rel: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        Ok(self.open_raw(rel.as_ref(), flags, mode)?.into())
    }

    /// Opens `rel`, of whatever kind, with `O_PATH`: it can be described, but not read. A link
    /// itself is opened.
    pub fn open_place(&self, rel: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
        self.open_raw(rel.as_ref(), OFlags::PATH, Mode::empty())
    }

    /// Returns the metadata of `rel`, of a link itself. `""` is the directory.
    pub fn meta(&self, rel: impl AsRef<OsStr>) -> io::Result<Meta> {
        let rel = rel.as_ref();
        if rel.is_empty() {
            return Meta::of_fd(self);
        }
        let (dir, name) = self.parent(rel)?;
        Meta::of_entry(dir.as_fd(), name)
    }

    /// Returns the metadata of `rel`; `None` if nothing is there.
    pub fn try_meta(&self, rel: impl AsRef<OsStr>) -> io::Result<Option<Meta>> {
        match self.meta(rel) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Returns whether `rel` is at this moment the very thing that `meta` describes.
    pub fn is_still(&self, rel: impl AsRef<OsStr>, meta: &Meta) -> bool {
        self.meta(rel).is_ok_and(|now| now.is_same(meta))
    }

    /// Returns the text of the symbolic link `rel`.
    pub fn read_link(&self, rel: impl AsRef<OsStr>) -> io::Result<Vec<u8>> {
        let (dir, name) = self.parent(rel.as_ref())?;
        let text = rustix::fs::readlinkat(dir.as_fd(), name, Vec::new())?;
        Ok(text.into_bytes())
    }

    /// Opens the directory that `rel` is in, and returns it with the last component of `rel`.
    pub fn parent_of<'a>(&self, rel: &'a OsStr) -> io::Result<(Self, &'a OsStr)> {
        let bytes = rel.as_bytes();
        let Some(cut) = bytes.iter().rposition(|byte| *byte == b'/') else {
            check_components(bytes)?;
            return Ok((self.clone(), rel));
        };
        let (above, name) = (OsStr::from_bytes(&bytes[..cut]), &bytes[cut + 1..]);
        check_components(name)?;
        let fd = match self.open_raw(above, ENTER, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.open_raw(above, PASS, Mode::empty())?
            }
            other => other?,
        };
        let dir = Self::from_fd(fd, &self.path_of(above));
        Ok((dir, OsStr::from_bytes(name)))
    }

    /// Does the same as [`Self::parent_of`], but opens the directory only to reach entries of it.
    fn parent<'s, 'a>(&'s self, rel: &'a OsStr) -> io::Result<(Parent<'s>, &'a OsStr)> {
        let bytes = rel.as_bytes();
        let Some(cut) = bytes.iter().rposition(|byte| *byte == b'/') else {
            check_components(bytes)?;
            return Ok((Parent::This(self.as_fd()), rel));
        };
        let above = OsStr::from_bytes(&bytes[..cut]);
        let name = &bytes[cut + 1..];
        check_components(name)?;
        let dir = self.open_raw(above, PASS, Mode::empty())?;
        Ok((Parent::Below(dir), OsStr::from_bytes(name)))
    }

    /// Opens `rel` below this directory; no component of it may be a link, not even the last one.
    fn open_raw(&self, rel: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let mut rest = rel.as_bytes();
        if rest.is_empty() {
            let flags = flags | OFlags::CLOEXEC;
            return Ok(rustix::fs::openat(self, ".", flags, mode)?);
        }
        check_components(rest)?;
        let mut dir: Option<OwnedFd> = None;
        while rest.len() > MAX_PATH_BYTES {
            let cut = rest[..MAX_PATH_BYTES].iter().rposition(|b| *b == b'/');
            let cut = cut.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
            let from = dir.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            dir = Some(open_beneath(from, &rest[..cut], PASS, Mode::empty())?);
            rest = &rest[cut + 1..];
        }
        let from = dir.as_ref().map_or(self.as_fd(), AsFd::as_fd);
        Ok(open_beneath(from, rest, flags, mode)?)
    }
}

/// The directory that an entry is in.
enum Parent<'a> {
    This(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::This(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// Returns the error for a thing that should be a regular file.
pub(crate) fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Refuses empty components, `.` and `..`: `openat2` would accept those that stay below the
/// directory.
fn check_components(rel: &[u8]) -> io::Result<()> {
    let is_plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    match rel.split(|byte| *byte == b'/').all(is_plain) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{:?} is not a path below a directory",
                OsStr::from_bytes(rel)
            ),
        )),
    }
}

/// Returns whether this kernel has `openat2` and no system call filter blocks it.
fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), resolve).is_ok()
    })
}

/// Opens `rel` below `dir`, which it cannot leave; no component may be a link.
fn open_beneath(
    dir: BorrowedFd<'_>,
    rel: &[u8],
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !has_openat2() {
        return open_step_by_step(dir, rel, flags, mode);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    for _ in 0..MOST_TRIES {
        match rustix::fs::openat2(dir, rel, flags, mode, resolve) {
            Err(Errno::AGAIN) => std::thread::yield_now(),
            other => return other,
        }
    }
    // Another process renames without a pause; one step at a time has no such problem.
    open_step_by_step(dir, rel, flags, mode)
}

/// Does the same as [`open_beneath`] with one `openat` for each component, which must be a
/// directory and not a link.
fn open_step_by_step(
    dir: BorrowedFd<'_>,
    rel: &[u8],
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let pass = PASS | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    let mut rest = rel;
    while let Some(cut) = rest.iter().position(|byte| *byte == b'/') {
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(rustix::fs::openat(from, &rest[..cut], pass, Mode::empty())?);
        rest = &rest[cut + 1..];
    }
    let from = at.as_ref().map_or(dir, AsFd::as_fd);
    rustix::fs::openat(from, rest, flags, mode)
}

#[cfg(test)]
mod tests;
