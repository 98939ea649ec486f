//! Asking S3 for what lies in a class that cannot be read at once (`GLACIER`, `DEEP_ARCHIVE`).
//!
//! `object_store` has no such request, but it signs a URL for any method and query, with the credentials,
//! the region and the server that its own requests have. What is asked for stays where it is; a copy that can
//! be read appears beside it for some days.

use std::time::{Duration, Instant};

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpError, HttpRequest};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use reqwest::Method;

use crate::storage::ErrorKind;
use crate::storage::Thaw;
use crate::storage::http::classify::{StoreError, kind_of};
use crate::storage::http::error_text::said;
use crate::storage::http::resume;

const URL_LIVES: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
pub(crate) struct Thawer {
    pub store: AmazonS3,
    pub client: HttpClient,
    /// For how long a failing request is tried again.
    pub retry: Duration,
}

/// Why an object was not asked for.
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
        400 | 405 | 501 => " (it may be one that knows no such request)",
        _ => "",
    }
}

impl ThawError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sign(StoreError(error)) => kind_of(error),
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
    pub async fn thaw(&self, path: &Path, days: u16) -> Result<Thaw, ThawError> {
        let ends = Instant::now() + self.retry;
        let mut attempt = 0;
        loop {
            let asked = self.ask(path, days).await;
            attempt += 1;
            let pause = resume::pause(attempt);
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
            .signed_url_opts(Method::POST, path, URL_LIVES, &options)
            .await
            .map_err(|error| ThawError::Sign(StoreError(error)))?;
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
            // Its class can be read at once.
            403 if body.contains("InvalidObjectState") => Ok(Thaw::Ready),
            _ => Err(ThawError::Refused {
                status,
                complaint: said(&body),
            }),
        }
    }
}

/// In bulk: it is the cheapest, and who waits for hours can wait for more of them.
fn request_body(days: u16) -> String {
    format!(
        "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>{days}</Days>\
         <GlacierJobParameters><Tier>Bulk</Tier></GlacierJobParameters></RestoreRequest>"
    )
}
