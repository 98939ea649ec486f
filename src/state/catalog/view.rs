//! The catalog for readers that must not change it: the agent shows it while a run writes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, params};

use super::cached::Cached;
use super::{CATALOG_VERSION, Catalog, CatalogError, failed};
use crate::base::ids::WriterId;

/// Archives of one target, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlacedArchives {
    /// Number of archives that the target confirmed.
    pub archives: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of those that were read back and found sound at some time or later.
    pub read: u64,
}

impl Catalog {
    /// Opens the catalog to look into it. Nothing is created, repaired or moved aside. `None`:
    /// there is none yet, or it is of an earlier version, which the next run converts.
    pub fn open_to_look(path: &Path) -> Result<Option<Self>, CatalogError> {
        if !path.exists() {
            return Ok(None);
        }
        let fail = |source| failed(path, source);
        let connect = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(path, flags)?;
            db.busy_timeout(Duration::from_secs(10))?;
            Ok(db)
        };
        let db: Connection = connect().map_err(fail)?;
        let found: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fail)?;
        if found > CATALOG_VERSION {
            let path = path.display().to_string();
            return Err(CatalogError::Version { path, found });
        }
        if found < CATALOG_VERSION {
            return Ok(None);
        }
        Ok(Some(Self {
            lookups: connect().map_err(fail)?,
            db,
            path: PathBuf::from(path),
            writer: WriterId([0; 8]),
            cached_archives: Cached::default(),
            cached_snapshots: Cached::default(),
            cached_publications: Cached::default(),
            replaced: None,
        }))
    }

    /// Returns the number and the bytes of the archives on `target`, and how many of them were read
    /// back at `since` or later.
    pub fn placed_archives(
        &self,
        target: &str,
        since: DateTime<Utc>,
    ) -> Result<PlacedArchives, CatalogError> {
        let sql = "SELECT count(*), coalesce(sum(a.bytes), 0), coalesce(sum(c.ok=1 AND c.checked_at>=?2), 0)
             FROM placements p JOIN archives a ON a.n=p.archive
             LEFT JOIN checks c ON c.target=p.target AND c.blake3=a.blake3 WHERE p.target=?1";
        let number = |row: &rusqlite::Row<'_>, column| {
            row.get(column)
                .map(|number: i64| number.max(0).cast_unsigned())
        };
        self.db
            .query_row(sql, params![target, since.to_rfc3339()], |row| {
                Ok(PlacedArchives {
                    archives: number(row, 0)?,
                    bytes: number(row, 1)?,
                    read: number(row, 2)?,
                })
            })
            .map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_creates_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        assert!(Catalog::open_to_look(&path).unwrap().is_none());
        assert!(!path.exists());
        let catalog = Catalog::open(&path).unwrap();
        let look = Catalog::open_to_look(&path).unwrap().unwrap();
        look.set_meta("key", "value").unwrap_err();
        catalog.set_meta("key", "value").unwrap();
        assert_eq!(look.meta("key").unwrap().as_deref(), Some("value"));
        assert_eq!(look.snapshots().unwrap().len(), 0);
        let placed = look.placed_archives("s3", DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(placed, PlacedArchives::default());
        // The last connection that may write clears the log.
        drop(look);
        drop(catalog);
        std::fs::write(&path, vec![7; 8192]).unwrap();
        Catalog::open_to_look(&path).unwrap_err();
        assert!(path.exists());
    }
}
