//! Rejects a 200 response that is not a `ListBucketResult`, so that it cannot pass for an empty
//! bucket.
//!
//! `object_store` finds an empty bucket in any XML with a status of 200: in an error that S3 sends
//! that way, in the page with which a hotel's network answers every request. All stored objects
//! would count as lost. So the answer to a listing (of S3, and of Google, which uses the same form)
//! is read to its end and checked first.
//!
//! A hostile server must not make us read without end either. So an answer has a maximum size, and
//! one whose next part is the part just requested ends the listing with an error. [`Circle`] finds
//! longer circles by the listed keys.

use futures::TryStreamExt as _;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

use super::faults::{Endless, MAX_ANSWER_BYTES, NotAListing};
use super::response_text::said;

/// The root element of a listing.
const ROOT: &str = "ListBucketResult";

/// Whether `request` asks for a listing.
pub(crate) fn is_listing(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == "list-type=2")
}

/// Returns the token of the part of a listing that `request` asks for. `None`: the first.
pub(crate) fn requested_part(request: &HttpRequest) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = query.split('&');
    let value = pairs.find_map(|pair| pair.strip_prefix("continuation-token="))?;
    Some(percent_decoded(value))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the token of the next part that an answer names. `None`: it is the last part.
fn next_part(answer: &str) -> Option<String> {
    const TAG: &str = "NextContinuationToken>";
    let (_, rest) = answer.split_once(&format!("<{TAG}"))?;
    let (token, _) = rest.split_once(&format!("</{TAG}"))?;
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let token = entities
        .iter()
        .fold(token.to_owned(), |text, (entity, sign)| {
            text.replace(entity, sign)
        });
    Some(token)
}

/// Returns the answer to a listing, or an error if it is not a listing. `asked` is the token of the
/// requested part.
pub(crate) async fn checked(
    response: HttpResponse,
    asked: Option<String>,
) -> Result<HttpResponse, HttpError> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let (mut bytes, mut pieces) = (Vec::new(), body.bytes_stream());
    // `object_store` does not retry an error of unknown kind.
    let refused = |endless| HttpError::new(HttpErrorKind::Unknown, endless);
    while let Some(piece) = pieces.try_next().await? {
        if piece.len() > MAX_ANSWER_BYTES - bytes.len() {
            return Err(refused(Endless::TooLarge));
        }
        bytes.extend_from_slice(&piece);
    }
    let text = String::from_utf8_lossy(&bytes);
    if !text.contains(ROOT) {
        let none = NotAListing {
            status: parts.status.as_u16(),
            said: said(&text),
        };
        // S3 sends its own passing errors in this way, so it is retried.
        return Err(HttpError::new(HttpErrorKind::Interrupted, none));
    }
    if asked.is_some() && asked == next_part(&text) {
        return Err(refused(Endless::Circle));
    }
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

/// Detects a listing that repeats itself, although no key is listed twice. Compares the key at each
/// power of two with those that follow (Brent's algorithm), so it need not remember all keys.
#[derive(Debug, Default)]
pub(crate) struct Circle {
    /// The key that the following ones are compared with.
    kept: Option<String>,
    /// Number of keys so far.
    seen: u64,
    /// Number of keys at which to replace `kept`.
    next: u64,
}

impl Circle {
    /// Takes the next key.
    pub(crate) fn check(&mut self, key: &str) -> Result<(), Endless> {
        if self.kept.as_deref() == Some(key) {
            return Err(Endless::Circle);
        }
        self.seen += 1;
        if self.seen >= self.next {
            self.kept = Some(key.to_owned());
            self.next = self.seen * 2;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_detected_wherever_it_begins() {
        for (before, circle) in [(0, 1), (0, 7), (5, 3), (100, 1000), (1000, 1)] {
            let keys = (0..before).chain((before..before + circle).cycle());
            let mut found = Circle::default();
            let steps = keys
                .take(10_000)
                .take_while(|n| found.check(&format!("{n}")).is_ok());
            assert!(
                steps.count() < 4 * (before + circle) + 4,
                "{before} {circle}"
            );
        }
        let mut found = Circle::default();
        assert!((0..10_000).all(|n| found.check(&format!("{n}")).is_ok()));
    }

    #[test]
    fn the_next_part_is_compared_with_the_requested_one() {
        let answer = "<NextContinuationToken>a/b+c=&amp;&lt;</NextContinuationToken>";
        assert_eq!(next_part(answer).as_deref(), Some("a/b+c=&<"));
        assert_eq!(percent_decoded("a%2Fb%2Bc%3D%26%3C"), "a/b+c=&<");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
        assert_eq!(next_part("<ListBucketResult/>"), None);
    }
}
