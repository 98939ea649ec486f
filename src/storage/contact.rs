//! Whether a target was reached in this run, and what its last attempt failed with.
//!
//! All requests of a target share one [`Contact`]. Until the target answers for the first time, its
//! [`Patience`] limits all attempts together, and after that it is not tried again for a while: the
//! next request fails at once with the same cause. Once it has answered, each failing request is
//! retried for the usual time.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::patience::Patience;
use super::spec::TargetSpec;
use crate::base::progress::ProgressEvent;

/// Time without success after which a note is due.
const NOTE_AFTER: Duration = Duration::from_secs(2);
/// Time between two such notes.
const NOTE_EVERY: Duration = Duration::from_secs(30);
/// Time for which a target that was given up is not tried again.
const REST: Duration = Duration::from_secs(30);
/// Longest pause between two attempts of `object_store`.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What is wrong while nothing has failed yet.
const NO_ANSWER: &str = "no answer yet";

/// The contact to one target. `F` is the failure of an attempt.
#[derive(Debug)]
pub(super) struct Contact<F> {
    /// The target's configured name, or its label if it is in no config.
    name: String,
    pub patience: Patience,
    /// Time for which a failing request is retried.
    retry: Duration,
    was_reached: AtomicBool,
    trouble: Mutex<Trouble<F>>,
}

/// What went wrong since the last success.
#[derive(Debug)]
struct Trouble<F> {
    /// Begin of the first attempt since the last success.
    since: Option<Instant>,
    told: Option<Instant>,
    cause: Option<String>,
    /// When the target was given up, and why.
    given_up: Option<(Instant, F)>,
}

impl<F> Default for Trouble<F> {
    fn default() -> Self {
        Self {
            since: None,
            told: None,
            cause: None,
            given_up: None,
        }
    }
}

