//! Copies one file with its metadata.
//!
//! Content is copied by reflink if the file system can, else by its data runs, so holes stay holes.
//! Errors name the side they arose on: a source that cannot be read is left out of the snapshot, a
//! destination that cannot be written ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;

use crate::base::openat::{
    Dir, FileOwner, Meta, Pin, chmod_fd, chown_fd, list_xattrs, mtime, set_mtime_fd, set_xattr_fd,
};

const BUFFER_BYTES: usize = 1 << 20;

/// Why a file could not be copied.
#[derive(Debug)]
pub(super) enum FileCopyError {
    /// The original cannot be read.
    Source(io::Error),
    /// The copy cannot be written.
    Destination(io::Error),
}

/// Which modification time a copy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyMtime {
    /// The one of the original.
    Original,
    /// The time at which the copy was written.
    Own,
}

/// The metadata that a copy takes over, read from one descriptor of the original.
#[derive(Debug)]
pub(crate) struct Original {
    pub meta: Meta,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Original {
    /// Reads the metadata of an open file or directory. A file system without extended attributes
    /// counts as one without any set.
    pub(crate) fn of_fd(fd: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            meta: Meta::of_fd(&fd)?,
            xattrs: list_xattrs(fd).unwrap_or_default(),
        })
    }

    /// Returns an original without extended attributes.
    pub(crate) fn bare(meta: Meta) -> Self {
        Self {
            meta,
            xattrs: BTreeMap::new(),
        }
    }

    /// Reads the metadata of an entry that cannot be opened.
    pub(crate) fn of_pin(pin: &Pin) -> Self {
        Self {
            meta: *pin.meta(),
            xattrs: pin.xattrs().unwrap_or_default(),
        }
    }
}

/// Replaces `rel` below `to` by a new file (0600) with the content of `from`.
pub(super) fn copy_content(from: &File, to: &Dir, rel: &OsStr) -> Result<(), FileCopyError> {
    let created = match to.create_file(rel, 0o600) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => to
            .remove_file(rel)
            .and_then(|()| to.create_file(rel, 0o600)),
        other => other,
    };
    let copy = created.map_err(FileCopyError::Destination)?;
    if rustix::fs::ioctl_ficlone(&copy, from).is_ok() {
        return Ok(());
    }
    let meta = from.metadata().map_err(FileCopyError::Source)?;
    copy.set_len(meta.len())
        .map_err(FileCopyError::Destination)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut end = 0;
    while let Some((start, stop)) = next_run(from, end, meta.len())? {
        copy_run(from, &copy, start, stop, &mut buffer)?;
        end = stop;
    }
    Ok(())
}

/// Returns start and end of the next run of data at or after `offset`. File systems without holes
/// report everything as data.
fn next_run(file: &File, offset: u64, size: u64) -> Result<Option<(u64, u64)>, FileCopyError> {
    if offset >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL) => return Ok(Some((offset, size))),
        Err(e) => return Err(FileCopyError::Source(e.into())),
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
) -> Result<(), FileCopyError> {
    while at < stop {
        let wanted = usize::try_from(stop - at).map_or(buffer.len(), |n| n.min(buffer.len()));
        let read = match from.read_at(&mut buffer[..wanted], at) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(FileCopyError::Source)?,
        };
        if read == 0 {
            return Ok(()); // Truncated meanwhile; the caller sees the changed size.
        }
        to.write_all_at(&buffer[..read], at)
            .map_err(FileCopyError::Destination)?;
        at += read as u64;
    }
    Ok(())
}

/// Sets owner, extended attributes, mode and, by `mtime`, the modification time of the open file or
/// directory `to` to those of `original`.
///
/// Adds a note, once per kind, on what this user or file system may not set. The order matters: a
/// change of owner clears set-id bits and file capabilities.
pub(crate) fn dress(
    to: impl AsFd,
    original: &Original,
    copy_mtime: CopyMtime,
    notes: &mut BTreeSet<String>,
) -> io::Result<()> {
    let (to, meta) = (to.as_fd(), &original.meta);
    set_owner(to, meta.uid(), meta.gid(), notes)?;
    for (name, value) in &original.xattrs {
        note_xattr(set_xattr_fd(to, name, value), name, notes);
    }
    chmod_fd(to, meta.permissions())?;
    match copy_mtime {
        CopyMtime::Original => set_mtime_fd(to, &mtime(meta.mtime(), meta.mtime_nsec())),
        CopyMtime::Own => Ok(()),
    }
}

/// [`dress`] for a symlink, a FIFO or a device, which cannot be opened.
pub(crate) fn dress_entry(
    to: &Dir,
    rel: &OsStr,
    original: &Original,
    notes: &mut BTreeSet<String>,
) -> io::Result<()> {
    let meta = &original.meta;
    let now = to.meta(rel)?;
    if (now.uid(), now.gid()) != (meta.uid(), meta.gid()) {
        let owned =
            FileOwner::new(meta.uid(), meta.gid()).and_then(|owner| to.set_owner(rel, owner));
        note_owner(owned, notes)?;
    }
    for (name, value) in &original.xattrs {
        note_xattr(to.set_xattr(rel, name, value), name, notes);
    }
    if !meta.is_symlink() {
        to.set_mode(rel, meta.permissions())?;
    }
    to.set_mtime(rel, &mtime(meta.mtime(), meta.mtime_nsec()))
}

/// Sets the owner. Only root can give files away: for other users a note is added instead.
pub(super) fn set_owner(
    to: impl AsFd,
    uid: u32,
    gid: u32,
    notes: &mut BTreeSet<String>,
) -> io::Result<()> {
    let now = Meta::of_fd(&to)?;
    if (now.uid(), now.gid()) == (uid, gid) {
        return Ok(());
    }
    note_owner(
        FileOwner::new(uid, gid).and_then(|owner| chown_fd(to, owner)),
        notes,
    )
}

fn note_owner(owned: io::Result<()>, notes: &mut BTreeSet<String>) -> io::Result<()> {
    match owned {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            notes.insert("owners could not be kept: this is not root".to_owned());
            Ok(())
        }
        other => other,
    }
}

fn note_xattr(set: io::Result<()>, name: &OsStr, notes: &mut BTreeSet<String>) {
    if set.is_err() {
        let name = name.to_string_lossy();
        notes.insert(format!("the extended attribute {name} could not be kept"));
    }
}
