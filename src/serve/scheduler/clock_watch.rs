//! Watches the clock: when it went back, and when the agent was not there.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Scheduler, ServeMode};
use crate::base::clock;
use crate::state::history::OperatorMark;

/// A clock that goes back by less is no finding: time services do that.
const TOLERANCE: chrono::Duration = chrono::Duration::minutes(1);
/// Two passes that are further apart show that the machine slept, or the agent was stopped.
const SLEEP: Duration = Duration::from_secs(120);
/// The shortest such time, for a clock that runs fast.
const SHORTEST_SLEEP: Duration = Duration::from_secs(2);

/// What the scheduler remembers of the clock.
#[derive(Debug)]
pub(super) struct ClockWatch {
    /// The latest time that it showed.
    highest: DateTime<Utc>,
    /// When the last pass was, in time since the machine started.
    last_pass: Duration,
    /// Occurrences that began before were missed.
    missed_before: DateTime<Utc>,
}

impl ClockWatch {
    /// Begins at `now`. An agent that runs once makes up for all that was missed.
    pub(super) fn begin(mode: ServeMode, now: DateTime<Utc>) -> Self {
        Self {
            highest: now,
            last_pass: clock::since_boot(),
            missed_before: match mode {
                ServeMode::Serve => now,
                ServeMode::Once => DateTime::<Utc>::MIN_UTC,
            },
        }
    }

    /// The history shows that the clock once was at `time`.
    pub(super) fn has_been_at(&mut self, time: DateTime<Utc>) {
        self.highest = self.highest.max(time);
    }

    /// Whether no agent was there for what begins at `begin`.
    pub(super) fn was_missed(&self, begin: DateTime<Utc>) -> bool {
        begin <= self.missed_before
    }

    /// Notes a pass at `now`. Returns the time from which the clock went back, if it did.
    fn note(&mut self, now: DateTime<Utc>, since_boot: Duration) -> Option<DateTime<Utc>> {
        let slept = since_boot.saturating_sub(self.last_pass);
        self.last_pass = since_boot;
        if slept > clock::real_time(SLEEP).max(SHORTEST_SLEEP) {
            self.missed_before = self.missed_before.max(now);
        }
        let before = self.highest;
        if now + TOLERANCE < before {
            // Counted from here on, so that it is reported once.
            self.highest = now;
            self.missed_before = self.missed_before.min(now);
            return Some(before);
        }
        self.highest = before.max(now);
        None
    }
}

impl Scheduler {
    /// Notes the time. A clock that went back is logged, and marked in the history.
    pub(super) fn watch_clock(&mut self, now: DateTime<Utc>) {
        let Some(before) = self.clock.note(now, clock::since_boot()) else {
            return;
        };
        let (from, to) = (
            before.format("%Y-%m-%d %H:%M:%S UTC"),
            now.format("%Y-%m-%d %H:%M:%S UTC"),
        );
        let text = format!("the clock of this machine went back from {from} to {to}");
        self.links
            .log
            .warn("clock", format!("{text}; no run is repeated"));
        let mark = OperatorMark {
            made_at: now,
            until: Some(before),
            note: Some(text),
        };
        self.journal
            .with(|history| history.set_mark(OperatorMark::CLOCK, &mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_775_541_600 + 60 * minutes, 0).unwrap()
    }

    #[test]
    fn a_clock_that_goes_back_is_noticed_once() {
        let mut watch = ClockWatch::begin(ServeMode::Serve, at(0));
        let boot = watch.last_pass;
        assert_eq!(watch.note(at(30), boot), None);
        assert_eq!(watch.note(at(29), boot), None);
        assert_eq!(watch.note(at(10), boot), Some(at(30)));
        assert_eq!(watch.note(at(10), boot), None);
        assert_eq!(watch.note(at(11), boot), None);
        watch.has_been_at(at(300));
        assert_eq!(watch.note(at(12), boot), Some(at(300)));
    }

    #[test]
    fn what_began_during_a_sleep_was_missed() {
        let mut watch = ClockWatch::begin(ServeMode::Serve, at(0));
        let boot = watch.last_pass;
        watch.note(at(5), boot + Duration::from_secs(30));
        assert!(watch.was_missed(at(0)) && !watch.was_missed(at(3)));
        watch.note(at(60), boot + Duration::from_secs(3600));
        assert!(watch.was_missed(at(60)) && !watch.was_missed(at(61)));
        let once = ClockWatch::begin(ServeMode::Once, at(0));
        assert!(!once.was_missed(at(-1)));
    }
}
