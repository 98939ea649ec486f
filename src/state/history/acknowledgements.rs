//! Findings that the operator acknowledged.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE acknowledgements(
  code TEXT NOT NULL, target TEXT NOT NULL, since INTEGER NOT NULL, made_at INTEGER NOT NULL, note TEXT,
  PRIMARY KEY(code, target)) WITHOUT ROWID;
";

/// The acknowledgement of one finding: of this code, about this target, that began at this time. A
/// finding that ends and comes back began later, so it is reported again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The finding's code.
    pub code: String,
    /// The target or source that the finding is about; empty: neither.
    pub target: String,
    /// When the finding began.
    pub since: DateTime<Utc>,
    /// When the operator acknowledged it.
    pub made_at: DateTime<Utc>,
    /// The operator's reason.
    pub note: Option<String>,
}

impl History {
    /// Returns all acknowledgements.
    pub fn acknowledgements(&self) -> Result<Vec<Acknowledgement>, HistoryError> {
        let sql =
            "SELECT code, target, since, made_at, note FROM acknowledgements ORDER BY code, target";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                Ok(Acknowledgement {
                    code: row.get(0)?,
                    target: row.get(1)?,
                    since: time(row.get(2)?),
                    made_at: time(row.get(3)?),
                    note: row.get(4)?,
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Records an acknowledgement; it replaces an earlier one of the same code and target.
    pub fn acknowledge(&self, one: &Acknowledgement) -> Result<(), HistoryError> {
        let sql = "INSERT OR REPLACE INTO acknowledgements VALUES(?1, ?2, ?3, ?4, ?5)";
        let values = params![
            one.code,
            one.target,
            millis(one.since),
            millis(one.made_at),
            one.note
        ];
        self.db.execute(sql, values).map(drop).map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn an_acknowledgement_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let mut one = Acknowledgement {
            code: "target_stale".to_owned(),
            target: "s3".to_owned(),
            since: at(0),
            made_at: at(5),
            note: None,
        };
        history.acknowledge(&one).unwrap();
        one.since = at(9);
        history.acknowledge(&one).unwrap();
        assert_eq!(history.acknowledgements().unwrap(), [one]);
    }
}
