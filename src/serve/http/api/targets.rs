//! Targets.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use serde::Deserialize;
use serde_json::json;

use super::super::HttpParts;
use super::super::answer;
use super::super::call::HttpCall;
use super::super::problem::HttpProblem;
use super::super::views::targets;
use super::runs::begin;
use crate::jobs::run_report::Trigger;
use crate::serve::handle::{RunKind, RunRequest};

/// All targets.
pub(in super::super) async fn list(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let config = http.state().config;
    let all = http
        .disk
        .run(move || targets::list(&config, targets::TargetDetail::Full))
        .await?;
    answer::ok(&json!({ "targets": all }))
}

/// One target.
pub(in super::super) async fn show(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let (config, name) = (http.state().config, call.text().to_owned());
    answer::ok(&http.disk.run(move || targets::find(&config, &name)).await?)
}

/// A body without members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoMembers {}

/// Starts a look at a target.
pub(in super::super) async fn probe(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let NoMembers {} = call.read()?;
    targets::require(&http.state().config, call.text())?;
    let request = RunRequest {
        kind: RunKind::Probe,
        trigger: Trigger::Api,
        include: Vec::new(),
        target: Some(call.text().to_owned()),
        note: None,
    };
    begin(http, call, request).await
}
