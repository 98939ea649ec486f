//! Reads one value from a database by a query of the operator, through a child: confined, within a
//! time, and without a change to the database.
//!
//! A database that no process has open is read as it is, without locks and without files beside it.
//! One that is in use is read under SQLite's locks, so that the value is of one moment.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use serde_json::Value;

use super::connection::{failed, open};
use super::error::SqliteError;
use super::header::{HEAD_BYTES, is_wal_mode};
use super::inspect::limit;
use super::message::{ChildAnswer, ChildWork, NamedFile, Step, Way, milliseconds};
use super::place::Place;
use super::process::{self, ChildProcess, ChildTask};
use super::refusal::{io_error, refused, silent};

/// How long a lock is waited for.
const BUSY: Duration = Duration::from_secs(2);
/// Longest text or blob that is a value, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Runs `query` in the database `path` within `timeout`, and returns the single value of its single
/// row: null, a number, or a text (a blob in hexadecimal digits).
pub fn query(path: &Path, query: &str, timeout: Duration) -> Result<Value, SqliteError> {
    let step = Step::Query;
    let opened = Place::of(path).and_then(|place| Ok((place.open()?, place)));
    let cannot = io_error(step.text(), path);
    let (file, place) = opened.map_err(&cannot)?;
    let mut head = [0; HEAD_BYTES];
    let read = file.read_at(&mut head, 0).map_err(&cannot)?;
    let way = match is_wal_mode(&head[..read]) && !place.has_wal() {
        true => Way::Immutable,
        false => Way::ReadOnly,
    };
    let busy = BUSY.min(timeout);
    let started = Instant::now();
    let child = ChildProcess::start(ChildTask {
        place: &place,
        identity: process::identity(&file).map_err(&cannot)?,
        cpu: timeout,
        // The index of a log, which grows with it.
        file_bytes: 64 << 20,
        work: ChildWork::Query {
            busy_ms: milliseconds(busy),
            way,
            query: query.to_owned(),
        },
        copy_dir: None,
    });
    let mut child = child.map_err(|silence| silent(silence, step, &place))?;
    match child.answer(started + timeout, timeout) {
        Ok(ChildAnswer::Value { value }) => Ok(value),
        Ok(other) => Err(refused(other, step, &place, busy)),
        Err(silence) => Err(silent(silence, step, &place)),
    }
}

/// The child's part: runs the query and returns the answer.
pub(super) fn run(
    database: &NamedFile,
    query: &str,
    way: Way,
    busy: Duration,
) -> Result<ChildAnswer, ChildAnswer> {
    let fail = failed(Step::Query);
    let conn = open(database, way).map_err(&fail)?;
    conn.busy_timeout(busy).map_err(&fail)?;
    limit(&conn).map_err(&fail)?;
    // The operator's query may name a view: this process has no rights that it could misuse.
    let views = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, true);
    views.map_err(&fail)?;
    let settled = conn.execute_batch("PRAGMA query_only=ON");
    settled.map_err(&fail)?;
    let mut statement = conn.prepare(query).map_err(&fail)?;
    let columns = statement.column_count();
    if columns != 1 {
        return Err(not_one(format!("{columns} columns")));
    }
    let mut rows = statement.query([]).map_err(&fail)?;
    let Some(row) = rows.next().map_err(&fail)? else {
        return Err(not_one("no row"));
    };
    let value = value_of(row.get_ref(0).map_err(&fail)?)?;
    match rows.next().map_err(&fail)? {
        None => Ok(ChildAnswer::Value { value }),
        Some(_) => Err(not_one("several rows")),
    }
}

fn not_one(what: impl Into<String>) -> ChildAnswer {
    ChildAnswer::NotOneValue { what: what.into() }
}

fn value_of(value: ValueRef<'_>) -> Result<Value, ChildAnswer> {
    let bounded = |bytes: &[u8]| match bytes.len() > MOST_BYTES {
        true => Err(not_one(format!("a value of {} bytes", bytes.len()))),
        false => Ok(()),
    };
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        // Infinity has no JSON.
        ValueRef::Real(number) => match serde_json::Number::from_f64(number) {
            Some(number) => Value::Number(number),
            None => Value::String(number.to_string()),
        },
        ValueRef::Text(text) => {
            bounded(text)?;
            Value::String(String::from_utf8_lossy(text).into_owned())
        }
        ValueRef::Blob(blob) => {
            bounded(blob)?;
            Value::String(blob.iter().map(|byte| format!("{byte:02x}")).collect())
        }
    })
}
