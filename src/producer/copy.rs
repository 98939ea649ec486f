//! Copying one file with everything that belongs to it.
//!
//! Content goes by reflink where the file system can, else by its data runs, so holes stay holes.
//! Errors say which side they arose on: a source that can't be read is one thing less in the
//! snapshot, a destination that can't be written is the end of it.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags, SeekFrom, Timespec, Timestamps};

const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) enum CopyError {
    Source(io::Error),
    Destination(io::Error),
}

/// Opens a regular file to read; a symbolic link is not followed, a FIFO does not block.
pub(super) fn open_source(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    Ok(file)
}

/// Replaces `to` by a new file (0600) with the content of `from`.
pub(super) fn copy_content(from: &File, to: &Path) -> Result<(), CopyError> {
    match fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(CopyError::Destination(e)),
        _ => {}
    }
    let copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(CopyError::Destination)?;
    if rustix::fs::ioctl_ficlone(&copy, from).is_ok() {
        return Ok(());
    }
    let meta = from.metadata().map_err(CopyError::Source)?;
    copy.set_len(meta.len()).map_err(CopyError::Destination)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut end = 0;
    while let Some((start, stop)) = next_run(from, end, meta.len())? {
        copy_run(from, &copy, start, stop, &mut buffer)?;
        end = stop;
    }
    Ok(())
}

/// The next run of data at or after `offset`; file systems that know no holes call everything data.
fn next_run(file: &File, offset: u64, size: u64) -> Result<Option<(u64, u64)>, CopyError> {
    if offset >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL) => return Ok(Some((offset, size))),
        Err(e) => return Err(CopyError::Source(e.into())),
    };
    if start >= size {
        return Ok(None);
    }
    let hole = rustix::fs::seek(file, SeekFrom::Hole(start));
    Ok(Some((start, hole.unwrap_or(size).clamp(start + 1, size))))
}

fn copy_run(
    from: &File,
    to: &File,
    mut at: u64,
    stop: u64,
    buffer: &mut [u8],
) -> Result<(), CopyError> {
    while at < stop {
        let wanted = usize::try_from(stop - at).map_or(buffer.len(), |n| n.min(buffer.len()));
        let read = match from.read_at(&mut buffer[..wanted], at) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(CopyError::Source)?,
        };
        if read == 0 {
            return Ok(()); // Truncated meanwhile; the caller sees the changed stat.
        }
        to.write_all_at(&buffer[..read], at)
            .map_err(CopyError::Destination)?;
        at += read as u64;
    }
    Ok(())
}

/// Gives `to` the owner, extended attributes, mode and (if `with_mtime`) mtime that `from` has.
///
/// What this user or file system may not set is told in `notes`, once per kind. The order matters: a
/// change of owner clears set-id bits and file capabilities.
pub(super) fn copy_metadata(
    from: &Path,
    meta: &Metadata,
    to: &Path,
    with_mtime: bool,
    notes: &mut BTreeSet<String>,
) -> io::Result<()> {
    set_owner(to, meta.uid(), meta.gid(), notes)?;
    copy_xattrs(from, to, notes);
    if !meta.is_symlink() {
        let mode = meta.permissions().mode() & 0o7777;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    if with_mtime {
        set_mtime(to, meta)?;
    }
    Ok(())
}

/// Only root can give files away; anyone else keeps them, and is told.
pub(super) fn set_owner(
    path: &Path,
    uid: u32,
    gid: u32,
    notes: &mut BTreeSet<String>,
) -> io::Result<()> {
    let now = fs::symlink_metadata(path)?;
    if (now.uid(), now.gid()) == (uid, gid) {
        return Ok(());
    }
    match std::os::unix::fs::lchown(path, Some(uid), Some(gid)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            notes.insert("owners could not be kept: this is not root".to_owned());
            Ok(())
        }
        other => other,
    }
}

fn copy_xattrs(from: &Path, to: &Path, notes: &mut BTreeSet<String>) {
    // A file system without them is no news.
    let Ok(names) = xattr::list(from) else { return };
    for name in names {
        let copied = match xattr::get(from, &name) {
            Ok(Some(value)) => xattr::set(to, &name, &value),
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if copied.is_err() {
            let name = name.to_string_lossy();
            notes.insert(format!("the extended attribute {name} could not be kept"));
        }
    }
}

fn set_mtime(path: &Path, meta: &Metadata) -> io::Result<()> {
    let mtime = Timespec {
        tv_sec: meta.mtime(),
        tv_nsec: meta.mtime_nsec() as _,
    };
    let times = Timestamps {
        last_access: mtime,
        last_modification: mtime,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}
