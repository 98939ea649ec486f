//! Which archives the newest snapshot uses.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};

use super::{Catalog, CatalogArchive, CatalogError};

impl Catalog {
    /// Returns the archives that the newest snapshot uses, and those that no snapshot used yet.
    /// Returns none if the catalog does not know which the newest snapshot uses.
    pub fn archives_in_use(&self) -> Result<Vec<CatalogArchive>, CatalogError> {
        let condition = "EXISTS(SELECT 1 FROM in_use) AND n IN (SELECT archive FROM in_use
             UNION SELECT n FROM archives WHERE live_bytes IS NULL) ORDER BY n";
        let found = self.read_archives_where(condition, [])?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Records which archives the newest snapshot uses, and how much of each. Of the other data
    /// archives nothing is learned: a source that is taken now and then would otherwise be stored
    /// again each time.
    pub fn set_live_bytes(&mut self, live: &HashMap<i64, u64>) -> Result<(), CatalogError> {
        self.cached_archives.forget();
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        // The condition is that of the index `live_indexes`; otherwise SQLite would read all rows.
        tx.execute(
            "UPDATE archives SET live_bytes=0 WHERE kind='index' AND (live_bytes<>0 OR live_bytes IS NULL)",
            [],
        )
        .map_err(&fail)?;
        for (n, bytes) in live {
            tx.execute(
                "UPDATE archives SET live_bytes=?2 WHERE n=?1",
                params![n, *bytes as i64],
            )
            .map_err(&fail)?;
        }
        set_in_use(&tx, live).map_err(&fail)?;
        tx.commit().map_err(&fail)
    }
}

/// Replaces the list of archives that the newest snapshot uses by those of `live` with any bytes.
fn set_in_use(tx: &Connection, live: &HashMap<i64, u64>) -> rusqlite::Result<()> {
    let mut query = tx.prepare_cached("SELECT archive FROM in_use")?;
    let before = query.query_map([], |row| row.get(0))?;
    let before: HashSet<i64> = before.collect::<Result<_, _>>()?;
    let now = live.iter().filter(|(_, bytes)| **bytes > 0);
    let now: HashSet<i64> = now.map(|(n, _)| *n).collect();
    for n in before.difference(&now) {
        tx.execute("DELETE FROM in_use WHERE archive=?1", [n])?;
    }
    for n in now.difference(&before) {
        tx.execute("INSERT INTO in_use VALUES(?1)", [n])?;
    }
    Ok(())
}
