//! Returns the history of runs for those who look at it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::close_dead;
use crate::base::clock::{self, in_seconds};
use crate::jobs::error::JobError;
use crate::state::history::{History, RunFilter, RunRow};
use crate::state::run_log::log_path;

/// Most bytes of a log that are shown: its end.
const MOST_LOG: u64 = 1 << 20;
/// Ids that a message names.
const NAMED_IDS: u32 = 5;

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunListRequest {
    /// Only of this kind. `None`: all.
    pub(crate) kind: Option<String>,
    /// Only with this outcome. `None`: all, also those that are under way.
    pub(crate) outcome: Option<String>,
    pub(crate) limit: u32,
}

/// A run in a list.
#[derive(Debug, Serialize)]
pub(crate) struct ListedRun {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) trigger: String,
    pub(crate) started_at: DateTime<Utc>,
    /// `None`, as `outcome`: it is under way.
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) outcome: Option<String>,
    /// `None`: it is under way, or it was killed.
    pub(crate) exit_code: Option<i32>,
    pub(crate) stamp: Option<String>,
    pub(crate) sequence: Option<u64>,
    /// Why it failed and the next step, or what is missing. Empty: nothing.
    pub(crate) message: String,
    /// What the caller said about it.
    pub(crate) note: Option<String>,
    /// Its process, while it is under way.
    pub(crate) pid: Option<u32>,
    /// What it does, while it is under way. `None`: it is not known.
    pub(crate) stage: Option<String>,
}

/// A run with its report and its log.
#[derive(Debug, Serialize)]
pub(crate) struct ShownRun {
    #[serde(flatten)]
    pub(crate) run: ListedRun,
    /// The report, as docs/events.md has it. `None`: the run has not ended, was killed, or its
    /// report is not kept any more.
    pub(crate) report: Option<Value>,
    /// The path of the log. `None`: there is none.
    pub(crate) log_path: Option<String>,
    /// The end of the log, at most 1 MiB.
    pub(crate) log: Option<String>,
}

impl ListedRun {
    fn of(row: RunRow, history: &History) -> Self {
        let RunRow { run, end } = row;
        let is_open = end.is_none();
        let stage = is_open.then(|| history.stage(&run.id).ok().flatten());
        let end = end.as_ref();
        Self {
            started_at: in_seconds(run.started_at),
            ended_at: end.map(|end| in_seconds(end.ended_at)),
            outcome: end.map(|end| end.outcome.clone()),
            exit_code: end.and_then(|end| end.exit_code),
            stamp: end.and_then(|end| end.stamp.clone()),
            sequence: end.and_then(|end| end.sequence),
            message: end.map_or_else(String::new, |end| end.message.clone()),
            note: run.note,
            pid: is_open.then_some(run.pid),
            stage: stage.flatten().map(|(stage, _)| stage),
            id: run.id,
            kind: run.kind,
            trigger: run.trigger,
        }
    }
}

/// Opens the history, and closes the runs whose processes are gone. `None`: nothing was recorded.
fn open(state: &Path) -> Result<Option<History>, JobError> {
    let history = History::open_existing(state)?;
    if let Some(history) = &history {
        close_dead(history, clock::now())?;
    }
    Ok(history)
}

/// Returns the runs of `request`, newest first.
pub(crate) fn list(state: &Path, request: &RunListRequest) -> Result<Vec<ListedRun>, JobError> {
    let Some(history) = open(state)? else {
        return Ok(Vec::new());
    };
    let filter = RunFilter {
        kind: request.kind.clone(),
        outcome: request.outcome.clone(),
        limit: Some(request.limit),
        ..RunFilter::default()
    };
    let rows = history.runs(&filter)?.into_iter();
    Ok(rows.map(|row| ListedRun::of(row, &history)).collect())
}

/// Returns the run whose id is `start`, or alone begins with it.
pub(crate) fn show(state: &Path, start: &str) -> Result<ShownRun, JobError> {
    let unknown = || {
        JobError::request(format!("no run has an id that begins with {start:?}"))
            .with_next("`sealift runs` shows the ids")
    };
    let history = open(state)?.ok_or_else(unknown)?;
    let start = start.to_ascii_uppercase();
    let ids = match start.is_empty() {
        true => Vec::new(),
        false => history.run_ids(&start, NAMED_IDS)?,
    };
    let id = match ids.as_slice() {
        [] => return Err(unknown()),
        [id] => id,
        several => {
            let text = format!("{start} begins the ids of several runs");
            let next = format!("say more of it; the newest are {}", several.join(", "));
            return Err(JobError::request(text).with_next(next));
        }
    };
    let row = history.run(id)?.ok_or_else(unknown)?;
    let report = row.end.as_ref().and_then(|end| end.report.as_deref());
    let report = report.and_then(|text| serde_json::from_str(text).ok());
    let path = log_path(state, id);
    let log = path.as_deref().and_then(read_end);
    Ok(ShownRun {
        log_path: path
            .filter(|_| log.is_some())
            .map(|path| path.display().to_string()),
        log,
        report,
        run: ListedRun::of(row, &history),
    })
}

/// Returns the end of the file. `None`: there is none, or it cannot be read.
fn read_end(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(MOST_LOG)))
        .ok()?;
    let mut end = Vec::new();
    file.take(MOST_LOG).read_to_end(&mut end).ok()?;
    Some(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::history::{EndedRun, NewRun};

    #[test]
    fn a_run_is_found_by_the_begin_of_its_id() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            list(dir.path(), &RunListRequest::default()).unwrap().len(),
            0
        );
        assert!(show(dir.path(), "01").unwrap_err().is_request());
        let history = History::open(dir.path()).unwrap();
        let ids = ["01ARYZ6S410000000000000000", "01ARYZ6S420000000000000000"];
        for id in ids {
            let run = NewRun {
                id: id.to_owned(),
                kind: "verify".to_owned(),
                trigger: "api".to_owned(),
                started_at: DateTime::UNIX_EPOCH,
                pid: 1,
                pid_started: 0,
                note: Some("why".to_owned()),
            };
            history.begin_run(&run).unwrap();
            let end = EndedRun {
                ended_at: DateTime::UNIX_EPOCH,
                outcome: "partial".to_owned(),
                exit_code: Some(3),
                stamp: None,
                sequence: Some(7),
                message: "m".to_owned(),
                report: Some("{\"id\":1}".to_owned()),
            };
            history.end_run(id, &end).unwrap();
        }
        let shown = show(dir.path(), "01aryz6s42").unwrap();
        assert_eq!(shown.run.id, ids[1]);
        assert_eq!(shown.report, Some(serde_json::json!({ "id": 1 })));
        assert_eq!((shown.log, shown.log_path), (None, None));
        for start in ["01ARYZ6S4", "01ARYZ6S43", "", "%", "01ARYZ6S4_"] {
            let error = show(dir.path(), start).unwrap_err();
            assert!(error.is_request() && error.next().is_some(), "{start}");
        }
        let path = log_path(dir.path(), ids[0]).unwrap();
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let text = format!("first\n{}\nlast\n", "x".repeat(MOST_LOG as usize));
        std::fs::write(&path, text).unwrap();
        let log = show(dir.path(), ids[0]).unwrap().log.unwrap();
        assert!(log.len() as u64 == MOST_LOG && log.ends_with("last\n"));
    }
}
