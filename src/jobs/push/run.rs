//! One push: see the module above for its order.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};

use super::copy_sources;
use super::error::PushError;
use super::finish_target::{Finishing, Publishing};
use super::inspect_targets::survey;
use super::inventory::{adopt_spooled_manifests, drop_damaged, take_stock, tidy_spool};
use super::lineage::reconcile;
use super::marks;
use super::request::{PushReport, PushRequest, TargetReport};
use super::uploads::{EndedLane, Lanes};
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::base::runtime::runtime;
use crate::format::manifest::ArchiveRow;
use crate::packer::{PackRequest, pack};
use crate::state::State;
use crate::state::machine::machine_id;

/// Several snapshots within one second get stamps ahead of the clock.
const STAMP_TOLERANCE: chrono::Duration = chrono::Duration::seconds(60);

/// Packs `request.snapshot` and ships it to every target.
pub fn push(
    state: &mut State,
    request: &PushRequest<'_>,
    progress: Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    if request.targets.is_empty() {
        return Err(PushError::NoTarget);
    }
    let runtime = runtime().map_err(PushError::Runtime)?;
    adopt_spooled_manifests(state)?;
    let begin = |stage| progress.report(&ProgressEvent::StageStarted { stage });
    begin(Stage::InspectingTargets);
    let surveys = runtime.block_on(survey(state, request.host, request.targets, &request.trust))?;
    let mut reconciled = reconcile(state, request.host, &surveys)?;
    if let Some(aside) = &state.catalog.replaced {
        let text = format!(
            "the catalog was damaged and is now {}; a new one was begun",
            aside.display()
        );
        reconciled.notes.push(text);
    }
    warn_of_clock(request, &reconciled.lineage.known, &mut reconciled.warnings);
    let followed = runtime.block_on(marks::judge(state, &surveys))?;
    reconciled.notes.extend(followed.notes);
    reconciled.warnings.extend(followed.warnings);
    reconciled.lineage.marks_seen = followed.names;
    drop_damaged(state, &surveys, &mut reconciled.warnings)?;
    let archives = state.catalog.archives()?;
    let asked = runtime.block_on(copy_sources::ask(&surveys, &archives, &state.spool));
    let usable = take_stock(
        state,
        &surveys,
        &asked,
        request.recipients.texts(),
        &followed.archives,
        &mut reconciled.warnings,
    )?;
    let lanes = Lanes::start(
        &runtime,
        state,
        &surveys,
        &asked,
        request.spool_limit,
        &progress,
    )?;
    begin(Stage::Packing);
    let pack_request = PackRequest {
        host: request.host,
        snapshot: request.snapshot,
        recipients: request.recipients.clone(),
        signer: request.signer,
        next_signer: request.next_signer.clone(),
        lineage: reconciled.lineage,
        machine: machine_id(request.host, &state.dir).map_err(PushError::Machine)?,
        next_by: request.next_by,
        usable,
        options: request.options.clone(),
        state: state.dir.clone(),
    };
    let spool = state.spool.clone();
    let mut on_sealed = |row: &ArchiveRow| Ok(lanes.announce(&row.into(), row.bytes)?);
    let packed = pack(
        &pack_request,
        &mut state.catalog,
        &spool,
        &*progress,
        &mut on_sealed,
    );
    begin(Stage::Shipping);
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => {
            // What was sealed is safe to keep on the targets; let the lanes end in order.
            runtime.block_on(futures::future::join_all(lanes.end()));
            return Err(error.into());
        }
    };
    let finishing = |at| Finishing {
        request,
        survey: &surveys[at],
        donors: copy_sources::donors(&surveys, &asked, at),
        donors_away: copy_sources::is_any_away(&surveys, at),
        packed: &packed,
        progress: &*progress,
    };
    let finished = runtime.block_on(finish(state, lanes, finishing))?;
    let mut reports = Vec::new();
    for (report, warnings) in finished.into_values() {
        reports.push(report);
        reconciled.warnings.extend(warnings);
    }
    tidy_spool(state, request.targets)?;
    reconciled.notes.extend(packed.notes);
    Ok(PushReport {
        manifest: packed.manifest.name(),
        totals: packed.manifest.core.totals,
        new_archives: packed.new_archives,
        new_archive_bytes: packed.new_archive_bytes,
        skipped: packed.skipped,
        figures: packed.figures,
        targets: reports,
        notes: reconciled.notes,
        warnings: reconciled.warnings,
    })
}

/// Whatever of a target ended next.
enum Ended<'a> {
    Uploads(EndedLane),
    Publishing(Box<Publishing<'a>>),
}

/// Waits for the uploads, and publishes on each target once its own have ended: one that hangs, or has much to
/// catch up with, keeps no other waiting. Gives reports and warnings by the targets' places.
async fn finish<'a>(
    state: &mut State,
    lanes: Lanes,
    finishing: impl Fn(usize) -> Finishing<'a>,
) -> Result<BTreeMap<usize, (TargetReport, Vec<String>)>, PushError> {
    let uploads = lanes.end().into_iter();
    let uploads = uploads.map(|lane| lane.map(Ended::Uploads).boxed_local());
    let mut waiting: FuturesUnordered<_> = uploads.collect();
    let mut finished = BTreeMap::new();
    let mut failure = None;
    // What is under way is seen to its end and remembered, whatever fails beside it.
    while let Some(ended) = waiting.next().await {
        let done = match ended {
            Ended::Uploads(_) if failure.is_some() => Ok(()),
            Ended::Uploads(lane) => finishing(lane.at).begin(state, lane).map(|publishing| {
                let ended = |publishing| Ended::Publishing(Box::new(publishing));
                waiting.push(publishing.run().map(ended).boxed_local());
            }),
            Ended::Publishing(publishing) => {
                let at = publishing.at;
                let concluded = publishing.conclude(state);
                concluded.map(|report| drop(finished.insert(at, report)))
            }
        };
        failure = failure.or(done.err());
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(finished),
    }
}

/// Compares with the snapshot before this one only: a clock that was ahead once is no news for ever.
fn warn_of_clock(
    request: &PushRequest<'_>,
    known: &[crate::format::manifest::Known],
    warnings: &mut Vec<String>,
) {
    let stamp = request.snapshot.stamp;
    if let Some(last) = known.iter().max_by_key(|known| known.sequence)
        && last.stamp.time() > stamp.time() + STAMP_TOLERANCE
    {
        let last = last.stamp;
        warnings.push(format!(
            "this snapshot is stamped {stamp}, and the one before it {last}: the clock is behind, or it was ahead then. \
             Order goes by sequence, not by date. Set the clock right if it is wrong; `sealift prune --forget {last}` \
             deletes a snapshot with a wrong stamp"
        ));
    }
}
