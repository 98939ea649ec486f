//! The rate of a transfer over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that the rate is taken over.
const WINDOW: Duration = Duration::from_secs(15);
/// Shortest time that says something.
const LEAST: Duration = Duration::from_secs(1);
/// Time between two samples.
const STEP: Duration = Duration::from_millis(500);

/// The bytes of a transfer at some times of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes into account that `bytes` have moved by now. Returns the bytes per second, `None` as
    /// long as they are not known.
    pub(super) fn note(&mut self, now: Instant, bytes: u64) -> Option<u64> {
        let is_due = |(last, _): &(Instant, u64)| now.duration_since(*last) >= STEP;
        if self.samples.back().is_none_or(is_due) {
            self.samples.push_back((now, bytes));
        }
        while let Some((second, _)) = self.samples.get(1)
            && now.duration_since(*second) >= WINDOW
        {
            self.samples.pop_front();
        }
        let (then, before) = *self.samples.front()?;
        let time = now.duration_since(then);
        if time < LEAST {
            return None;
        }
        // A transfer that began again has moved less than before.
        let moved = bytes.saturating_sub(before) as f64;
        Some((moved / time.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(rate.note(at(0), 0), None);
        for second in 1..=20 {
            assert_eq!(rate.note(at(second), second * 1000), Some(1000), "{second}");
        }
        // It stands still, and the rate falls to nothing within the window.
        let later = (21..=40).map(|second| rate.note(at(second), 20_000));
        let later: Vec<Option<u64>> = later.collect();
        assert!(later[0] < Some(1000) && later[0] > Some(500), "{later:?}");
        assert_eq!(later.last(), Some(&Some(0)));
    }
}
