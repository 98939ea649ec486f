//! Figures of runs over time, from their reports.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{History, HistoryError, millis, time};
use crate::base::ids::Stamp;

/// A figure of each run of `backup` or `push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunFigure {
    /// Bytes of the new archives; of one target: bytes that were sent there.
    StoredBytes,
    /// Bytes that no earlier snapshot had; the same for every target.
    NewBytes,
    /// How long it took; of one target: until its part was done.
    Seconds,
    /// Time from the snapshot's stamp to the end of the run that published it; of one target: only
    /// of runs that published there.
    Lag,
}

/// Reports of which a figure can be read. The time comes first: it is cheap to compare.
const WITH_REPORT: &str = "started_at>=?1 AND kind IN ('backup', 'push') AND json_valid(report)";

impl History {
    /// Returns the figure of each run that began at `since` or later, oldest first; `target`: its
    /// part of one target.
    pub fn run_series(
        &self,
        figure: RunFigure,
        target: Option<&str>,
        since: DateTime<Utc>,
    ) -> Result<Vec<(DateTime<Utc>, f64)>, HistoryError> {
        let (of_run, of_target) = match figure {
            RunFigure::StoredBytes => ("report->>'stored_bytes'", "value->>'sent_bytes'"),
            RunFigure::NewBytes => ("report->>'new_bytes'", "report->>'new_bytes'"),
            RunFigure::Seconds => ("(ended_at-started_at)/1000.0", "value->>'seconds'"),
            RunFigure::Lag => ("ended_at/1000.0", "ended_at/1000.0"),
        };
        let (from, value, condition) = match target {
            None => (
                "runs",
                of_run,
                "?2 IS NULL AND (outcome<>'failed' OR ended_at IS NULL)",
            ),
            Some(_) if figure == RunFigure::Lag => (
                "runs, json_each(report, '$.targets')",
                of_target,
                "value->>'name'=?2 AND value->>'state'='published'",
            ),
            Some(_) => (
                "runs, json_each(report, '$.targets')",
                of_target,
                "value->>'name'=?2",
            ),
        };
        let sql = format!(
            "SELECT started_at, stamp, CAST({value} AS REAL) FROM {from}
             WHERE {WITH_REPORT} AND {condition} ORDER BY runs.id"
        );
        let mut query = self.db.prepare_cached(&sql).map_err(self.fail())?;
        let rows = query
            .query_map(params![millis(since), target], |row| {
                let stamp: Option<String> = row.get(1)?;
                let value: Option<f64> = row.get(2)?;
                Ok((time(row.get(0)?), stamp, value))
            })
            .map_err(self.fail())?;
        let mut points = Vec::new();
        for row in rows {
            let (at, stamp, value) = row.map_err(self.fail())?;
            let Some(value) = value else { continue };
            let stamp = stamp.and_then(|stamp| stamp.parse::<Stamp>().ok());
            match (figure, stamp) {
                (RunFigure::Lag, None) => {}
                (RunFigure::Lag, Some(stamp)) => {
                    points.push((at, value - stamp.time().timestamp() as f64));
                }
                _ => points.push((at, value)),
            }
        }
        Ok(points)
    }

