//! Requests S3 objects in a class that cannot be read at once (`GLACIER`, `DEEP_ARCHIVE`).
//!
//! `object_store` has no such request, but it signs a URL for any method and query, with the
//! credentials, the region and the server of its own requests. The object itself stays frozen; S3
//! provides a readable copy for some days.

use std::time::{Duration, Instant};

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpError, HttpRequest};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use reqwest::Method;

use crate::storage::contract::Thaw;
use crate::storage::error::ErrorKind;
use crate::storage::http::response_text::said;
use crate::storage::http::store_error::{StoreError, attempt};
use crate::storage::retry::jittered_pause;

/// Validity of a signed URL.
const URL_LIVES: Duration = Duration::from_secs(15 * 60);

/// Sends the requests to thaw.
#[derive(Debug)]
pub(crate) struct Thawer {
    /// Signs the URLs.
    pub store: AmazonS3,
    pub client: HttpClient,
    /// How long to retry a failing request.
    pub retry: Duration,
}

/// Why a request to thaw failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThawError {
    #[error(transparent)]
    Sign(StoreError),
    #[error("the URL cannot be used")]
    Url,
    #[error(transparent)]
    Send(HttpError),
    #[error("the server answered {status}: {complaint}{}", advice(*status))]
    Refused { status: u16, complaint: String },
}

fn advice(status: u16) -> &'static str {
    match status {
        403 => " (the credentials need s3:RestoreObject)",
        400 | 405 | 501 => " (the server may not support it)",
        _ => "",
    }
}

impl ThawError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Sign(error) => error.kind(),
            Self::Url => ErrorKind::Permanent,
            Self::Send(_) => ErrorKind::Unavailable,
            Self::Refused { status, .. } => match status {
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                408 | 429 | 500 | 502..=599 => ErrorKind::Unavailable,
                _ => ErrorKind::Permanent,
            },
        }
    }
}

impl Thawer {
    /// Requests that the object at `path` become readable for `days` days.
    pub(crate) async fn thaw(&self, path: &Path, days: u16) -> Result<Thaw, ThawError> {
        let ends = Instant::now() + self.retry;
        let mut tries = 0;
        loop {
            let asked = self.ask(path, days).await;
            tries += 1;
            let pause = jittered_pause(tries);
            match asked {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && Instant::now() + pause <= ends =>
                {
                    tokio::time::sleep(pause).await;
                }
                done => return done,
            }
        }
    }

    async fn ask(&self, path: &Path, days: u16) -> Result<Thaw, ThawError> {
        let options = SignedUrlOptions::default().with_query([("restore", "")]);
        let url = self
            .store
            .signed_url_opts(Method::POST, path, URL_LIVES, &options);
        let url = attempt(url).await.map_err(ThawError::Sign)?;
        let mut request = HttpRequest::new(request_body(days).into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.as_str().parse().map_err(|_| ThawError::Url)?;
        let answer = self.client.execute(request).await;
        let answer = answer.map_err(ThawError::Send)?;
        let status = answer.status().as_u16();
        let body = answer.into_body().bytes().await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        match status {
            200 => Ok(Thaw::Ready),
            202 => Ok(Thaw::Asked),
            409 if body.contains("RestoreAlreadyInProgress") => Ok(Thaw::UnderWay),
            // The object is in a class that can be read at once.
            403 if body.contains("InvalidObjectState") => Ok(Thaw::Ready),
            _ => Err(ThawError::Refused {
                status,
                complaint: said(&body),
            }),
        }
    }
}

/// Returns the request's body. The bulk tier is the cheapest, and slower by hours than others that
/// take hours as well.
fn request_body(days: u16) -> String {
    format!(
        "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>{days}</Days>\
         <GlacierJobParameters><Tier>Bulk</Tier></GlacierJobParameters></RestoreRequest>"
    )
}
