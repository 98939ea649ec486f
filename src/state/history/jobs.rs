//! When each scheduled job was last begun.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, params};

use super::runs::{NewRun, insert};
use super::{History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE jobs(
  name TEXT PRIMARY KEY, handled INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER) WITHOUT ROWID;
";

/// What the history knows of a scheduled job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobState {
    /// The newest occurrence of its schedule that a run was begun for, or that is not run any more.
    pub handled: DateTime<Utc>,
    /// When its newest run began; `None`: none has.
    pub started_at: Option<DateTime<Utc>>,
    /// When its newest run ended; `None`: none has.
    pub ended_at: Option<DateTime<Utc>>,
}

impl History {
    /// Returns the state of the job `name`; `None` before its first occurrence.
    pub fn job(&self, name: &str) -> Result<Option<JobState>, HistoryError> {
        let sql = "SELECT handled, started_at, ended_at FROM jobs WHERE name=?1";
        let state = self.db.query_row(sql, [name], |row| {
            Ok(JobState {
                handled: time(row.get(0)?),
                started_at: row.get::<_, Option<i64>>(1)?.map(time),
                ended_at: row.get::<_, Option<i64>>(2)?.map(time),
            })
        });
        state.optional().map_err(self.fail())
    }

    /// Records that the occurrences of `job` up to `handled` need no run.
    pub fn skip_occurrences(&self, job: &str, handled: DateTime<Utc>) -> Result<(), HistoryError> {
        let sql = "INSERT INTO jobs(name, handled) VALUES(?1, ?2)
                   ON CONFLICT DO UPDATE SET handled=max(handled, excluded.handled)";
        let done = self.db.execute(sql, params![job, millis(handled)]);
        done.map(drop).map_err(self.fail())
    }

    /// Records the begin of a run and, in the same transaction, that the occurrences of each of
    /// `jobs` up to its time are handled. Returns false, and records nothing, if each of them was
    /// handled before: another process was quicker.
    pub fn begin_due_run(
        &self,
        run: &NewRun,
        jobs: &[(&str, DateTime<Utc>)],
    ) -> Result<bool, HistoryError> {
        let fail = self.fail();
        let begin = || {
            use rusqlite::TransactionBehavior::Immediate;
            let transaction = rusqlite::Transaction::new_unchecked(&self.db, Immediate)?;
            let mut is_due = false;
            for (job, handled) in jobs {
                let changed = transaction.execute(
                    "INSERT INTO jobs(name, handled, started_at) VALUES(?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET handled=excluded.handled, started_at=excluded.started_at
                       WHERE handled<excluded.handled",
                    params![job, millis(*handled), millis(run.started_at)],
                )?;
                is_due |= changed > 0;
            }
            if is_due {
                insert(&transaction, run)?;
                transaction.commit()?;
            }
            Ok(is_due)
        };
        begin().map_err(fail)
    }

    /// Makes the occurrences of `job` after `handled` due again, for a clock that was far ahead.
    pub fn reset_occurrences(&self, job: &str, handled: DateTime<Utc>) -> Result<(), HistoryError> {
        let sql = "UPDATE jobs SET handled=?2 WHERE name=?1";
        let done = self.db.execute(sql, params![job, millis(handled)]);
        done.map(drop).map_err(self.fail())
    }

    /// Records that the newest run of `job` ended.
    pub fn end_job(&self, job: &str, at: DateTime<Utc>) -> Result<(), HistoryError> {
        let sql = "UPDATE jobs SET ended_at=?2 WHERE name=?1";
        let done = self.db.execute(sql, params![job, millis(at)]);
        done.map(drop).map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn an_occurrence_begins_one_run() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let other = History::open(dir.path()).unwrap();
        let run = |id: &str| NewRun {
            id: id.to_owned(),
            kind: "backup".to_owned(),
            trigger: "schedule".to_owned(),
            started_at: at(1),
            pid: 7,
            pid_started: 0,
            note: None,
        };
        assert_eq!(history.job("backup").unwrap(), None);
        history.skip_occurrences("backup", at(-60)).unwrap();
        assert!(
            history
                .begin_due_run(&run("A"), &[("backup", at(0))])
                .unwrap()
        );
        assert!(
            !other
                .begin_due_run(&run("B"), &[("backup", at(0))])
                .unwrap()
        );
        assert!(
            !other
                .begin_due_run(&run("B"), &[("backup", at(-5))])
                .unwrap()
        );
        let both = [("backup", at(0)), ("chroma", at(0))];
        assert!(other.begin_due_run(&run("C"), &both).unwrap());
        history.end_job("backup", at(9)).unwrap();
        history.skip_occurrences("backup", at(-60)).unwrap();
        let state = history.job("backup").unwrap().unwrap();
        assert_eq!(state.handled, at(0));
        assert_eq!(
            (state.started_at, state.ended_at),
            (Some(at(1)), Some(at(9)))
        );
        assert_eq!(history.open_runs().unwrap().len(), 2);
        history.reset_occurrences("backup", at(-90)).unwrap();
        assert_eq!(history.job("backup").unwrap().unwrap().handled, at(-90));
    }
}
