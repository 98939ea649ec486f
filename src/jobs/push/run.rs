//! One push, step by step; [the module above](super) describes its order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime::Runtime;

use super::copy_sources::{self, CopySource};
use super::error::PushError;
use super::finish_target::newest_snapshot::PushedSnapshot;
use super::finish_target::{FinishTarget, Publishing};
use super::inspect_targets::InspectedTarget;
use super::introduction::{self, PresentSigner};
use super::inventory::{
    LookedAt, PushInventory, adopt_spooled_manifests, drop_damaged, looked_at, reusable_archives,
};
use super::lineage::reconcile;
use super::look::look;
use super::marks;
use super::receipt_key;
use super::request::{PushReport, PushRequest, TargetReport};
use super::resealing::{Resealing, resealing};
use super::rest::look_at_all;
use super::tidy_spool::tidy_spool;
use super::uploads::{EndedUploads, Uploads, report_activity};
use crate::base::error_chain::with_causes;
use crate::base::progress::{Progress, ProgressEvent, Stage, TargetActivity};
use crate::base::runtime::runtime;
use crate::base::units::count;
use crate::format::manifest::{ArchiveRow, Known};
use crate::packer::{Lineage, PackRequest, Packed, pack};
use crate::state::State;
use crate::state::catalog::{Catalog, SnapshotAbout};
use crate::state::machine::machine_id;

/// How far a snapshot's stamp may be before that of the snapshot before it: several snapshots
/// within one second get stamps ahead of the clock.
const STAMP_TOLERANCE: chrono::Duration = chrono::Duration::seconds(60);

/// Packs `request.snapshot` and ships it to every target.
///
/// A target that fails is part of the report. The push fails as a whole if it cannot determine the
/// snapshot's place in the chain, or cannot pack it.
pub fn push(
    state: &mut State,
    request: &PushRequest<'_>,
    progress: Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    if request.targets.is_empty() {
        return Err(PushError::NoTarget);
    }
    let mut push = Push {
        state,
        request,
        progress,
        runtime: runtime().map_err(PushError::Runtime)?,
        began: Instant::now(),
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    adopt_spooled_manifests(push.state)?;
    let (targets, base) = push.inspect()?;
    let uploads = push.start_uploads(&targets)?;
    push.begin_stage(Stage::Packing);
    let packed = push.pack(base, &targets, &uploads);
    push.begin_stage(Stage::Shipping);
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => {
            // The targets may keep the archives that were sealed; the uploads end in order.
            let ended = futures::future::join_all(uploads.end());
            push.runtime.block_on(ended);
            return Err(error);
        }
    };
    introduction::remember(
        &push.state.catalog,
        &request.signer.fingerprint(),
        request.next_signer.as_deref(),
    )?;
    let reports = push.finish_targets(&targets, uploads, &packed)?;
    tidy_spool(push.state, request.targets)?;
    Ok(push.report(packed, reports))
}

/// A push under way.
struct Push<'a> {
    state: &'a mut State,
    request: &'a PushRequest<'a>,
    progress: Arc<dyn Progress>,
    runtime: Runtime,
    began: Instant,
    /// For the report.
    notes: Vec<String>,
    /// For the report.
    warnings: Vec<String>,
}

/// The targets before anything is shipped, in their order.
struct InspectedTargets {
    /// What each holds.
    inspected_targets: Vec<InspectedTarget>,
    /// Whether the others can copy from it.
    copy_sources: Vec<CopySource>,
}

/// What the new snapshot is built on.
struct SnapshotBase {
    /// Its place in the chain.
    lineage: Lineage,
    /// The archives that it may use again.
    inventory: PushInventory,
}

impl<'a> Push<'a> {
    fn begin_stage(&self, stage: Stage) {
        let subject = None;
        self.progress
            .report(&ProgressEvent::StageStarted { stage, subject });
    }

