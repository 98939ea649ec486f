//! The record of one run of `backup` or `push`: in the catalog, and in a file that can be written
//! on a full disk and when the run is interrupted.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::report::BackupReport;
use crate::base::cleanup::CleanupGuard;
use crate::base::clock;
use crate::base::units::count;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::state::catalog::{Catalog, CatalogError};
use crate::state::run_file::{RunFile, RunOutcome};
use crate::state::staged_snapshot::LeftOut;
use crate::state::{self, State, StateError};
use crate::storage::is_full;

/// Skipped paths that the record names.
const NAMED_PATHS: usize = 3;
/// The file that lists everything the last run skipped.
const SKIPPED: &str = "run.skipped";

/// A run that has begun.
pub(super) struct OngoingRun {
    dir: PathBuf,
    file: RunFile,
    /// Records the interruption, unless the run ends before.
    interrupted: CleanupGuard,
}

impl OngoingRun {
    /// Records the begin of a run of this process.
    pub(super) fn begin(state: &State) -> Result<Self, JobError> {
        let now = clock::now();
        end_interrupted(state)?;
        let file = RunFile {
            run: Some(state.catalog.begin_run(now)?),
            ..new_file(&state.dir, now)
        };
        // Without room for it the catalog alone has the run.
        let _ = file.write(&state.dir);
        let (dir, mut ended) = (state.dir.clone(), file.clone());
        let interrupted = CleanupGuard::register(move || {
            end(&mut ended, RunOutcome::Interrupted, String::new());
            match ended.write(&dir) {
                Ok(()) => "`sealift status` shows the interrupted run".to_owned(),
                Err(error) => format!("the interruption could not be recorded: {error}"),
            }
        });
        Ok(Self {
            dir: state.dir.clone(),
            file,
            interrupted,
        })
    }

    /// Returns the run's number in the catalog.
    pub(super) fn number(&self) -> Option<i64> {
        self.file.run
    }

    /// Records how the run ended.
    pub(super) fn end(
        mut self,
        catalog: &Catalog,
        done: &Result<BackupReport, JobError>,
    ) -> Result<(), JobError> {
        self.interrupted.take();
        let (stamp, outcome, message) = match done {
            Ok(report) if report.is_everywhere() => {
                (Some(report.stamp), RunOutcome::Complete, String::new())
            }
            Ok(report) => {
                let outcome = match report.is_published_somewhere() {
                    true => RunOutcome::Partial,
                    false => RunOutcome::Failed,
                };
                let message = missing_parts(&self.dir, report);
                (Some(report.stamp), outcome, message)
            }
            Err(error) => (None, RunOutcome::Failed, failure_text(error)),
        };
        self.file.is_only_behind = done.as_ref().is_ok_and(|report| {
            outcome == RunOutcome::Partial
                && report.left_out.is_empty()
                && report.other_skipped().is_empty()
                && report.warnings.is_empty()
        });
        end(&mut self.file, outcome, message.clone());
        let _ = self.file.write(&self.dir);
        let Some(run) = self.file.run else {
            return Ok(());
        };
        Ok(catalog.end_run(run, clock::now(), stamp, outcome.as_str(), &message)?)
    }
}

/// Records a run that failed before it began, such as for a configuration that is wrong. If another
/// process is at work, it holds the lock, and its own record stays.
pub(super) fn record_failure(config: &Config, started: DateTime<Utc>, error: &JobError) {
    let state_error = error.error().downcast_ref::<StateError>();
    if matches!(state_error, Some(StateError::Locked(_))) || !config.state.is_dir() {
        return;
    }
    let Ok(_locked) = state::lock(&config.state) else {
        return;
    };
    let newest = RunFile::read(&config.state);
    let own = std::process::id();
    // A run that had begun has recorded its end. In a container each run has the same number.
    let is_recorded = newest.is_some_and(|run| {
        let begun = DateTime::parse_from_rfc3339(&run.started_at);
        run.pid == own && run.ended_at.is_some() && begun.is_ok_and(|begun| begun >= started)
    });
    if is_recorded {
        return;
    }
    let mut file = new_file(&config.state, started);
    end(&mut file, RunOutcome::Failed, failure_text(error));
    let _ = file.write(&config.state);
}