    /// Returns the bytes of the new archives of each snapshot from `first` to `last`, by sequence.
    pub fn stored_bytes(&self, first: u64, last: u64) -> Result<BTreeMap<u64, u64>, HistoryError> {
        let sql = "SELECT sequence, report->>'stored_bytes' FROM runs
                   WHERE sequence BETWEEN ?1 AND ?2 AND json_valid(report) ORDER BY id";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let bounds = params![first.cast_signed(), last.cast_signed()];
        let rows = query
            .query_map(bounds, |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
            })
            .map_err(self.fail())?;
        let mut bytes = BTreeMap::new();
        for row in rows {
            let (sequence, stored) = row.map_err(self.fail())?;
            let stored = stored.map(|stored| stored.max(0).cast_unsigned());
            // A later push of the same snapshot stored nothing new.
            let entry = bytes.entry(sequence.cast_unsigned()).or_default();
            *entry = stored.unwrap_or_default().max(*entry);
        }
        Ok(bytes)
    }

    /// Returns the newest errors about `target` in the reports of runs that began at `since` or
    /// later: when, which run, and the text.
    pub fn target_errors(
        &self,
        target: &str,
        since: DateTime<Utc>,
        most: u32,
    ) -> Result<Vec<(DateTime<Utc>, String, String)>, HistoryError> {
        let sql = format!(
            "SELECT started_at, runs.id, value->>'error' FROM runs, json_each(report, '$.targets')
             WHERE {WITH_REPORT} AND value->>'name'=?2 AND value->>'error' IS NOT NULL
             ORDER BY runs.id DESC LIMIT ?3"
        );
        let mut query = self.db.prepare_cached(&sql).map_err(self.fail())?;
        let rows = query
            .query_map(params![millis(since), target, most], |row| {
                Ok((time(row.get(0)?), row.get(1)?, row.get(2)?))
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::super::{EndedRun, NewRun};
    use super::*;

    fn record(history: &History, id: &str, begun: i64, report: Option<&str>) {
        let run = NewRun {
            id: id.to_owned(),
            kind: "backup".to_owned(),
            trigger: "schedule".to_owned(),
            started_at: at(begun),
            pid: 7,
            pid_started: 0,
            note: None,
        };
        history.begin_run(&run).unwrap();
        let end = EndedRun {
            ended_at: at(begun + 30),
            outcome: "partial".to_owned(),
            exit_code: Some(3),
            stamp: Some(Stamp::at(at(begun)).unwrap().to_string()),
            sequence: Some(begun.cast_unsigned() / 100),
            message: String::new(),
            report: report.map(str::to_owned),
        };
        history.end_run(id, &end).unwrap();
    }

    #[test]
    fn figures_come_from_the_reports() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let report = |stored: u64, sent: u64, state: &str, error: &str| {
            format!(
                r#"{{"stored_bytes":{stored},"new_bytes":7,"targets":[{{"name":"s3","state":"{state}",
                   "sent_bytes":{sent},"seconds":2.5,"error":{error}}}]}}"#
            )
        };
        record(
            &history,
            "A",
            100,
            Some(&report(10, 11, "published", "null")),
        );
        record(
            &history,
            "B",
            200,
            Some(&report(20, 21, "behind", "\"no route\"")),
        );
        record(&history, "C", 300, Some("{"));
        record(&history, "D", 400, None);
        let of = |figure, target| {
            let points = history
                .run_series(figure, target, at(0))
                .unwrap()
                .into_iter();
            points.map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(of(RunFigure::StoredBytes, None), [10.0, 20.0]);
        assert_eq!(of(RunFigure::StoredBytes, Some("s3")), [11.0, 21.0]);
        assert_eq!(of(RunFigure::StoredBytes, Some("other")), [0.0; 0]);
        assert_eq!(of(RunFigure::NewBytes, None), [7.0, 7.0]);
        assert_eq!(of(RunFigure::Seconds, None), [30.0, 30.0]);
        assert_eq!(of(RunFigure::Seconds, Some("s3")), [2.5, 2.5]);
        assert_eq!(of(RunFigure::Lag, None), [30.0, 30.0]);
        assert_eq!(of(RunFigure::Lag, Some("s3")), [30.0]);
        let late = history
            .run_series(RunFigure::NewBytes, None, at(150))
            .unwrap();
        assert_eq!(late, [(at(200), 7.0)]);
        let stored = history.stored_bytes(1, 2).unwrap();
        assert_eq!(stored.into_iter().collect::<Vec<_>>(), [(1, 10), (2, 20)]);
        let errors = history.target_errors("s3", at(0), 5).unwrap();
        assert_eq!(errors, [(at(200), "B".to_owned(), "no route".to_owned())]);
    }
}
