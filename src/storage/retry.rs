//! How long another machine is waited for, and how often it is tried again.

use std::time::{Duration, Instant};

use super::process_failure::Failure;
use super::{ErrorKind, TargetSpec};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Without a byte moving.
    pub request_seconds: u64,
    pub retry_seconds: u64,
}

impl Patience {
    pub fn of(spec: &TargetSpec) -> Self {
        Self {
            request_seconds: spec.timeout_seconds(),
            retry_seconds: spec.retry_seconds(),
        }
    }

    /// From now on.
    pub fn retries(&self) -> Retries {
        let began = Instant::now();
        Retries {
            began,
            ends: began + Duration::from_secs(self.retry_seconds),
            pause: FIRST_PAUSE,
            tries: 1,
        }
    }
}

#[derive(Debug)]
pub(super) struct Retries {
    began: Instant,
    ends: Instant,
    pause: Duration,
    tries: u32,
}

impl Retries {
    /// Whether to try again after `failure`; then it is time to.
    pub async fn another(&mut self, failure: &Failure) -> bool {
        let is_final = failure.kind != ErrorKind::Unavailable || failure.is_full();
        if is_final || Instant::now() + self.pause > self.ends {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.tries += 1;
        true
    }

    /// The last `failure`, and how often it was tried for how long.
    pub fn told(&self, failure: Failure) -> Failure {
        let what = with_tries(failure.what, self.tries, self.began.elapsed());
        Failure { what, ..failure }
    }
}

/// How often and how long, where that was more than once.
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
