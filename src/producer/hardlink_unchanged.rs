//! Turns a copy that equals the previous snapshot's into a hard link to it: it takes no space and
//! no new line in the index.

use std::ffi::OsStr;
use std::io::{self, Read};

use super::copy_file::CopyMtime;
use crate::base::openat::{Dir, Meta, list_xattrs};

const BUFFER_BYTES: usize = 1 << 20;
/// The temporary name of the new link.
const LINK: &str = ".link";

/// Replaces the copy `rel` in the snapshot `copy` by a hard link to that of the snapshot `earlier`,
/// if content and metadata are equal. If that fails, the copy stays: it is as good.
pub(super) fn link_if_same(earlier: &Dir, copy: &Dir, rel: &OsStr, mtime: CopyMtime) {
    let Ok(Some(same)) = find_same(earlier, copy, rel, mtime) else {
        return;
    };
    if earlier.link(rel, copy, LINK).is_err() {
        return;
    }
    if !copy.is_still(LINK, &same) || copy.rename(LINK, copy, rel).is_err() {
        let _ = copy.remove_file(LINK);
    }
}

fn find_same(earlier: &Dir, copy: &Dir, rel: &OsStr, mtime: CopyMtime) -> io::Result<Option<Meta>> {
    let ((old_file, old), (new_file, new)) = (earlier.open_file(rel)?, copy.open_file(rel)?);
    let attributes = |meta: &Meta| (meta.mode(), meta.uid(), meta.gid(), meta.size());
    let time = |meta: &Meta| (meta.mtime(), meta.mtime_nsec());
    let is_same = attributes(&old) == attributes(&new)
        && (mtime == CopyMtime::Own || time(&old) == time(&new))
        && list_xattrs(&old_file)? == list_xattrs(&new_file)?
        && same_bytes(old_file, new_file)?;
    Ok(is_same.then_some(old))
}

fn same_bytes(mut a: impl Read, mut b: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        let read = fill(&mut a, &mut left)?;
        if fill(&mut b, &mut right)? != read || left[..read] != right[..read] {
            return Ok(false);
        }
        if read < BUFFER_BYTES {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
