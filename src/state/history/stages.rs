//! What the runs that are under way do now.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, params};

use super::{BUSY, History, HistoryError, millis, time};

pub(super) const TABLES: &str = "
CREATE TABLE stages(run TEXT PRIMARY KEY, stage TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
";

impl History {
    /// Records that the run `id` does `stage` from now on. Waits neither for another process nor
    /// for the disk: of the stage nothing depends.
    pub fn set_stage(&self, id: &str, stage: &str, at: DateTime<Utc>) -> Result<(), HistoryError> {
        let write = || {
            self.db.busy_timeout(Duration::ZERO)?;
            self.db.pragma_update(None, "synchronous", "NORMAL")?;
            let sql = "INSERT OR REPLACE INTO stages VALUES(?1, ?2, ?3)";
            self.db.execute(sql, params![id, stage, millis(at)])
        };
        let written = write();
        let reset = || {
            self.db.busy_timeout(BUSY)?;
            self.db.pragma_update(None, "synchronous", "FULL")
        };
        let reset = reset();
        written.and(reset).map_err(self.fail())
    }

    /// Returns the stage of the run `id`, and since when; `None`: it is not known, or the run has
    /// ended.
    pub fn stage(&self, id: &str) -> Result<Option<(String, DateTime<Utc>)>, HistoryError> {
        let sql = "SELECT stage, since FROM stages WHERE run=?1";
        let stage = self
            .db
            .query_row(sql, [id], |row| Ok((row.get(0)?, time(row.get(1)?))));
        stage.optional().map_err(self.fail())
    }

    /// Forgets the stages of runs that are not under way.
    pub fn forget_stages(&self) -> Result<(), HistoryError> {
        let sql =
            "DELETE FROM stages WHERE run NOT IN (SELECT id FROM runs WHERE ended_at IS NULL)";
        self.db.execute(sql, []).map(drop).map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::super::{EndedRun, NewRun};
    use super::*;

    #[test]
    fn the_newest_stage_of_a_run_counts_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let run = NewRun {
            id: "A".to_owned(),
            kind: "backup".to_owned(),
            trigger: "manual".to_owned(),
            started_at: at(0),
            pid: 7,
            pid_started: 9,
            note: None,
        };
        history.begin_run(&run).unwrap();
        history.set_stage("A", "producing", at(1)).unwrap();
        history.set_stage("A", "packing", at(2)).unwrap();
        let packing = Some(("packing".to_owned(), at(2)));
        assert_eq!(history.stage("A").unwrap(), packing);
        history.forget_stages().unwrap();
        assert_eq!(history.stage("A").unwrap(), packing);
        let end = EndedRun {
            ended_at: at(3),
            outcome: "complete".to_owned(),
            exit_code: Some(0),
            stamp: None,
            sequence: None,
            message: String::new(),
            report: None,
        };
        history.end_run("A", &end).unwrap();
        history.forget_stages().unwrap();
        assert_eq!(history.stage("A").unwrap(), None);
    }

    /// Kind: a run waits for another process because of a line that only says what it does.
    #[test]
    fn a_stage_waits_for_no_other_process() {
        let dir = tempfile::tempdir().unwrap();
        let (history, other) = (
            History::open(dir.path()).unwrap(),
            History::open(dir.path()).unwrap(),
        );
        other.db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = std::time::Instant::now();
        history.set_stage("A", "packing", at(0)).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(2));
        other.db.execute_batch("COMMIT").unwrap();
        history.set_stage("A", "packing", at(0)).unwrap();
        let mode = |name: &str| {
            let value = history.db.pragma_query_value(None, name, |row| row.get(0));
            value.unwrap()
        };
        let full: i64 = mode("synchronous");
        let busy: i64 = mode("busy_timeout");
        assert_eq!((full, busy), (2, 10_000));
    }
}
