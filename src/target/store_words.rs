//! An `object_store` error in words: what happened, where, and how often it was tried for how long.
//!
//! Its own text is for whoever wrote it, and the type that knows how often it tried is private to it, so this
//! reads the text. A test holds the wording; what cannot be read is told as it is.

use std::error::Error;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use super::patience::with_tries;
use super::resume::BrokeOff;
use super::store_error::s3_complaint;

const MOST_SAID_CHARS: usize = 300;

/// `error` on one line.
pub(super) fn describe(error: &object_store::Error) -> String {
    if let Some(broke_off) = find::<BrokeOff>(error) {
        return broke_off.to_string();
    }
    let text = error.to_string();
    let request = Request::read(&text);
    let server = request
        .as_ref()
        .and_then(|request| request.server.as_deref());
    let what = match (find::<HttpError>(error), &request) {
        (Some(failure), _) => unanswered(failure, server),
        (None, Some(request)) => answered(request.outcome),
        (None, None) => return text,
    };
    match request {
        Some(request) => with_tries(what, request.tries, request.took),
        None => what,
    }
}

fn find<T: Error + 'static>(error: &object_store::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(found) = source.downcast_ref::<T>() {
            return Some(found);
        }
        next = source.source();
    }
    None
}

/// The end of the chain says why: a name that is not found, a port where nobody listens.
fn unanswered(failure: &HttpError, server: Option<&str>) -> String {
    let mut cause: &dyn Error = failure;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let server = server.unwrap_or("the server");
    let cause = cause.to_string();
    match failure.kind() {
        HttpErrorKind::Timeout if cause == "operation timed out" => {
            format!("no answer from {server} in time")
        }
        HttpErrorKind::Timeout => format!("no answer from {server} in time: {cause}"),
        HttpErrorKind::Connect => format!("no connection to {server}: {cause}"),
        _ => format!("the connection to {server} broke off: {cause}"),
    }
}

fn answered(outcome: &str) -> String {
    const STATUS: &str = "Server returned non-2xx status code: ";
    let Some(answer) = outcome.strip_prefix(STATUS) else {
        return outcome.to_owned();
    };
    let (status, body) = answer.split_once(": ").unwrap_or((answer, ""));
    let said = s3_complaint(body).unwrap_or_else(|| shortened(body));
    match said.is_empty() {
        true => format!(
            "the server answered {}",
            status.trim_end_matches([':', ' '])
        ),
        false => format!("the server answered {status}: {said}"),
    }
}

fn shortened(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().take(MOST_SAID_CHARS).collect()
}

/// `Error performing GET URL in 4.06s, after 11 retries, max_retries: … - OUTCOME`
struct Request<'a> {
    /// Scheme, host and port.
    server: Option<String>,
    took: Duration,
    tries: u32,
    outcome: &'a str,
}

impl<'a> Request<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (head, outcome) = text.split_once(" - ")?;
        let (_, request) = head.rsplit_once("Error performing ")?;
        let (target, rest) = request.split_once(" in ")?;
        let (_, url) = target.split_once(' ')?;
        let url = url::Url::parse(url.trim()).ok();
        let (took, retries) = match rest.split_once(", after ") {
            Some((took, rest)) => (took, rest.split(' ').next()?.parse().ok()?),
            None => (rest, 0u32),
        };
        Some(Self {
            server: url.map(|url| url.origin().ascii_serialization()),
            took: duration(took.trim())?,
            tries: retries.saturating_add(1),
            outcome: outcome.trim(),
        })
    }
}

/// As `Duration` shows itself: `1.5s`, `23.4ms`, `566.2µs`.
fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<String> {
        let request = Request::read(text)?;
        Some(with_tries(
            answered(request.outcome),
            request.tries,
            request.took,
        ))
    }

    #[test]
    fn its_wording_is_read() {
        let text = "Generic S3 error: Error performing list request: Error performing GET \
                    http://127.0.0.1:9/b?prefix=p%2Fh in 4.067007144s, after 11 retries, max_retries: 20, \
                    retry_timeout: 4s  - HTTP error: error sending request";
        let request = Request::read(text).unwrap();
        assert_eq!(request.server.as_deref(), Some("http://127.0.0.1:9"));
        assert_eq!((request.tries, request.took.as_secs()), (12, 4));
        assert_eq!(request.outcome, "HTTP error: error sending request");

        let denied = "The operation lacked the necessary privileges to complete for path x: Error performing PUT \
                      https://b.s3.example.org/x in 566.275µs - Server returned non-2xx status code: 403 Forbidden: \
                      <?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access - Denied</Message></Error>";
        let expected = "the server answered 403 Forbidden: AccessDenied: Access - Denied";
        assert_eq!(words(denied).as_deref(), Some(expected));

        let busy = "Generic S3 error: Error performing GET http://x/ in 240.5s, after 1 retries, max_retries: 20, \
                    retry_timeout: 180s  - Server returned non-2xx status code: 503 Service Unavailable: ";
        let expected = "the server answered 503 Service Unavailable; tried 2 times in 4 minutes";
        assert_eq!(words(busy).as_deref(), Some(expected));
        assert_eq!(words("Object at location x not found: no such file"), None);
    }
}
