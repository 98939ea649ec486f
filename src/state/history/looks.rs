//! What the last look at each target showed.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE looks(
  target TEXT PRIMARY KEY, looked_at INTEGER NOT NULL, succeeded_at INTEGER, shown TEXT, error TEXT,
  failing_since INTEGER) WITHOUT ROWID;
";

/// The last look at a target. A failed look keeps what the one before showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetLook {
    /// The target's name.
    pub target: String,
    /// When this host last tried to look.
    pub looked_at: DateTime<Utc>,
    /// When it last could; `None`: never.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// What it saw then, as JSON whose shape is the caller's.
    pub shown: Option<String>,
    /// Why the last look failed; `None`: it did not.
    pub error: Option<String>,
    /// When the first of the failed looks in a row was; `None`: the last one did not fail.
    pub failing_since: Option<DateTime<Utc>>,
}

impl History {
    /// Returns the last look at each target, by name.
    pub fn looks(&self) -> Result<Vec<TargetLook>, HistoryError> {
        let sql = "SELECT target, looked_at, succeeded_at, shown, error, failing_since FROM looks ORDER BY target";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                Ok(TargetLook {
                    target: row.get(0)?,
                    looked_at: time(row.get(1)?),
                    succeeded_at: row.get::<_, Option<i64>>(2)?.map(time),
                    shown: row.get(3)?,
                    error: row.get(4)?,
                    failing_since: row.get::<_, Option<i64>>(5)?.map(time),
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Records a look at `target`: what it showed, as JSON, or why it failed.
    pub fn record_look(
        &self,
        target: &str,
        at: DateTime<Utc>,
        seen: Result<&str, &str>,
    ) -> Result<(), HistoryError> {
        let at = millis(at);
        let done = match seen {
            Ok(shown) => self.db.execute(
                "INSERT OR REPLACE INTO looks VALUES(?1, ?2, ?2, ?3, NULL, NULL)",
                params![target, at, shown],
            ),
            Err(error) => self.db.execute(
                "INSERT INTO looks VALUES(?1, ?2, NULL, NULL, ?3, ?2) ON CONFLICT DO UPDATE SET
                   looked_at=?2, error=?3, failing_since=coalesce(failing_since, ?2)",
                params![target, at, error],
            ),
        };
        done.map(drop).map_err(self.fail())
    }

    /// Forgets the looks at targets that are not among `targets`.
    pub fn forget_other_looks(&self, targets: &[&str]) -> Result<(), HistoryError> {
        let names = serde_json::json!(targets).to_string();
        let sql = "DELETE FROM looks WHERE target NOT IN (SELECT value FROM json_each(?1))";
        self.db.execute(sql, [names]).map(drop).map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn a_failed_look_keeps_what_the_one_before_showed() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        history.record_look("s3", at(0), Ok("{}")).unwrap();
        history.record_look("s3", at(1), Err("gone")).unwrap();
        history.record_look("s3", at(2), Err("still gone")).unwrap();
        history.record_look("disk", at(2), Err("away")).unwrap();
        let looks = history.looks().unwrap();
        let s3 = TargetLook {
            target: "s3".to_owned(),
            looked_at: at(2),
            succeeded_at: Some(at(0)),
            shown: Some("{}".to_owned()),
            error: Some("still gone".to_owned()),
            failing_since: Some(at(1)),
        };
        assert_eq!(looks[1], s3);
        assert_eq!(looks[0].succeeded_at, None);
        history.record_look("s3", at(3), Ok("[]")).unwrap();
        history.forget_other_looks(&["s3"]).unwrap();
        let looks = history.looks().unwrap();
        assert_eq!((looks.len(), &looks[0].error), (1, &None));
        assert_eq!(looks[0].failing_since, None);
    }
}
