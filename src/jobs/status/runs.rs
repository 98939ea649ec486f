//! The facts about runs: how the last backup ended, and which runs are under way.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::last_run::{LastRun, RUNNING, UNFINISHED};
use crate::base::clock;
use crate::jobs::error::JobError;
use crate::jobs::verdict::observed::{ObservedOpenRun, ObservedRun, RunEnding};
use crate::state::catalog::Catalog;
use crate::state::history::{History, HistoryError, RunFilter, RunRow};
use crate::state::run_file::RunOutcome;

/// The command that makes snapshots.
const BACKUP: &str = "backup";
/// The commands whose newest run the state directory records.
const PUSHES: [&str; 3] = [BACKUP, "push", "catch_up"];
/// Complete runs that say how long one usually takes.
const USUAL_RUNS: u32 = 10;
/// Most runs that ended in the same way to look at.
const MOST_ROWS: u32 = 1000;
/// A run begins in the history and in the catalog within this time.
const SAME_RUN: TimeDelta = TimeDelta::seconds(60);
/// Begins the next step in the message of a run.
const NEXT: &str = ". Next: ";

/// Returns the newest backup that ended. A push by hand counts if the history does not know that it
/// was one.
pub(super) fn last_backup(
    history: Option<&History>,
    catalog: Option<&Catalog>,
    last_run: Option<&LastRun>,
) -> Result<Option<ObservedRun>, JobError> {
    let rows = match history {
        Some(history) => history.runs(&RunFilter {
            is_ended: true,
            limit: Some(MOST_ROWS),
            ..RunFilter::default()
        })?,
        None => Vec::new(),
    };
    let ended = match last_run {
        Some(run) if run.outcome.as_deref() != Some(RUNNING) => Some(run.clone()),
        Some(_) => ended_before(catalog)?,
        None => None,
    };
    let row_of = |run: &LastRun| {
        let began = run.started_at?;
        rows.iter().find(|row| {
            let is_push = PUSHES.contains(&row.run.kind.as_str());
            is_push && (row.run.started_at - began).abs() < SAME_RUN
        })
    };
    let backups = || rows.iter().filter(|row| row.run.kind == BACKUP);
    let newest = backups().next();
    let recorded = ended.filter(|run| match (row_of(run), newest) {
        // Another command, such as a push by hand.
        (Some(row), _) => row.run.kind == BACKUP,
        (None, Some(newest)) => run.started_at >= Some(newest.run.started_at),
        (None, None) => true,
    });
    let row = recorded.as_ref().map_or(newest, row_of);
    let mut observed = match (&recorded, row) {
        (Some(run), row) => of_record(run, row),
        (None, Some(row)) => of_row(row),
        (None, None) => return Ok(None),
    };
    let same = |row: &&RunRow| {
        let newest = newest.and_then(|newest| newest.end.as_ref());
        row.end.as_ref().zip(newest).is_some_and(|(one, newest)| {
            (&one.outcome, &one.message) == (&newest.outcome, &newest.message)
        })
    };
    if row.map(|row| &row.run.id) == newest.map(|row| &row.run.id) {
        let first = backups().take_while(same).last();
        let since = first.and_then(|row| Some(row.end.as_ref()?.ended_at));
        observed.since = since.or(observed.since);
    }
    Ok(Some(observed))
}

/// Returns the newest run of the catalog that ended.
fn ended_before(catalog: Option<&Catalog>) -> Result<Option<LastRun>, JobError> {
    let row = catalog.map(Catalog::last_ended_run).transpose()?.flatten();
    Ok(row.map(LastRun::of_row))
}

fn of_record(run: &LastRun, row: Option<&RunRow>) -> ObservedRun {
    let outcome = run.outcome.as_deref().unwrap_or(UNFINISHED);
    let is_outcome = |one: RunOutcome| outcome == one.as_str();
    let ending = match outcome {
        _ if is_outcome(RunOutcome::Complete) => RunEnding::Complete,
        _ if is_outcome(RunOutcome::Partial) => partial(row, run.is_only_behind),
        _ if is_outcome(RunOutcome::Interrupted) => RunEnding::Interrupted,
        UNFINISHED => RunEnding::Killed,
        _ => RunEnding::Failed,
    };
    let message = run.message.clone().unwrap_or_default();
    observed(ending, run.ended_at.or(run.started_at), message)
}

fn of_row(row: &RunRow) -> ObservedRun {
    let Some(end) = &row.end else {
        return observed(RunEnding::Killed, Some(row.run.started_at), String::new());
    };
    let ending = match end.outcome.as_str() {
        "complete" => RunEnding::Complete,
        "partial" => partial(Some(row), false),
        "cancelled" => RunEnding::Interrupted,
        "killed" => RunEnding::Killed,
        _ => RunEnding::Failed,
    };
    observed(ending, Some(end.ended_at), end.message.clone())
}

fn observed(ending: RunEnding, since: Option<DateTime<Utc>>, message: String) -> ObservedRun {
    let (message, next) = match message.split_once(NEXT) {
        Some((message, next)) => (message.to_owned(), Some(next.to_owned())),
        None => (message, None),
    };
    ObservedRun {
        ending,
        since: since.map(clock::in_seconds),
        message,
        next,
    }
}

/// Returns how a run ended that was partial: by its report, or else as the run recorded it.
fn partial(row: Option<&RunRow>, is_only_behind: bool) -> RunEnding {
    let report = row.and_then(|row| row.end.as_ref()?.report.as_deref());
    let report = report.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let is_only_behind = match report {
        Some(report) => {
            let is_empty = |name: &str| report[name].as_array().is_some_and(Vec::is_empty);
            report["skipped_paths"] == 0 && is_empty("left_out") && is_empty("warnings")
        }
        None => is_only_behind,
    };
    match is_only_behind {
        true => RunEnding::TargetsBehind,
        false => RunEnding::Partial,
    }
}

/// Returns the runs that are under way.
pub(super) fn open_runs(
    history: Option<&History>,
    now: DateTime<Utc>,
) -> Result<Vec<ObservedOpenRun>, HistoryError> {
    let Some(history) = history else {
        return Ok(Vec::new());
    };
    let mut open = Vec::new();
    for row in history.open_runs()? {
        if row.run.started_at > now || !exists(row.run.pid) {
            continue;
        }
        open.push(ObservedOpenRun {
            usual: usual(history, &row.run.kind)?,
            started_at: clock::in_seconds(row.run.started_at),
            id: row.run.id,
            kind: row.run.kind,
        });
    }
    Ok(open)
}

fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        // Without permission to signal it, it exists.
        let probed = rustix::process::test_kill_process(pid);
        !matches!(probed, Err(rustix::io::Errno::SRCH))
    })
}

/// Returns the median time of the last complete runs of this kind; `None`: there was none.
fn usual(history: &History, kind: &str) -> Result<Option<TimeDelta>, HistoryError> {
    let rows = history.runs(&RunFilter {
        kind: Some(kind.to_owned()),
        outcome: Some("complete".to_owned()),
        is_ended: true,
        limit: Some(USUAL_RUNS),
        ..RunFilter::default()
    })?;
    let took = rows.iter();
    let took = took.filter_map(|row| Some(row.end.as_ref()?.ended_at - row.run.started_at));
    let mut took: Vec<TimeDelta> = took.collect();
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied())
}
