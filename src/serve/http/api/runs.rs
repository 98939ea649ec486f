//! Runs: the history, the log, starting and cancelling.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{HeaderName, LOCATION};
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::super::HttpParts;
use super::super::answer;
use super::super::call::{HttpCall, large_number, number};
use super::super::problem::HttpProblem;
use super::super::views::runs::{find, is_id, list as rows, row, unknown};
use crate::config::Config;
use crate::jobs::run_report::Trigger;
use crate::serve::handle::{CommandRefused, RunKind, RunRequest};
use crate::state::history::RunFilter;

/// Rows of one answer: by default, and at most.
const LIMIT: (u32, u32) = (50, 200);
/// Bytes of a log in one answer.
const LOG_BYTES: u64 = 256 << 10;
/// Characters of a note.
const NOTE: usize = 1000;
/// The position after the last byte of the log in the answer.
const LOG_END: HeaderName = HeaderName::from_static("x-log-end");

/// The newest runs.
pub(in super::super) async fn list(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let [kind, outcome, before, limit] = call.query(["kind", "outcome", "before", "limit"])?;
    if before.is_some_and(|before| !is_id(before)) {
        let detail = "before must be the id of a run";
        return Err(HttpProblem::unprocessable("invalid_query", detail));
    }
    let filter = RunFilter {
        kind: kind.map(str::to_owned),
        outcome: outcome.map(str::to_owned),
        before: before.map(str::to_owned),
        limit: Some(number("limit", limit, LIMIT)?),
        ..RunFilter::default()
    };
    let config = http.state().config;
    let runs = http.disk.run(move || rows(&config, &filter)).await?;
    answer::ok(&json!({ "runs": runs }))
}

/// One run with its report.
pub(in super::super) async fn show(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let (config, id) = (http.state().config, call.text().to_owned());
    answer::ok(&http.disk.run(move || find(&config, &id)).await?)
}

/// A part of a run's log.
pub(in super::super) async fn log(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let [after] = call.query(["after"])?;
    let after = large_number("after", after)?.unwrap_or(0);
    let (config, id) = (http.state().config, call.text().to_owned());
    let part = http.disk.run(move || {
        let row = row(&config, &id)?;
        row.ok_or_else(|| unknown(&id))?;
        read_log(&config.state, &id, after)
    });
    let (part, end) = part.await?;
    let mut answer = answer::with_type(StatusCode::OK, "text/plain; charset=utf-8", part);
    answer::set(&mut answer, LOG_END, &end.to_string())?;
    Ok(answer)
}

/// Returns the log of a run from the position `after` on, and the position after that part. A
/// position beyond the end is the end, and a run without a log has an empty one.
pub(in super::super) fn read_log(
    state: &Path,
    id: &str,
    after: u64,
) -> Result<(Vec<u8>, u64), HttpProblem> {
    let path = state.join("logs").join(format!("{id}.log"));
    let read = || -> std::io::Result<(Vec<u8>, u64)> {
        let mut file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Vec::new(), 0));
            }
            other => other?,
        };
        let begin = after.min(file.metadata()?.len());
        file.seek(SeekFrom::Start(begin))?;
        let mut part = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut part)?;
        let end = begin + part.len() as u64;
        Ok((part, end))
    };
    read().map_err(|error| HttpProblem::failed(format!("cannot read {}: {error}", path.display())))
}

/// What to start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    kind: StartKind,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StartKind {
    Backup,
    Verify,
    CatchUp,
}

/// Starts a run.
pub(in super::super) async fn start(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let body: StartBody = call.read()?;
    require_sources(&http.state().config, &body.include)?;
    let request = RunRequest {
        kind: match body.kind {
            StartKind::Backup => RunKind::Backup,
            StartKind::Verify => RunKind::Verify,
            StartKind::CatchUp => RunKind::CatchUp,
        },
        trigger: Trigger::Api,
        include: body.include,
        target: None,
        note: checked_note(body.note)?,
    };
    begin(http, call, request).await
}

/// Starts a run, and answers with its id.
pub(super) async fn begin(
    http: &HttpParts,
    call: &HttpCall,
    request: RunRequest,
) -> Result<Response<Body>, HttpProblem> {
    let id = http.handle.start(request).await?;
    if call.is_form() {
        return answer::see_other(&call.link(&format!("/runs/{id}")));
    }
    let mut answer = answer::json(StatusCode::ACCEPTED, &json!({ "id": id }))?;
    let location = call.link(&format!("/api/v1/runs/{id}"));
    answer::set(&mut answer, LOCATION, &location)?;
    Ok(answer)
}

/// Refuses names that are not those of sources taken on request.
fn require_sources(config: &Config, include: &[String]) -> Result<(), HttpProblem> {
    let sources = || config.sources.iter().filter(|source| source.on_request);
    let is_known = |name: &&String| sources().any(|source| source.name == **name);
    let Some(unknown) = include.iter().find(|name| !is_known(name)) else {
        return Ok(());
    };
    let shown: String = unknown.chars().take(40).collect();
    let names: Vec<&str> = sources().map(|source| source.name.as_str()).collect();
    let detail = format!("no source that is taken on request is named {shown:?}");
    Err(
        HttpProblem::not_found("no_such_source", detail).with_next(match names.is_empty() {
            true => "this host has no such source".to_owned(),
            false => format!("there is {}", names.join(", ")),
        }),
    )
}

/// Returns a note in one line; refuses one that is too long.
pub(in super::super) fn checked_note(note: Option<String>) -> Result<Option<String>, HttpProblem> {
    let Some(note) = note else { return Ok(None) };
    if note.chars().count() > NOTE {
        let detail = format!("the note has more than {NOTE} characters");
        return Err(HttpProblem::unprocessable("invalid_body", detail));
    }
    let line: String = note
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Ok(Some(line.trim().to_owned()).filter(|note| !note.is_empty()))
}

/// Ends a run that is under way.
pub(in super::super) async fn cancel(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let id = call.text().to_owned();
    match http.handle.cancel(&id).await {
        Ok(()) => {}
        Err(CommandRefused::NotRunning(_)) => return Err(not_running(http, id).await?),
        Err(refused) => return Err(refused.into()),
    }
    match call.is_form() {
        true => answer::see_other(&call.link(&format!("/runs/{id}"))),
        false => answer::json(StatusCode::ACCEPTED, &json!({ "id": id })),
    }
}

/// Returns why the run `id` cannot be cancelled: it has ended, or there is none.
async fn not_running(http: &Arc<HttpParts>, id: String) -> Result<HttpProblem, HttpProblem> {
    let config = http.state().config;
    http.disk
        .run(move || {
            Ok(match row(&config, &id)? {
                Some(_) => HttpProblem::conflict("ended", format!("run {id} is not under way")),
                None => unknown(&id),
            })
        })
        .await
}
