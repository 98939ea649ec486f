//! The history as the scheduler uses it. While it cannot be used, the scheduler goes on with what
//! it remembers itself: no backup waits for a history.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::base::error_chain::with_causes;
use crate::serve::log::AgentLog;
use crate::state::history::{History, HistoryError, JobState, NewRun};

/// The history, and what replaces it while it cannot be used.
pub(super) struct RunJournal {
    dir: PathBuf,
    history: Option<History>,
    /// Occurrences that were handled, by job, as far as the history does not know of them.
    handled: BTreeMap<String, DateTime<Utc>>,
    /// Whether the last use failed.
    is_broken: bool,
    log: Arc<dyn AgentLog>,
}

impl RunJournal {
    /// A journal in the state directory `dir`.
    pub(super) fn new(dir: PathBuf, log: Arc<dyn AgentLog>) -> Self {
        Self {
            dir,
            history: None,
            handled: BTreeMap::new(),
            is_broken: false,
            log,
        }
    }

    /// Uses the history. `None`: that failed, which is logged once.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&History) -> Result<T, HistoryError>,
    ) -> Option<T> {
        let done = self.opened().and_then(work);
        match done {
            Ok(value) => {
                self.is_broken = false;
                Some(value)
            }
            Err(error) => {
                if !self.is_broken {
                    self.log.warn("history_failed", with_causes(&error));
                }
                // It is opened again, which replaces a damaged one.
                (self.is_broken, self.history) = (true, None);
                None
            }
        }
    }

    fn opened(&mut self) -> Result<&History, HistoryError> {
        let history = match self.history.take() {
            Some(history) => history,
            None => {
                let history = History::open(&self.dir)?;
                if let Some(aside) = &history.replaced {
                    let aside = aside.display();
                    let text =
                        format!("the history was damaged and is now {aside}; a new one was begun");
                    self.log.warn("history_replaced", text);
                }
                history
            }
        };
        Ok(self.history.insert(history))
    }

    /// Returns the state of a job; `None` before its first occurrence.
    pub(super) fn job(&mut self, name: &str) -> Option<JobState> {
        let recorded = self.with(|history| history.job(name)).flatten();
        let Some(handled) = self.handled.get(name).copied() else {
            return recorded;
        };
        if recorded.is_some_and(|job| job.handled >= handled) {
            self.handled.remove(name);
            return recorded;
        }
        let written = self.with(|history| history.skip_occurrences(name, handled));
        if written.is_some() {
            self.handled.remove(name);
        }
        let of_recorded = |of: fn(JobState) -> Option<DateTime<Utc>>| recorded.and_then(of);
        Some(JobState {
            handled,
            started_at: of_recorded(|job| job.started_at),
            ended_at: of_recorded(|job| job.ended_at),
        })
    }

    /// Records that the occurrences of `job` up to `handled` need no run.
    pub(super) fn skip(&mut self, job: &str, handled: DateTime<Utc>) {
        if self
            .with(|history| history.skip_occurrences(job, handled))
            .is_none()
        {
            self.handled.insert(job.to_owned(), handled);
        }
    }

    /// Makes the occurrences of `job` after `handled` due again.
    pub(super) fn reset(&mut self, job: &str, handled: DateTime<Utc>) {
        if self
            .with(|history| history.reset_occurrences(job, handled))
            .is_none()
        {
            self.handled.insert(job.to_owned(), handled);
        }
    }

    /// Records the begin of a run, and that the occurrences `jobs` are handled. Returns false if
    /// another process was quicker.
    pub(super) fn begin(&mut self, run: &NewRun, jobs: &[(String, DateTime<Utc>)]) -> bool {
        let named: Vec<_> = jobs.iter().map(|(name, at)| (name.as_str(), *at)).collect();
        let begun = self.with(|history| match named.as_slice() {
            [] => history.begin_run(run).map(|()| true),
            named => history.begin_due_run(run, named),
        });
        begun.unwrap_or_else(|| {
            self.handled.extend(jobs.iter().cloned());
            true
        })
    }
}
