//! What the mount reports while it runs: a line per cause, not one per read that fails.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::lock::lock;

/// Time for which the same line is not repeated.
const QUIET: Duration = Duration::from_secs(60);
/// Most lines that are remembered.
const MOST_LINES: usize = 1000;

/// Receives the lines of a mount.
pub type NoteSink = Box<dyn Fn(&str) + Send + Sync>;

/// The lines of one mount.
pub(super) struct MountNotes {
    sink: NoteSink,
    said: Mutex<HashMap<String, Instant>>,
}

impl MountNotes {
    pub(super) fn new(sink: NoteSink) -> Self {
        Self {
            sink,
            said: Mutex::default(),
        }
    }

    /// Reports `line`, unless it was reported a short time ago.
    pub(super) fn say(&self, line: &str) {
        let now = Instant::now();
        {
            let mut said = lock(&self.said);
            if said.get(line).is_some_and(|at| now < *at + QUIET) {
                return;
            }
            if said.len() >= MOST_LINES {
                said.retain(|_, at| now < *at + QUIET);
            }
            if said.len() < MOST_LINES {
                said.insert(line.to_owned(), now);
            }
        }
        (self.sink)(line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_cause_is_reported_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let notes = MountNotes::new(Box::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        for line in ["a", "b", "a", "a", "b"] {
            notes.say(line);
        }
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
