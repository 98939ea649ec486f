//! Notifications of a run that no agent watches: one by hand, or of a timer.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rustix::fs::{FlockOperation, flock};

use super::deliver::deliver_within;
use super::edges::EdgeTiming;
use super::evaluate::evaluate_with;
use crate::base::error_chain::with_causes;
use crate::config::Config;
use crate::jobs::verdict::Verdict;
use crate::state::history::{History, HistoryError, RunRow};

/// How long a run waits at its end until its messages are sent.
const DEADLINE: Duration = Duration::from_secs(20);
/// The file in the state directory that the agent locks while it serves.
const AGENT_LOCK: &str = "serve.lock";

/// Returns whether an agent serves the state directory: it sends the messages then.
pub(crate) fn agent_is_running(state: &Path) -> bool {
    let Ok(file) = File::open(state.join(AGENT_LOCK)) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Sends the messages of one run. Nothing here fails the run: [`Self::ended`] returns warnings.
#[derive(Debug)]
pub(crate) struct RunNotifier<'a> {
    config: &'a Config,
}

impl<'a> RunNotifier<'a> {
    /// Returns the notifier of a run whose begin is not sent.
    pub(crate) fn of(config: &'a Config) -> Self {
        Self { config }
    }

    /// Notes the begin of the run `row`, whose row is in the history, and sends it on a thread of
    /// its own, so that the run does not wait. `verdict`: as it is before the run.
    pub(crate) fn began(
        config: &'a Config,
        verdict: &Verdict,
        row: &RunRow,
        now: DateTime<Utc>,
    ) -> Self {
        let notifier = Self { config };
        if config.channels.is_empty() || agent_is_running(&config.state) {
            return notifier;
        }
        // If this fails, so does the end, which reports it.
        let evaluated = History::open(&config.state).and_then(|history| {
            let of = (verdict, Some(row));
            evaluate_with(config, &history, of, EdgeTiming::Settled, now)
        });
        if evaluated.is_ok() {
            let config = config.clone();
            let thread = std::thread::Builder::new().name("notify".to_owned());
            // What is not sent is in the outbox, and the end of the run sends it.
            let _ = thread.spawn(move || {
                if let Ok(history) = History::open(&config.state) {
                    let _ = deliver_within(&config, &history, now, None);
                }
            });
        }
        notifier
    }

    /// Sends what the end of the run `row` brings, for at most 20 seconds; what is left stays in
    /// the outbox. `verdict`: as it is after the run. Returns what the operator should know.
    pub(crate) fn ended(
        self,
        verdict: &Verdict,
        row: Option<&RunRow>,
        now: DateTime<Utc>,
    ) -> Vec<String> {
        let config = self.config;
        if config.channels.is_empty() || agent_is_running(&config.state) {
            return Vec::new();
        }
        match self.finish(verdict, row, now) {
            Ok(warnings) => warnings,
            Err(error) => vec![format!("no message is sent: {}", with_causes(&error))],
        }
    }

    fn finish(
        self,
        verdict: &Verdict,
        row: Option<&RunRow>,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, HistoryError> {
        let deadline = Instant::now() + DEADLINE;
        let history = History::open(&self.config.state)?;
        let of = (verdict, row);
        evaluate_with(self.config, &history, of, EdgeTiming::AtOnce, now)?;
        // The thread of the begin holds the lock of the outbox while it sends.
        let report = deliver_within(self.config, &history, now, Some(deadline))?;
        let warnings = report.failed.into_iter().map(|(channel, error)| {
            format!(
                "no message reached {channel}: {error}; it stays in the outbox (sealift notify test {channel})"
            )
        });
        Ok(warnings.collect())
    }
}
