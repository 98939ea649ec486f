//! Classifies `object_store` errors: kind, and whether another try makes sense.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};

use super::faults::{AsksForTime, Endless, GivenUp, NotAListing};
use crate::storage::error::ErrorKind;

/// The text that `object_store` puts before the status of an answer.
pub(crate) const STATUS: &str = "non-2xx status code: ";

/// Returns what an error means for the caller.
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

/// Whether S3 (403) or Azure (409) refused to read an object that is in an archive class.
fn is_frozen(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    let code = match error {
        E::PermissionDenied { .. } => "InvalidObjectState",
        E::AlreadyExists { .. } => "BlobArchived",
        _ => return false,
    };
    error.to_string().contains(code)
}

/// Whether the store does not support the request (a conditional put): the library says so, or the
/// server answers 501.
pub(crate) fn is_unsupported(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    match error {
        E::NotImplemented { .. } | E::NotSupported { .. } => true,
        E::Generic { .. } => http_status(error) == Some(501),
        _ => false,
    }
}

/// Whether a put broke off and deserves another try beyond those of `object_store`.
///
/// The library never repeats an interrupted conditional put (ours may be repeated, because the name
/// is derived from the content), and gives an upload that broke after the retry budget no second
/// try. A server that cannot be reached gets no further try. A server that let a deadline pass gets
/// one only within the budget (`in_time`). WebDAV answers 405 if two puts create a folder at once.
pub(crate) fn is_worth_another_put(error: &object_store::Error, in_time: bool) -> bool {
    if is_given_up(error) {
        return false;
    }
    let failure = http_error(error);
    match (failure.map(HttpError::kind), http_status(error)) {
        (Some(HttpErrorKind::Connect), _) => false,
        (Some(HttpErrorKind::Timeout), _) => in_time || failure.is_some_and(is_of_the_system),
        (Some(HttpErrorKind::Unknown), _) => !failure.is_some_and(asks_for_time),
        (Some(_), _) | (None, Some(405)) => true,
        _ => false,
    }
}

/// Whether a deadline of ours ended the request.
pub(crate) fn is_out_of_time(error: &object_store::Error) -> bool {
    let failure = http_error(error);
    failure.is_some_and(|e| e.kind() == HttpErrorKind::Timeout && !is_of_the_system(e))
}

/// Whether a listing broke off in the middle of an answer, which `object_store` does not retry.
pub(crate) fn is_worth_another_listing(error: &object_store::Error, in_time: bool) -> bool {
    let broke = http_error(error).is_some_and(|error| !is_refused(error));
    in_time && broke && is_worth_another_put(error, in_time)
}

/// Whether the operating system gave up the connection, and not a deadline of ours.
pub(crate) fn is_of_the_system(error: &HttpError) -> bool {
    let io = innermost(error).downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.raw_os_error().is_some())
}

/// Whether the server asks for a longer pause than the retry budget allows.
pub(crate) fn asks_for_time(error: &HttpError) -> bool {
    innermost(error).is::<AsksForTime>()
}

/// Whether the server answered and this side refused the answer.
pub(crate) fn is_refused(error: &HttpError) -> bool {
    let innermost = innermost(error);
    asks_for_time(error) || innermost.is::<NotAListing>() || innermost.is::<Endless>()
}

/// Returns the last error of the chain of sources.
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

/// Whether the target was given up, so that no request makes another try.
pub(crate) fn is_given_up(error: &object_store::Error) -> bool {
    first_http_error(error).is_some_and(|http| given_up(http).is_some())
}

fn given_up(error: &HttpError) -> Option<&GivenUp> {
    error.source()?.downcast_ref::<GivenUp>()
}

/// Returns the failure of a request that got no complete answer.
pub(crate) fn http_error(error: &object_store::Error) -> Option<&HttpError> {
    let http = first_http_error(error)?;
    Some(given_up(http).map_or(http, |given_up| &given_up.0))
}

fn first_http_error(error: &object_store::Error) -> Option<&HttpError> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(http) = source.downcast_ref::<HttpError>() {
            return Some(http);
        }
        next = source.source();
    }
    None
}

/// Returns the status of the server's answer. `object_store` keeps the type that holds it private,
/// so this reads the message; a test asserts its wording.
pub(crate) fn http_status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    let at = text.find(STATUS)? + STATUS.len();
    text.get(at..at + 3)?.parse().ok()
}
