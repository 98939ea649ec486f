//! What follows from a change: a run began or ended, or a minute passed. The verdict is made again,
//! messages are decided and sent, the metrics are written to a file, and each day old runs are
//! forgotten.
//!
//! It happens on a thread that may block, one change after another, so that the scheduler never
//! waits for a network or a disk. A change that comes while many wait is dropped: what is decided
//! depends on the rows of the history, and the next change finds them.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use tokio::sync::{broadcast, mpsc};

use super::handle::AgentEvent;
use super::log::AgentLog;
use super::metrics::textfile::write_textfile;
use super::own_facts::metric_facts;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::notify::{deliver, evaluate};
use crate::jobs::run_history::forget;
use crate::jobs::status::remembered_verdict;
use crate::jobs::verdict::Verdict;
use crate::state::history::{History, RunRow};

/// Changes that wait.
const MOST_WAITING: usize = 64;

/// A change.
pub(super) struct Change {
    pub(super) config: Arc<Config>,
    /// The run that began or ended. `None`: a minute passed.
    pub(super) run: Option<RunRow>,
    pub(super) now: DateTime<Utc>,
}

/// Takes changes. A clone takes them, too.
#[derive(Clone)]
pub(super) struct Aftermath {
    changes: mpsc::Sender<Change>,
    events: broadcast::Sender<AgentEvent>,
}

impl Aftermath {
    /// Begins to take changes. Call it within the runtime of the agent.
    pub(super) fn start(events: broadcast::Sender<AgentEvent>, log: Arc<dyn AgentLog>) -> Self {
        let (changes, mut waiting) = mpsc::channel::<Change>(MOST_WAITING);
        let followers = events.clone();
        tokio::spawn(async move {
            let mut forgotten_on = None;
            while let Some(change) = waiting.recv().await {
                let log = Arc::clone(&log);
                let done = tokio::task::spawn_blocking(move || {
                    forgotten_on = follow(&change, forgotten_on, &log);
                    forgotten_on
                });
                // A panic is in the log of the process; the next change is still followed.
                forgotten_on = done.await.unwrap_or(forgotten_on);
                // Without followers there is no receiver.
                let _ = followers.send(AgentEvent::Verdict);
            }
        });
        Self { changes, events }
    }

    /// Takes a change. Waits for nothing.
    pub(super) fn take(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            let _ = self.events.send(AgentEvent::Verdict);
        }
    }
}

/// Does all that follows from `change`. Returns the day on which old runs were last forgotten.
fn follow(
    change: &Change,
    forgotten_on: Option<NaiveDate>,
    log: &Arc<dyn AgentLog>,
) -> Option<NaiveDate> {
    if let Err(error) = notify_and_write(change) {
        log.warn("verdict", error.with_causes());
    }
    let today = change.now.date_naive();
    if forgotten_on == Some(today) {
        return forgotten_on;
    }
    match forget_old(change) {
        Ok(()) => Some(today),
        Err(error) => {
            log.warn("history", error.with_causes());
            forgotten_on
        }
    }
}

fn notify_and_write(change: &Change) -> Result<(), JobError> {
    let (config, now) = (&*change.config, change.now);
    let Some(history) = History::open_existing(&config.state)? else {
        return Ok(());
    };
    let verdict = remembered_verdict(config, now)?;
    if !config.channels.is_empty() {
        evaluate(config, &history, &verdict, change.run.as_ref(), now)?;
        deliver(config, &history, now)?;
    }
    write_metrics(config, &verdict, now)
}

/// Writes the metrics to the file that the configuration names, if it names one.
pub(crate) fn write_metrics(
    config: &Config,
    verdict: &Verdict,
    now: DateTime<Utc>,
) -> Result<(), JobError> {
    match &config.serve.textfile {
        Some(path) => write_textfile(path, &metric_facts(config, None, now)?, verdict),
        None => Ok(()),
    }
}

fn forget_old(change: &Change) -> Result<(), JobError> {
    let Some(history) = History::open_existing(&change.config.state)? else {
        return Ok(());
    };
    forget(&history, &change.config.serve.history, change.now).map(drop)
}
