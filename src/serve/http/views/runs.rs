//! Runs as the API shows them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::super::problem::HttpProblem;
use super::history;
use crate::config::Config;
use crate::state::history::{RunFilter, RunRow};

/// Length of a run's id.
const ULID: usize = 26;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct RunView {
    pub(in super::super) id: String,
    pub(in super::super) kind: String,
    pub(in super::super) trigger: String,
    pub(in super::super) started_at: DateTime<Utc>,
    /// `None`, as the next two: it is under way.
    pub(in super::super) ended_at: Option<DateTime<Utc>>,
    pub(in super::super) outcome: Option<String>,
    pub(in super::super) exit_code: Option<i32>,
    pub(in super::super) stamp: Option<String>,
    pub(in super::super) sequence: Option<u64>,
    /// Why it failed, or what is missing; empty: nothing.
    pub(in super::super) message: String,
    pub(in super::super) note: Option<String>,
}

impl From<&RunRow> for RunView {
    fn from(row: &RunRow) -> Self {
        let (run, end) = (&row.run, row.end.as_ref());
        Self {
            id: run.id.clone(),
            kind: run.kind.clone(),
            trigger: run.trigger.clone(),
            started_at: run.started_at,
            ended_at: end.map(|end| end.ended_at),
            outcome: end.map(|end| end.outcome.clone()),
            exit_code: end.and_then(|end| end.exit_code),
            stamp: end.and_then(|end| end.stamp.clone()),
            sequence: end.and_then(|end| end.sequence),
            message: end.map_or_else(String::new, |end| end.message.clone()),
            note: run.note.clone(),
        }
    }
}

/// One run with its report.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct FullRunView {
    #[serde(flatten)]
    pub(in super::super) run: RunView,
    /// As docs/events.md has it. `None`: it is under way, or it ended without one.
    pub(in super::super) report: Option<Value>,
}

/// Returns the runs of `filter`, newest first.
pub(in super::super) fn list(
    config: &Config,
    filter: &RunFilter,
) -> Result<Vec<RunView>, HttpProblem> {
    let rows = match history(config)? {
        Some(history) => history.runs(filter)?,
        None => Vec::new(),
    };
    Ok(rows.iter().map(RunView::from).collect())
}

/// Returns the row of the run `id`.
pub(in super::super) fn row(config: &Config, id: &str) -> Result<Option<RunRow>, HttpProblem> {
    match history(config)? {
        Some(history) if is_id(id) => Ok(history.run(id)?),
        _ => Ok(None),
    }
}

/// Returns the run `id`.
pub(in super::super) fn find(config: &Config, id: &str) -> Result<FullRunView, HttpProblem> {
    let row = row(config, id)?.ok_or_else(|| unknown(id))?;
    let report = row.end.as_ref().and_then(|end| end.report.as_deref());
    Ok(FullRunView {
        run: RunView::from(&row),
        report: report.and_then(|text| serde_json::from_str(text).ok()),
    })
}

/// Whether `text` has the form of a run's id, and so is safe as the name of a file.
pub(in super::super) fn is_id(text: &str) -> bool {
    text.len() == ULID && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The answer for an id that the history does not have.
pub(in super::super) fn unknown(id: &str) -> HttpProblem {
    let shown: String = id.chars().take(ULID).collect();
    HttpProblem::not_found("no_such_run", format!("no run {shown:?} is in the history"))
        .with_next("/api/v1/runs names the runs")
}
