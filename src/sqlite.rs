//! Stub: the real one is being written elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
#[error("cannot inspect a database: {0}")]
pub struct SqliteError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    pub integrity: String,
    pub page_size: u32,
    pub tables: BTreeMap<String, u64>,
}

pub fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(b"SQLite format 3\0")
}

pub fn inspect(path: &Path) -> Result<Inspection, SqliteError> {
    let run = || -> rusqlite::Result<Inspection> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = rusqlite::Connection::open_with_flags(path, flags)?;
        let integrity = db.query_row("pragma integrity_check", [], |r| r.get(0))?;
        let page_size = db.query_row("pragma page_size", [], |r| r.get(0))?;
        let mut names = db.prepare("select name from sqlite_master where type='table'")?;
        let names: Vec<String> = names
            .query_map([], |r| r.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut tables = BTreeMap::new();
        for name in names {
            let sql = format!("select count(*) from \"{}\"", name.replace('"', "\"\""));
            let rows: i64 = db.query_row(&sql, [], |r| r.get(0))?;
            tables.insert(name, rows as u64);
        }
        Ok(Inspection {
            integrity,
            page_size,
            tables,
        })
    };
    run().map_err(|e| SqliteError(e.to_string()))
}
