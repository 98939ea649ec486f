//! From a request to its answer.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONNECTION, COOKIE, HOST};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body as _;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use super::access::{AccessLevel, AccessTokens};
use super::call::{FORM_TOKEN, HttpCall, form_fields};
use super::client::{Connected, HttpClient};
use super::cross_site::{BodyKind, body_kind, check_origin};
use super::problem::HttpProblem;
use super::routes::{FoundRoute, Operation, Route, find, pairs};
use super::token_check::{COOKIES, accepted};
use super::{HttpParts, admin, answer, api, body, hosts, pages};
use crate::base::panics::caught;

/// Answers a request. `shutdown`: true once the agent ends.
pub(super) async fn answer(
    http: &Arc<HttpParts>,
    connected: Connected,
    shutdown: watch::Receiver<bool>,
    request: Request<Body>,
) -> Response<Body> {
    let is_browser = is_browser(request.headers());
    let has_body = request.body().size_hint().exact() != Some(0);
    let config = http.state().config;
    let prefix = HttpClient::of(connected, request.headers(), &config.serve).prefix;
    let done = caught(handle(http, connected, shutdown, request)).await;
    let done = done.unwrap_or_else(|panicked| Err(HttpProblem::failed(panicked.to_string())));
    let is_refused = done.is_err();
    let mut answer = match done {
        Ok(answer) => answer,
        Err(problem) if is_browser => pages::problem(problem, &prefix),
        Err(problem) => problem.into_answer(),
    };
    if is_refused && has_body {
        // An unread body is in the way of the next request.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer::finish(answer)
}

async fn handle(
    http: &Arc<HttpParts>,
    connected: Connected,
    shutdown: watch::Receiver<bool>,
    request: Request<Body>,
) -> Result<Response<Body>, HttpProblem> {
    let (head, body) = request.into_parts();
    let config = http.state().config;
    let uri_host = head.uri.authority().map(|authority| authority.as_str());
    let header_host = head
        .headers
        .get(HOST)
        .map(|host| host.to_str().unwrap_or("?"));
    hosts::check(uri_host.or(header_host), connected, &config)?;
    let client = HttpClient::of(connected, &head.headers, &config.serve);
    let path = below(
        below(head.uri.path(), &config.serve.base_path),
        &client.prefix,
    );
    let (route, texts) = match find(&head.method, path) {
        FoundRoute::Route(route, texts) => (route, texts),
        FoundRoute::OtherMethods(allowed) => {
            return Err(HttpProblem::wrong_method(head.method.as_str(), &allowed));
        }
        FoundRoute::Nothing => {
            return Err(
                HttpProblem::not_found("no_such_path", "there is no such path")
                    .with_next("docs/api.md names the paths"),
            );
        }
    };
    let tokens = http.tokens(&config).await;
    let (level, session) = admitted(http, &tokens, route, &head.headers, (connected, &client))?;
    let query = pairs(head.uri.query().unwrap_or_default())
        .ok_or_else(|| HttpProblem::unprocessable("invalid_query", "the query is malformed"))?;
    let (body, body_kind) = match head.method {
        Method::GET | Method::HEAD => (Bytes::new(), BodyKind::Json),
        _ => {
            check_origin(&head.headers, uri_host)?;
            let body = body::read(body, &head.headers, http.limits.body).await?;
            let kind = body_kind(&head.method, &head.headers, body.is_empty())?;
            if kind == BodyKind::Form {
                check_form_token(http, session.as_deref(), &body)?;
            }
            (body, kind)
        }
    };
    let call = HttpCall {
        texts,
        query,
        headers: head.headers,
        body,
        body_kind,
        client,
        level,
        session,
        shutdown,
    };
    run(http, route.operation, call).await
}

/// Returns `path` below `prefix`; a proxy may have removed the prefix already.
fn below<'p>(path: &'p str, prefix: &str) -> &'p str {
    match path.strip_prefix(prefix) {
        Some("") if !prefix.is_empty() => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Returns what the caller may do and the id of its session, if that is enough for `route`.
fn admitted(
    http: &HttpParts,
    tokens: &AccessTokens,
    route: &Route,
    headers: &HeaderMap,
    (connected, client): (Connected, &HttpClient),
) -> Result<(AccessLevel, Option<String>), HttpProblem> {
    let identified = identified(http, tokens, headers, (connected, client));
    let is_open =
        route.operation == Operation::Metrics && http.state().config.serve.metrics_without_token;
    if route.needs == AccessLevel::None || is_open {
        return Ok(identified.unwrap_or((AccessLevel::None, None)));
    }
    let (level, session) = identified?;
    match level {
        AccessLevel::None => {
            let problem = HttpProblem::unauthorized("token_missing", "this needs a token")
                .with_next("send the header Authorization: Bearer TOKEN");
            // A program gets the error itself.
            let is_page = route.operation.is_page() && route.method == "GET" && is_browser(headers);
            Err(match is_page {
                true => problem.elsewhere(&format!("{}/login", client.prefix)),
                false => problem,
            })
        }
        level if level < route.needs => {
            let detail = "this token may look, and change nothing";
            Err(HttpProblem::new(StatusCode::FORBIDDEN, "read_only", detail))
        }
        level => Ok((level, session)),
    }
}

/// Whether the caller prefers pages.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// Returns what the caller may do, and the id of its session.
fn identified(
    http: &HttpParts,
    tokens: &AccessTokens,
    headers: &HeaderMap,
    (connected, client): (Connected, &HttpClient),
) -> Result<(AccessLevel, Option<String>), HttpProblem> {
    if !tokens.is_required() {
        // Such an address is refused when the agent begins to listen. A configuration that is
        // read again must not open it.
        let is_local = connected
            .own
            .is_none_or(|own| own.to_canonical().is_loopback());
        let level = match is_local {
            true => tokens.without_token(),
            false => AccessLevel::None,
        };
        return Ok((level, None));
    }
    let authorization = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    if let Some(token) = authorization.and_then(bearer) {
        let level = accepted(http, tokens, token, client)?;
        return Ok((level, None));
    }
    let now = Instant::now();
    let mut ids = session_ids(headers);
    let open = ids.find_map(|id| Some((http.sessions.level(id, now)?, Some(id.to_owned()))));
    Ok(open.unwrap_or((AccessLevel::None, None)))
}

/// Returns the token of an `Authorization` header. `None`: it is of another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    (is_bearer && (token.is_empty() || token.starts_with(b" "))).then(|| token.trim_ascii())
}

