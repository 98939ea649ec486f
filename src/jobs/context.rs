//! What every job needs: its front end, the state directory, a runtime.
//!
//! A job prints nothing. While it runs, it reports to a [`FrontEnd`]; what came of it is its
//! report.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::JobError;
use super::run_report::RunReport;
use crate::base::ids::Stamp;
use crate::base::progress::{Progress, Stage};
use crate::base::scratch_dir::ScratchDir;
use crate::base::units::duration;
use crate::config::Config;
use crate::state::catalog::Catalog;
use crate::state::{State, StateError};

/// Time between two looks at a lock that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Receives the messages and the progress of a job while it runs.
pub(crate) trait FrontEnd: Sync {
    /// Shows a warning at once: something may be wrong.
    fn warn(&self, text: &str);
    /// Shows a note at once: nothing needs attention.
    fn note(&self, text: &str);
    /// Shows what the job does until it shows something else; `subject`: the source or target.
    fn stage(&self, stage: Stage, subject: Option<&str>);
    /// Shows how many bytes the job has moved in the stage that is shown, of those to come if their
    /// number is known.
    fn stage_bytes(&self, bytes: u64, bytes_total: Option<u64>);
    /// The snapshot `stamp` is in `dir`, validated and not on any target yet; `metadata` is the
    /// content of its `backup-metadata.json`.
    fn snapshot_ready(&self, stamp: Stamp, dir: &Path, metadata: &serde_json::Value);
    /// Begins to show a push.
    fn show_push(&self) -> Display;
    /// Begins to show `bytes` being copied or read, as `stage` says; `subject`: of which host or
    /// target.
    fn show_transfer(&self, stage: Stage, subject: &str, bytes: u64) -> Display;
    /// Begins to show a restore.
    fn show_restore(&self) -> Display;
    /// Returns the report of the run, as it began.
    fn run_report(&self) -> RunReport;
    /// Notes that the state directory `dir` is there and locked for this process.
    fn state_opened(&self, dir: &Path);
}

/// A display of progress, which ends when this is dropped.
pub(crate) struct Display {
    /// Receives the progress.
    pub(crate) progress: Arc<dyn Progress>,
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Display {
    /// A display of `progress` that `end` takes away.
    pub(crate) fn new(
        progress: Arc<dyn Progress>,
        end: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self {
            progress,
            end: Some(Box::new(end)),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

/// Opens and locks the state directory, and warns if other users can look into it.
pub(crate) fn open_state(config: &Config, front: &dyn FrontEnd) -> Result<State, JobError> {
    open_state_within(config, Duration::ZERO, front)
}

/// Does the same. If another process holds the lock, waits for it for at most `wait`, and says so.
pub(crate) fn open_state_within(
    config: &Config,
    wait: Duration,
    front: &dyn FrontEnd,
) -> Result<State, JobError> {
    let began = Instant::now();
    let mut is_said = false;
    let state = loop {
        match State::open(&config.state) {
            Err(StateError::Locked(holder)) if began.elapsed() < wait => {
                if !std::mem::replace(&mut is_said, true) {
                    let most = duration(wait);
                    front.note(&format!("{holder}; waiting for it, at most {most}"));
                }
                let left = wait.saturating_sub(began.elapsed());
                std::thread::sleep(LOOK_EVERY.min(left));
            }
            other => break other?,
        }
    };
    front.state_opened(&state.dir);
    for warning in &state.warnings {
        front.warn(warning);
    }
    Ok(state)
}

/// Opens the catalog without locking the state directory, since a backup may be running. Returns
/// `None` before the first backup.
pub(crate) fn open_catalog(config: &Config) -> Result<Option<Catalog>, JobError> {
    let path = config.state.join("catalog.db");
    Ok(path.exists().then(|| Catalog::open(&path)).transpose()?)
}

/// Opens the catalog to look into it, and changes nothing. Returns `None` before the first backup.
pub(crate) fn look_into_catalog(config: &Config) -> Result<Option<Catalog>, JobError> {
    Ok(Catalog::open_to_look(&config.state.join("catalog.db"))?)
}

/// Makes a temporary directory for the job `verb`, in `parent` if the operator chose one.
pub(crate) fn scratch_dir(verb: &str, parent: Option<&Path>) -> Result<ScratchDir, JobError> {
    ScratchDir::make(verb, parent).map_err(|error| {
        JobError::from(error).with_next("name a directory of your own with --scratch")
    })
}

/// Returns a small runtime for a job that mostly waits for targets.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, JobError> {
    crate::base::runtime::runtime().map_err(JobError::from)
}
