//! Requests that a page of another site makes a browser send are refused.

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};

use super::problem::HttpProblem;

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// JSON, or nothing.
    Json,
    /// A form of a page, which must carry the page's token.
    Form,
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Refuses a request that changes something if another site's page may have sent it.
pub(super) fn check_origin(headers: &HeaderMap, uri_host: Option<&str>) -> Result<(), HttpProblem> {
    let site = text(headers, "sec-fetch-site");
    let is_other_site = site.is_some_and(|site| !["same-origin", "none"].contains(&site));
    let host = uri_host.or_else(|| text(headers, HOST.as_str()));
    let is_other_origin = text(headers, ORIGIN.as_str()).is_some_and(|origin| {
        let authority = origin
            .split_once("://")
            .filter(|(scheme, _)| ["http", "https"].contains(scheme));
        let authority = authority.and_then(|(_, rest)| rest.parse::<Authority>().ok());
        let own = host.and_then(|host| host.parse::<Authority>().ok());
        authority.is_none() || authority != own
    });
    match is_other_site || is_other_origin {
        true => {
            let detail = "a page of another site sent this request";
            Err(HttpProblem::new(
                StatusCode::FORBIDDEN,
                "cross_site",
                detail,
            ))
        }
        false => Ok(()),
    }
}

/// Returns the kind of the body of a request that changes something.
///
/// Nothing but JSON and forms is taken. A request without a body and without a type is taken from
/// programs; from browsers only with a method that no page of another site can use unasked.
pub(super) fn body_kind(
    method: &Method,
    headers: &HeaderMap,
    is_empty: bool,
) -> Result<BodyKind, HttpProblem> {
    let kind = text(headers, CONTENT_TYPE.as_str());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let kind = kind.map(str::to_ascii_lowercase);
    let is_browser = headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site");
    match kind.as_deref() {
        Some("application/json") => Ok(BodyKind::Json),
        Some("application/x-www-form-urlencoded") if method == Method::POST => Ok(BodyKind::Form),
        None if is_empty && (!is_browser || method != Method::POST) => Ok(BodyKind::Json),
        _ => {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let detail = "the body must be JSON";
            Err(HttpProblem::new(status, "not_json", detail)
                .with_next("send the header Content-Type: application/json"))
        }
    }
}
