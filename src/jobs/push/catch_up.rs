//! Sends what waits in the spool to targets that are behind, and makes no new snapshot.
//!
//! It looks at all targets and ships as a push does. It gives up no snapshot that a target lacks:
//! that is for the next push to decide, which knows what the new snapshot makes unnecessary.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::copy_sources;
use super::error::PushError;
use super::finish_target::FinishTarget;
use super::finish_target::newest_snapshot::{PushedSnapshot, waiting_snapshots};
use super::inventory::{adopt_spooled_manifests, drop_damaged, looked_at};
use super::lineage::reconcile;
use super::look::look;
use super::request::{Target, TargetReport};
use super::run::finish;
use super::tidy_spool::tidy_spool;
use super::uploads::Uploads;
use crate::base::ids::{HostName, ObjectKey};
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::base::runtime::runtime;
use crate::format::manifest::ManifestName;
use crate::format::signature::Trust;
use crate::state::State;

/// What to send, and where.
pub(in crate::jobs) struct CatchUpRequest<'a> {
    /// The host.
    pub(in crate::jobs) host: &'a HostName,
    /// The signers whose snapshots on the targets count as this host's.
    pub(in crate::jobs) trust: Trust,
    /// All targets, in the configured order.
    pub(in crate::jobs) targets: &'a [Target],
    /// Names of the targets to send to; the others are looked at only.
    pub(in crate::jobs) names: Vec<String>,
    /// Bytes of archives that the spool may hold, see [`PushRequest`](super::PushRequest).
    pub(in crate::jobs) spool_limit: Option<u64>,
    /// `RECOVER.md` and its script, by key.
    pub(in crate::jobs) recovery: Vec<(ObjectKey, Bytes)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(in crate::jobs) struct CaughtUp {
    /// One report for each target that was behind, in the configured order.
    pub(in crate::jobs) targets: Vec<TargetReport>,
    /// For the operator; they change no exit code.
    pub(in crate::jobs) notes: Vec<String>,
    /// For the operator; with any of them the run exits with code 3.
    pub(in crate::jobs) warnings: Vec<String>,
}

/// Sends to each of the targets `request.names` what it waits for.
pub(in crate::jobs) fn catch_up(
    state: &mut State,
    request: &CatchUpRequest<'_>,
    progress: &Arc<dyn Progress>,
) -> Result<CaughtUp, PushError> {
    let mut done = CaughtUp::default();
    adopt_spooled_manifests(state)?;
    let Some(newest) = newest_that_waits(state, &request.names)? else {
        return Ok(done);
    };
    let (began, runtime) = (Instant::now(), runtime().map_err(PushError::Runtime)?);
    begin_stage(&**progress, Stage::InspectingTargets);
    let (inspected, looks) = look(
        &runtime,
        state,
        request.host,
        request.targets,
        &request.trust,
        &**progress,
    )?;
    let reconciled = reconcile(state, request.host, &inspected)?;
    done.notes.extend(reconciled.notes);
    done.warnings.extend(reconciled.warnings);
    drop_damaged(state, &inspected, &mut done.warnings)?;
    let archives = looked_at(state, &inspected, &looks)?;
    let probe = copy_sources::probe(&inspected, &archives, &state.spool);
    let sources = runtime.block_on(probe);
    begin_stage(&**progress, Stage::Shipping);
    let limit = request.spool_limit;
    let uploads = Uploads::start(&runtime, state, &inspected, &sources, limit, progress)?;
    let newest = PushedSnapshot::Spooled(newest);
    let finishing = |target: usize| {
        let inspected_target = &inspected[target];
        let is_wanted = request.names.contains(&inspected_target.name);
        is_wanted.then(|| FinishTarget {
            recovery: &request.recovery,
            inspected: inspected_target,
            copy_sources: copy_sources::folders_for(&inspected, &sources, target),
            // So an older snapshot that cannot be whole there waits, and is not given up.
            copy_sources_away: true,
            newest: &newest,
            progress,
            began,
        })
    };
    let finished = runtime.block_on(finish(state, uploads, finishing))?;
    for (report, warnings) in finished.into_values() {
        done.targets.push(report);
        done.warnings.extend(warnings);
    }
    tidy_spool(state, request.targets)?;
    Ok(done)
}

/// Returns the newest snapshot in the spool that one of the targets `names` waits for.
fn newest_that_waits(state: &State, names: &[String]) -> Result<Option<ManifestName>, PushError> {
    let mut newest: Option<ManifestName> = None;
    for name in names {
        for waiting in waiting_snapshots(&state.catalog, name)? {
            let is_newer = newest
                .as_ref()
                .is_none_or(|one| one.sequence < waiting.sequence);
            if is_newer && state.spool.contains(&waiting.key()) {
                newest = Some(waiting);
            }
        }
    }
    Ok(newest)
}

fn begin_stage(progress: &dyn Progress, stage: Stage) {
    let subject = None;
    progress.report(&ProgressEvent::StageStarted { stage, subject });
}
