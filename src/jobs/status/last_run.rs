//! The newest run, from the catalog and from the file that a run can write on a full disk.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::base::clock;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::state::catalog::{Catalog, RunRecord};
use crate::state::run_file::{RunFile, RunOutcome};

/// The outcome of a run that is under way.
pub(crate) const RUNNING: &str = "running";
/// The outcome of a run that was killed.
pub(crate) const UNFINISHED: &str = "unfinished";

/// A run of `backup` or `push`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LastRun {
    pub(crate) started_at: Option<DateTime<Utc>>,
    /// `None` if the run has not ended.
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// `complete`, `partial`, `failed`, `interrupted`, `running`, or `unfinished`: it was killed.
    pub(crate) outcome: Option<String>,
    /// Why the run failed and the next step, or what it left out.
    pub(crate) message: Option<String>,
    /// The process of a run that is under way.
    pub(crate) pid: Option<u32>,
    /// Only targets lack something.
    #[serde(skip)]
    pub(crate) is_only_behind: bool,
}

impl LastRun {
    /// Returns the run as the catalog has it.
    pub(super) fn of_row(row: RunRecord) -> Self {
        Self {
            outcome: row.outcome.or_else(|| Some(UNFINISHED.to_owned())),
            started_at: time(row.started_at),
            ended_at: time(row.ended_at),
            message: row.message,
            pid: None,
            is_only_behind: false,
        }
    }

    /// Whether the run needs attention.
    pub(crate) fn has_failed(&self) -> bool {
        let outcome = self.outcome.as_deref();
        let is_good = |outcome| outcome == RunOutcome::Complete.as_str() || outcome == RUNNING;
        !outcome.is_some_and(is_good)
    }
}

/// Returns the newest run; `None` before the first.
pub(super) fn read(
    config: &Config,
    catalog: Option<&Catalog>,
) -> Result<Option<LastRun>, JobError> {
    let row = catalog.map(Catalog::last_run).transpose()?.flatten();
    let file = RunFile::read(&config.state);
    let file = file.filter(|file| row.as_ref().is_none_or(|row| is_as_new(file, row)));
    Ok(match (file, row) {
        (Some(file), row) => Some(of_file(file, row, config)),
        (None, Some(row)) => Some(LastRun::of_row(row)),
        (None, None) => None,
    })
}

/// Returns when the newest run that was complete began, by the file alone.
pub(super) fn last_complete(config: &Config) -> Option<DateTime<Utc>> {
    time(RunFile::read(&config.state)?.newest_complete())
}

/// Returns the recorded time, in whole seconds.
pub(super) fn time(text: Option<String>) -> Option<DateTime<Utc>> {
    text.as_deref().and_then(clock::recorded)
}

/// Whether the file is about the run of `row`, or a later one.
fn is_as_new(file: &RunFile, row: &RunRecord) -> bool {
    match file.run {
        Some(run) => run >= row.id,
        // It failed before the catalog gave it a number.
        None => row
            .started_at
            .as_ref()
            .is_none_or(|at| *at <= file.started_at),
    }
}

fn of_file(file: RunFile, row: Option<RunRecord>, config: &Config) -> LastRun {
    let is_running = file.is_running(&config.state);
    let row = row.filter(|row| file.run == Some(row.id));
    let known = row.as_ref().and_then(|row| row.outcome.clone());
    let outcome = match file.outcome {
        Some(outcome) => outcome.as_str().to_owned(),
        None if is_running => RUNNING.to_owned(),
        // The file could not be written at the end.
        None => known.unwrap_or_else(|| UNFINISHED.to_owned()),
    };
    let of_row = row.filter(|_| file.outcome.is_none() && !is_running);
    let (ended_at, message) = match of_row {
        Some(row) => (row.ended_at, row.message),
        None => (file.ended_at, Some(file.message)),
    };
    LastRun {
        started_at: time(Some(file.started_at)),
        ended_at: time(ended_at),
        outcome: Some(outcome),
        message,
        pid: is_running.then_some(file.pid),
        is_only_behind: file.is_only_behind,
    }
}
