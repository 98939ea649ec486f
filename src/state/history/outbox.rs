//! What is to be sent to the operator.
//!
//! The caller decides inside one transaction ([`History::in_outbox`]), so two processes never write
//! the same message twice, and a crash loses either nothing or everything of one decision. Items
//! and findings are JSON whose shape is the caller's. Nothing in these tables is a secret.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::{History, HistoryError, millis, reserve, time};

pub(super) const TABLES: &str = "
CREATE TABLE outbox(
  id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, made_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL, urgent INTEGER NOT NULL, edges INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
  item TEXT NOT NULL);
";
/// The total of tries, by channel and outcome.
const NOTIFY: &str = "notify";

/// An item of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxItem {
    /// Its place in the order of its channel.
    pub id: i64,
    /// The channel's name.
    pub channel: String,
    /// When it was written.
    pub made_at: DateTime<Utc>,
    /// When it may be sent.
    pub due_at: DateTime<Utc>,
    /// It does not wait for the end of quiet hours.
    pub is_urgent: bool,
    /// It reports findings, and more of them may join it until it is due.
    pub has_edges: bool,
    /// Tries that were begun.
    pub tries: u32,
    /// What is sent, as JSON.
    pub item: String,
}

/// An item to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOutboxItem {
    /// The channel's name.
    pub channel: String,
    /// The time now.
    pub made_at: DateTime<Utc>,
    /// When it may be sent.
    pub due_at: DateTime<Utc>,
    /// It does not wait for the end of quiet hours.
    pub is_urgent: bool,
    /// It reports findings.
    pub has_edges: bool,
    /// What is sent, as JSON.
    pub item: String,
}

/// The outbox during one transaction.
#[derive(Debug)]
pub struct OutboxTransaction<'a> {
    pub(super) db: Transaction<'a>,
    path: &'a std::path::Path,
}

impl History {
    /// Does `work` in one transaction. An error undoes all of it. If the disk is full, it is done
    /// again with the space that the history reserves.
    pub fn in_outbox<T>(
        &self,
        work: impl Fn(&OutboxTransaction<'_>) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let done = match self.try_in_outbox(&work) {
            Err(error) if reserve::free(&self.path, &error) => self.try_in_outbox(&work),
            other => other,
        };
        if done.is_ok() {
            reserve::keep(&self.path);
        }
        done
    }

