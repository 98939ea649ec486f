//! Notes on stderr while a target is retried, for the person who waits.

use std::io::{self, IsTerminal as _, Write as _};

use super::output::visible;
use crate::base::progress::{Progress, ProgressEvent};

/// Prints the notes. Other events have displays of their own.
#[derive(Debug)]
pub(super) struct RetryNotes;

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
            let note = note(target, cause, *left_seconds);
            // A line of progress may be there, which is drawn again below the note.
            let line = format!("\r\x1b[K{}\n", visible(&note));
            let _ = io::stderr().lock().write_all(line.as_bytes());
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