    fn note(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.progress.report(&ProgressEvent::Note { text: &text });
            self.notes.push(text);
        }
    }

    fn warn(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.progress
                .report(&ProgressEvent::Warning { text: &text });
            self.warnings.push(text);
        }
    }

    /// Looks at every target and decides what the new snapshot is built on.
    fn inspect(&mut self) -> Result<(InspectedTargets, SnapshotBase), PushError> {
        self.begin_stage(Stage::InspectingTargets);
        let request = self.request;
        let (inspected_targets, looks) = look(
            &self.runtime,
            self.state,
            request.host,
            request.targets,
            &request.trust,
            &*self.progress,
        )?;
        let reconciled = reconcile(self.state, request.host, &inspected_targets)?;
        let mut lineage = reconciled.lineage;
        self.note(reconciled.notes);
        self.warn(reconciled.warnings);
        let signer = PresentSigner {
            fingerprint: request.signer.fingerprint(),
            is_listed: request.signer_is_listed,
        };
        signer.require_introduced(&self.state.catalog)?;
        if let Some(aside) = &self.state.catalog.replaced {
            let text = format!(
                "the catalog was damaged and is now {}; a new one was begun",
                aside.display()
            );
            self.note([text]);
        }
        self.warn(clock_warning(request, &lineage.known));
        let followed = self
            .runtime
            .block_on(marks::judge(self.state, &inspected_targets))?;
        self.note(followed.notes);
        self.warn(followed.warnings);
        lineage.marks_seen = followed.names;
        let mut warnings = Vec::new();
        drop_damaged(self.state, &inspected_targets, &mut warnings)?;
        let archives = looked_at(self.state, &inspected_targets, &looks)?;
        let probe = copy_sources::probe(&inspected_targets, &archives, &self.state.spool);
        let copy_sources = self.runtime.block_on(probe);
        let found = LookedAt {
            inspected_targets: &inspected_targets,
            looks: &looks,
            archives: &archives,
            copy_sources: &copy_sources,
        };
        let recipients = request.recipients.texts();
        if request.resealing == Resealing::FormerRecipients {
            let closed = self.state.catalog.close_recipients(recipients)?;
            self.note([closed_note(closed.len() as u64)]);
        }
        // Said before it happens: this push is nearly a full one.
        self.note(resealing(&self.state.catalog, recipients)?);
        let mut inventory = reusable_archives(self.state, &found, recipients, &followed.archives)?;
        warnings.append(&mut inventory.warnings);
        self.warn(warnings);
        for one in &inspected_targets {
            if let Err(error) = &one.seen {
                let reason = with_causes(error);
                let activity = TargetActivity::Away { reason };
                report_activity(&*self.progress, &one.name, &activity);
            }
        }
        let targets = InspectedTargets {
            inspected_targets,
            copy_sources,
        };
        Ok((targets, SnapshotBase { lineage, inventory }))
    }

    fn start_uploads(&self, targets: &InspectedTargets) -> Result<Uploads, PushError> {
        Uploads::start(
            &self.runtime,
            self.state,
            &targets.inspected_targets,
            &targets.copy_sources,
            self.request.spool_limit,
            &self.progress,
        )
    }

    /// Packs the snapshot. Each archive is uploaded as soon as it is sealed.
    fn pack(
        &mut self,
        base: SnapshotBase,
        targets: &InspectedTargets,
        uploads: &Uploads,
    ) -> Result<Packed, PushError> {
        let request = self.request;
        let machine = machine_id(request.host, &self.state.dir).map_err(PushError::Machine)?;
        let pack_request = PackRequest {
            host: request.host,
            snapshot: request.snapshot,
            recipients: request.recipients.clone(),
            signer: request.signer,
            next_signer: request.next_signer.clone(),
            lineage: base.lineage,
            machine,
            next_by: request.next_by,
            usable: base.inventory.reusable,
            chosen_from: base.inventory.chosen_from,
            options: request.options.clone(),
            state: self.state.dir.clone(),
        };
        let spool = self.state.spool.clone();
        let progress = Arc::clone(&self.progress);
        let mut on_sealed = |row: &ArchiveRow| {
            let bytes = row.bytes;
            progress.report(&ProgressEvent::ArchiveSealed { bytes });
            Ok(uploads.announce(&row.into(), bytes)?)
        };
        let (runtime, recipients) = (&self.runtime, request.recipients.texts());
        let (inspected_targets, sources) = (&targets.inspected_targets, &targets.copy_sources);
        let mut look_at_rest = |catalog: &Catalog| {
            let found = look_at_all(
                runtime,
                (catalog, &spool),
                inspected_targets,
                sources,
                recipients,
            )?;
            Ok(found)
        };
        let packed = pack(
            &pack_request,
            &mut self.state.catalog,
            &spool,
            &*self.progress,
            &mut on_sealed,
            &mut look_at_rest,
        )?;
        let sources = request.snapshot.sources.iter();
        let about = SnapshotAbout {
            tags: request.snapshot.tags.clone(),
            sources: sources.map(|source| source.to.clone()).collect(),
        };
        let core = &packed.manifest.core_hash;
        self.state.catalog.remember_about(core, &about)?;
        receipt_key::remember(&self.state.catalog, core, &packed.receipt_key)?;
        Ok(packed)
    }

    /// Publishes on every target once its uploads have ended. Returns the targets' reports in their
    /// order.
    fn finish_targets(
        &mut self,
        targets: &InspectedTargets,
        uploads: Uploads,
        packed: &Packed,
    ) -> Result<Vec<TargetReport>, PushError> {
        let (request, progress) = (self.request, Arc::clone(&self.progress));
        let (inspected_targets, sources) = (&targets.inspected_targets, &targets.copy_sources);
        let newest = PushedSnapshot::Packed(packed);
        let finishing = |target: usize| {
            Some(FinishTarget {
                recovery: &request.recovery,
                inspected: &inspected_targets[target],
                copy_sources: copy_sources::folders_for(inspected_targets, sources, target),
                copy_sources_away: copy_sources::is_any_away(inspected_targets, target),
                newest: &newest,
                progress: &progress,
                began: self.began,
            })
        };
        let finished = finish(self.state, uploads, finishing);
        let finished = self.runtime.block_on(finished)?;
        let mut reports = Vec::new();
        for (report, warnings) in finished.into_values() {
            reports.push(report);
            self.warn(warnings);
        }
        Ok(reports)
    }

    fn report(mut self, packed: Packed, targets: Vec<TargetReport>) -> PushReport {
        self.note(packed.notes);
        PushReport {
            manifest: packed.manifest.name(),
            totals: packed.manifest.core.totals,
            new_archives: packed.new_archives,
            new_archive_bytes: packed.new_archive_bytes,
            skipped: packed.skipped,
            figures: packed.figures,
            targets,
            notes: self.notes,
            warnings: self.warnings,
        }
    }
}

