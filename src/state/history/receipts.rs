//! The receipts that looks at targets showed, judged. A receipt that was believed once stays, also
//! if the target lost it since.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{History, HistoryError, millis};

pub(super) const TABLES: &str = "
CREATE TABLE receipts(
  target TEXT NOT NULL, name TEXT NOT NULL, judged TEXT NOT NULL, seen_at INTEGER NOT NULL,
  PRIMARY KEY(target, name)) WITHOUT ROWID;
CREATE TABLE receipt_looks(
  target TEXT PRIMARY KEY, looked_at INTEGER NOT NULL, refused TEXT NOT NULL) WITHOUT ROWID;
";

/// A receipt that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedReceipt {
    /// The name of the target on which it was seen.
    pub target: String,
    /// The name of its object.
    pub name: String,
    /// The judged receipt, as JSON whose shape is the caller's.
    pub judged: String,
}

/// What a look at the receipts of a target showed, without those that are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptLook {
    /// The target's name.
    pub target: String,
    /// When it was.
    pub looked_at: DateTime<Utc>,
    /// Those that are not believed, as JSON whose shape is the caller's.
    pub refused: String,
}

impl History {
    /// Records a look at the receipts of `target`: those that are believed (name and JSON), and
    /// those that are not. `disbelieved` are the names of the latter.
    pub fn record_receipts(
        &self,
        target: &str,
        at: DateTime<Utc>,
        believed: &[(String, String)],
        disbelieved: &[String],
        refused: &str,
    ) -> Result<(), HistoryError> {
        let all = self.db.unchecked_transaction().map_err(self.fail())?;
        for (name, judged) in believed {
            let sql = "INSERT OR REPLACE INTO receipts VALUES(?1, ?2, ?3, ?4)";
            self.db
                .execute(sql, params![target, name, judged, millis(at)])
                .map_err(self.fail())?;
        }
        // Such as of a signer who is not listed any more.
        for name in disbelieved {
            let sql = "DELETE FROM receipts WHERE target=?1 AND name=?2";
            self.db
                .execute(sql, params![target, name])
                .map_err(self.fail())?;
        }
        let sql = "INSERT OR REPLACE INTO receipt_looks VALUES(?1, ?2, ?3)";
        self.db
            .execute(sql, params![target, millis(at), refused])
            .map_err(self.fail())?;
        all.commit().map_err(self.fail())
    }

    /// Returns the receipts that are believed.
    pub fn receipts(&self) -> Result<Vec<RememberedReceipt>, HistoryError> {
        let sql = "SELECT target, name, judged FROM receipts ORDER BY target, name";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                Ok(RememberedReceipt {
                    target: row.get(0)?,
                    name: row.get(1)?,
                    judged: row.get(2)?,
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Returns the last look at the receipts of each target.
    pub fn receipt_looks(&self) -> Result<Vec<ReceiptLook>, HistoryError> {
        let sql = "SELECT target, looked_at, refused FROM receipt_looks ORDER BY target";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                Ok(ReceiptLook {
                    target: row.get(0)?,
                    looked_at: super::time(row.get(1)?),
                    refused: row.get(2)?,
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn a_believed_receipt_stays_until_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let one = |name: &str| (name.to_owned(), "{}".to_owned());
        history
            .record_receipts("s3", at(0), &[one("a"), one("b")], &[], "[]")
            .unwrap();
        history
            .record_receipts("s3", at(1), &[one("b")], &[], "[1]")
            .unwrap();
        assert_eq!(history.receipts().unwrap().len(), 2);
        history
            .record_receipts("s3", at(2), &[], &["b".to_owned()], "[2]")
            .unwrap();
        let left = history.receipts().unwrap();
        assert_eq!((left.len(), left[0].name.as_str()), (1, "a"));
        let looks = history.receipt_looks().unwrap();
        assert_eq!((looks.len(), looks[0].refused.as_str()), (1, "[2]"));
    }
}
