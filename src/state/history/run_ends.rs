//! Questions about ended runs whose cost does not grow with their number.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension as _, params};

use super::{History, HistoryError, time};

/// An index of the runs by how they ended.
pub(super) const TABLES: &str = "
CREATE INDEX runs_by_end ON runs(kind, outcome, id);
";
/// The total of bytes that were sent, by target.
const SENT_BYTES: &str = "sent_bytes";

/// The newest run of its kind that ended with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestEnd {
    /// The run's id.
    pub id: String,
    /// Its command, such as `backup`.
    pub kind: String,
    /// `complete`, `partial`, `failed`, `cancelled` or `killed`.
    pub outcome: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// Its exit code; `None`: a signal ended it.
    pub exit_code: Option<i32>,
}

impl History {
    /// Returns the newest ended run of each kind and outcome, by kind.
    pub fn newest_ends(&self) -> Result<Vec<NewestEnd>, HistoryError> {
        let sql = "SELECT id, kind, outcome, started_at, ended_at, exit_code FROM runs WHERE id IN
               (SELECT max(id) FROM runs WHERE outcome IS NOT NULL GROUP BY kind, outcome)
             AND ended_at IS NOT NULL ORDER BY kind, id";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                Ok(NewestEnd {
                    id: row.get(0)?,
                    kind: row.get(1)?,
                    outcome: row.get(2)?,
                    started_at: time(row.get(3)?),
                    ended_at: time(row.get(4)?),
                    exit_code: row.get(5)?,
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Returns the report, as JSON, of the newest run that made or pushed the snapshot of this
    /// sequence; `None`: no such run is known, or it ended without a report.
    pub fn report_of_snapshot(&self, sequence: u64) -> Result<Option<String>, HistoryError> {
        let sql = "SELECT report FROM runs WHERE sequence=?1 AND kind IN ('backup', 'push')
                   ORDER BY id DESC LIMIT 1";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let report = query.query_row(params![sequence.cast_signed()], |row| row.get(0));
        let report = report.optional().map_err(self.fail())?;
        Ok(report.flatten())
    }

    /// Returns the bytes that all runs have sent, by target.
    pub fn sent_bytes(&self) -> Result<Vec<(String, u64)>, HistoryError> {
        let totals = self.totals(SENT_BYTES)?.into_iter();
        Ok(totals.map(|(target, _, bytes)| (target, bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::super::{EndedRun, NewRun};
    use super::*;

    fn record(history: &History, id: &str, kind: &str, end: Option<(&str, u64)>) {
        let run = NewRun {
            id: id.to_owned(),
            kind: kind.to_owned(),
            trigger: "manual".to_owned(),
            started_at: at(0),
            pid: 7,
            pid_started: 99,
            note: None,
        };
        history.begin_run(&run).unwrap();
        let Some((outcome, sequence)) = end else {
            return;
        };
        let end = EndedRun {
            ended_at: at(5),
            outcome: outcome.to_owned(),
            exit_code: (outcome != "killed").then_some(0),
            stamp: None,
            sequence: Some(sequence),
            message: String::new(),
            report: Some(format!("{{\"id\":\"{id}\"}}")),
        };
        assert!(history.end_run(id, &end).unwrap());
    }

    #[test]
    fn the_newest_run_of_each_end_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        for (id, kind, end) in [
            ("R1", "backup", Some(("complete", 1))),
            ("R2", "backup", Some(("complete", 2))),
            ("R3", "backup", Some(("killed", 3))),
            ("R4", "verify", Some(("failed", 2))),
            ("R5", "backup", None),
        ] {
            record(&history, id, kind, end);
        }
        let ends = history.newest_ends().unwrap();
        let found: Vec<_> = ends
            .iter()
            .map(|end| (&end.id[..], &end.kind[..], &end.outcome[..], end.exit_code))
            .collect();
        let expected = [
            ("R2", "backup", "complete", Some(0)),
            ("R3", "backup", "killed", None),
            ("R4", "verify", "failed", Some(0)),
        ];
        assert_eq!(found, expected);
        assert_eq!((ends[0].started_at, ends[0].ended_at), (at(0), at(5)));
        let report = history.report_of_snapshot(2).unwrap().unwrap();
        assert_eq!(report, "{\"id\":\"R2\"}");
        assert_eq!(history.report_of_snapshot(9).unwrap(), None);
        history.add_to_total((SENT_BYTES, "s3", ""), 12).unwrap();
        assert_eq!(history.sent_bytes().unwrap(), [("s3".to_owned(), 12)]);
    }
}
