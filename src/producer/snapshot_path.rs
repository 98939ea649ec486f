//! Paths within a snapshot, as [`Dir`](crate::base::openat::Dir) takes them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The place `to` in a snapshot, as [`Dir`] takes it: `a//b/` and `a/./b` are `a/b`.
pub(super) fn snapshot_path(to: &str) -> OsString {
    Path::new(to).components().collect::<PathBuf>().into()
}

/// `rel` below `root`; both are relative, and `root` may be empty.
pub(super) fn below(root: &OsStr, rel: &[u8]) -> OsString {
    match root.is_empty() {
        true => OsStr::from_bytes(rel).to_owned(),
        false => OsStr::from_bytes(&[root.as_bytes(), b"/", rel].concat()).to_owned(),
    }
}
