//! Tells from a file's name and its first bytes whether it is a SQLite database.

use std::ffi::OsStr;
use std::io::{self, Read as _};

use crate::base::openat::Dir;
use crate::base::sqlite;

/// Named so that it must be a database: where Chroma keeps its own.
pub(super) fn is_called_database(rel: &[u8]) -> bool {
    rel.ends_with(b".sqlite3")
}

/// So much of the file `rel` as tells what it is.
pub(super) fn read_head(dir: &Dir, rel: &OsStr) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let limit = sqlite::HEAD_BYTES as u64;
    dir.open_file(rel)?.0.take(limit).read_to_end(&mut head)?;
    Ok(head)
}
