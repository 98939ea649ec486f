//! What an operator says to the agent: pause, resume, acknowledge, reload, test.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::super::HttpParts;
use super::super::answer;
use super::super::call::HttpCall;
use super::super::problem::HttpProblem;
use super::super::quiet_front::QuietFront;
use super::super::views::targets;
use super::runs::checked_note;
use super::targets::NoMembers;
use crate::base::clock;
use crate::config::Config;
use crate::jobs::acknowledge::{self, AckRequest};
use crate::serve::handle::AgentCommand;
use crate::state::history::{History, OperatorMark};

/// How long a pause lasts without an end of its own.
const PAUSE_HOURS: i64 = 24;

/// Until when to wait.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    #[serde(default)]
    until: Option<DateTime<Utc>>,
    #[serde(default)]
    note: Option<String>,
}

/// Makes scheduled jobs wait.
pub(in super::super) async fn pause(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let body: PauseBody = call.read()?;
    let now = clock::now();
    let until = body
        .until
        .unwrap_or(now + chrono::Duration::hours(PAUSE_HOURS));
    if until <= now {
        let detail = format!("until is in the past: here it is {}", now.format("%FT%TZ"));
        return Err(HttpProblem::conflict("in_the_past", detail));
    }
    let mark = OperatorMark {
        made_at: now,
        until: Some(until),
        note: checked_note(body.note)?,
    };
    with_history(http, move |history| {
        Ok(history.set_mark(OperatorMark::PAUSE, &mark)?)
    })
    .await?;
    changed(http, call, &json!({ "paused_until": until })).await
}

/// Ends the pause.
pub(in super::super) async fn resume(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let NoMembers {} = call.read()?;
    let removed = |history: &History| Ok(history.remove_mark(OperatorMark::PAUSE)?);
    let was_paused = with_history(http, removed).await?;
    changed(http, call, &json!({ "was_paused": was_paused })).await
}

/// What to acknowledge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody {
    code: String,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    note: Option<String>,
}

/// Acknowledges a finding.
pub(in super::super) async fn acknowledge(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let body: AckBody = call.read()?;
    let config = http.state().config;
    if let Some(target) = &body.target {
        targets::require(&config, target)?;
    }
    let note = checked_note(body.note)?;
    let work = move || {
        let request = AckRequest {
            code: &body.code,
            target: body.target.as_deref(),
            source: body.source.as_deref(),
            note: note.as_deref(),
        };
        Ok(json!(acknowledge::run(&config, &request, &QuietFront)?))
    };
    let report = http.changes.run(work).await?;
    changed(http, call, &report).await
}

/// The channel to test.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyTestBody {
    #[serde(default)]
    channel: Option<String>,
}

/// Sends one message to each channel, or to one.
pub(in super::super) async fn test_notifications(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let body: NotifyTestBody = call.read()?;
    let (facts, config) = (Arc::clone(&http.facts), http.state().config);
    let work = move || Ok(facts.test_notifications(&config, body.channel.as_deref())?);
    answer::ok(&http.changes.run(work).await?)
}

/// Reads the configuration again.
pub(in super::super) async fn reload(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let NoMembers {} = call.read()?;
    http.handle.reload().await?;
    let config = http.state().config;
    answer::ok(&json!({ "config_path": config.file.display().to_string() }))
}

/// Changes the history.
async fn with_history<T: Send + 'static>(
    http: &Arc<HttpParts>,
    change: impl FnOnce(&History) -> Result<T, HttpProblem> + Send + 'static,
) -> Result<T, HttpProblem> {
    let config: Arc<Config> = http.state().config;
    let work = move || change(&History::open(&config.state)?);
    http.changes.run(work).await
}

/// Has the scheduler look at the marks again, and answers.
async fn changed(
    http: &HttpParts,
    call: &HttpCall,
    report: &serde_json::Value,
) -> Result<Response<Body>, HttpProblem> {
    let sent = http.handle.commands.send(AgentCommand::Refresh).await;
    sent.map_err(|_| HttpProblem::stopping())?;
    match call.is_form() {
        true => answer::see_other(&call.link("/")),
        false => answer::ok(report),
    }
}
