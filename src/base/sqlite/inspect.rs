//! The child's check: whether a database is sound, and how many rows its tables have.
//!
//! Anyone may have written the database. Its schema is foreign code, and may need collations,
//! functions and modules that only its application has; tables and indexes that need them are left
//! out of the check. SQLite's own limits bound the memory and the length of that code; the parent
//! ends a check that takes too long.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;

use super::code::{self, is_limit};
use super::inspection::{Depth, Inspection};
use super::vfs;
use crate::base::ids::Hash;

/// Memory that SQLite may use, in bytes. A legitimate check needs its page cache, a bit for each
/// page, and one value at a time of those in an index or under a CHECK constraint.
pub(super) const MEMORY_BYTES: i64 = 256 << 20;
/// Longest value that the check reads as a whole, in bytes. It reads only values in an index or
/// under a constraint.
pub(super) const VALUE_BYTES: i32 = 128 << 20;
/// Instructions of the program that checks: enough for thousands of wide tables.
const INSTRUCTIONS: i32 = 4 << 20;

/// How many of the tables that could not be checked are named.
const SHOWN: usize = 2;

/// Restricts a connection to a database that anyone may have written.
pub(super) fn limit(conn: &Connection) -> rusqlite::Result<()> {
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES),
        (Limit::SQLITE_LIMIT_VDBE_OP, INSTRUCTIONS),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        conn.set_limit(limit, most)?;
    }
    // The schema is foreign code.
    for (config, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    ] {
        conn.set_db_config(config, value)?;
    }
    vfs::drop_modules(conn)?;
    conn.execute_batch(&format!(
        "PRAGMA hard_heap_limit={MEMORY_BYTES}; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;
         PRAGMA cell_size_check=ON"
    ))
}

/// Checks the database of a connection after [`limit`], as its transaction sees it.
///
/// Damage is not an error; [`Inspection::integrity`] reports it.
pub(super) fn inspect(conn: &Connection, depth: Depth) -> rusqlite::Result<Inspection> {
    let mut inspection = Inspection {
        integrity: String::new(),
        page_size: 0,
        tables: BTreeMap::new(),
        schema: None,
        unchecked: None,
    };
    let checked = table_names(conn).and_then(|names| Ok((integrity(conn, &names, depth)?, names)));
    match checked {
        Ok((checked, names)) => {
            inspection.integrity = checked.integrity;
            inspection.unchecked = described(&checked.unchecked);
            // Counting in a damaged tree may never end.
            if inspection.is_ok() {
                inspection.schema = Some(schema(conn, &names));
                let counted = |name: String| row_count(conn, &name).map(|rows| (name, rows));
                inspection.tables = names.into_iter().filter_map(counted).collect();
            }
        }
        Err(e) if is_limit(&e) => return Err(e),
        Err(e) if code::extended(&e).is_some_and(|code| !code::is_foreign(code)) => {
            inspection.integrity = e.to_string();
        }
        Err(e) => return Err(e),
    }
    Ok(inspection)
}

/// Returns the names of all tables that hold rows themselves: virtual tables have no root page.
fn table_names(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name";
    let mut statement = conn.prepare(sql)?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

struct Checked {
    /// `ok`, or the first complaint of the check.
    integrity: String,
    /// Tables and indexes that only the application can check, each with the reason.
    unchecked: Vec<String>,
}

fn integrity(conn: &Connection, names: &[String], depth: Depth) -> rusqlite::Result<Checked> {
    let pragma = depth.pragma();
    let checked = |integrity| Checked {
        integrity,
        unchecked: Vec::new(),
    };
    match conn.query_row(&format!("PRAGMA {pragma}(1)"), [], |row| row.get(0)) {
        // A collation, function or module of the application is missing: check all that does not
        // need it.
        Err(e) if is_foreign(&e) => {}
        // One program for very many tables may be too large although that of each table is not.
        Err(e) if is_limit(&e) => {}
        result => return result.map(checked),
    }
    let mut all = checked("ok".to_owned());
    for name in names {
        let said = match check_table(conn, name, depth) {
            Err(e) if is_foreign(&e) && depth == Depth::Indexes => {
                // An index by such a function cannot be compared with the rows; everything else can
                // be checked.
                all.unchecked
                    .push(format!("indexes of the table {name:?}: {}", message(&e)));
                check_table(conn, name, Depth::Structure)
            }
            said => said,
        };
        match said {
            Ok(said) if said == "ok" => {}
            Err(e) if is_foreign(&e) => {
                let what = format!("the table {name:?}: {}", message(&e));
                let of_indexes = format!("indexes of {what}");
                all.unchecked.pop_if(|last| *last == of_indexes);
                all.unchecked.push(what);
            }
            result => return result.map(checked),
        }
    }
    Ok(all)
}

fn check_table(conn: &Connection, name: &str, depth: Depth) -> rusqlite::Result<String> {
    let sql = format!("PRAGMA {}({})", depth.pragma(), quoted(name));
    conn.query_row(&sql, [], |row| row.get(0))
}

fn is_foreign(error: &rusqlite::Error) -> bool {
    code::extended(error).is_some_and(code::is_foreign)
}

/// Returns SQLite's message, without the statement.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// Returns the first of `unchecked` and the number of the others; `None` if there is none.
fn described(unchecked: &[String]) -> Option<String> {
    let shown = unchecked.get(..SHOWN).unwrap_or(unchecked).join("; ");
    match unchecked.len() {
        0 => None,
        n if n > SHOWN => Some(format!("{shown}; and {} more", n - SHOWN)),
        _ => Some(shown),
    }
}

fn row_count(conn: &Connection, name: &str) -> Option<u64> {
    let sql = format!("SELECT count(*) FROM {}", quoted(name));
    let rows: i64 = conn.query_row(&sql, [], |row| row.get(0)).ok()?;
    rows.try_into().ok()
}

/// Returns the hash of the names of tables and columns. SQLite's own tables, which it makes when it
/// needs them, do not count.
fn schema(conn: &Connection, names: &[String]) -> Hash {
    let own = names.iter().filter(|name| !name.starts_with("sqlite_"));
    let columns: BTreeMap<&String, Vec<String>> = own
        .map(|name| {
            let sql = format!("SELECT * FROM {} LIMIT 0", quoted(name));
            let columns = conn.prepare(&sql).map(|statement| {
                let names = statement.column_names();
                names.map(str::to_owned).collect()
            });
            (name, columns.unwrap_or_default())
        })
        .collect();
    // Texts always have a JSON form.
    Hash::sha256(&serde_json::to_vec(&columns).unwrap_or_default())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
