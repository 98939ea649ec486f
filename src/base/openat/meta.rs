//! The metadata of a thing, as one system call returned it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, FileType, Stat, Statx, StatxFlags};
use rustix::io::Errno;

/// The kind of a thing in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A listing did not say.
    Unknown,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => Self::Unknown,
        }
    }
}

/// The metadata of a thing. The methods have the names of those of
/// [`std::os::unix::fs::MetadataExt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    dev: u64,
    ino: u64,
    mode: u32,
    nlink: u64,
    uid: u32,
    gid: u32,
    rdev: u64,
    size: u64,
    blocks: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    born: Option<(i64, i64)>,
}

impl Meta {
    /// Returns the metadata of an open thing.
    pub fn of_fd(fd: impl AsFd) -> io::Result<Self> {
        let fd = fd.as_fd();
        let flags = AtFlags::EMPTY_PATH;
        Self::asked(fd, OsStr::new(""), flags, |fd| rustix::fs::fstat(fd))
    }

    /// Returns the metadata of the entry `name` of `dir`, of a link itself.
    pub(super) fn of_entry(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Self::asked(dir, name, flags, |dir| rustix::fs::statat(dir, name, flags))
    }

    /// Calls `statx`, which also returns the time of birth, or `older` if the kernel has no `statx`
    /// or a filter blocks it.
    fn asked(
        fd: BorrowedFd<'_>,
        name: &OsStr,
        flags: AtFlags,
        older: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<Stat>,
    ) -> io::Result<Self> {
        let fields = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        match rustix::fs::statx(fd, name, flags, fields) {
            Err(Errno::NOSYS) => Ok(older(fd)?.into()),
            other => Ok(other?.into()),
        }
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        FileType::from_raw_mode(self.mode as _).into()
    }

    /// Returns whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == Kind::File
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Dir
    }

    /// Returns whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind() == Kind::Symlink
    }

    /// Returns whether both describe one thing (device and inode).
    pub fn is_same(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Returns device and inode.
    pub fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Returns the device.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// Returns the inode.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns kind and permissions, as `st_mode` holds them.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// Returns the permission bits, with set-id and sticky.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Returns the number of hard links.
    pub fn nlink(&self) -> u64 {
        self.nlink
    }

    /// Returns the owner's id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the group's id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Returns the device number of a device.
    pub fn rdev(&self) -> u64 {
        self.rdev
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the size in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Returns the number of allocated blocks of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Returns the modification time in seconds.
    pub fn mtime(&self) -> i64 {
        self.mtime.0
    }

    /// Returns the nanoseconds of the modification time.
    pub fn mtime_nsec(&self) -> i64 {
        self.mtime.1
    }

    /// Returns the time of the last change of content or metadata, in seconds.
    pub fn ctime(&self) -> i64 {
        self.ctime.0
    }

    /// Returns the nanoseconds of that time.
    pub fn ctime_nsec(&self) -> i64 {
        self.ctime.1
    }

    /// Returns the time of its creation (seconds, nanoseconds); `None` if the file system or the
    /// kernel does not know.
    pub fn born(&self) -> Option<(i64, i64)> {
        self.born
    }
}

impl From<Statx> for Meta {
    fn from(stat: Statx) -> Self {
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, i64::from(time.tv_nsec));
        let has_born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            mode: u32::from(stat.stx_mode),
            nlink: u64::from(stat.stx_nlink),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            born: has_born.then(|| time(stat.stx_btime)),
        }
    }
}

// The fields' types differ from one architecture to the next.
#[allow(clippy::unnecessary_cast)]
impl From<Stat> for Meta {
    fn from(stat: Stat) -> Self {
        Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            mode: stat.st_mode as u32,
            nlink: stat.st_nlink as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            born: None,
        }
    }
}

impl From<&std::fs::Metadata> for Meta {
    fn from(meta: &std::fs::Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            mode: meta.mode(),
            nlink: meta.nlink(),
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: meta.rdev(),
            size: meta.size(),
            blocks: meta.blocks(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            born: meta.created().ok().and_then(|time| {
                let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
                let seconds = i64::try_from(since.as_secs()).ok()?;
                Some((seconds, i64::from(since.subsec_nanos())))
            }),
        }
    }
}
