//! Since when each open finding is known whose beginning nothing else tells.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE open_findings(
  code TEXT NOT NULL, about TEXT NOT NULL, identity TEXT NOT NULL, since INTEGER NOT NULL,
  PRIMARY KEY(code, about, identity)) WITHOUT ROWID;
";

const KEYS: &str = "SELECT code, about, identity FROM open_findings";

/// An open finding: its code, the target or source, and what exactly is wrong.
pub type OpenFindingKey = (String, String, String);

impl History {
    /// Returns since when each open finding is known.
    pub fn open_findings(&self) -> Result<Vec<(OpenFindingKey, DateTime<Utc>)>, HistoryError> {
        let sql =
            "SELECT code, about, identity, since FROM open_findings ORDER BY code, about, identity";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                let key = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((key, time(row.get(3)?)))
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Records the open findings, and forgets those that ended. One that is recorded keeps its
    /// time. One transaction.
    pub fn set_open_findings(
        &self,
        open: &[(OpenFindingKey, DateTime<Utc>)],
    ) -> Result<(), HistoryError> {
        let fail = self.fail();
        let write = || {
            let transaction = self.db.unchecked_transaction()?;
            let known = {
                let mut query = transaction.prepare_cached(KEYS)?;
                let keys =
                    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                keys.collect::<rusqlite::Result<Vec<OpenFindingKey>>>()?
            };
            for (code, about, identity) in known
                .iter()
                .filter(|known| !open.iter().any(|(key, _)| key == *known))
            {
                transaction.execute(
                    "DELETE FROM open_findings WHERE code=?1 AND about=?2 AND identity=?3",
                    params![code, about, identity],
                )?;
            }
            for ((code, about, identity), since) in open {
                transaction.execute(
                    "INSERT OR IGNORE INTO open_findings VALUES(?1, ?2, ?3, ?4)",
                    params![code, about, identity, millis(*since)],
                )?;
            }
            transaction.commit()
        };
        write().map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn an_open_finding_keeps_its_time_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let key = |about: &str| ("chain".to_owned(), about.to_owned(), "\"x\"\nü".to_owned());
        let both = [(key("s3"), at(0)), (key("disk"), at(0))];
        history.set_open_findings(&both).unwrap();
        history.set_open_findings(&[(key("s3"), at(9))]).unwrap();
        assert_eq!(history.open_findings().unwrap(), [(key("s3"), at(0))]);
        history.set_open_findings(&[]).unwrap();
        assert_eq!(history.open_findings().unwrap(), []);
        history.set_open_findings(&[(key("s3"), at(9))]).unwrap();
        assert_eq!(history.open_findings().unwrap(), [(key("s3"), at(9))]);
    }
}
