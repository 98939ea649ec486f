//! The child's connections to databases in its working directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::code::{self, is_limit};
use super::message::{ChildAnswer, NamedFile, Step, Way};
use super::vfs;

/// Returns the answer for an error of SQLite in `step`.
pub(super) fn failed(step: Step) -> impl Fn(rusqlite::Error) -> ChildAnswer {
    move |error| {
        if vfs::was_exchanged() {
            return ChildAnswer::Exchanged;
        }
        if is_limit(&error) {
            return ChildAnswer::Memory;
        }
        ChildAnswer::Failed {
            step,
            code: code::extended(&error).unwrap_or(rusqlite::ffi::SQLITE_ERROR),
            message: error.to_string(),
        }
    }
}

/// Opens `database`, in the working directory.
pub(super) fn open(database: &NamedFile, way: Way) -> rusqlite::Result<Connection> {
    let path = vfs::path(&database.name);
    let layer = vfs::name()?;
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let (path, flags) = match way {
        Way::Immutable => (immutable_uri(&path), read_only | OpenFlags::SQLITE_OPEN_URI),
        Way::ReadOnly => (path, read_only),
        Way::Writable => (path, OpenFlags::SQLITE_OPEN_READ_WRITE),
    };
    let path = PathBuf::from(OsString::from_vec(path));
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags_and_vfs(path, flags, layer)?;
    if way == Way::Writable {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    Ok(conn)
}

/// Returns the URI that makes SQLite open `path` as a file that no process writes: without locks or
/// sidecars.
fn immutable_uri(path: &[u8]) -> Vec<u8> {
    let mut uri = b"file:".to_vec();
    for byte in path {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(*byte),
            _ => uri.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    uri
}
