//! The agent's own API, below `/api/v1`, and what monitors ask.

pub(super) mod operator;
pub(super) mod runs;
pub(super) mod snapshots;
pub(super) mod targets;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use super::HttpParts;
use super::access::AccessLevel;
use super::answer;
use super::call::{HttpCall, number};
use super::problem::HttpProblem;
use super::views;
use crate::base::clock;
use crate::jobs::verdict::{Severity, Verdict};
use crate::serve::metrics::MetricsFormat;
use crate::state::history::RunFigure;

/// The loop of the scheduler goes round far more often.
const LATE: Duration = Duration::from_secs(120);
/// Most points of a series.
const POINTS: usize = 400;
/// Most receipts that are listed.
const RECEIPTS: usize = 50;
/// Days of a series: by default, and at most.
const DAYS: (u32, u32) = (90, 3660);

/// Whether this process works.
pub(super) fn health(http: &HttpParts, call: &HttpCall) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let late = http.state().beat.elapsed();
    if late > LATE {
        let detail = format!(
            "the scheduler has not gone round for {} seconds",
            late.as_secs()
        );
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(HttpProblem::new(status, "scheduler_late", detail)
            .with_next("look at the log of the agent; restart it"));
    }
    let version = views::status::VERSION;
    answer::ok(&json!({"status": "ok", "service": "sealift", "version": version}))
}

/// Whether the backups are safe, for monitors that only look at the status.
pub(super) async fn backup_health(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let verdict = views::status::verdict(http).await?;
    let status = match verdict.state {
        Severity::Red => StatusCode::SERVICE_UNAVAILABLE,
        Severity::Green | Severity::Amber => StatusCode::OK,
    };
    match call.level {
        AccessLevel::None => answer::json(status, &json!({"state": verdict.state})),
        _ => answer::json(status, &without_paths(verdict)),
    }
}

/// Returns the verdict with a placeholder for each path in its texts.
fn without_paths(mut verdict: Verdict) -> Verdict {
    let is_path = |word: &str| {
        let word = word.trim_start_matches(['"', '\'', '(', '`']);
        word.starts_with('/') && word.len() > 1
    };
    let strip = |text: &str| {
        let words = text.split(' ');
        let words = words.map(|word| if is_path(word) { "(path)" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    verdict.sentence = strip(&verdict.sentence);
    for finding in &mut verdict.findings {
        finding.text = strip(&finding.text);
        finding.next = strip(&finding.next);
    }
    verdict
}

/// The verdict and the state of the agent.
pub(super) async fn status(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let view = json!(views::status::status(http).await?);
    let mut steady = view.clone();
    // It changes every second, and a client can count.
    if let Some(newest) = steady["newest"].as_object_mut() {
        newest.remove("age_seconds");
    }
    let hash = blake3::hash(steady.to_string().as_bytes()).to_hex();
    let tag = format!("W/\"{}\"", &hash[..32]);
    let wanted = call.header(IF_NONE_MATCH.as_str()).unwrap_or_default();
    let mut known = wanted.split(',').map(str::trim);
    let mut answer = match known.any(|one| one == tag || one == "*") {
        true => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        }
        false => answer::ok(&view)?,
    };
    answer::set(&mut answer, ETAG, &tag)?;
    Ok(answer)
}

/// The newest receipts of restores for proof, and keys.
pub(super) async fn proof(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let mut proof = views::status::proof(http).await?;
    proof.receipts.truncate(RECEIPTS);
    answer::ok(&json!({"receipts": proof.receipts, "keys": proof.keys}))
}

/// A figure over time.
pub(super) async fn series(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let [name, target, days] = call.query(["name", "target", "days"])?;
    let figure = match name {
        Some("stored_bytes") => RunFigure::StoredBytes,
        Some("new_bytes") => RunFigure::NewBytes,
        Some("seconds") => RunFigure::Seconds,
        Some("lag") => RunFigure::Lag,
        _ => {
            let detail = "name must be stored_bytes, new_bytes, seconds or lag";
            return Err(HttpProblem::unprocessable("invalid_query", detail));
        }
    };
    let days = number("days", days, DAYS)?;
    let config = http.state().config;
    if let Some(target) = target {
        views::targets::require(&config, target)?;
    }
    let target = target.map(str::to_owned);
    let points = http.disk.run(move || {
        let since = clock::now() - chrono::Duration::days(days.into());
        match views::history(&config)? {
            Some(history) => Ok(history.run_series(figure, target.as_deref(), since)?),
            None => Ok(Vec::new()),
        }
    });
    let points = points.await?;
    // Of each group of neighbours, the last stays.
    let group = points.len().div_ceil(POINTS).max(1);
    let points = points.rchunks(group).rev().filter_map(|group| group.last());
    let points: Vec<Value> = points
        .map(|(at, value)| json!([at.timestamp(), value]))
        .collect();
    answer::ok(&json!({ "points": points }))
}

/// Metrics for Prometheus.
pub(super) async fn metrics(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let format = MetricsFormat::accepted_by(call.header("accept"));
    let (facts, state) = (Arc::clone(&http.facts), http.state());
    let text = http.disk.run(move || {
        let verdict = facts.verdict(&state.config, clock::now())?;
        Ok(facts.metrics(&state, &verdict, format)?)
    });
    let content_type = format.content_type();
    Ok(answer::with_type(StatusCode::OK, content_type, text.await?))
}

/// The document that describes this API.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The same for an agent without a token.
static OPEN_OPENAPI: LazyLock<String> = LazyLock::new(|| {
    // The text is ours, and a test parses it.
    let mut document: Value = serde_json::from_str(OPENAPI).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.remove("security");
    }
    document.to_string()
});

/// Describes this API.
pub(super) async fn openapi(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let tokens = http.tokens(&http.state().config).await;
    let text = match tokens.is_required() {
        true => OPENAPI,
        false => OPEN_OPENAPI.as_str(),
    };
    Ok(answer::with_type(StatusCode::OK, "application/json", text))
}
