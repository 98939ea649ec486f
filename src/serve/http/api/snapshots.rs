//! Snapshots and their pins.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::super::HttpParts;
use super::super::answer;
use super::super::call::{HttpCall, large_number, number};
use super::super::problem::HttpProblem;
use super::super::views::snapshots::{KnownSnapshots, SnapshotView};
use super::runs::checked_note;
use crate::base::clock;
use crate::jobs::error::JobError;
use crate::state::pins;

/// Rows of one answer: by default, and at most.
const LIMIT: (u32, u32) = (50, 200);

/// The newest snapshots.
pub(in super::super) async fn list(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    let [before, limit] = call.query(["before", "limit"])?;
    let before = large_number("before", before)?;
    let limit = number("limit", limit, LIMIT)?;
    let found = newest(http, before, limit as usize).await?;
    answer::ok(&json!({ "snapshots": found }))
}

/// Returns the newest snapshots with sequences below `before`.
pub(in super::super) async fn newest(
    http: &Arc<HttpParts>,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<SnapshotView>, HttpProblem> {
    with_known(http, move |known| known.page(before, limit)).await
}

/// Returns the snapshot that `id` names.
pub(in super::super) async fn find(
    http: &Arc<HttpParts>,
    id: String,
) -> Result<SnapshotView, HttpProblem> {
    with_known(http, move |known| known.find(&id)).await
}

async fn with_known<T: Send + 'static>(
    http: &Arc<HttpParts>,
    look: impl FnOnce(&KnownSnapshots<'_>) -> Result<T, HttpProblem> + Send + 'static,
) -> Result<T, HttpProblem> {
    let (config, facts) = (http.state().config, Arc::clone(&http.facts));
    http.disk
        .run(move || {
            // Without a verdict the proof is not shown; the snapshots are.
            let verdict = facts.verdict(&config, clock::now()).ok();
            let proof = verdict.and_then(|verdict| verdict.proof);
            look(&KnownSnapshots::read(&config, proof)?)
        })
        .await
}

/// One snapshot.
pub(in super::super) async fn show(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    answer::ok(&find(http, call.text().to_owned()).await?)
}

/// What is said about a pin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PinBody {
    #[serde(default)]
    note: Option<String>,
}

/// Keeps a snapshot whatever the policy says. The note is kept with the pin.
pub(in super::super) async fn pin(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let body: PinBody = call.read()?;
    let note = checked_note(body.note)?;
    let mut snapshot = find(http, call.text().to_owned()).await?;
    let (state, stamp) = (http.state().config.state.clone(), snapshot.stamp);
    let work = move || {
        let mut pinned = pins::read_noted(&state).map_err(JobError::from)?;
        pins::add(&mut pinned, stamp, note);
        pins::write(&state, &pinned).map_err(JobError::from)?;
        Ok(pinned.remove(&stamp).flatten())
    };
    snapshot.pin_note = http.changes.run(work).await?;
    snapshot.pinned = true;
    answer::ok(&snapshot)
}

/// Lets the policy decide on a snapshot again.
pub(in super::super) async fn unpin(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let snapshot = find(http, call.text().to_owned()).await?;
    let (state, stamp) = (http.state().config.state.clone(), snapshot.stamp);
    let work = move || {
        let mut pinned = pins::read_noted(&state).map_err(JobError::from)?;
        if pinned.remove(&stamp).is_some() {
            pins::write(&state, &pinned).map_err(JobError::from)?;
        }
        Ok(())
    };
    http.changes.run(work).await?;
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Ok(answer)
}
