//! When each archive on a target was last read in full, and with what outcome.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::{Catalog, CatalogError};
use crate::base::ids::Hash;

/// The last check of an archive on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveCheck {
    /// When it was read.
    pub at: DateTime<Utc>,
    /// Whether it was sound; `None`: it could not be read (cold storage, no permission).
    pub whole: Option<bool>,
}

/// Adds the column for the outcome to a table of an early version, which recorded sound archives
/// only.
pub(super) fn complete_table(db: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM pragma_table_info('checks') WHERE name='ok'";
    let there: i64 = db.query_row(sql, [], |row| row.get(0))?;
    match there {
        0 => db.execute_batch("ALTER TABLE checks ADD COLUMN ok INTEGER DEFAULT 1"),
        _ => Ok(()),
    }
}

impl Catalog {
    /// Returns the last check of each archive on `target`.
    pub fn checks(&self, target: &str) -> Result<HashMap<Hash, ArchiveCheck>, CatalogError> {
        let mut query = self
            .db
            .prepare("SELECT blake3, checked_at, ok FROM checks WHERE target=?1")
            .map_err(self.fail())?;
        let rows = query
            .query_map([target], |row| {
                Ok((Hash(row.get(0)?), row.get::<_, String>(1)?, row.get(2)?))
            })
            .map_err(self.fail())?;
        let mut found = HashMap::new();
        for row in rows {
            let (hash, text, whole) = row.map_err(self.fail())?;
            // A row with a malformed time counts as if the archive was never checked.
            if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
                let at = at.to_utc();
                found.insert(hash, ArchiveCheck { at, whole });
            }
        }
        Ok(found)
    }

    /// Records the last check of an archive on `target`.
    pub fn set_check(
        &self,
        target: &str,
        archive: &Hash,
        check: &ArchiveCheck,
    ) -> Result<(), CatalogError> {
        self.db
            .execute(
                "INSERT OR REPLACE INTO checks VALUES(?1,?2,?3,?4)",
                params![target, &archive.0[..], check.at.to_rfc3339(), check.whole],
            )
            .map(drop)
            .map_err(self.fail())
    }

    /// Returns when the unfinished full reading of `target` began; `None`: none is under way.
    pub fn full_reading(&self, target: &str) -> Result<Option<DateTime<Utc>>, CatalogError> {
        let text = self.meta(&full_reading_key(target))?.unwrap_or_default();
        let begun = DateTime::parse_from_rfc3339(&text).ok();
        Ok(begun.map(|begun| begun.to_utc()))
    }

    /// Records when a full reading of `target` began; `None`: it has ended.
    pub fn set_full_reading(
        &self,
        target: &str,
        begun: Option<DateTime<Utc>>,
    ) -> Result<(), CatalogError> {
        let text = begun.map_or_else(String::new, |begun| begun.to_rfc3339());
        self.set_meta(&full_reading_key(target), &text)
    }
}

fn full_reading_key(target: &str) -> String {
    format!("full reading:{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_of_an_early_version_gets_the_column_for_outcomes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        drop(Catalog::open(&path).unwrap());
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "DROP TABLE checks;
             CREATE TABLE checks(target TEXT NOT NULL, blake3 BLOB NOT NULL, checked_at TEXT NOT NULL,
               PRIMARY KEY(target, blake3)) WITHOUT ROWID;
             INSERT INTO checks VALUES('t', zeroblob(32), '2026-04-07T06:00:00+00:00');",
        )
        .unwrap();
        drop(old);
        let catalog = Catalog::open(&path).unwrap();
        assert_eq!(
            catalog.checks("t").unwrap()[&Hash([0; 32])].whole,
            Some(true)
        );
        let now = crate::base::clock::now();
        for whole in [Some(false), None, Some(true)] {
            let check = ArchiveCheck { at: now, whole };
            catalog.set_check("t", &Hash([1; 32]), &check).unwrap();
            let found = catalog.checks("t").unwrap()[&Hash([1; 32])];
            assert_eq!((found.whole, found.at), (whole, now));
        }
        assert!(catalog.checks("another").unwrap().is_empty());
    }
}
