//! What an `object_store` error means to us.
//!
//! Its messages repeat their sources all the way down, so [`explain`] makes one line of them and the chain is
//! cut there.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};

use super::error_text::explain;
use super::retry_after::AsksForTime;
use crate::storage::ErrorKind;
use crate::storage::s3::listing_guard::{Endless, NotAListing};

/// What it writes before the status of an answer.
pub(crate) const STATUS: &str = "non-2xx status code: ";

/// An `object_store` error as a source: everything it has to say, once.
#[derive(Debug, thiserror::Error)]
#[error("{}", explain(.0))]
pub(crate) struct StoreError(pub object_store::Error);

pub(crate) fn kind_of(error: &object_store::Error) -> ErrorKind {
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

/// Whether the store does not do conditional puts: it says so, or answers 501.
pub(crate) fn is_unsupported(error: &object_store::Error) -> bool {
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
/// reached is not among these, and of one that let a deadline pass only what happened within the
/// budget (`in_time`). 405 is what WebDAV says when two puts make one folder at once.
pub(crate) fn is_worth_another_put(error: &object_store::Error, in_time: bool) -> bool {
    let failure = http_error(error);
    match (failure.map(HttpError::kind), http_status(error)) {
        (Some(HttpErrorKind::Connect), _) => false,
        (Some(HttpErrorKind::Timeout), _) => in_time || failure.is_some_and(is_of_the_system),
        (Some(HttpErrorKind::Unknown), _) => !failure.is_some_and(is_asked_for),
        (Some(_), _) | (None, Some(405)) => true,
        _ => false,
    }
}

/// Whether a deadline of ours ended it.
pub(crate) fn is_out_of_time(error: &object_store::Error) -> bool {
    let failure = http_error(error);
    failure.is_some_and(|e| e.kind() == HttpErrorKind::Timeout && !is_of_the_system(e))
}

/// Whether a listing broke off in the middle of an answer, which `object_store` does not repeat.
pub(crate) fn is_worth_another_listing(error: &object_store::Error, in_time: bool) -> bool {
    let broke = http_error(error).is_some_and(|error| !is_refused(error));
    in_time && broke && is_worth_another_put(error, in_time)
}

/// The system itself gave the connection up: no deadline of ours.
pub(crate) fn is_of_the_system(error: &HttpError) -> bool {
    let io = innermost(error).downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.raw_os_error().is_some())
}

/// The server wants to be left alone for longer than there is.
pub(crate) fn is_asked_for(error: &HttpError) -> bool {
    innermost(error).is::<AsksForTime>()
}

/// It was answered, and refused by us.
pub(crate) fn is_refused(error: &HttpError) -> bool {
    let innermost = innermost(error);
    is_asked_for(error) || innermost.is::<NotAListing>() || innermost.is::<Endless>()
}

pub(crate) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

fn http_failure(error: &object_store::Error) -> Option<HttpErrorKind> {
    http_error(error).map(HttpError::kind)
}

/// What broke the request, if it got no answer.
pub(crate) fn http_error(error: &object_store::Error) -> Option<&HttpError> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(http) = source.downcast_ref::<HttpError>() {
            return Some(http);
        }
        next = source.source();
    }
    None
}

/// The status that the server answered. `object_store` keeps the type private that has it, so this
/// reads the message; a test holds the wording.
pub(crate) fn http_status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    let at = text.find(STATUS)? + STATUS.len();
    text.get(at..at + 3)?.parse().ok()
}
