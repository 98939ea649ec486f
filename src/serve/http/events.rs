//! What happened, for clients that follow: a ring of the newest events, each with a number.
//!
//! The numbers begin at the milliseconds since 1970 at which the agent started, so they only rise,
//! also across restarts. A client that comes back names the last one that it saw, and gets those
//! after it, or `resync` if they are not in the ring.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

use crate::base::clock;
use crate::base::lock::lock;

/// Events that are kept.
const KEPT: usize = 256;

/// An event with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NumberedEvent {
    pub(super) id: u64,
    /// `verdict`, `run`, `progress` or `resync`.
    pub(super) name: &'static str,
    /// JSON in one line.
    pub(super) data: String,
}

impl NumberedEvent {
    /// Returns the event as the stream has it.
    pub(super) fn text(&self) -> String {
        format!(
            "id: {}\nevent: {}\ndata: {}\n\n",
            self.id, self.name, self.data
        )
    }
}

/// The newest events.
#[derive(Debug)]
pub(super) struct EventRing {
    kept: Mutex<KeptEvents>,
    live: broadcast::Sender<Arc<NumberedEvent>>,
}

#[derive(Debug)]
struct KeptEvents {
    /// The number of the newest event; before the first, one below its number.
    last: u64,
    events: VecDeque<Arc<NumberedEvent>>,
}

impl EventRing {
    pub(super) fn new() -> Self {
        let begin = clock::of_files_ns() / 1_000_000;
        Self {
            kept: Mutex::new(KeptEvents {
                last: u64::try_from(begin).unwrap_or_default(),
                events: VecDeque::with_capacity(KEPT),
            }),
            live: broadcast::channel(KEPT).0,
        }
    }

    /// Adds an event.
    pub(super) fn add(&self, name: &'static str, data: String) {
        let mut kept = lock(&self.kept);
        kept.last += 1;
        let event = Arc::new(NumberedEvent {
            id: kept.last,
            name,
            data,
        });
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::clone(&event));
        // Without a follower there is no receiver.
        let _ = self.live.send(event);
    }

    /// Returns the events after the one with the number `seen` (`None`: none), and the receiver of
    /// all later ones.
    pub(super) fn follow(
        &self,
        seen: Option<u64>,
    ) -> (
        Vec<Arc<NumberedEvent>>,
        broadcast::Receiver<Arc<NumberedEvent>>,
    ) {
        let kept = lock(&self.kept);
        let live = self.live.subscribe();
        let Some(seen) = seen else {
            return (Vec::new(), live);
        };
        let oldest = kept.events.front().map_or(kept.last + 1, |event| event.id);
        let missed = match seen <= kept.last && seen.saturating_add(1) >= oldest {
            true => {
                let events = kept.events.iter().filter(|event| event.id > seen);
                events.cloned().collect()
            }
            false => vec![Arc::new(self.resync(kept.last))],
        };
        (missed, live)
    }

    fn resync(&self, last: u64) -> NumberedEvent {
        NumberedEvent {
            id: last,
            name: "resync",
            data: "{}".to_owned(),
        }
    }

    /// Returns the event for a client that missed some: it must read the state again.
    pub(super) fn missed(&self) -> NumberedEvent {
        let last = lock(&self.kept).last;
        self.resync(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ring: &EventRing, seen: u64) -> Vec<(u64, &'static str)> {
        let (missed, _) = ring.follow(Some(seen));
        missed.iter().map(|event| (event.id, event.name)).collect()
    }

    #[test]
    fn a_client_gets_what_it_missed_or_is_sent_to_read_again() {
        let ring = EventRing::new();
        let begin = ring.kept.lock().unwrap().last;
        assert_eq!(numbers(&ring, begin), []);
        for number in 0..300 {
            ring.add("run", format!("{{\"id\":{number}}}"));
        }
        let last = begin + 300;
        assert_eq!(numbers(&ring, last), []);
        assert_eq!(numbers(&ring, last - 2), [(last - 1, "run"), (last, "run")]);
        assert_eq!(numbers(&ring, last - 256).len(), 256);
        let resync = [(last, "resync")];
        assert_eq!(numbers(&ring, last - 257), resync);
        assert_eq!(numbers(&ring, last + 1), resync);
        assert_eq!(numbers(&ring, u64::MAX), resync);
        assert_eq!(numbers(&ring, 0), resync);
        assert_eq!(ring.follow(None).0, []);
    }
}
