//! How long another machine is waited for, and how often it is tried again.

use std::time::{Duration, Instant};

use super::failure::Failure;
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
        Retries {
            ends: Instant::now() + Duration::from_secs(self.retry_seconds),
            pause: FIRST_PAUSE,
        }
    }
}

#[derive(Debug)]
pub(super) struct Retries {
    ends: Instant,
    pause: Duration,
}

impl Retries {
    /// Whether to try again after `failure`; then it is time to.
    pub async fn another(&mut self, failure: &Failure) -> bool {
        if failure.kind != ErrorKind::Unavailable || Instant::now() + self.pause > self.ends {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}
