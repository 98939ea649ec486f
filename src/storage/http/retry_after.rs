//! A server that asks for time gets it.
//!
//! `object_store` retries by a schedule of its own and does not read `Retry-After`. This stands between it and the
//! network: an answer 429 or 503 with that header holds back every request to the target until then. Where that is
//! longer than a failing request is tried again at all, requests fail at once and say why.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use crate::storage::http::proxy::{self, Proxies};
use crate::storage::s3::listing_guard;

/// What the server asked for is more than there is.
#[derive(Debug, thiserror::Error)]
#[error(
    "answered {status} and asks for {} s (Retry-After), which is more than the target's `retry` allows",
    .wait.as_secs_f64().ceil()
)]
pub(crate) struct AsksForTime {
    status: u16,
    wait: Duration,
}

/// Until when one target wants to be left alone. Its clients share this.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// What a wait may take at most.
    budget: Duration,
    asked: Arc<Mutex<Option<(Instant, u16)>>>,
}

impl Patience {
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            asked: Arc::default(),
        }
    }

    /// How long to wait before the next request.
    fn wait(&self, now: Instant) -> Result<Duration, AsksForTime> {
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

    fn note(&self, status: u16, wait: Duration, now: Instant) {
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

/// Connects as `inner` does, with `patience`.
#[derive(Debug, Clone)]
pub(crate) struct Considerately<C> {
    pub inner: C,
    pub patience: Patience,
    pub proxies: Arc<Proxies>,
}

impl<C: HttpConnector> HttpConnector for Considerately<C> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.inner.connect(options)?;
        Ok(HttpClient::new(Considerate {
            client,
            patience: self.patience.clone(),
            proxies: Arc::clone(&self.proxies),
        }))
    }
}

#[derive(Debug)]
struct Considerate {
    client: HttpClient,
    patience: Patience,
    proxies: Arc<Proxies>,
}

#[async_trait::async_trait]
impl HttpService for Considerate {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let wait = self.patience.wait(Instant::now());
        // Of an unknown kind: that is not tried again.
        let wait = wait.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        tokio::time::sleep(wait).await;
        let is_listing = listing_guard::is_asked_by(&request);
        let part = listing_guard::part_asked_for(&request);
        let url = proxy::url_of(&request);
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| self.proxies.told(error, &url))?;
        let status = response.status().as_u16();
        if let (429 | 503, Some(value)) = (status, response.headers().get("retry-after")) {
            let asked = value.to_str().ok();
            if let Some(wait) = asked.and_then(|text| parse(text, crate::base::clock::now())) {
                self.patience.note(status, wait, Instant::now());
            }
        }
        match is_listing {
            true => listing_guard::checked(response, part).await,
            false => Ok(response),
        }
    }
}

/// Seconds, or a date as HTTP writes it.
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
    fn seconds_and_dates_are_understood() {
        let now = "2026-04-07T06:00:00Z".parse().unwrap();
        let seconds = |text| parse(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Tue, 07 Apr 2026 06:01:30 GMT"), Some(90));
        assert_eq!(seconds("Tue, 07 Apr 2026 05:00:00 GMT"), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }

    #[test]
    fn the_longest_wait_counts_and_too_long_a_one_is_an_error() {
        let patience = Patience::new(Duration::from_secs(60));
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(patience.wait(now).unwrap(), Duration::ZERO);
        patience.note(503, Duration::from_secs(30), now);
        patience.note(429, Duration::from_secs(10), now);
        assert_eq!(patience.wait(after(5)).unwrap(), Duration::from_secs(25));
        assert_eq!(patience.wait(after(31)).unwrap(), Duration::ZERO);
        patience.note(503, Duration::from_secs(3600), now);
        let error = patience.wait(now).unwrap_err().to_string();
        assert!(error.contains("503") && error.contains("3600 s"), "{error}");
        patience.note(503, Duration::MAX, now);
        assert_eq!(patience.wait(after(3590)).unwrap(), Duration::from_secs(10));
    }
}
