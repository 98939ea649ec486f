//! Reads the body of a request, within its limits.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use super::problem::HttpProblem;

/// Most bytes of a body.
pub(super) const MOST: usize = 64 << 10;

/// Reads a body of at most [`MOST`] bytes, which arrives within `patience`.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    patience: Duration,
) -> Result<Bytes, HttpProblem> {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MOST as u64) {
        return Err(too_large());
    }
    let all = async {
        let mut parts = body.into_data_stream();
        let mut read = BytesMut::new();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| {
                let detail = format!("the body ended early: {error}");
                HttpProblem::new(StatusCode::BAD_REQUEST, "incomplete_body", detail)
            })?;
            if read.len() + part.len() > MOST {
                return Err(too_large());
            }
            read.extend_from_slice(&part);
        }
        Ok(read.freeze())
    };
    tokio::time::timeout(patience, all)
        .await
        .unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            let detail = format!("the body did not arrive within {seconds} seconds");
            Err(HttpProblem::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow_body",
                detail,
            ))
        })
}

fn too_large() -> HttpProblem {
    let detail = format!("the body has more than {MOST} bytes");
    HttpProblem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}
