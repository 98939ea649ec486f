//! No faster than the target's configuration allows, over all transfers of one direction together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::rate_schedule::Timetable;

#[derive(Debug)]
pub(super) struct Pace {
    table: Option<Timetable>,
    /// When what was let through before has had its time.
    free: Mutex<Instant>,
}

impl Pace {
    pub fn new(table: Option<Timetable>) -> Self {
        Self {
            table,
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until it is the turn of `bytes` more.
    pub async fn wait(&self, bytes: usize) {
        let rate = self
            .table
            .as_ref()
            .and_then(|t| t.at(crate::base::clock::now()));
        let Some(rate) = rate else { return };
        let turn = self.turn(Instant::now(), bytes, rate);
        tokio::time::sleep_until(turn.into()).await;
    }

    fn turn(&self, now: Instant, bytes: usize, bytes_per_second: u64) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = now.max(*free);
        let seconds = bytes as f64 / bytes_per_second.max(1) as f64;
        *free = turn + Duration::from_secs_f64(seconds);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_those_before() {
        let pace = Pace::new(None);
        let now = Instant::now() + Duration::from_secs(1);
        let second = Duration::from_secs(1);
        assert_eq!(pace.turn(now, 2000, 1000), now);
        assert_eq!(pace.turn(now, 500, 1000), now + 2 * second);
        // A pause is not made up for.
        let later = now + 10 * second;
        assert_eq!(pace.turn(later, 1000, 1000), later);
        assert_eq!(pace.turn(later, 1000, 1000), later + second);
    }
}
