//! File system steps that stay beneath a directory.
//!
//! A folder target may lie on a disk that somebody else writes to. Every path is walked one
//! component at a time, from a directory handle and without following a symlink, so no planted link
//! leads a read, a write or a delete out of the root, and a FIFO never makes an open wait.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the root itself, which may well be a symlink: its owner chose it.
pub(super) fn open_root(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

/// Splits a key into its folder (`""`: the root) and its file's name.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

fn parts(folder: &str) -> impl Iterator<Item = &str> {
    folder.split('/').filter(|part| !part.is_empty())
}

pub(super) fn open_dir(root: &OwnedFd, folder: &str) -> io::Result<OwnedFd> {
    let mut dir = root.try_clone()?;
    for part in parts(folder) {
        dir = rustix::fs::openat(&dir, part, DIRECTORY, Mode::empty())?;
    }
    Ok(dir)
}

/// Opens `folder`, making what is missing of it; gives every directory on the way, the root first
/// and `folder` last.
pub(super) fn make_dirs(root: &OwnedFd, folder: &str) -> io::Result<Vec<OwnedFd>> {
    let mut chain = vec![root.try_clone()?];
    for part in parts(folder) {
        let Some(dir) = chain.last() else { break };
        let next = match rustix::fs::openat(dir, part, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(dir, part, Mode::from_raw_mode(0o777)) {
                    // Somebody else may have just made it.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                rustix::fs::openat(dir, part, DIRECTORY, Mode::empty())?
            }
            other => other?,
        };
        chain.push(next);
    }
    Ok(chain)
}

/// Opens a regular file for reading; anything else under that name is an error.
pub(super) fn open_file(dir: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(not_a_file()),
    }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// Makes a new file that nobody else has.
pub(super) fn create_file(dir: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    Ok(File::from(rustix::fs::openat(dir, name, flags, mode)?))
}

/// Whether a regular file is there under `name`; anything else there is an error.
pub(super) fn is_file(dir: impl AsFd, name: &str) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(true),
        Ok(_) => Err(not_a_file()),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Renames over whatever file is there.
pub(super) fn rename(from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> io::Result<()> {
    Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?)
}

/// Renames unless something is there: `false`. Where the file system can't do that in one step
/// (NFS, some FUSE), it looks first: two writers of one name then race, with the same content.
pub(super) fn rename_new(from: (&OwnedFd, &str), to: (&OwnedFd, &str)) -> io::Result<bool> {
    let renamed = rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE);
    match renamed {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if is_file(to.0, to.1)? {
                return Ok(false);
            }
            rename(from, to).map(|()| true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives the file `from` the further name `to`, unless something is there or it cannot be done.
pub(super) fn link(from: &Path, to: (&OwnedFd, &str)) -> bool {
    rustix::fs::linkat(rustix::fs::CWD, from, to.0, to.1, AtFlags::empty()).is_ok()
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove(dir: impl AsFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn sync(dir: &OwnedFd) -> io::Result<()> {
    match rustix::fs::fsync(dir) {
        // Some network file systems know no flushing of directories; they have nothing to flush.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File {
        bytes: u64,
        modified: Option<DateTime<Utc>>,
    },
}

/// The regular files and directories in `dir` whose names are UTF-8; nothing else.
pub(super) fn read_dir(dir: &OwnedFd) -> io::Result<Vec<(String, Kind)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let os_name = OsStr::from_bytes(name.as_bytes());
        let stat = match rustix::fs::statat(dir, os_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File {
                bytes: u64::try_from(stat.st_size).unwrap_or(0),
                modified: DateTime::from_timestamp(stat.st_mtime, 0),
            },
            _ => continue,
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renaming_anew_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        std::fs::write(dir.path().join("there"), "first").unwrap();
        std::fs::write(dir.path().join("new"), "second").unwrap();
        assert!(!rename_new((&root, "new"), (&root, "there")).unwrap());
        assert_eq!(std::fs::read(dir.path().join("there")).unwrap(), b"first");
        assert!(dir.path().join("new").exists());
        assert!(rename_new((&root, "new"), (&root, "elsewhere")).unwrap());
        assert!(!dir.path().join("new").exists());
    }
}
