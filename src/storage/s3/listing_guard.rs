//! What is no listing is never taken for an empty one.
//!
//! `object_store` finds an empty bucket in any XML that comes with a status of 200: in the error that S3 may send
//! that way, in the page that a hotel's network answers to everything. Everything stored would count as lost. So an
//! answer to a listing is looked at first, which also has its body read to the end before it counts as received.
//!
//! Nor may a hostile server have us read without end: an answer has a bound, and one that names the part that was just
//! asked for as the next one ends the listing with an error. (A longer circle is found by what is listed, in
//! `object.rs`.)

use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse};

use crate::storage::http::error_text::said;

const ROOT: &str = "ListBucketResult";

#[derive(Debug, thiserror::Error)]
#[error(
    "answered {status} without a listing{}; that is no S3 server, or something stands before it",
    quoted(.said)
)]
pub(crate) struct NotAListing {
    status: u16,
    said: String,
}

fn quoted(said: &str) -> String {
    match said.is_empty() {
        true => String::new(),
        false => format!(" ({said})"),
    }
}

pub(crate) fn is_asked_by(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == "list-type=2")
}

/// What a server must not answer to a listing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Endless {
    #[error("the listing goes round in circles: the server names a part again that it gave before")]
    Circle,
    #[error("the answer to a listing has more than {} MiB; that is no S3 server", MAX_ANSWER_BYTES >> 20)]
    TooLarge,
    #[error("the listing brought nothing new for {} minutes", IDLE.as_secs() / 60)]
    Idle,
}

/// A part of a listing has up to 1,000 keys of up to 1 KiB each.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// A listing that goes on for so long without another object is given up.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

/// The part of a listing that is asked for; `None`: the first.
pub(crate) fn part_asked_for(request: &HttpRequest) -> Option<String> {
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

/// The part that the answer names as the next.
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

/// The answer to a listing, if it is one. `asked`: the part that was asked for.
pub(crate) async fn checked(
    response: HttpResponse,
    asked: Option<String>,
) -> Result<HttpResponse, HttpError> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let (mut bytes, mut pieces) = (Vec::new(), body.bytes_stream());
    // Of an unknown kind: that is not tried again.
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
        // S3 says so of its own passing errors: it is tried again.
        return Err(HttpError::new(HttpErrorKind::Interrupted, none));
    }
    if asked.is_some() && asked == next_part(&text) {
        return Err(refused(Endless::Circle));
    }
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

/// Finds out whether a listing, in which no key stands twice, repeats itself: the key at each power of two is
/// compared with those that follow (Brent's way), so it needs no memory of all.
#[derive(Debug, Default)]
pub(crate) struct Circle {
    kept: Option<String>,
    seen: u64,
    next: u64,
}

impl Circle {
    /// Takes the next key.
    pub fn check(&mut self, key: &str) -> Result<(), Endless> {
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
    fn a_listing_that_repeats_itself_is_found_out_wherever_its_circle_begins() {
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
    fn the_next_part_is_read_as_it_is_asked_for() {
        let answer = "<NextContinuationToken>a/b+c=&amp;&lt;</NextContinuationToken>";
        assert_eq!(next_part(answer).as_deref(), Some("a/b+c=&<"));
        assert_eq!(percent_decoded("a%2Fb%2Bc%3D%26%3C"), "a/b+c=&<");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
        assert_eq!(next_part("<ListBucketResult/>"), None);
    }
}