fn new_file(dir: &Path, now: DateTime<Utc>) -> RunFile {
    RunFile {
        run: None,
        pid: std::process::id(),
        started_at: now.to_rfc3339(),
        ended_at: None,
        outcome: None,
        message: String::new(),
        complete_before: RunFile::read(dir).and_then(RunFile::newest_complete),
        is_only_behind: false,
    }
}

fn end(file: &mut RunFile, outcome: RunOutcome, message: String) {
    file.ended_at = Some(clock::now().to_rfc3339());
    file.outcome = Some(outcome);
    file.message = message;
}

/// Gives the catalog the end of the run before, if only the file has it.
fn end_interrupted(state: &State) -> Result<(), JobError> {
    let Some(file) = RunFile::read(&state.dir) else {
        return Ok(());
    };
    if let (Some(run), Some(outcome), Some(ended)) = (file.run, file.outcome, &file.ended_at)
        && let Ok(ended) = DateTime::parse_from_rfc3339(ended)
    {
        let (outcome, message) = (outcome.as_str(), &file.message);
        state
            .catalog
            .end_unended_run((run, &file.started_at), ended.to_utc(), outcome, message)?;
    }
    Ok(())
}

/// Returns the error, its causes and the next step in one line.
fn failure_text(error: &JobError) -> String {
    let next = match error.next() {
        Some(next) => Some(next),
        None if is_full(error.error()) || is_catalog_failure(error) => {
            Some("make room there (disk or quota), then run it again")
        }
        None => None,
    };
    let next = next.map_or_else(String::new, |next| format!(". Next: {next}"));
    format!("{}{next}", error.with_causes())
}

/// Whether the catalog could not be used for a reason outside of it: its disk, most likely.
fn is_catalog_failure(error: &JobError) -> bool {
    let error = error.error();
    let catalog = match error.downcast_ref::<StateError>() {
        Some(StateError::Catalog(catalog)) => Some(catalog),
        _ => error.downcast_ref::<CatalogError>(),
    };
    matches!(
        catalog,
        Some(CatalogError::Sqlite { .. } | CatalogError::DiskFull { .. })
    )
}

/// Returns what the snapshot or a target lacks, in one line. Everything that was skipped is listed
/// in a file.
fn missing_parts(dir: &Path, report: &BackupReport) -> String {
    let lack = |one: &LeftOut| format!("without {}: {}", one.source, one.cause);
    let mut parts: Vec<String> = report.left_out.iter().map(lack).collect();
    let skipped = report.other_skipped();
    if !skipped.is_empty() {
        let names = skipped.iter().take(NAMED_PATHS);
        let names: Vec<String> = names.map(|one| format!("{:?}", one.path)).collect();
        let more = match skipped.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let lines = skipped
            .iter()
            .map(|one| format!("{:?}: {}\n", one.path, one.reason));
        let listed = dir.join(SKIPPED);
        let text: String = lines.collect();
        let listed = match crate::base::fs::write_atomic(&listed, text.as_bytes(), 0o600) {
            Ok(()) => format!("; all of them, with reasons: {}", listed.display()),
            Err(_) => String::new(),
        };
        let number = count(skipped.len() as u64, "path");
        parts.push(format!(
            "skipped {number}: {}{more}{listed}",
            names.join(", ")
        ));
    }
    let behind = report.targets.iter();
    parts.extend(behind.filter_map(|target| {
        let cause = target.cause.as_ref()?;
        Some(format!("{} is behind: {cause}", target.name))
    }));
    parts.extend(report.warnings.first().cloned());
    parts.join("; ")
}
