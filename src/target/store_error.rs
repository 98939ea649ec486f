//! What an `object_store` error means to us.
//!
//! Its messages repeat their sources all the way down, so one line in our own words is kept and the chain is
//! cut there.

use std::error::Error as _;

use object_store::client::{HttpError, HttpErrorKind};

use super::ErrorKind;
use super::store_words::describe;

/// An `object_store` error as a source: everything it has to say, once.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
pub(super) struct StoreError(pub object_store::Error);

pub(super) fn kind_of(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as E;
    match error {
        _ if is_frozen(error) => ErrorKind::Frozen,
        E::NotFound { .. } => ErrorKind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Denied,
        E::JoinError { .. } => ErrorKind::Unavailable,
        E::Generic { .. } => match (http_status(error), http_failure(error)) {
            (Some(401 | 403), _) => ErrorKind::Denied,
            (Some(408 | 429 | 500..), _) | (None, Some(_)) => ErrorKind::Unavailable,
            _ => ErrorKind::Permanent,
        },
        _ => ErrorKind::Permanent,
    }
}

/// What S3 (403) and Azure (409) answer to reading what lies in an archive class.
fn is_frozen(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    let code = match error {
        E::PermissionDenied { .. } => "InvalidObjectState",
        E::AlreadyExists { .. } => "BlobArchived",
        _ => return false,
    };
    error.to_string().contains(code)
}

/// What an error's XML says: its code, and its message where that is another.
pub(super) fn s3_complaint(body: &str) -> Option<String> {
    let inside = |tag: &str| {
        let (_, rest) = body.split_once(&format!("<{tag}>"))?;
        let (text, _) = rest.split_once(&format!("</{tag}>"))?;
        Some(text.trim()).filter(|text| !text.is_empty())
    };
    match (inside("Code")?, inside("Message")) {
        (code, Some(message)) if message != code => Some(format!("{code}: {message}")),
        (code, _) => Some(code.to_owned()),
    }
}

/// Whether the store does not do conditional puts: it says so, or answers 501.
pub(super) fn is_unsupported(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    match error {
        E::NotImplemented { .. } | E::NotSupported { .. } => true,
        E::Generic { .. } => http_status(error) == Some(501),
        _ => false,
    }
}

/// Whether a put broke off and should be tried again beyond what `object_store` does by itself: it
/// never repeats an interrupted conditional put (ours may be, the name is the content), and an
/// upload that broke after the retry budget gets no second try at all. A server that cannot be
/// reached is not among these. 405 is what WebDAV says when two puts make one folder at once.
pub(super) fn is_worth_another_put(error: &object_store::Error) -> bool {
    match (http_failure(error), http_status(error)) {
        (Some(HttpErrorKind::Connect), _) => false,
        (Some(_), _) | (None, Some(405)) => true,
        _ => false,
    }
}

fn http_failure(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(http) = source.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        next = source.source();
    }
    None
}

/// The status that the server answered. `object_store` keeps the type private that has it, so this
/// reads the message; a test holds the wording.
fn http_status(error: &object_store::Error) -> Option<u16> {
    const WORDING: &str = "non-2xx status code: ";
    let text = error.to_string();
    let at = text.find(WORDING)? + WORDING.len();
    text.get(at..at + 3)?.parse().ok()
}