impl<F: Clone> Contact<F> {
    pub(super) fn new(spec: &TargetSpec) -> Self {
        Self {
            name: match spec.name.as_str() {
                "" => spec.label(),
                name => name.to_owned(),
            },
            patience: spec.patience.clone(),
            retry: Duration::from_secs(spec.retry_seconds()),
            was_reached: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble<F>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    /// Returns the longest pause between two attempts of a request.
    pub(super) fn longest_pause(&self) -> Duration {
        self.patience.longest_pause(LONGEST_PAUSE)
    }

    /// Returns the time for the first contact, while it applies and is shorter than the usual one.
    fn haste(&self) -> Option<Duration> {
        let first = self.patience.first_contact(self.retry);
        first.filter(|_| !self.was_reached())
    }

    /// Whether a person waits for the first answer.
    pub(super) fn is_hasty(&self) -> bool {
        self.haste().is_some()
    }

    /// Returns what the last attempt failed with, if nothing has succeeded since.
    pub(super) fn cause(&self) -> Option<String> {
        self.trouble().cause.clone()
    }

    /// Notes that the target answered.
    pub(super) fn reached(&self) {
        self.was_reached.store(true, Ordering::Relaxed);
        *self.trouble() = Trouble::default();
    }

    /// Notes that a server answered on which the target's requests depend, such as one of
    /// credentials. The target itself has yet to answer.
    pub(super) fn helped(&self) {
        *self.trouble() = Trouble::default();
    }

    /// Notes that a server answered that it cannot serve now. It is there, so the request is
    /// retried for the usual time, also before the target's first answer.
    pub(super) fn recovers(&self, began: Instant, cause: &str) {
        let left = (began + self.retry).saturating_duration_since(Instant::now());
        self.trouble().cause = Some(cause.to_owned());
        self.tell(began, Some(left));
    }

    /// Returns why the target is not tried now, if it was given up a short time ago.
    pub(super) fn given_up(&self) -> Option<F> {
        let trouble = self.trouble();
        let (when, failure) = trouble.given_up.as_ref()?;
        (when.elapsed() < REST).then(|| failure.clone())
    }

    /// Notes that the target was given up with `failure`, before its first answer.
    pub(super) fn give_up(&self, failure: &F) {
        self.trouble().given_up = Some((Instant::now(), failure.clone()));
    }

    /// Returns until when a request is retried that began to fail at `began`. While a person waits
    /// for the first answer, the attempts of all requests count together.
    fn ends(&self, began: Instant) -> Instant {
        match self.haste() {
            Some(first) => self.trouble().since.unwrap_or(began) + first,
            None => began + self.retry,
        }
    }

    /// Notes a failed attempt of a request that was tried first at `began`, tells the operator
    /// after a short time, and returns how long the request is still retried.
    pub(super) fn failed(&self, began: Instant, cause: &str) -> Duration {
        let left = self.ends(began).saturating_duration_since(Instant::now());
        self.trouble().cause = Some(cause.to_owned());
        self.tell(began, Some(left));
        left
    }

    /// Awaits an attempt, and tells the operator if the target's first answer takes long.
    pub(super) async fn watch<T>(&self, attempt: impl Future<Output = T>) -> T {
        let began = Instant::now();
        self.trouble().since.get_or_insert(began);
        if self.was_reached() {
            return attempt.await;
        }
        let mut attempt = pin!(attempt);
        if let Ok(done) = tokio::time::timeout(NOTE_AFTER, &mut attempt).await {
            return done;
        }
        self.note_silence();
        self.tell(began, None);
        attempt.await
    }

    fn note_silence(&self) {
        let mut trouble = self.trouble();
        let unknown = || NO_ANSWER.to_owned();
        trouble.cause.get_or_insert_with(unknown);
    }

    fn tell(&self, began: Instant, left: Option<Duration>) {
        let Some(progress) = self.patience.progress() else {
            return;
        };
        let cause = {
            let mut trouble = self.trouble();
            let since = *trouble.since.get_or_insert(began);
            let is_due = match trouble.told {
                None => since.elapsed() >= NOTE_AFTER / 2,
                Some(told) => told.elapsed() >= NOTE_EVERY,
            };
            if !is_due || left.is_some_and(|left| left.is_zero()) {
                return;
            }
            trouble.told = Some(Instant::now());
            trouble.cause.clone().unwrap_or_default()
        };
        progress.report(&ProgressEvent::Retrying {
            target: &self.name,
            cause: &cause,
            left_seconds: left.map(|left| left.as_secs()),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::progress::Progress;

    fn contact(patience: Patience) -> Contact<&'static str> {
        Contact::new(&TargetSpec {
            name: "s3".to_owned(),
            patience,
            ..TargetSpec::default()
        })
    }

    fn ago(seconds: u64) -> Instant {
        let time = Instant::now().checked_sub(Duration::from_secs(seconds));
        time.unwrap()
    }

    #[test]
    fn only_the_first_contact_is_hasty() {
        let hasty = contact(Patience::of_a_person());
        hasty.trouble().since = Some(ago(7));
        assert!(hasty.is_hasty());
        // All requests count together, also one that just began.
        assert!(hasty.failed(Instant::now(), "refused") < Duration::from_secs(2));
        assert_eq!(hasty.cause().as_deref(), Some("refused"));
        hasty.give_up(&"refused");
        assert_eq!(hasty.given_up(), Some("refused"));
        hasty.reached();
        assert!(!hasty.is_hasty());
        assert_eq!((hasty.given_up(), hasty.cause()), (None, None));
        let left = hasty.failed(Instant::now(), "reset");
        assert!(left > Duration::from_secs(170), "{left:?}");
        let patient = contact(Patience::of_a_schedule());
        assert!(patient.failed(Instant::now(), "refused") > Duration::from_secs(170));
    }

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn report(&self, event: &ProgressEvent<'_>) {
            let line = serde_json::to_string(event).unwrap();
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn a_note_comes_after_a_moment_and_then_rarely() {
        let notes = Arc::new(Notes::default());
        let contact = contact(Patience::of_a_schedule().with_progress(notes.clone()));
        contact.failed(Instant::now(), "refused");
        assert!(notes.0.lock().unwrap().is_empty());
        contact.trouble().since = Some(ago(3));
        contact.failed(ago(3), "refused");
        contact.failed(ago(3), "refused");
        let notes = notes.0.lock().unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains(r#""target":"s3","cause":"refused","left_seconds":17"#));
    }
}
