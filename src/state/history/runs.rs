//! The runs: one row each, from the moment that it begins.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, Row, ToSql, params};

use super::{History, HistoryError, millis, time};

/// `totals` counts ended runs permanently, also those whose rows were deleted.
pub(super) const TABLES: &str = "
CREATE TABLE runs(
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, trigger TEXT NOT NULL, started_at INTEGER NOT NULL,
  ended_at INTEGER, outcome TEXT, exit_code INTEGER, pid INTEGER NOT NULL, pid_started INTEGER NOT NULL,
  stamp TEXT, sequence INTEGER, message TEXT NOT NULL DEFAULT '', report TEXT, note TEXT) WITHOUT ROWID;
CREATE INDEX runs_by_kind ON runs(kind, id);
CREATE INDEX open_runs ON runs(id) WHERE ended_at IS NULL;
CREATE TABLE totals(
  name TEXT NOT NULL, label TEXT NOT NULL, other TEXT NOT NULL, value INTEGER NOT NULL,
  PRIMARY KEY(name, label, other)) WITHOUT ROWID;
";
/// The total of ended runs, by kind and outcome.
const RUNS: &str = "runs";
/// Most rows that one query returns without a limit of its own.
const MOST_ROWS: u32 = 1_000_000;

/// A run that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// A ULID, the id of its report.
    pub id: String,
    /// The command, such as `backup`.
    pub kind: String,
    /// Who began it, as in its report.
    pub trigger: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Its process.
    pub pid: u32,
    /// When the kernel started that process, in the clock ticks of `/proc/PID/stat`; 0: not known.
    pub pid_started: u64,
    /// What the caller said about it.
    pub note: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedRun {
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// `complete`, `partial`, `failed`, `cancelled` or `killed`.
    pub outcome: String,
    /// Its exit code; `None`: a signal ended it.
    pub exit_code: Option<i32>,
    /// The new snapshot's stamp; `None`: there is none.
    pub stamp: Option<String>,
    /// The new snapshot's sequence.
    pub sequence: Option<u64>,
    /// One line: why it failed and the next step, or what is missing. Empty: nothing.
    pub message: String,
    /// The report of the run as JSON; `None`: it ended without one.
    pub report: Option<String>,
}

/// A run in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// As it began.
    pub run: NewRun,
    /// How it ended; `None`: it is under way, or its process is gone.
    pub end: Option<EndedRun>,
}

/// Which runs to return, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// Only those before the run with this id.
    pub before: Option<String>,
    /// Only those that ended.
    pub is_ended: bool,
    /// Most rows to return; `None`: all.
    pub limit: Option<u32>,
}

const COLUMNS: &str = "id, kind, trigger, started_at, ended_at, outcome, exit_code, pid, pid_started, stamp, sequence, \
                       message, report, note";

impl History {
    /// Records the begin of a run.
    pub fn begin_run(&self, run: &NewRun) -> Result<(), HistoryError> {
        insert(&self.db, run).map_err(self.fail())
    }

    /// Records that `pid` does the work of the run `id`, which began before this process.
    pub fn set_process(&self, id: &str, pid: u32, pid_started: u64) -> Result<(), HistoryError> {
        let sql = "UPDATE runs SET pid=?2, pid_started=?3 WHERE id=?1 AND ended_at IS NULL";
        let done = self
            .db
            .execute(sql, params![id, pid, pid_started.cast_signed()]);
        done.map(drop).map_err(self.fail())
    }

    /// Records how the run `id` ended, and counts it. Returns false, and changes nothing, if it had
    /// ended already or is not known.
    pub fn end_run(&self, id: &str, end: &EndedRun) -> Result<bool, HistoryError> {
        let fail = self.fail();
        let transaction = self.db.unchecked_transaction().map_err(&fail)?;
        let changed = transaction
            .execute(
                "UPDATE runs SET ended_at=?2, outcome=?3, exit_code=?4, stamp=?5, sequence=?6, message=?7, report=?8
                 WHERE id=?1 AND ended_at IS NULL",
                params![
                    id,
                    millis(end.ended_at),
                    end.outcome,
                    end.exit_code,
                    end.stamp,
                    end.sequence.map(u64::cast_signed),
                    end.message,
                    end.report
                ],
            )
            .map_err(&fail)?;
        if changed > 0 {
            transaction
                .execute(
                    "INSERT INTO totals SELECT ?1, kind, outcome, 1 FROM runs WHERE id=?2
                     ON CONFLICT DO UPDATE SET value=value+1",
                    params![RUNS, id],
                )
                .map_err(&fail)?;
        }
        transaction.commit().map_err(&fail)?;
        Ok(changed > 0)
    }

