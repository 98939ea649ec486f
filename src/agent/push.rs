//! One push: see the module above for its order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime::Runtime;

use super::donors;
use super::lanes::{EndedLane, Lanes};
use super::looks::Looks;
use super::marks;
use super::publish::{Finishing, Publishing};
use super::reconcile::reconcile;
use super::rest::look_at_all;
use super::stock::{adopt_spooled_manifests, drop_damaged, looked_at, take_stock, tidy_spool};
use super::survey::{Survey, survey};
use super::{AgentError, NamedTarget, State, machine_id};
use crate::catalog::Catalog;
use crate::figures::Figures;
use crate::ids::{HostName, ObjectKey};
use crate::index::Skipped;
use crate::manifest::signature::{Signer, Trust};
use crate::manifest::{ArchiveRow, ManifestName, Totals};
use crate::packer::seal::Recipients;
use crate::packer::{PackOptions, PackProgress, PackRequest, pack};
use crate::snapshot::Snapshot;

/// Several snapshots within one second get stamps ahead of the clock.
const STAMP_TOLERANCE: chrono::Duration = chrono::Duration::seconds(60);

/// Hears how far things are. Called from several threads.
pub trait Reporter: Send + Sync {
    /// Bytes confirmed by a target.
    fn shipped(&self, target: &str, bytes: u64);
    /// What goes on now.
    fn stage(&self, text: &str);
}

pub struct PushRequest<'a> {
    pub host: &'a HostName,
    pub snapshot: &'a Snapshot,
    pub recipients: Arc<Recipients>,
    pub signer: &'a Signer,
    /// An OpenSSH public key to announce.
    pub next_signer: Option<String>,
    /// Who may have signed what is on the targets already.
    pub trust: Trust,
    pub targets: &'a [NamedTarget],
    pub next_by: Option<DateTime<Utc>>,
    pub options: PackOptions,
    /// Bytes of archives that the spool may hold; `None`: half of what was free.
    pub spool_limit: Option<u64>,
    /// `RECOVER.md` and its script.
    pub recovery: Vec<(ObjectKey, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// Has everything up to the new snapshot.
    Published,
    /// Lacks it; the spool keeps it for the next run. What went wrong, cause after cause.
    Behind(String),
}

#[derive(Debug)]
pub struct TargetReport {
    pub name: String,
    pub label: String,
    pub state: TargetState,
    pub shipped_objects: u64,
    pub shipped_bytes: u64,
    /// Archives that came from another target.
    pub copied_archives: u64,
}

#[derive(Debug)]
pub struct PushReport {
    pub manifest: ManifestName,
    pub totals: Totals,
    pub new_archives: u64,
    pub new_archive_bytes: u64,
    pub skipped: Vec<Skipped>,
    /// What each source holds, by its place in the snapshot.
    pub figures: BTreeMap<String, Figures>,
    pub targets: Vec<TargetReport>,
    pub notes: Vec<String>,
    /// Not errors, but no success either (exit code 3).
    pub warnings: Vec<String>,
}

impl PushReport {
    pub fn is_published_somewhere(&self) -> bool {
        let published = |target: &TargetReport| target.state == TargetState::Published;
        self.targets.iter().any(published)
    }

    /// Everything stored, and on every target, and nothing odd.
    pub fn is_complete(&self) -> bool {
        let published = |target: &TargetReport| target.state == TargetState::Published;
        self.targets.iter().all(published) && self.skipped.is_empty() && self.warnings.is_empty()
    }
}

pub(super) fn runtime() -> Result<Runtime, AgentError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(AgentError::Runtime)
}

/// Packs `request.snapshot` and ships it to every target.
pub fn push(
    state: &mut State,
    request: &PushRequest<'_>,
    progress: &PackProgress,
    reporter: Arc<dyn Reporter>,
) -> Result<PushReport, AgentError> {
    if request.targets.is_empty() {
        return Err(AgentError::NoTarget);
    }
    let runtime = runtime()?;
    adopt_spooled_manifests(state)?;
    reporter.stage("looking at the targets");
    let mut looks = Looks::choose(state, request.targets)?;
    let look = |state: &State, looks: &Looks| {
        let (host, targets) = (request.host, request.targets);
        runtime.block_on(survey(state, host, targets, &request.trust, looks))
    };
    let mut surveys = look(state, &looks)?;
    if surveys.iter().any(Survey::asks_for_more) {
        looks = Looks::whole(request.targets);
        surveys = look(state, &looks)?;
    }
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
    let archives = looked_at(state, &surveys, &looks)?;
    let asked = runtime.block_on(donors::ask(&surveys, &archives, &state.spool));
    let recipients = request.recipients.texts();
    let stock = take_stock(
        state,
        &surveys,
        &asked,
        recipients,
        &followed.archives,
        &looks,
        &archives,
    )?;
    reconciled.warnings.extend(stock.warnings);
    let lanes = Lanes::start(
        &runtime,
        state,
        &surveys,
        &asked,
        request.spool_limit,
        &reporter,
    )?;
    reporter.stage("packing");
    let pack_request = PackRequest {
        host: request.host,
        snapshot: request.snapshot,
        recipients: request.recipients.clone(),
        signer: request.signer,
        next_signer: request.next_signer.clone(),
        lineage: reconciled.lineage,
        machine: machine_id(request.host, &state.dir).map_err(AgentError::Machine)?,
        next_by: request.next_by,
        usable: stock.usable,
        chosen_from: stock.chosen_from,
        options: request.options.clone(),
        state: state.dir.clone(),
    };
    let spool = state.spool.clone();
    let mut on_sealed = |row: &ArchiveRow| Ok(lanes.announce(&row.into(), row.bytes)?);
    let mut look_at_rest = |catalog: &Catalog| {
        let found = look_at_all(&runtime, catalog, &spool, &surveys, &asked, recipients)?;
        Ok(found)
    };
    let packed = pack(
        &pack_request,
        &mut state.catalog,
        &spool,
        progress,
        &mut on_sealed,
        &mut look_at_rest,
    );
    reporter.stage("shipping");
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
        donors: donors::donors(&surveys, &asked, at),
        donors_away: donors::is_any_away(&surveys, at),
        packed: &packed,
        reporter: &reporter,
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
) -> Result<BTreeMap<usize, (TargetReport, Vec<String>)>, AgentError> {
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
    known: &[crate::manifest::Known],
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
