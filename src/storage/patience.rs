//! How long a command waits for a target that it cannot reach, and what receives notes meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::progress::Progress;

/// Time within which a command that a person waits for reaches a target, or gives up.
const HASTE: Duration = Duration::from_secs(8);
/// Part of the time for the first contact that one pause may take.
const PAUSES: u32 = 4;
/// Time that is left for the report after the last attempt to connect.
const RESERVE: Duration = Duration::from_secs(1);

/// How long a command waits for a target that it has not reached yet.
///
/// It counts until the target answers for the first time. A failure after that is retried for as
/// long as the target's `retry` says, so that a long transfer survives an interruption.
#[derive(Clone, Default)]
pub struct Patience {
    /// A person waits: the first contact has some seconds.
    hurries: bool,
    /// Replaces the target's `retry`.
    retry: Option<Duration>,
    /// Receives an event while a target is retried.
    progress: Option<Arc<dyn Progress>>,
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Patience");
        let shown = shown.field("hurries", &self.hurries);
        shown.field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl Patience {
    /// For a schedule: a target that cannot be reached is retried as its `retry` says.
    pub fn of_a_schedule() -> Self {
        Self::default()
    }

    /// For a command that a person waits for: some seconds.
    pub fn of_a_person() -> Self {
        Self {
            hurries: true,
            ..Self::default()
        }
    }

    /// As the operator says: `retry` replaces that of every target, before and after the first
    /// answer.
    pub fn of(retry: Duration) -> Self {
        Self {
            retry: Some(retry),
            ..Self::default()
        }
    }

    /// Reports to `progress` while a target is retried.
    pub fn with_progress(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    pub(super) fn progress(&self) -> Option<&dyn Progress> {
        self.progress.as_deref()
    }

    /// Returns the time for which a failing request is retried, in place of the target's own.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Returns how long a target is tried until it answers for the first time, if that is less than
    /// `retry`, the time for which a failing request is retried later.
    pub(super) fn first_contact(&self, retry: Duration) -> Option<Duration> {
        (self.hurries && HASTE < retry).then_some(HASTE)
    }

    /// Returns the longest time for one attempt to connect, where `usual` is enough otherwise.
    pub(super) fn connect_timeout(&self, usual: Duration) -> Duration {
        let most = match (self.hurries, self.retry) {
            (true, _) => HASTE - RESERVE,
            (false, Some(retry)) => retry.max(RESERVE),
            (false, None) => usual,
        };
        usual.min(most)
    }

    /// Whether the time to connect may be shorter than usual.
    pub(super) fn limits_connecting(&self) -> bool {
        self.hurries || self.retry.is_some()
    }

    /// Returns the longest pause between two attempts, where `usual` is right otherwise.
    pub(super) fn longest_pause(&self, usual: Duration) -> Duration {
        match self.hurries {
            true => usual.min(HASTE / PAUSES),
            false => usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_waits_for_seconds_and_a_schedule_as_the_target_says() {
        let (retry, connect) = (Duration::from_secs(180), Duration::from_secs(30));
        let person = Patience::of_a_person();
        let first = person.first_contact(retry).unwrap();
        assert!(first < Duration::from_secs(10) && person.connect_timeout(connect) < first);
        assert_eq!(person.first_contact(Duration::from_secs(1)), None);
        let schedule = Patience::of_a_schedule();
        assert_eq!(schedule.first_contact(retry), None);
        assert_eq!(schedule.connect_timeout(connect), connect);
        let told = Patience::of(Duration::from_secs(5));
        assert_eq!(told.first_contact(retry), None);
        assert_eq!(told.retry(), Some(Duration::from_secs(5)));
        assert_eq!(told.connect_timeout(connect), Duration::from_secs(5));
    }
}
