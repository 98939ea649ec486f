//! What the agent reports to systemd, if that started it (`sd_notify`).

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How long the agent asks to be left alone while its children end.
const EXTENSION: Duration = Duration::from_secs(60);

/// The service manager. Without one, nothing is reported.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// Longest time between two signs of life.
    watchdog: Option<Duration>,
    last_sign: Option<Instant>,
    status: String,
}

impl ServiceManager {
    /// Reads from the environment what the service manager wants to know.
    pub(super) fn of_environment() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled().filter(|time| !time.is_zero()),
            last_sign: None,
            status: String::new(),
        }
    }

    /// Returns the time within which the next pass of the scheduler must come; `None`: any.
    pub(super) fn longest_pause(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    pub(super) fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The agent begins to read its configuration again; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// Asks for more time to end.
    pub(super) fn extend(&self) {
        let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// Reports what the agent does, if that has changed.
    pub(super) fn status(&mut self, status: String) {
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Whether a sign of life is due.
    pub(super) fn is_sign_due(&self) -> bool {
        // A little early, since the next pass may be a little late.
        let due = |watchdog: Duration| match self.last_sign {
            Some(last) => last.elapsed() >= watchdog / 4,
            None => true,
        };
        self.watchdog.is_some_and(due)
    }

    /// Reports that the scheduler is alive.
    pub(super) fn sign_of_life(&mut self) {
        send(&[NotifyState::Watchdog]);
        self.last_sign = Some(Instant::now());
    }
}

fn send(state: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to end.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager takes no message");
    }
}
