//! How long a failing request is retried, and how the pauses between the tries grow.
//!
//! Requests through programs (rsync, sftp) retry by [`Retries`], which doubles pauses of whole
//! seconds, because each try starts a process. `object_store` retries its requests itself; what it
//! leaves alone is retried here after a [`jittered_pause`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::contact::Contact;
use super::error::ErrorKind;
use super::process_failure::ProcessFailure;
use super::spec::TargetSpec;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Half of the first pause of [`jittered_pause`].
const JITTERED_UNIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
/// Doublings of [`jittered_pause`] at most.
const MOST_DOUBLINGS: u32 = 6;

/// The deadlines of one target that programs reach, and the contact to it.
#[derive(Debug)]
pub(super) struct ProcessDeadlines {
    /// Seconds without a byte moving.
    pub request_seconds: u64,
    pub contact: Arc<Contact<ProcessFailure>>,
}

impl ProcessDeadlines {
    pub(super) fn of(spec: &TargetSpec) -> Self {
        Self {
            request_seconds: spec.timeout_seconds(),
            contact: Arc::new(Contact::new(spec)),
        }
    }

    /// Begins the retries of a request that failed now for the first time.
    pub(super) fn retries(&self) -> Retries {
        Retries {
            contact: Arc::clone(&self.contact),
            began: Instant::now(),
            pause: FIRST_PAUSE,
            tries: 1,
        }
    }

    /// Seconds within which a connection must be established, where `usual` is enough otherwise.
    pub(super) fn connect_seconds(&self, usual: u64) -> u64 {
        let usual = Duration::from_secs(usual);
        match self.contact.was_reached() {
            true => usual.as_secs(),
            false => self.contact.patience.connect_timeout(usual).as_secs(),
        }
    }
}

/// The retries of one failing request.
#[derive(Debug)]
pub(super) struct Retries {
    contact: Arc<Contact<ProcessFailure>>,
    began: Instant,
    /// The next pause.
    pause: Duration,
    tries: u32,
}

impl Retries {
    /// Decides whether to retry after `failure`, and if so, waits until it is time.
    pub(super) async fn another(&mut self, failure: &ProcessFailure) -> bool {
        if failure.kind != ErrorKind::Unavailable || failure.is_full() {
            return false;
        }
        let was_reached = self.contact.was_reached();
        if !was_reached && !failure.is_unreached() {
            self.contact.reached();
        }
        let left = self.contact.failed(self.began, &failure.what);
        if self.pause > left {
            if self.contact.is_hasty() {
                self.contact.give_up(failure);
            }
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.tries += 1;
        true
    }

    /// Returns the last `failure` with the number of tries and their duration.
    pub(super) fn described(&self, failure: ProcessFailure) -> ProcessFailure {
        let what = with_tries(failure.what, self.tries, self.began.elapsed());
        ProcessFailure { what, ..failure }
    }
}

/// Returns the pause after the given number of tries: it doubles with each, plus or minus half, so
/// that concurrent requests spread.
pub(super) fn jittered_pause(tries: u32) -> Duration {
    let mut random = [0; 1];
    let jitter = match getrandom::fill(&mut random) {
        Ok(()) => 0.5 + f64::from(random[0]) / 255.0,
        Err(_) => 1.0,
    };
    (JITTERED_UNIT * 2u32.saturating_pow(tries.min(MOST_DOUBLINGS))).mul_f64(jitter)
}

/// Appends the number of tries and their duration to `what`, if there was more than one.
pub(super) fn with_tries(what: String, tries: u32, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let took = match seconds {
        180.0.. => format!("{:.0} minutes", seconds / 60.0),
        _ => format!("{:.0} s", seconds.max(1.0)),
    };
    match tries {
        0 | 1 => what,
        tries => format!("{what}; tried {tries} times in {took}"),
    }
}