    fn try_in_outbox<T>(
        &self,
        work: &impl Fn(&OutboxTransaction<'_>) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let begun = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate);
        let outbox = OutboxTransaction {
            db: begun.map_err(self.fail())?,
            path: &self.path,
        };
        let done = work(&outbox)?;
        outbox.db.commit().map_err(self.fail())?;
        Ok(done)
    }

    /// Returns the items of the outbox, the oldest first.
    pub fn outbox(&self) -> Result<Vec<OutboxItem>, HistoryError> {
        let sql = "SELECT id, channel, made_at, due_at, urgent, edges, tries, item FROM outbox ORDER BY id";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query.query_map([], outbox_item).map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Counts a try of the item `id`, before it is sent: what cannot be recorded is not sent, since
    /// it would be sent again and again. Returns false if the item is gone.
    pub fn begin_try(&self, id: i64) -> Result<bool, HistoryError> {
        let sql = "UPDATE outbox SET tries=tries+1 WHERE id=?1";
        let changed = self.in_outbox(|outbox| outbox.run(sql, [id]))?;
        Ok(changed > 0)
    }

    /// Records that `channel` accepted something, and removes the item `id` from the outbox;
    /// `None`: it was not in the outbox.
    pub fn record_sent(
        &self,
        channel: &str,
        id: Option<i64>,
        at: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        self.in_outbox(|outbox| {
            let at = millis(at);
            outbox.run("DELETE FROM outbox WHERE id=?1", params![id])?;
            outbox.run(
                "INSERT INTO channels(name, known_since, succeeded_at) VALUES(?1, ?2, ?2) ON CONFLICT DO UPDATE SET
                   succeeded_at=?2, failing_since=NULL, failures=0, retry_at=NULL, error=NULL",
                params![channel, at],
            )?;
            self.add_to_total((NOTIFY, channel, "sent"), 1)
        })
    }

    /// Records that a try of `channel` failed.
    pub fn record_unsent(
        &self,
        channel: &str,
        at: DateTime<Utc>,
        (error, retry_at): (&str, DateTime<Utc>),
    ) -> Result<(), HistoryError> {
        self.in_outbox(|outbox| {
            outbox.run(
                "INSERT INTO channels(name, known_since, failed_at, failing_since, failures, retry_at, error)
                   VALUES(?1, ?2, ?2, ?2, 1, ?3, ?4) ON CONFLICT DO UPDATE SET
                   failed_at=?2, failing_since=coalesce(failing_since, ?2), failures=failures+1, retry_at=?3, error=?4",
                params![channel, millis(at), millis(retry_at), error],
            )?;
            self.add_to_total((NOTIFY, channel, "failed"), 1)
        })
    }

    /// Returns a number that changes whenever this connection or another one writes.
    #[cfg(test)]
    pub(crate) fn outbox_version(&self) -> Result<i64, HistoryError> {
        let sql = "SELECT * FROM pragma_data_version()";
        let version = self.db.query_row(sql, [], |row| row.get(0));
        version.map_err(self.fail())
    }

    /// Counts an item of `channel` that was given up.
    pub fn count_expired(&self, channel: &str) -> Result<(), HistoryError> {
        self.add_to_total((NOTIFY, channel, "expired"), 1)
    }
}

impl OutboxTransaction<'_> {
    pub(super) fn fail(&self) -> impl Fn(rusqlite::Error) -> HistoryError + use<> {
        super::failing(self.path)
    }

    pub(super) fn run(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<usize, HistoryError> {
        self.db.execute(sql, values).map_err(self.fail())
    }

    /// Writes an item.
    pub fn add(&self, item: &NewOutboxItem) -> Result<(), HistoryError> {
        let sql = "INSERT INTO outbox(channel, made_at, due_at, urgent, edges, item) VALUES(?1,?2,?3,?4,?5,?6)";
        let values = params![
            item.channel,
            millis(item.made_at),
            millis(item.due_at),
            item.is_urgent,
            item.has_edges,
            item.item
        ];
        self.run(sql, values).map(drop)
    }

    /// Returns the newest item of `channel` that reports findings, was not tried, and is not due
    /// until after `now`: what is found meanwhile joins it.
    pub fn open_item(
        &self,
        channel: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<OutboxItem>, HistoryError> {
        let sql = "SELECT id, channel, made_at, due_at, urgent, edges, tries, item FROM outbox
                   WHERE channel=?1 AND edges AND tries=0 AND due_at>?2 ORDER BY id DESC LIMIT 1";
        let found = self
            .db
            .query_row(sql, params![channel, millis(now)], outbox_item);
        found.optional().map_err(self.fail())
    }

    /// Replaces what the item `id` sends.
    pub fn replace(&self, id: i64, is_urgent: bool, item: &str) -> Result<(), HistoryError> {
        let sql = "UPDATE outbox SET urgent=?2, item=?3 WHERE id=?1";
        self.run(sql, params![id, is_urgent, item]).map(drop)
    }

    /// Makes everything that waits for `channel` due now.
    pub fn make_due(&self, channel: &str, now: DateTime<Utc>) -> Result<(), HistoryError> {
        let sql = "UPDATE outbox SET due_at=?2 WHERE channel=?1 AND due_at>?2";
        self.run(sql, params![channel, millis(now)]).map(drop)
    }

    /// Removes the item `id`.
    pub fn remove(&self, id: i64) -> Result<(), HistoryError> {
        self.run("DELETE FROM outbox WHERE id=?1", [id]).map(drop)
    }

    /// Removes all items of `channel`.
    pub fn remove_all(&self, channel: &str) -> Result<(), HistoryError> {
        let sql = "DELETE FROM outbox WHERE channel=?1";
        self.run(sql, [channel]).map(drop)
    }

    /// Forgets all channels but `channels`, and what was to be sent to them.
    pub fn forget_other_channels(&self, channels: &[&str]) -> Result<(), HistoryError> {
        let names = serde_json::json!(channels).to_string();
        for (table, column) in [
            ("outbox", "channel"),
            ("channels", "name"),
            ("channel_findings", "channel"),
            ("channel_marks", "channel"),
        ] {
            let sql = format!(
                "DELETE FROM {table} WHERE {column} NOT IN (SELECT value FROM json_each(?1))"
            );
            self.run(&sql, [&names])?;
        }
        Ok(())
    }
}

fn outbox_item(row: &Row<'_>) -> rusqlite::Result<OutboxItem> {
    Ok(OutboxItem {
        id: row.get(0)?,
        channel: row.get(1)?,
        made_at: time(row.get(2)?),
        due_at: time(row.get(3)?),
        is_urgent: row.get(4)?,
        has_edges: row.get(5)?,
        tries: row.get(6)?,
        item: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn item(channel: &str, due: i64) -> NewOutboxItem {
        NewOutboxItem {
            channel: channel.to_owned(),
            made_at: at(0),
            due_at: at(due),
            is_urgent: false,
            has_edges: true,
            item: "{}".to_owned(),
        }
    }

    #[test]
    fn a_failed_decision_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let failed = history.in_outbox(|outbox| {
            outbox.add(&item("phone", 30))?;
            outbox.set_mark("phone", "weekly", at(0))?;
            Err::<(), _>(HistoryError::Version {
                path: String::new(),
                found: 9,
            })
        });
        assert!(failed.is_err());
        assert_eq!(history.outbox().unwrap(), []);
        history
            .in_outbox(|outbox| {
                assert_eq!(outbox.mark("phone", "weekly")?, None);
                outbox.add(&item("phone", 30))?;
                assert!(outbox.open_item("phone", at(29))?.is_some());
                assert_eq!(outbox.open_item("phone", at(30))?, None);
                assert_eq!(outbox.open_item("mail", at(0))?, None);
                Ok(())
            })
            .unwrap();
        assert_eq!(history.outbox().unwrap().len(), 1);
    }

    #[test]
    fn what_was_sent_is_gone_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let add = |channel: &str| history.in_outbox(|outbox| outbox.add(&item(channel, 0)));
        add("phone").unwrap();
        add("old").unwrap();
        let id = history.outbox().unwrap()[0].id;
        for second in 1..3 {
            let failure = ("no answer", at(second + 60));
            assert!(history.begin_try(id).unwrap());
            history.record_unsent("phone", at(second), failure).unwrap();
        }
        let record = history.channel_records().unwrap().remove(0);
        assert_eq!((record.failing_since, record.failures), (Some(at(1)), 2));
        assert_eq!(record.retry_at, Some(at(62)));
        assert_eq!(history.outbox().unwrap()[0].tries, 2);
        history.record_sent("phone", Some(id), at(9)).unwrap();
        assert!(!history.begin_try(id).unwrap());
        let record = history.channel_records().unwrap().remove(0);
        assert_eq!((record.failing_since, record.error), (None, None));
        assert_eq!(record.succeeded_at, Some(at(9)));
        history
            .in_outbox(|outbox| outbox.forget_other_channels(&["phone"]))
            .unwrap();
        assert_eq!(history.outbox().unwrap(), []);
        let totals = history.totals("notify").unwrap();
        let total = |outcome: &str, value| ("phone".to_owned(), outcome.to_owned(), value);
        assert_eq!(totals, [total("failed", 2), total("sent", 1)]);
    }
}
