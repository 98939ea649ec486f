//! Keeps the history small.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::base::ids::ulid_time;
use crate::config::HistoryLimits;
use crate::jobs::error::JobError;
use crate::state::history::History;
use crate::state::run_log::{logs_dir, run_of_log};

/// Number of newest runs that always stay.
const ALWAYS_KEPT: u32 = 50;
/// Number of reports that are taken out at a time while the history is too large.
const BATCH: u32 = 100;

/// What [`forget`] deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// Runs whose rows are gone.
    pub(crate) runs: u64,
    /// Reports that were taken out of rows that stay.
    pub(crate) reports: u64,
    /// Log files.
    pub(crate) logs: u64,
}

/// The log of a run.
struct LogFile {
    id: String,
    path: PathBuf,
    bytes: u64,
    /// When the run began.
    began_at: DateTime<Utc>,
}

/// Forgets the runs, and deletes the logs, that `kept` does not keep. The newest 50 runs and the
/// newest one of each kind and outcome stay.
///
/// If all of it is still too large, the oldest logs go first, then the reports of the oldest runs:
/// their rows stay, each in about a hundred bytes.
pub(crate) fn forget(
    history: &History,
    kept: &HistoryLimits,
    now: DateTime<Utc>,
) -> Result<Forgotten, JobError> {
    let mut done = Forgotten::default();
    let ids = history.forget_runs(before(now, kept.runs), ALWAYS_KEPT)?;
    done.runs = ids.len() as u64;
    history.forget_stages()?;
    let mut logs = logs(history)?;
    let is_open = |id: &str| {
        history
            .run(id)
            .is_ok_and(|row| row.is_some_and(|row| row.end.is_none()))
    };
    let oldest = before(now, kept.logs);
    let is_old =
        |log: &LogFile| (log.began_at < oldest || ids.contains(&log.id)) && !is_open(&log.id);
    let mut bytes: u64 = logs.iter().map(|log| log.bytes).sum();
    let mut used = history.used_bytes()?;
    // The oldest first: the ids begin with their times.
    logs.sort_by(|a, b| a.id.cmp(&b.id));
    for log in logs {
        let is_too_much = bytes + used > kept.max_bytes && !is_open(&log.id);
        if (is_old(&log) || is_too_much) && fs::remove_file(&log.path).is_ok() {
            bytes -= log.bytes;
            done.logs += 1;
        }
    }
    while bytes + used > kept.max_bytes {
        let taken = history.forget_reports(BATCH, ALWAYS_KEPT)?;
        if taken == 0 {
            break;
        }
        done.reports += taken as u64;
        used = history.used_bytes()?;
    }
    if history.bytes()? > used + used / 2 {
        // Another process may be reading; then a later run does it.
        let _ = history.compact();
    }
    Ok(done)
}

fn before(now: DateTime<Utc>, age: Duration) -> DateTime<Utc> {
    let age = chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX);
    now.checked_sub_signed(age)
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Returns the logs of runs in the state directory.
fn logs(history: &History) -> Result<Vec<LogFile>, JobError> {
    let dir = logs_dir(history.dir());
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let what = format!("cannot list the logs in {}: {error}", dir.display());
            return Err(JobError::work(what));
        }
        Ok(entries) => entries,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(run_of_log);
        if let (Some(id), Ok(meta)) = (id, entry.metadata())
            && let Some(began_at) = ulid_time(id)
            && meta.is_file()
        {
            found.push(LogFile {
                id: id.to_owned(),
                path: entry.path(),
                bytes: meta.len(),
                began_at,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ulid;
    use crate::state::history::{EndedRun, NewRun};
    use crate::state::run_log::log_path;

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + day * 86_400, 0).unwrap()
    }

    /// Adds a run of `day` with a report and a log of 1000 bytes each. Returns its id.
    fn add(history: &History, day: i64, outcome: &str) -> String {
        let id = ulid(at(day));
        let run = NewRun {
            id: id.clone(),
            kind: "backup".to_owned(),
            trigger: "schedule".to_owned(),
            started_at: at(day),
            pid: 1,
            pid_started: 1,
            note: None,
        };
        history.begin_run(&run).unwrap();
        let end = EndedRun {
            ended_at: at(day),
            outcome: outcome.to_owned(),
            exit_code: Some(0),
            stamp: None,
            sequence: None,
            message: String::new(),
            report: Some("r".repeat(1000)),
        };
        history.end_run(&id, &end).unwrap();
        let log = log_path(history.dir(), &id).unwrap();
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(log, vec![b'l'; 1000]).unwrap();
        id
    }

    fn log_ids(history: &History) -> Vec<String> {
        let mut logs = logs(history).unwrap();
        logs.sort_by(|a, b| a.id.cmp(&b.id));
        logs.into_iter().map(|log| log.id).collect()
    }

    #[test]
    fn old_runs_and_logs_go_and_the_last_of_each_outcome_stays() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let failed = add(&history, 0, "failed");
        let all: Vec<String> = (1..=500)
            .map(|day| add(&history, day, "complete"))
            .collect();
        let done = forget(&history, &HistoryLimits::default(), at(500)).unwrap();
        assert_eq!(
            done,
            Forgotten {
                runs: 99,
                reports: 0,
                logs: 410
            }
        );
        let left = history.runs(&Default::default()).unwrap();
        assert_eq!(left.len(), 402);
        assert_eq!(left.last().unwrap().run.id, failed);
        assert_eq!(left[400].run.id, all[99]);
        assert_eq!(log_ids(&history), all[409..]);
        // Nothing is left to do.
        let done = forget(&history, &HistoryLimits::default(), at(500)).unwrap();
        assert_eq!(done, Forgotten::default());
        // However old they are, fifty stay.
        forget(&history, &HistoryLimits::default(), at(5000)).unwrap();
        assert_eq!(history.runs(&Default::default()).unwrap().len(), 51);
        assert_eq!(log_ids(&history), [""; 0]);
    }

    #[test]
    fn a_history_that_is_too_large_loses_logs_first_and_then_reports() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        let all: Vec<String> = (0..300).map(|day| add(&history, day, "complete")).collect();
        let used = history.used_bytes().unwrap();
        let kept = HistoryLimits {
            runs: Duration::from_secs(400 * 86_400),
            logs: Duration::from_secs(400 * 86_400),
            max_bytes: used + 100_000,
        };
        let done = forget(&history, &kept, at(300)).unwrap();
        assert_eq!(
            done,
            Forgotten {
                runs: 0,
                reports: 0,
                logs: 200
            }
        );
        assert_eq!(log_ids(&history), all[200..]);
        let kept = HistoryLimits {
            max_bytes: 0,
            ..kept
        };
        let done = forget(&history, &kept, at(300)).unwrap();
        assert_eq!(
            done,
            Forgotten {
                runs: 0,
                reports: 250,
                logs: 100
            }
        );
        assert!(history.bytes().unwrap() < used / 2);
        let has_report = |id: &String| {
            let row = history.run(id).unwrap().unwrap();
            row.end.unwrap().report.is_some()
        };
        assert!(!has_report(&all[249]) && has_report(&all[250]));
        // The log of a run that is under way stays.
        let id = ulid(at(301));
        let run = NewRun {
            id: id.clone(),
            ..history.run(&all[0]).unwrap().unwrap().run
        };
        history.begin_run(&run).unwrap();
        fs::write(log_path(history.dir(), &id).unwrap(), "x").unwrap();
        forget(&history, &kept, at(3000)).unwrap();
        assert_eq!(log_ids(&history), [id]);
    }
}
