//! Tells from a file's name and its first bytes whether it is a SQLite database.

use std::ffi::OsStr;
use std::io::{self, Read as _};

use crate::base::openat::Dir;
use crate::base::sqlite;

/// Whether the name promises a database. Chroma names its own so.
pub(super) fn is_called_database(rel: &[u8]) -> bool {
    rel.ends_with(b".sqlite3")
}

/// Reads the first bytes of the file `rel`, as many as a check for SQLite needs.
pub(super) fn read_head(dir: &Dir, rel: &OsStr) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let limit = sqlite::HEAD_BYTES as u64;
    dir.open_file(rel)?.0.take(limit).read_to_end(&mut head)?;
    Ok(head)
}
