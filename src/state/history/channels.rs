//! What each notification channel knows already, and how its last tries went.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, Row, params};

use super::outbox::OutboxTransaction;
use super::{History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE channels(
  name TEXT PRIMARY KEY, known_since INTEGER NOT NULL, succeeded_at INTEGER, failed_at INTEGER,
  failing_since INTEGER, failures INTEGER NOT NULL DEFAULT 0, retry_at INTEGER, error TEXT) WITHOUT ROWID;
CREATE TABLE channel_findings(
  channel TEXT NOT NULL, finding TEXT NOT NULL, seen_at INTEGER NOT NULL, level INTEGER NOT NULL,
  reported INTEGER NOT NULL, reported_at INTEGER, thread TEXT, content TEXT NOT NULL,
  PRIMARY KEY(channel, finding)) WITHOUT ROWID;
CREATE TABLE channel_marks(
  channel TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(channel, name)) WITHOUT ROWID;
";

/// How the last tries of a channel went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRecord {
    /// The channel's name.
    pub name: String,
    /// When this host first knew the channel.
    pub known_since: DateTime<Utc>,
    /// When it last accepted something; `None`: never.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// When a try last failed; `None`: never.
    pub failed_at: Option<DateTime<Utc>>,
    /// When the first of the failed tries in a row was; `None`: the last one did not fail.
    pub failing_since: Option<DateTime<Utc>>,
    /// Failed tries in a row.
    pub failures: u32,
    /// When the next try is; `None`: as soon as something is due.
    pub retry_at: Option<DateTime<Utc>>,
    /// Why the last try failed; `None`: it did not.
    pub error: Option<String>,
}

/// What a channel knows of one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFinding {
    /// Identifies the finding while it lasts, and when it comes back.
    pub finding: String,
    /// When it was first seen.
    pub seen_at: DateTime<Utc>,
    /// How bad it is now; 0: it has ended.
    pub level: u8,
    /// How bad it is by the last report; 0: it is not reported, or its end is.
    pub reported: u8,
    /// When it was last reported; `None`: never.
    pub reported_at: Option<DateTime<Utc>>,
    /// The id of the message that reported its begin; `None`: none did.
    pub thread: Option<String>,
    /// The finding as JSON, as it was last seen.
    pub content: String,
}

impl History {
    /// Returns how the channels' last tries went, by name.
    pub fn channel_records(&self) -> Result<Vec<ChannelRecord>, HistoryError> {
        let sql = "SELECT name, known_since, succeeded_at, failed_at, failing_since, failures, retry_at, error
                   FROM channels ORDER BY name";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query.query_map([], channel_record).map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }
}

impl OutboxTransaction<'_> {
    /// Returns since when this host knows `channel`: since `now` if it did not until now.
    pub fn known_since(
        &self,
        channel: &str,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, HistoryError> {
        let sql = "SELECT known_since FROM channels WHERE name=?1";
        let since = self.db.query_row(sql, [channel], |row| row.get(0));
        if let Some(since) = since.optional().map_err(self.fail())? {
            return Ok(time(since));
        }
        let sql = "INSERT INTO channels(name, known_since) VALUES(?1, ?2)";
        self.run(sql, params![channel, millis(now)])?;
        Ok(time(millis(now)))
    }

    /// Returns what `channel` knows of findings.
    pub fn findings(&self, channel: &str) -> Result<Vec<ChannelFinding>, HistoryError> {
        let sql = "SELECT finding, seen_at, level, reported, reported_at, thread, content FROM channel_findings
                   WHERE channel=?1 ORDER BY finding";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query.query_map([channel], channel_finding);
        let rows = rows.map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Replaces what `channel` knows of findings.
    pub fn set_findings(
        &self,
        channel: &str,
        findings: &[ChannelFinding],
    ) -> Result<(), HistoryError> {
        self.run("DELETE FROM channel_findings WHERE channel=?1", [channel])?;
        for one in findings {
            let sql = "INSERT INTO channel_findings VALUES(?1,?2,?3,?4,?5,?6,?7,?8)";
            let values = params![
                channel,
                one.finding,
                millis(one.seen_at),
                one.level,
                one.reported,
                one.reported_at.map(millis),
                one.thread,
                one.content
            ];
            self.run(sql, values)?;
        }
        Ok(())
    }

    /// Returns the time of the mark `name` of `channel`; `None`: there is none.
    pub fn mark(&self, channel: &str, name: &str) -> Result<Option<DateTime<Utc>>, HistoryError> {
        let sql = "SELECT at FROM channel_marks WHERE channel=?1 AND name=?2";
        let at = self.db.query_row(sql, [channel, name], |row| row.get(0));
        let at = at.optional().map_err(self.fail())?;
        Ok(at.map(time))
    }

    /// Sets the mark `name` of `channel`.
    pub fn set_mark(
        &self,
        channel: &str,
        name: &str,
        at: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        let sql = "INSERT OR REPLACE INTO channel_marks VALUES(?1, ?2, ?3)";
        self.run(sql, params![channel, name, millis(at)]).map(drop)
    }

    /// Forgets the marks of `channel` whose names begin with `prefix` and that are older than
    /// `before`.
    pub fn forget_marks(
        &self,
        channel: &str,
        prefix: &str,
        before: DateTime<Utc>,
    ) -> Result<(), HistoryError> {
        let sql = "DELETE FROM channel_marks WHERE channel=?1 AND substr(name, 1, length(?2))=?2 AND at<?3";
        self.run(sql, params![channel, prefix, millis(before)])
            .map(drop)
    }
}

fn channel_record(row: &Row<'_>) -> rusqlite::Result<ChannelRecord> {
    let at = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(time));
    Ok(ChannelRecord {
        name: row.get(0)?,
        known_since: time(row.get(1)?),
        succeeded_at: at(2)?,
        failed_at: at(3)?,
        failing_since: at(4)?,
        failures: row.get(5)?,
        retry_at: at(6)?,
        error: row.get(7)?,
    })
}

fn channel_finding(row: &Row<'_>) -> rusqlite::Result<ChannelFinding> {
    Ok(ChannelFinding {
        finding: row.get(0)?,
        seen_at: time(row.get(1)?),
        level: row.get(2)?,
        reported: row.get(3)?,
        reported_at: row.get::<_, Option<i64>>(4)?.map(time),
        thread: row.get(5)?,
        content: row.get(6)?,
    })
}
