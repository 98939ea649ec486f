//! The child: this program, started again to query one database whose bytes its parent sends.
//!
//! It has no file: its stdin and stderr are nothing, its stdout is a socket to the parent, and it
//! confines itself to that before it opens the database.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, Statement};

use super::super::confine;
use super::super::connection::failed;
use super::super::inspect::{MEMORY_BYTES, VALUE_BYTES};
use super::super::message::{ChildAnswer, Step, VARIABLE};
use super::super::process::{ChildProcess, Silence};
use super::frame::{FrameKind, PagedRequest};
use super::{channel, vfs};

/// The hidden first argument that makes this program the child.
const ARGUMENT: &str = "sqlite-page-child";
/// Memory for pages that were read, in KiB.
const PAGE_CACHE_KIB: u32 = 64 << 10;

impl PagedRequest {
    /// Starts the child.
    pub(super) fn start(&self) -> Result<ChildProcess, Silence> {
        let text = serde_json::to_string(self).map_err(io::Error::from);
        let text = text.map_err(Silence::NotStarted)?;
        ChildProcess::launch(ARGUMENT, &text, Stdio::null(), Stdio::null())
    }
}

/// Does the child's work if this process was started as one. Returns whether it was.
pub(in crate::base::sqlite) fn serve() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != ARGUMENT) {
        return false;
    }
    let request = std::env::var_os(VARIABLE).map(OsStringExt::into_vec);
    let request = request.and_then(|text| serde_json::from_slice::<PagedRequest>(&text).ok());
    let stdout = rustix::stdio::stdout().try_clone_to_owned();
    // Started by hand or by another version: no parent waits for an answer.
    let (Some(request), Ok(stdout)) = (request, stdout) else {
        return true;
    };
    if request.version != env!("CARGO_PKG_VERSION") || !confine::end_with(request.parent) {
        return true;
    }
    channel::open(UnixStream::from(stdout), request.bytes);
    // A parent that is gone needs no answer.
    let _ = match work(&request) {
        Ok(()) => channel::send(FrameKind::End, None::<&()>),
        Err(answer) => channel::send(FrameKind::Failed, Some(&answer)),
    };
    true
}

fn work(request: &PagedRequest) -> Result<(), ChildAnswer> {
    let start = |error: io::Error| ChildAnswer::System {
        step: Step::Start,
        errno: error.raw_os_error().unwrap_or(0),
    };
    confine::limit(request.cpu_seconds, 0).map_err(start)?;
    confine::to_nothing().map_err(start)?;
    let fail = failed(Step::Query);
    let conn = open().map_err(&fail)?;
    let mut statement = conn.prepare(&request.query).map_err(|error| match error {
        rusqlite::Error::MultipleStatement => ChildAnswer::NotOneStatement,
        rusqlite::Error::Empty => ChildAnswer::NotOneStatement,
        error => fail(error),
    })?;
    if !statement.readonly() {
        return Err(ChildAnswer::Writes);
    }
    send_rows(&mut statement).map_err(|error| match error {
        RowsError::Sqlite(error) => fail(error),
        RowsError::Parent(error) => start(error),
    })
}

/// Opens the database, which anyone may have written, for reading.
///
/// Unlike for a check, SQLite's modules stay: a query may need a full-text index or `json_each`.
fn open() -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags_and_vfs(vfs::DATABASE, flags, vfs::name()?)?;
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        conn.set_limit(limit, most)?;
    }
    // The schema is foreign code. The operator's query may name a view.
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    ] {
        conn.set_db_config(config, value)?;
    }
    conn.execute_batch(&format!(
        "PRAGMA hard_heap_limit={MEMORY_BYTES}; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;
         PRAGMA cell_size_check=ON; PRAGMA query_only=ON; PRAGMA cache_size=-{PAGE_CACHE_KIB}"
    ))?;
    Ok(conn)
}

/// Why the rows could not be sent.
enum RowsError {
    Sqlite(rusqlite::Error),
    Parent(io::Error),
}

fn send_rows(statement: &mut Statement<'_>) -> Result<(), RowsError> {
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    channel::send(FrameKind::Columns, Some(&names)).map_err(RowsError::Parent)?;
    let mut rows = statement.query([]).map_err(RowsError::Sqlite)?;
    while let Some(row) = rows.next().map_err(RowsError::Sqlite)? {
        let values = (0..names.len()).map(|column| row.get_ref(column));
        let values: rusqlite::Result<Vec<_>> = values.collect();
        let values = values.map_err(RowsError::Sqlite)?;
        channel::send_row(&values).map_err(RowsError::Parent)?;
    }
    Ok(())
}