/// The next completed step of any target.
enum Completed<'a> {
    Uploads(EndedUploads),
    Publishing(Box<Publishing<'a>>),
}

/// Waits for the uploads and publishes on each target once its own have ended, so that no target
/// waits for another that hangs or has much to catch up with. Returns reports and warnings by the
/// targets' places.
///
/// `finishing` returns `None` for a target on which nothing is to be published.
pub(super) async fn finish<'a>(
    state: &mut State,
    uploads: Uploads,
    finishing: impl Fn(usize) -> Option<FinishTarget<'a>>,
) -> Result<BTreeMap<usize, (TargetReport, Vec<String>)>, PushError> {
    let uploads = uploads.end().into_iter();
    let uploads = uploads.map(|ended| ended.map(Completed::Uploads).boxed_local());
    let mut waiting: FuturesUnordered<_> = uploads.collect();
    let mut finished = BTreeMap::new();
    let mut failure = None;
    // If one target fails here, the publications that are under way still end and are recorded.
    while let Some(completed) = waiting.next().await {
        let done = match completed {
            Completed::Uploads(_) if failure.is_some() => Ok(()),
            Completed::Uploads(ended) => {
                let Some(finishing) = finishing(ended.target) else {
                    continue;
                };
                finishing.begin(state, ended).map(|publishing| {
                    let completed = |publishing| Completed::Publishing(Box::new(publishing));
                    waiting.push(publishing.run().map(completed).boxed_local());
                })
            }
            Completed::Publishing(publishing) => {
                let target = publishing.target;
                let concluded = publishing.conclude(state);
                concluded.map(|report| drop(finished.insert(target, report)))
            }
        };
        failure = failure.or(done.err());
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(finished),
    }
}

/// Returns the note that new snapshots are closed to former recipients.
fn closed_note(closed: u64) -> String {
    match closed {
        0 => "every archive is sealed to today's recipients only: nothing has to be sealed again"
            .to_owned(),
        n => format!(
            "from now on nothing is reused that {} can decrypt; older snapshots are as they were: see `sealift key recipients`",
            count(n, "former recipient")
        ),
    }
}

/// Returns a warning if the snapshot's stamp is before that of the snapshot before it. Older
/// snapshots do not count, so a clock that was ahead once is reported once.
fn clock_warning(request: &PushRequest<'_>, known: &[Known]) -> Option<String> {
    let stamp = request.snapshot.stamp;
    let last = known.iter().max_by_key(|known| known.sequence)?.stamp;
    (last.time() > stamp.time() + STAMP_TOLERANCE).then(|| {
        format!(
            "this snapshot is stamped {stamp}, and the one before it {last}: the clock is behind, or it was ahead then. \
             Order goes by sequence, not by date. Set the clock right if it is wrong; `sealift prune --forget {last}` \
             deletes a snapshot with a wrong stamp"
        )
    })
}