/// Returns the ids in the cookies of a request.
fn session_ids(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(COOKIE).iter();
    let texts = cookies.filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    pairs.filter_map(|pair| {
        let (name, id) = pair.trim().split_once('=')?;
        COOKIES.contains(&name).then_some(id)
    })
}

/// Refuses a form that does not come from a page of this agent.
fn check_form_token(
    http: &HttpParts,
    session: Option<&str>,
    body: &[u8],
) -> Result<(), HttpProblem> {
    let fields = form_fields(body)?;
    let token = fields.iter().find(|(name, _)| name == FORM_TOKEN);
    let token = token.map_or("", |(_, value)| value);
    let own = http.sessions.form_token(session);
    match bool::from(token.as_bytes().ct_eq(own.as_bytes())) {
        true => Ok(()),
        false => {
            let detail = "the form is not from a page of this agent, or the page is too old";
            let problem = HttpProblem::new(StatusCode::FORBIDDEN, "form_token", detail);
            Err(problem.with_next("load the page again; programs send JSON"))
        }
    }
}

async fn run(
    http: &Arc<HttpParts>,
    operation: Operation,
    call: HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    use Operation as Do;
    match operation {
        Do::Health => api::health(http, &call),
        Do::BackupHealth => api::backup_health(http, &call).await,
        Do::StartAdminBackup => admin::start(http, call).await,
        Do::ListAdminBackups => admin::list(http, &call).await,
        Do::ValidateAdminBackup => admin::validate(http, &call).await,
        Do::Status => api::status(http, &call).await,
        Do::ListRuns => api::runs::list(http, &call).await,
        Do::StartRun => api::runs::start(http, &call).await,
        Do::ShowRun => api::runs::show(http, &call).await,
        Do::ShowLog => api::runs::log(http, &call).await,
        Do::CancelRun => api::runs::cancel(http, &call).await,
        Do::ListSnapshots => api::snapshots::list(http, &call).await,
        Do::ShowSnapshot => api::snapshots::show(http, &call).await,
        Do::PinSnapshot => api::snapshots::pin(http, &call).await,
        Do::UnpinSnapshot => api::snapshots::unpin(http, &call).await,
        Do::ListTargets => api::targets::list(http, &call).await,
        Do::ShowTarget => api::targets::show(http, &call).await,
        Do::ProbeTarget => api::targets::probe(http, &call).await,
        Do::Proof => api::proof(http, &call).await,
        Do::Series => api::series(http, &call).await,
        Do::Events => super::follow::stream(http, &call),
        Do::Pause => api::operator::pause(http, &call).await,
        Do::Resume => api::operator::resume(http, &call).await,
        Do::Acknowledge => api::operator::acknowledge(http, &call).await,
        Do::TestNotifications => api::operator::test_notifications(http, &call).await,
        Do::Reload => api::operator::reload(http, &call).await,
        Do::Metrics => api::metrics(http, &call).await,
        Do::OpenApi => api::openapi(http, &call).await,
        Do::MainPage => pages::main(http, &call).await,
        Do::SnapshotPage => pages::snapshot(http, &call).await,
        Do::RunPage => pages::run(http, &call).await,
        Do::CancelPage => pages::cancel(http, &call).await,
        Do::TargetPage => pages::target(http, &call).await,
        Do::ProofPage => pages::proof(http, &call).await,
        Do::LoginPage => pages::login::show(http, &call),
        Do::LogIn => pages::login::log_in(http, &call).await,
        Do::LogOut => pages::login::log_out(http, &call),
    }
}
