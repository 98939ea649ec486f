//! What the credentials of each target may do, as this host last found out by trial.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, params};

use super::{History, HistoryError, millis, time};

/// Made when it is first needed, since earlier versions made histories without it.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS credentials(
  target TEXT PRIMARY KEY, tried_at INTEGER NOT NULL, found TEXT NOT NULL) WITHOUT ROWID;
";

/// The last trial of a target's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialTrial {
    /// When it was.
    pub tried_at: DateTime<Utc>,
    /// What they may do, as JSON whose shape is the caller's.
    pub found: String,
}

impl History {
    /// Records a trial of the credentials of `target`.
    pub fn record_credentials(
        &self,
        target: &str,
        trial: &CredentialTrial,
    ) -> Result<(), HistoryError> {
        self.db.execute_batch(TABLE).map_err(self.fail())?;
        let sql = "INSERT OR REPLACE INTO credentials VALUES(?1, ?2, ?3)";
        let row = params![target, millis(trial.tried_at), trial.found];
        self.db.execute(sql, row).map(drop).map_err(self.fail())
    }

    /// Returns the last trial of the credentials of `target`. `None`: there was none.
    pub fn credentials(&self, target: &str) -> Result<Option<CredentialTrial>, HistoryError> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type='table' AND name='credentials'";
        let tables = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        if tables.map_err(self.fail())? == 0 {
            return Ok(None);
        }
        let sql = "SELECT tried_at, found FROM credentials WHERE target=?1";
        let row = self.db.query_row(sql, [target], |row| {
            Ok(CredentialTrial {
                tried_at: time(row.get(0)?),
                found: row.get(1)?,
            })
        });
        row.optional().map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_trial_of_a_target_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        assert_eq!(history.credentials("s3").unwrap(), None);
        let trial = |second, found: &str| CredentialTrial {
            tried_at: DateTime::from_timestamp(second, 0).unwrap(),
            found: found.to_owned(),
        };
        history.record_credentials("s3", &trial(1, "{}")).unwrap();
        history.record_credentials("s3", &trial(2, "[]")).unwrap();
        assert_eq!(history.credentials("s3").unwrap(), Some(trial(2, "[]")));
        assert_eq!(history.credentials("disk").unwrap(), None);
    }
}
