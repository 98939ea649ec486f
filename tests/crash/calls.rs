//! The system calls that change files, as a traced process makes them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use libc::user_regs_struct;
use nix::unistd::Pid;

/// What a call is to change, if it succeeds.
#[derive(Debug, Clone)]
pub enum Change {
    /// Opens a file that is made or emptied by it.
    Open(PathBuf),
    /// Content of an open file: more of it, or its length.
    Write(PathBuf),
    /// Makes content and length of an open file durable, or the names in a directory. With the way to it.
    Sync(PathBuf, PathBuf),
    /// Makes all of a file system durable.
    SyncAll(PathBuf),
    MakeDir(PathBuf),
    /// A symbolic link or a node.
    MakeOther(PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    /// Where it happens.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open(path)
            | Self::Write(path)
            | Self::Sync(path, _)
            | Self::SyncAll(path)
            | Self::MakeDir(path)
            | Self::MakeOther(path)
            | Self::Link(_, path)
            | Self::Rename(_, path)
            | Self::Exchange(_, path)
            | Self::Remove(path) => path,
        }
    }

    /// Where what has a name gets another from.
    pub fn from(&self) -> Option<&Path> {
        match self {
            Self::Link(from, _) | Self::Rename(from, _) | Self::Exchange(from, _) => Some(from),
            _ => None,
        }
    }

    /// Whether a full disk refuses it.
    pub fn takes_space(&self) -> bool {
        let frees = matches!(self, Self::Sync(..) | Self::SyncAll(_) | Self::Remove(_));
        !frees && !matches!(self, Self::Rename(..) | Self::Exchange(..))
    }
}

/// What the call that `pid` is about to make changes, if it can change anything.
pub fn read(pid: Pid, regs: &user_regs_struct) -> Option<Change> {
    // Of each process its own: a child may have become another program.
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    Eyes { memory }.read(pid, regs)
}

/// A traced process's memory and names.
struct Eyes {
    memory: File,
}

impl Eyes {
    fn read(&self, pid: Pid, regs: &user_regs_struct) -> Option<Change> {
        let change = self.asked(pid, regs)?;
        let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        let changes = match &change {
            Change::Open(path) => self.empties(regs) || !is_there(path),
            Change::MakeDir(path) => !is_there(path),
            Change::Remove(path) => is_there(path),
            _ => true,
        };
        changes.then_some(change)
    }

    fn asked(&self, pid: Pid, regs: &user_regs_struct) -> Option<Change> {
        let at = |dir: u64, name: u64| self.path(pid, dir as i32, name);
        let here = |name: u64| at(libc::AT_FDCWD as u64, name);
        let open = |fd: u64| Some(fs::read_link(file(pid, fd)).unwrap_or_default());
        let (a, b, c, d) = (regs.rdi, regs.rsi, regs.rdx, regs.r10);
        let renamed = |from, to, flags: u64| match flags & u64::from(libc::RENAME_EXCHANGE) {
            0 => Change::Rename(from, to),
            _ => Change::Exchange(from, to),
        };
        let is_changing = || {
            let flags = self.open_flags(regs);
            let is_unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
            flags & (libc::O_CREAT | libc::O_TRUNC) != 0 && !is_unnamed
        };
        Some(match regs.orig_rax as i64 {
            libc::SYS_open if is_changing() => Change::Open(here(a)),
            libc::SYS_openat if is_changing() => Change::Open(at(a, b)),
            libc::SYS_openat2 if is_changing() => Change::Open(at(a, b)),
            libc::SYS_creat => Change::Open(here(a)),
            libc::SYS_write
            | libc::SYS_pwrite64
            | libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_ftruncate
            | libc::SYS_fallocate
            | libc::SYS_sendfile => Change::Write(open(a)?),
            libc::SYS_copy_file_range | libc::SYS_splice => Change::Write(open(c)?),
            libc::SYS_ioctl if [libc::FICLONE, libc::FICLONERANGE].contains(&b) => {
                Change::Write(open(a)?)
            }
            libc::SYS_truncate => Change::Write(here(a)),
            libc::SYS_fsync | libc::SYS_fdatasync => Change::Sync(open(a)?, file(pid, a)),
            libc::SYS_syncfs => Change::SyncAll(open(a)?),
            libc::SYS_mkdir => Change::MakeDir(here(a)),
            libc::SYS_mkdirat => Change::MakeDir(at(a, b)),
            libc::SYS_symlink => Change::MakeOther(here(b)),
            libc::SYS_symlinkat => Change::MakeOther(at(b, c)),
            libc::SYS_mknod => Change::MakeOther(here(a)),
            libc::SYS_mknodat => Change::MakeOther(at(a, b)),
            libc::SYS_link => Change::Link(here(a), here(b)),
            libc::SYS_linkat => Change::Link(at(a, b), at(c, d)),
            libc::SYS_rename => Change::Rename(here(a), here(b)),
            libc::SYS_renameat => Change::Rename(at(a, b), at(c, d)),
            libc::SYS_renameat2 => renamed(at(a, b), at(c, d), regs.r8),
            libc::SYS_unlink | libc::SYS_rmdir => Change::Remove(here(a)),
            libc::SYS_unlinkat => Change::Remove(at(a, b)),
            _ => return None,
        })
    }

    fn open_flags(&self, regs: &user_regs_struct) -> i32 {
        let flags = match regs.orig_rax as i64 {
            libc::SYS_open => regs.rsi,
            libc::SYS_openat => regs.rdx,
            libc::SYS_openat2 => self.number(regs.rdx),
            _ => (libc::O_CREAT | libc::O_TRUNC) as u64,
        };
        flags as i32
    }

    fn empties(&self, regs: &user_regs_struct) -> bool {
        self.open_flags(regs) & libc::O_TRUNC != 0
    }

    fn path(&self, pid: Pid, dir: i32, name: u64) -> PathBuf {
        let dir = match dir {
            libc::AT_FDCWD => PathBuf::from(format!("/proc/{pid}/cwd")),
            fd => file(pid, fd as u64),
        };
        let name = self.text(name);
        match Path::new(&name).is_absolute() {
            true => PathBuf::from(name),
            false => fs::read_link(dir).unwrap_or_default().join(name),
        }
    }

    /// Up to its NUL.
    fn text(&self, mut address: u64) -> OsString {
        let mut text = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = self.memory.read_at(&mut buffer, address) {
            match buffer[..length].iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&buffer[..end]);
                    break;
                }
                None => text.extend_from_slice(&buffer[..length]),
            }
            address += length as u64;
        }
        OsStr::from_bytes(&text).to_owned()
    }

    fn number(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        let read = self.memory.read_exact_at(&mut bytes, address);
        read.map_or(0, |()| u64::from_le_bytes(bytes))
    }
}

fn file(pid: Pid, fd: u64) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{}", fd as i32))
}
