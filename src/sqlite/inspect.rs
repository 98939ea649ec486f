//! Asking a database copy whether it is whole, and what it holds.
//!
//! The copy may come from anywhere: its schema is someone else's code, and may want collations,
//! functions and modules that only its application has. What needs them is left out of the answer.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{HEAD_BYTES, SqliteError, page_size, read_head};

/// What a database copy says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `ok`, or what the check said first.
    pub integrity: String,
    /// Bytes.
    pub page_size: u32,
    /// Rows of each table that holds rows itself; a table that needs an extension we lack is left out.
    pub tables: BTreeMap<String, u64>,
}

impl Inspection {
    pub fn is_ok(&self) -> bool {
        self.integrity == "ok"
    }
}

/// How much of a database is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every page and record, and that each page has one owner (`quick_check`). What it leaves out can be
    /// made again from what it looks at: what stands in indexes, and in a virtual table's own index.
    Structure,
    /// Also that every index agrees with its table (`integrity_check`), which takes some four times as
    /// long. The index of a virtual table is its module's business and left out here too.
    Indexes,
}

impl Depth {
    fn pragma(self) -> &'static str {
        match self {
            Self::Structure => "quick_check",
            Self::Indexes => "integrity_check",
        }
    }
}

/// Checks the database `path`, a copy that nobody writes to; nothing beside it is created or read.
///
/// Damage is not an error but stands in [`Inspection::integrity`].
pub fn inspect(path: &Path, depth: Depth) -> Result<Inspection, SqliteError> {
    let failed = |source| SqliteError::Sqlite {
        what: "check the database",
        path: path.to_owned(),
        source,
    };
    let head = read_head(path, HEAD_BYTES as u64).map_err(|source| SqliteError::Io {
        what: "check the database",
        path: path.to_owned(),
        source,
    })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(immutable_uri(path), flags).map_err(failed)?;
    inspect_open(&conn, page_size(&head).unwrap_or(0), depth).map_err(failed)
}

/// The same through a connection that is open already, as its transaction sees the database.
pub(super) fn inspect_open(
    conn: &Connection,
    page_size: u32,
    depth: Depth,
) -> rusqlite::Result<Inspection> {
    let mut inspection = Inspection {
        integrity: String::new(),
        page_size,
        tables: BTreeMap::new(),
    };
    drop_modules(conn)?;
    // What stands in a schema is someone else's code.
    let checked = conn
        .execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON")
        .and_then(|()| table_names(conn))
        .and_then(|names| Ok((integrity(conn, &names, depth)?, names)));
    match checked {
        Ok((integrity, names)) => {
            inspection.integrity = integrity;
            inspection.tables = names
                .into_iter()
                .filter_map(|name| row_count(conn, &name).map(|rows| (name, rows)))
                .collect();
        }
        Err(e) if matches!(e, rusqlite::Error::SqliteFailure(..)) => {
            inspection.integrity = e.to_string();
        }
        Err(e) => return Err(e),
    }
    Ok(inspection)
}

/// Virtual tables have no root page.
fn table_names(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name";
    let mut statement = conn.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

/// Makes SQLite forget its virtual tables' modules: their code never runs on a file from anywhere, and
/// the check leaves their tables out (it would read a full-text index twice over, for half of its time).
/// The tables that such a table keeps its content in are ordinary ones, and checked.
#[allow(unsafe_code)]
fn drop_modules(conn: &Connection) -> rusqlite::Result<()> {
    // SAFETY: the handle is open as long as `conn`, which no other thread uses meanwhile (it is not
    // `Sync`); a null list means all modules. No statement is prepared yet that could be using one.
    let code = unsafe { rusqlite::ffi::sqlite3_drop_modules(conn.handle(), std::ptr::null_mut()) };
    match code {
        rusqlite::ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(code),
            Some("its modules cannot be put aside".to_owned()),
        )),
    }
}

fn integrity(conn: &Connection, names: &[String], depth: Depth) -> rusqlite::Result<String> {
    let pragma = depth.pragma();
    let whole = conn.query_row(&format!("PRAGMA {pragma}(1)"), [], |row| row.get(0));
    match whole {
        // A collation, function or module of the application's: check whatever does without it.
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::Unknown) => {}
        result => return result,
    }
    for name in names {
        let sql = format!("PRAGMA {pragma}({})", quoted(name));
        match conn.query_row(&sql, [], |row| row.get::<_, String>(0)) {
            Ok(said) if said == "ok" => {}
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::Unknown) => {}
            result => return result,
        }
    }
    Ok("ok".to_owned())
}

fn row_count(conn: &Connection, name: &str) -> Option<u64> {
    let sql = format!("SELECT count(*) FROM {}", quoted(name));
    let rows: i64 = conn.query_row(&sql, [], |row| row.get(0)).ok()?;
    rows.try_into().ok()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Tells SQLite that nobody writes: no locks, no sidecars.
pub(super) fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    // Beginning with two slashes would read as a host's name.
    if path.is_relative() {
        uri.push_str("./");
    }
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => {
                use std::fmt::Write as _;
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri.push_str("?immutable=1");
    uri
}