    /// Replaces the message of the run `id`, if it was cancelled: says why.
    pub fn explain_cancelled(&self, id: &str, message: &str) -> Result<(), HistoryError> {
        let sql = "UPDATE runs SET message=?2 WHERE id=?1 AND outcome='cancelled'";
        let done = self.db.execute(sql, [id, message]);
        done.map(drop).map_err(self.fail())
    }

    /// Returns the run `id`.
    pub fn run(&self, id: &str) -> Result<Option<RunRow>, HistoryError> {
        let sql = format!("SELECT {COLUMNS} FROM runs WHERE id=?1");
        self.db
            .query_row(&sql, [id], row)
            .optional()
            .map_err(self.fail())
    }

    /// Returns the runs of `filter`, newest first.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, HistoryError> {
        let mut sql = format!("SELECT {COLUMNS} FROM runs WHERE 1");
        let mut values: Vec<&dyn ToSql> = Vec::new();
        for (condition, value) in [
            (" AND kind=?", &filter.kind),
            (" AND outcome=?", &filter.outcome),
            (" AND id<?", &filter.before),
        ] {
            if let Some(value) = value {
                sql.push_str(condition);
                values.push(value);
            }
        }
        if filter.is_ended {
            sql.push_str(" AND ended_at IS NOT NULL");
        }
        let limit = filter.limit.unwrap_or(MOST_ROWS);
        sql.push_str(" ORDER BY id DESC LIMIT ?");
        values.push(&limit);
        let mut query = self.db.prepare_cached(&sql).map_err(self.fail())?;
        let rows = query.query_map(&values[..], row).map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Returns the runs that have no end, newest first.
    pub fn open_runs(&self) -> Result<Vec<RunRow>, HistoryError> {
        let sql = format!("SELECT {COLUMNS} FROM runs WHERE ended_at IS NULL ORDER BY id DESC");
        let mut query = self.db.prepare_cached(&sql).map_err(self.fail())?;
        let rows = query.query_map([], row).map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Adds `by` to the total `name` of `label` and `other`, such as the bytes sent to a target.
    pub fn add_to_total(
        &self,
        (name, label, other): (&str, &str, &str),
        by: u64,
    ) -> Result<(), HistoryError> {
        let sql =
            "INSERT INTO totals VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET value=value+?4";
        let done = self
            .db
            .execute(sql, params![name, label, other, by.cast_signed()]);
        done.map(drop).map_err(self.fail())
    }

    /// Returns the total `name` by its two labels.
    pub fn totals(&self, name: &str) -> Result<Vec<(String, String, u64)>, HistoryError> {
        let sql = "SELECT label, other, value FROM totals WHERE name=?1 ORDER BY label, other";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([name], |row| {
                let value: i64 = row.get(2)?;
                Ok((row.get(0)?, row.get(1)?, value.max(0).cast_unsigned()))
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Returns the number of ended runs by kind and outcome, also of those that were forgotten.
    pub fn run_totals(&self) -> Result<Vec<(String, String, u64)>, HistoryError> {
        self.totals(RUNS)
    }

    /// Deletes the rows of the runs that ended before `before`. The newest `keep` stay, and the
    /// newest of each kind and outcome. Returns the ids of the deleted ones.
    pub fn forget_runs(
        &self,
        before: DateTime<Utc>,
        keep: u32,
    ) -> Result<Vec<String>, HistoryError> {
        let sql = "DELETE FROM runs WHERE ended_at<?1
               AND id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?2)
               AND id NOT IN (SELECT max(id) FROM runs WHERE ended_at IS NOT NULL GROUP BY kind, outcome)
             RETURNING id";
        let mut query = self.db.prepare(sql).map_err(self.fail())?;
        let rows = query.query_map(params![millis(before), keep], |row| row.get(0));
        let ids = rows.and_then(Iterator::collect::<Result<_, _>>);
        ids.map_err(self.fail())
    }
}

/// Inserts the row of a run that begins.
pub(super) fn insert(db: &rusqlite::Connection, run: &NewRun) -> rusqlite::Result<()> {
    let sql = "INSERT INTO runs(id, kind, trigger, started_at, pid, pid_started, note) VALUES(?1,?2,?3,?4,?5,?6,?7)";
    let values = params![
        run.id,
        run.kind,
        run.trigger,
        millis(run.started_at),
        run.pid,
        run.pid_started.cast_signed(),
        run.note
    ];
    db.execute(sql, values).map(drop)
}

fn row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let run = NewRun {
        id: row.get(0)?,
        kind: row.get(1)?,
        trigger: row.get(2)?,
        started_at: time(row.get(3)?),
        pid: row.get(7)?,
        pid_started: row.get::<_, i64>(8)?.cast_unsigned(),
        note: row.get(13)?,
    };
    let Some(ended_at) = row.get::<_, Option<i64>>(4)? else {
        return Ok(RunRow { run, end: None });
    };
    let end = EndedRun {
        ended_at: time(ended_at),
        outcome: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        exit_code: row.get(6)?,
        stamp: row.get(9)?,
        sequence: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
        message: row.get(11)?,
        report: row.get(12)?,
    };
    Ok(RunRow {
        run,
        end: Some(end),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    fn run(id: &str, kind: &str) -> NewRun {
        NewRun {
            id: id.to_owned(),
            kind: kind.to_owned(),
            trigger: "manual".to_owned(),
            started_at: at(0),
            pid: 7,
            pid_started: 99,
            note: None,
        }
    }

    fn ended(outcome: &str, second: i64) -> EndedRun {
        EndedRun {
            ended_at: at(second),
            outcome: outcome.to_owned(),
            exit_code: Some(0),
            stamp: Some("20260407T060000Z".to_owned()),
            sequence: Some(3),
            message: String::new(),
            report: Some("{}".to_owned()),
        }
    }

    #[test]
    fn a_run_ends_once_and_is_counted_after_its_row_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        for (number, kind) in ["backup", "verify", "backup", "backup"].iter().enumerate() {
            let id = format!("R{number}");
            history.begin_run(&run(&id, kind)).unwrap();
        }
        history.set_process("R0", 8, 100).unwrap();
        assert_eq!(history.open_runs().unwrap().len(), 4);
        for (number, outcome) in [(0, "complete"), (1, "failed"), (2, "complete")] {
            let end = ended(outcome, number);
            assert!(history.end_run(&format!("R{number}"), &end).unwrap());
            assert!(!history.end_run(&format!("R{number}"), &end).unwrap());
        }
        let first = history.run("R0").unwrap().unwrap();
        assert_eq!((first.run.pid, first.run.pid_started), (8, 100));
        assert_eq!(first.end, Some(ended("complete", 0)));
        assert_eq!(history.run("R9").unwrap(), None);
        let of = |filter| {
            let runs = history.runs(&filter).unwrap().into_iter();
            runs.map(|row| row.run.id).collect::<Vec<_>>()
        };
        let filter = RunFilter::default();
        let kind = Some("backup".to_owned());
        assert_eq!(of(filter.clone()), ["R3", "R2", "R1", "R0"]);
        let ended = RunFilter {
            kind: kind.clone(),
            is_ended: true,
            ..filter.clone()
        };
        assert_eq!(of(ended), ["R2", "R0"]);
        let before = RunFilter {
            kind,
            before: Some("R3".to_owned()),
            limit: Some(1),
            ..filter
        };
        assert_eq!(of(before), ["R2"]);
        // The newest complete backup and the failed one stay, and so does the open one.
        assert_eq!(history.forget_runs(at(100), 1).unwrap(), ["R0"]);
        let totals = history.run_totals().unwrap();
        let backups = ("backup".to_owned(), "complete".to_owned(), 2);
        let verify = ("verify".to_owned(), "failed".to_owned(), 1);
        assert_eq!(totals, [backups, verify]);
        history.add_to_total(("sent", "s3", ""), 5).unwrap();
        history.add_to_total(("sent", "s3", ""), 6).unwrap();
        let sent = history.totals("sent").unwrap();
        assert_eq!(sent, [("s3".to_owned(), String::new(), 11)]);
    }
}
