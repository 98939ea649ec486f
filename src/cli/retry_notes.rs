//! Notes while a target is retried: on stderr for the person who waits, and as events.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use super::events::EventSink;
use super::output;
use crate::base::progress::{Progress, ProgressEvent};

/// Passes the notes on. Other events have displays of their own.
#[derive(Debug)]
pub(super) struct RetryNotes {
    /// Whether they are printed.
    pub(super) is_printed: bool,
    /// Receives them as events.
    pub(super) events: Option<Arc<EventSink>>,
}

/// Whether a person reads what this process says.
pub(super) fn is_read() -> bool {
    io::stderr().is_terminal()
}

impl Progress for RetryNotes {
    fn report(&self, event: &ProgressEvent<'_>) {
        if let ProgressEvent::Retrying {
            target,
            cause,
            left_seconds,
        } = event
        {
            if let Some(events) = &self.events {
                events.retrying(target, cause, *left_seconds);
            }
            if self.is_printed {
                output::tell(note(target, cause, *left_seconds));
            }
        }
    }
}

fn note(target: &str, cause: &str, left_seconds: Option<u64>) -> String {
    let left = left_seconds.map(|seconds| match seconds {
        90.. => format!("{} min", (seconds + 30) / 60),
        _ => format!("{seconds} s"),
    });
    match left {
        Some(left) => {
            format!("{target}: retrying for another {left}: {cause} (Ctrl-C to stop)")
        }
        None => format!("{target}: waiting: {cause} (Ctrl-C to stop)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_target_cause_and_end() {
        assert_eq!(
            note("s3", "connection refused", Some(120)),
            "s3: retrying for another 2 min: connection refused (Ctrl-C to stop)"
        );
        assert_eq!(
            note("nas", "no answer yet", None),
            "nas: waiting: no answer yet (Ctrl-C to stop)"
        );
    }
}
