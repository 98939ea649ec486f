//! Paths within a snapshot, as [`Dir`](crate::base::openat::Dir) takes them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Returns the place `to` of a source as a path: `a//b/` and `a/./b` are `a/b`.
pub(super) fn snapshot_path(to: &str) -> OsString {
    Path::new(to).components().collect::<PathBuf>().into()
}

/// Returns the path of `rel` below `root`. Both are relative, and `root` may be empty.
pub(super) fn below(root: &OsStr, rel: &[u8]) -> OsString {
    match root.is_empty() {
        true => OsStr::from_bytes(rel).to_owned(),
        false => OsStr::from_bytes(&[root.as_bytes(), b"/", rel].concat()).to_owned(),
    }
}
