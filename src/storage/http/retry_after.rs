//! Obeys the `Retry-After` header of a busy server.
//!
//! `object_store` retries by a schedule of its own and does not read the header. An answer 429 or
//! 503 with it holds back every request to the target until then. If that is longer than a failing
//! request is retried at all, requests fail at once and say why.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use object_store::client::HttpResponse;

use super::faults::AsksForTime;

/// The end of the pause for which a server asked, shared by all clients of one target.
#[derive(Debug, Clone)]
pub(crate) struct RetryAfter {
    /// The longest pause to wait for.
    budget: Duration,
    /// The end of the longest pause so far, and the status that asked for it.
    asked: Arc<Mutex<Option<(Instant, u16)>>>,
}

impl RetryAfter {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            asked: Arc::default(),
        }
    }

    /// Returns how long to wait before the next request.
    pub(crate) fn wait(&self, now: Instant) -> Result<Duration, AsksForTime> {
        let asked = self.asked.lock().ok().and_then(|asked| *asked);
        let Some((until, status)) = asked else {
            return Ok(Duration::ZERO);
        };
        let wait = until.saturating_duration_since(now);
        match wait > self.budget {
            true => Err(AsksForTime { status, wait }),
            false => Ok(wait),
        }
    }

    /// Reads the header of an answer.
    pub(crate) fn note(&self, response: &HttpResponse) {
        let status = response.status().as_u16();
        if let (429 | 503, Some(value)) = (status, response.headers().get("retry-after")) {
            let asked = value.to_str().ok();
            if let Some(wait) = asked.and_then(|text| parse(text, crate::base::clock::now())) {
                self.extend(status, wait, Instant::now());
            }
        }
    }

    fn extend(&self, status: u16, wait: Duration, now: Instant) {
        let Some(until) = now.checked_add(wait) else {
            return;
        };
        if let Ok(mut asked) = self.asked.lock()
            && asked.is_none_or(|(earlier, _)| earlier < until)
        {
            *asked = Some((until, status));
        }
    }
}

/// Parses the header's value: seconds, or a date as HTTP writes it. `None`: neither, or a past
/// date.
fn parse(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.with_timezone(&Utc) - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_parsed() {
        let now = "2026-04-07T06:00:00Z".parse().unwrap();
        let seconds = |text| parse(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Tue, 07 Apr 2026 06:01:30 GMT"), Some(90));
        assert_eq!(seconds("Tue, 07 Apr 2026 05:00:00 GMT"), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }

    #[test]
    fn the_longest_pause_counts_and_one_beyond_the_budget_is_an_error() {
        let pause = RetryAfter::new(Duration::from_secs(60));
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(pause.wait(now).unwrap(), Duration::ZERO);
        pause.extend(503, Duration::from_secs(30), now);
        pause.extend(429, Duration::from_secs(10), now);
        assert_eq!(pause.wait(after(5)).unwrap(), Duration::from_secs(25));
        assert_eq!(pause.wait(after(31)).unwrap(), Duration::ZERO);
        pause.extend(503, Duration::from_secs(3600), now);
        let error = pause.wait(now).unwrap_err().to_string();
        assert!(error.contains("503") && error.contains("3600 s"), "{error}");
        pause.extend(503, Duration::MAX, now);
        assert_eq!(pause.wait(after(3590)).unwrap(), Duration::from_secs(10));
    }
}
