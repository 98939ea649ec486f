//! Whether a token is accepted, and how often an address may try.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::HttpParts;
use super::access::{AccessLevel, AccessTokens};
use super::client::HttpClient;
use super::problem::HttpProblem;

/// Names of the session's cookie: without TLS, and with it.
pub(super) const COOKIES: [&str; 2] = ["sealift_session", "__Host-sealift_session"];

/// Returns what `token` allows; counts it if it is wrong.
pub(super) fn accepted(
    http: &HttpParts,
    tokens: &AccessTokens,
    token: &[u8],
    client: &HttpClient,
) -> Result<AccessLevel, HttpProblem> {
    let now = Instant::now();
    let address = client.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if let Some(seconds) = http.attempts.locked_seconds(address, now) {
        return Err(HttpProblem::too_many_attempts(seconds));
    }
    tokens.of(token).ok_or_else(|| {
        http.attempts.count(address, now);
        HttpProblem::unauthorized("token_wrong", "the token is not accepted")
    })
}
