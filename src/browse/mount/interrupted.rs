//! Whether a signal ends the process that waits for an answer.
//!
//! The kernel asks to interrupt a request with a message of its own, which fuser refuses for us.
//! So a request that waits looks at its process from time to time: for a signal that is pending
//! there, it answers EINTR, and the process ends at once instead of when the target answers.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use fuser::Errno;

/// Time between two looks at the process that waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// SIGHUP, SIGINT, SIGQUIT, SIGKILL and SIGTERM, as the bits that `/proc` shows.
const ENDING_SIGNALS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 14;

/// Why a wait ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitEnd {
    /// A signal ends the process that waits.
    Interrupted,
    /// The time was up.
    TimedOut,
}

impl WaitEnd {
    /// Returns what the process is answered.
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Interrupted => Errno::EINTR,
            Self::TimedOut => Errno::EIO,
        }
    }
}

/// Waits for `work` for at most `most`, or until a signal ends process `pid`.
pub(super) async fn wait_for<T>(
    pid: u32,
    most: Duration,
    work: impl Future<Output = T>,
) -> Result<T, WaitEnd> {
    let mut work = pin!(work);
    let until = tokio::time::Instant::now() + most;
    loop {
        let look = until.min(tokio::time::Instant::now() + LOOK_EVERY);
        if let Ok(done) = tokio::time::timeout_at(look, &mut work).await {
            return Ok(done);
        }
        if is_interrupted(pid) {
            return Err(WaitEnd::Interrupted);
        }
        if tokio::time::Instant::now() >= until {
            return Err(WaitEnd::TimedOut);
        }
    }
}

/// Whether a signal that ends the process is pending. False for a process of which nothing is
/// known, such as one in another name space.
fn is_interrupted(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    pid != 0 && status.is_ok_and(|status| has_ending_signal(&status))
}

fn has_ending_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    pending & ENDING_SIGNALS & !mask("SigBlk:") & !mask("SigIgn:") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_end_a_process_interrupt_it() {
        let status = |pending: &str, blocked: &str, ignored: &str| {
            format!(
                "Name:\tcat\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\nSigBlk:\t{blocked}\n\
                 SigIgn:\t{ignored}\n"
            )
        };
        let none = "0000000000000000";
        assert!(!has_ending_signal(&status(none, none, none)));
        assert!(has_ending_signal(&status("0000000000000002", none, none)));
        assert!(has_ending_signal(&status("0000000000000100", none, none)));
        assert!(!has_ending_signal(&status(
            "0000000000000002",
            "0000000000000002",
            none
        )));
        assert!(!has_ending_signal(&status(
            "0000000000000002",
            none,
            "0000000000000002"
        )));
        // SIGCHLD and SIGWINCH.
        assert!(!has_ending_signal(&status("0000000008010000", none, none)));
        assert!(!has_ending_signal(""));
        assert!(!is_interrupted(std::process::id()));
    }
}
