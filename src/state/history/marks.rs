//! What the operator said about this host: an incident, a pause.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, params};

use super::{History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE marks(
  name TEXT PRIMARY KEY, made_at INTEGER NOT NULL, until INTEGER, note TEXT) WITHOUT ROWID;
";

/// A mark, the newest of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorMark {
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// When it ends by itself; `None`: it does not.
    pub until: Option<DateTime<Utc>>,
    /// What the operator said.
    pub note: Option<String>,
}

impl OperatorMark {
    /// The name of the mark that something touched the storage.
    pub const INCIDENT: &str = "incident";
    /// The name of the mark that scheduled jobs wait.
    pub const PAUSE: &str = "pause";
    /// The name of the agent's mark that the clock went back; it ends when the clock has caught up.
    pub const CLOCK: &str = "clock";
    /// The name of the agent's mark that the configuration has changed and cannot be read; its note
    /// says why.
    pub const CONFIG: &str = "config_changed";
}

impl History {
    /// Returns the mark `name`; `None`: there is none.
    pub fn mark(&self, name: &str) -> Result<Option<OperatorMark>, HistoryError> {
        let sql = "SELECT made_at, until, note FROM marks WHERE name=?1";
        let mark = self.db.query_row(sql, [name], |row| {
            Ok(OperatorMark {
                made_at: time(row.get(0)?),
                until: row.get::<_, Option<i64>>(1)?.map(time),
                note: row.get(2)?,
            })
        });
        mark.optional().map_err(self.fail())
    }

    /// Replaces the mark `name`.
    pub fn set_mark(&self, name: &str, mark: &OperatorMark) -> Result<(), HistoryError> {
        let sql = "INSERT OR REPLACE INTO marks VALUES(?1, ?2, ?3, ?4)";
        let values = params![
            name,
            millis(mark.made_at),
            mark.until.map(millis),
            mark.note
        ];
        self.db.execute(sql, values).map(drop).map_err(self.fail())
    }

    /// Removes the mark `name`. Returns false if there was none.
    pub fn remove_mark(&self, name: &str) -> Result<bool, HistoryError> {
        let removed = self.db.execute("DELETE FROM marks WHERE name=?1", [name]);
        removed.map(|rows| rows > 0).map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn the_newest_mark_of_a_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let mut mark = OperatorMark {
            made_at: at(0),
            until: Some(at(60)),
            note: Some("disk moved".to_owned()),
        };
        history.set_mark(OperatorMark::PAUSE, &mark).unwrap();
        mark.until = None;
        history.set_mark(OperatorMark::PAUSE, &mark).unwrap();
        assert_eq!(history.mark(OperatorMark::PAUSE).unwrap(), Some(mark));
        assert!(history.remove_mark(OperatorMark::PAUSE).unwrap());
        assert!(!history.remove_mark(OperatorMark::PAUSE).unwrap());
        assert_eq!(history.mark(OperatorMark::PAUSE).unwrap(), None);
    }
}
