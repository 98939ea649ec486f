//! A copy that says what the previous snapshot's says becomes the same file: no space, and no new line in
//! the index.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const BUFFER_BYTES: usize = 1 << 20;

/// Replaces `copy` by a hard link to `earlier` if nothing tells them apart; `dir` is for a moment's name.
///
/// Where that fails, the copy stays: it is as good.
pub(super) fn link_if_same(earlier: &Path, copy: &Path, dir: &Path, with_mtime: bool) {
    if !is_same(earlier, copy, with_mtime).unwrap_or(false) {
        return;
    }
    let link = dir.join(".link");
    if fs::hard_link(earlier, &link).is_ok() && fs::rename(&link, copy).is_err() {
        let _ = fs::remove_file(&link);
    }
}

fn is_same(earlier: &Path, copy: &Path, with_mtime: bool) -> io::Result<bool> {
    let (old, new) = (fs::symlink_metadata(earlier)?, fs::symlink_metadata(copy)?);
    let look = |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.size());
    let mtime = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
    Ok(old.is_file()
        && look(&old) == look(&new)
        && (!with_mtime || mtime(&old) == mtime(&new))
        && xattrs(earlier)? == xattrs(copy)?
        && same_bytes(File::open(earlier)?, File::open(copy)?)?)
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<OsString, Option<Vec<u8>>>> {
    let names = match xattr::list(path) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(BTreeMap::new()),
        other => other?,
    };
    names
        .map(|name| Ok((name.clone(), xattr::get(path, &name)?)))
        .collect()
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
