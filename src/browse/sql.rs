//! Queries a database in a snapshot, without restoring it: SQLite reads the parts that the query
//! needs, and these are fetched and decrypted then.
//!
//! Nothing is written to a disk. The process that runs SQLite (`base::sqlite`) holds no identity,
//! and gets the content of this one database only.

mod content;
mod error;

use std::time::Duration;

use crate::base::sqlite::{self, PagedRows, SqlValue};
pub use content::{LocalDatabase, SealedDatabase};
pub use error::{ContentReadError, SqlError};

/// A database in a snapshot.
pub enum SnapshotDatabase {
    /// In archives on a target.
    Sealed(Box<SealedDatabase>),
    /// In a snapshot directory of this host.
    Local(LocalDatabase),
}

/// The rows of a query.
pub struct SqlRows {
    rows: PagedRows<SnapshotDatabase>,
}

/// Runs `query`, one statement that only reads, on `database` within `time`.
pub fn query(
    mut database: SnapshotDatabase,
    query: &str,
    time: Duration,
) -> Result<SqlRows, SqlError> {
    let head = sqlite::HEAD_BYTES as u64;
    let head = content::read(&mut database, 0..head, time)?;
    if !sqlite::is_sqlite(&head) {
        return Err(SqlError::NotADatabase);
    }
    let rows = PagedRows::start(database, query, time)?;
    Ok(SqlRows { rows })
}

impl SqlRows {
    /// Returns the names of the columns. None: the statement returns no rows.
    pub fn columns(&self) -> &[String] {
        self.rows.columns()
    }
}

impl Iterator for SqlRows {
    type Item = Result<Vec<SqlValue>, SqlError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.rows.next()?.map_err(SqlError::from))
    }
}
