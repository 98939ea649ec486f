//! Failures that this side of an HTTP connection finds, as sources of `object_store` errors.

use std::sync::Arc;
use std::time::Duration;

use object_store::client::HttpError;

/// A server asks for a longer pause than the target's retry budget allows.
#[derive(Debug, thiserror::Error)]
#[error(
    "answered {status} and asks for {} s (Retry-After), which is more than the target's `retry` allows",
    .wait.as_secs_f64().ceil()
)]
pub(crate) struct AsksForTime {
    pub status: u16,
    /// The pause that is left.
    pub wait: Duration,
}

/// A target was given up before its first answer, with this failure of its last attempt.
#[derive(Debug, Clone, thiserror::Error)]
#[error("given up")]
pub(crate) struct GivenUp(#[source] pub Arc<HttpError>);

/// A server answered a listing with something else.
#[derive(Debug, thiserror::Error)]
#[error(
    "answered {status} without a listing{}; it is not an S3 server, or a proxy or login page answers for it",
    in_parentheses(.said)
)]
pub(crate) struct NotAListing {
    pub status: u16,
    /// A short quote of the answer; may be empty.
    pub said: String,
}

/// A listing that does not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Endless {
    #[error("the listing goes round in circles: the server repeats a part that it sent before")]
    Circle,
    #[error("the answer to a listing has more than {} MiB; that is no S3 server", MAX_ANSWER_BYTES >> 20)]
    TooLarge,
    #[error("the listing brought nothing new for {} minutes", IDLE.as_secs() / 60)]
    Idle,
}

/// Maximum size of one part of a listing, which has up to 1,000 keys of up to 1 KiB each.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 << 20;
/// A listing that brings no further object for this long is given up.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

/// The body of an object ended too early in several tries.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server sent {got} of {promised} bytes, and {tries} tries brought no more{}",
    in_parentheses(.said)
)]
pub(crate) struct BrokeOff {
    pub tries: u32,
    /// Bytes from the object's start that arrived.
    pub got: u64,
    /// Bytes from the object's start that were wanted.
    pub promised: u64,
    /// What the last failure says; empty if the body ended without one.
    pub said: String,
    /// The last failure. `None`: the body ended without one.
    #[source]
    pub cause: Option<object_store::Error>,
}

fn in_parentheses(said: &str) -> String {
    match said.is_empty() {
        true => String::new(),
        false => format!(" ({said})"),
    }
}
