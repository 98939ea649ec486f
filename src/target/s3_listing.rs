//! What is no listing is never taken for an empty one.
//!
//! `object_store` finds an empty bucket in any XML that comes with a status of 200: in the error that S3 may send
//! that way, in the page that a hotel's network answers to everything. Everything stored would count as lost. So an
//! answer to a listing is looked at first, which also has its body read to the end before it counts as received.

use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

use super::explain::said;

const ROOT: &str = "ListBucketResult";

#[derive(Debug, thiserror::Error)]
#[error(
    "answered {status} without a listing{}; that is no S3 server, or something stands before it",
    quoted(.said)
)]
pub(super) struct NotAListing {
    status: u16,
    said: String,
}

fn quoted(said: &str) -> String {
    match said.is_empty() {
        true => String::new(),
        false => format!(" ({said})"),
    }
}

pub(super) fn is_asked_by(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == "list-type=2")
}

/// The answer to a listing, if it is one.
pub(super) async fn checked(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = body.bytes().await?;
    let text = String::from_utf8_lossy(&bytes);
    if !text.contains(ROOT) {
        let none = NotAListing {
            status: parts.status.as_u16(),
            said: said(&text),
        };
        // S3 says so of its own passing errors: it is tried again.
        return Err(HttpError::new(HttpErrorKind::Interrupted, none));
    }
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}
