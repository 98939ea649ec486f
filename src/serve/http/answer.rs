//! Answers, and the headers that each of them has.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Response, StatusCode};
use base64::Engine as _;
use serde::Serialize;

use super::problem::HttpProblem;
use super::style::STYLE;
pub(super) use super::typed_body::with_type;

const HTML: &str = "text/html; charset=utf-8";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a page may load: its own style alone.
static PAGE_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = crate::base::ids::Hash::sha256(STYLE.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(hash.0);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    // The text is ASCII, which every header can have.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Returns `value` as JSON.
pub(super) fn json(
    status: StatusCode,
    value: &impl Serialize,
) -> Result<Response<Body>, HttpProblem> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|error| HttpProblem::failed(format!("cannot write JSON: {error}")))?;
    Ok(with_type(status, "application/json", text))
}

/// Returns `value` as JSON, with the status 200.
pub(super) fn ok(value: &impl Serialize) -> Result<Response<Body>, HttpProblem> {
    json(StatusCode::OK, value)
}

/// Returns a page.
pub(super) fn page(status: StatusCode, markup: String) -> Response<Body> {
    with_type(status, HTML, markup)
}

/// Sends the browser to the page at `location` after a form was sent.
pub(super) fn see_other(location: &str) -> Result<Response<Body>, HttpProblem> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    set(&mut answer, LOCATION, location)?;
    Ok(answer)
}

/// Sets a header.
pub(super) fn set(
    answer: &mut Response<Body>,
    name: HeaderName,
    value: &str,
) -> Result<(), HttpProblem> {
    let value = HeaderValue::from_str(value);
    let value =
        value.map_err(|_| HttpProblem::failed(format!("the header {name} has no valid value")))?;
    answer.headers_mut().insert(name, value);
    Ok(())
}

/// Adds the headers that every answer has.
pub(super) fn finish(mut answer: Response<Body>) -> Response<Body> {
    let is_page = answer.headers().get(CONTENT_TYPE) == Some(&HeaderValue::from_static(HTML));
    let headers = answer.headers_mut();
    if is_page {
        headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY.clone());
    }
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
