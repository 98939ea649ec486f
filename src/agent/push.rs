//! One push: see the module above for its order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::reconcile::reconcile;
use super::survey::{Survey, survey};
use super::{AgentError, NamedTarget, State, machine_id};
use crate::catalog::CatalogArchive;
use crate::ids::{ARCHIVES, Hash, HostName, MANIFESTS, ObjectKey, TABLES};
use crate::index::Skipped;
use crate::manifest::signature::{Signer, Trust};
use crate::manifest::{Manifest, ManifestName, Totals};
use crate::packer::seal::Recipients;
use crate::packer::{PackOptions, PackProgress, PackRequest, Packed, pack};
use crate::repository::HostFolder;
use crate::shipper::{Publication, ShipError, publish, publish_recovery, ship_archives};
use crate::snapshot::Snapshot;
use crate::spool::Spool;

/// Several snapshots within one second get stamps ahead of the clock.
const STAMP_TOLERANCE: chrono::Duration = chrono::Duration::seconds(60);
/// A version of the recovery documents; a target gets them once per version.
const RECOVERY_VERSION: &str = "1";

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
}

#[derive(Debug)]
pub struct PushReport {
    pub manifest: ManifestName,
    pub totals: Totals,
    pub new_archives: u64,
    pub new_archive_bytes: u64,
    pub skipped: Vec<Skipped>,
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
    let known: HashSet<ManifestName> = state
        .catalog
        .snapshots()?
        .into_iter()
        .map(|r| r.name)
        .collect();
    let surveys = runtime.block_on(survey(
        request.host,
        request.targets,
        &known,
        &request.trust,
    ))?;
    let mut reconciled = reconcile(state, request.host, &surveys)?;
    if let Some(aside) = &state.catalog.replaced {
        let text = format!(
            "the catalog was damaged and is now {}; a new one was begun",
            aside.display()
        );
        reconciled.notes.push(text);
    }
    warn_of_clock(request, &reconciled.lineage.known, &mut reconciled.warnings);
    let usable = take_stock(state, &surveys, request.recipients.texts())?;
    let mut lanes = start_lanes(&runtime, state, &surveys, &reporter)?;
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
        usable,
        options: request.options.clone(),
        state: state.dir.clone(),
    };
    let spool = state.spool.clone();
    let mut on_sealed = |key: &ObjectKey, _bytes: u64| {
        for lane in &lanes {
            // A lane that failed takes no more; its error is told below.
            let _ = lane.queue.as_ref().map(|queue| queue.send(key.clone()));
        }
    };
    let packed = pack(
        &pack_request,
        &mut state.catalog,
        &spool,
        progress,
        &mut on_sealed,
    );
    for lane in &mut lanes {
        lane.queue = None;
    }
    reporter.stage("shipping");
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => {
            // What was sealed is safe to keep on the targets; let the lanes end in order.
            let _ = runtime.block_on(end_lanes(lanes));
            return Err(error.into());
        }
    };
    let mut reports = Vec::new();
    for (lane, survey) in lanes.into_iter().zip(&surveys) {
        let report = finish_target(&runtime, state, request, survey, lane, &packed, &reporter)?;
        reports.push(report.0);
        reconciled.warnings.extend(report.1);
    }
    tidy_spool(state, request.targets)?;
    Ok(PushReport {
        manifest: packed.manifest.name(),
        totals: packed.manifest.core.totals,
        new_archives: packed.new_archives,
        new_archive_bytes: packed.new_archive_bytes,
        skipped: packed.skipped,
        targets: reports,
        notes: reconciled.notes,
        warnings: reconciled.warnings,
    })
}

fn warn_of_clock(
    request: &PushRequest<'_>,
    known: &[crate::manifest::Known],
    warnings: &mut Vec<String>,
) {
    let stamp = request.snapshot.stamp;
    if let Some(newest) = known.iter().map(|known| known.stamp).max()
        && newest.time() > stamp.time() + STAMP_TOLERANCE
    {
        warnings.push(format!(
            "the clock is behind: this snapshot is stamped {stamp}, an earlier one {newest}. \
             `latest` goes by sequence, not by date; set the clock right"
        ));
    }
}

/// A manifest that a killed run put into the spool but not into the catalog is a snapshot all the same.
fn adopt_spooled_manifests(state: &mut State) -> Result<(), AgentError> {
    let known: HashSet<ManifestName> = state
        .catalog
        .snapshots()?
        .into_iter()
        .map(|r| r.name)
        .collect();
    for (key, _) in state.spool.list(MANIFESTS)? {
        let Some(name) = ManifestName::from_key(&key) else {
            continue;
        };
        if known.contains(&name) {
            continue;
        }
        let parsed = Manifest::parse_named(&name, &state.spool.read(&name.key())?);
        match parsed {
            Ok(manifest) if state.spool.contains(&name.signature_key()) => {
                state.catalog.add_snapshot(&manifest, false)?;
            }
            _ => state.spool.remove(&key)?,
        }
    }
    Ok(())
}

/// Updates the placements by what was seen; gives the archives that a new snapshot may lean on:
/// sealed to at least today's recipients, and in the spool or on every target.
fn take_stock(
    state: &mut State,
    surveys: &[Survey],
    recipients: &[String],
) -> Result<Vec<CatalogArchive>, AgentError> {
    let archives = state.catalog.archives()?;
    let mut on_all: Option<HashSet<i64>> = None;
    let mut anywhere: HashSet<i64> = HashSet::new();
    for survey in surveys {
        let placed: HashSet<i64> = match &survey.seen {
            Ok(seen) => {
                let complete =
                    |a: &&CatalogArchive| seen.archives.get(&a.row.blake3) == Some(&a.row.bytes);
                let placed: HashSet<i64> = archives.iter().filter(complete).map(|a| a.n).collect();
                if placed != state.catalog.placed_on(&survey.name)? {
                    state
                        .catalog
                        .set_placements(&survey.name, placed.iter().copied())?;
                }
                placed
            }
            Err(_) => state.catalog.placed_on(&survey.name)?,
        };
        anywhere.extend(&placed);
        on_all = Some(match on_all {
            Some(all) => all.intersection(&placed).copied().collect(),
            None => placed,
        });
    }
    let on_all = on_all.unwrap_or_default();
    let in_spool = |a: &CatalogArchive| state.spool.size(&a.row.key()) == Some(a.row.bytes);
    let sets = state.catalog.recipient_sets()?;
    let sealed_to_all = |a: &CatalogArchive| {
        let members = sets.get(&a.row.recipient_set);
        members.is_some_and(|members| recipients.iter().all(|r| members.contains(r)))
    };
    let mut usable = Vec::new();
    let mut lost = HashSet::new();
    for archive in archives {
        let spooled = in_spool(&archive);
        if !spooled && !anywhere.contains(&archive.n) {
            lost.insert(archive.n);
        } else if (spooled || on_all.contains(&archive.n)) && sealed_to_all(&archive) {
            usable.push(archive);
        }
    }
    if surveys.iter().all(|survey| survey.seen.is_ok()) {
        state.catalog.forget_archives(&lost)?;
    }
    Ok(usable)
}

/// One target's uploads, under way while packing goes on.
struct Lane {
    queue: Option<UnboundedSender<ObjectKey>>,
    task: Option<JoinHandle<LaneEnd>>,
    /// Why there is no lane: the target did not answer.
    unreachable: Option<String>,
}

struct LaneEnd {
    result: Result<(), ShipError>,
    shipped: Vec<(ObjectKey, u64)>,
}

fn start_lanes(
    runtime: &Runtime,
    state: &State,
    surveys: &[Survey],
    reporter: &Arc<dyn Reporter>,
) -> Result<Vec<Lane>, AgentError> {
    let spooled = state.spool.list(ARCHIVES)?;
    let mut lanes = Vec::new();
    for survey in surveys {
        let seen = match &survey.seen {
            Ok(seen) => seen,
            Err(error) => {
                lanes.push(Lane {
                    queue: None,
                    task: None,
                    unreachable: Some(causes(error)),
                });
                continue;
            }
        };
        let (queue, requests) = unbounded_channel();
        // What earlier runs sealed and this target still lacks goes first.
        for (key, bytes) in &spooled {
            if let Some(hash) = ObjectKey::archive_hash(key)
                && seen.archives.get(&hash) != Some(bytes)
            {
                let _ = queue.send(ObjectKey::archive(&hash));
            }
        }
        let task = ship_lane(survey, state.spool.clone(), requests, reporter.clone());
        lanes.push(Lane {
            queue: Some(queue),
            task: Some(runtime.spawn(task)),
            unreachable: None,
        });
    }
    Ok(lanes)
}

fn ship_lane(
    survey: &Survey,
    spool: Spool,
    requests: tokio::sync::mpsc::UnboundedReceiver<ObjectKey>,
    reporter: Arc<dyn Reporter>,
) -> impl Future<Output = LaneEnd> + use<> {
    let folder = HostFolder {
        target: survey.folder.target.clone(),
        host: survey.folder.host.clone(),
    };
    let (name, concurrency) = (survey.name.clone(), survey.concurrency);
    async move {
        let shipped = std::sync::Mutex::new(Vec::new());
        let note = |key: &ObjectKey, bytes: u64| {
            reporter.shipped(&name, bytes);
            if let Ok(mut shipped) = shipped.lock() {
                shipped.push((key.clone(), bytes));
            }
        };
        let result = ship_archives(&folder, &spool, requests, concurrency, note).await;
        let shipped = shipped.into_inner().unwrap_or_default();
        LaneEnd { result, shipped }
    }
}

async fn end_lanes(lanes: Vec<Lane>) -> Vec<Option<LaneEnd>> {
    let ends = lanes.into_iter().map(|lane| async {
        match lane.task {
            Some(task) => task.await.ok(),
            None => None,
        }
    });
    futures::future::join_all(ends).await
}

/// Waits for a target's uploads and publishes on it what it lacks, oldest first.
fn finish_target(
    runtime: &Runtime,
    state: &mut State,
    request: &PushRequest<'_>,
    survey: &Survey,
    lane: Lane,
    packed: &Packed,
    reporter: &Arc<dyn Reporter>,
) -> Result<(TargetReport, Vec<String>), AgentError> {
    let mut report = TargetReport {
        name: survey.name.clone(),
        label: survey.folder.target.label().to_owned(),
        state: TargetState::Published,
        shipped_objects: 0,
        shipped_bytes: 0,
    };
    if let Some(cause) = lane.unreachable {
        report.state = TargetState::Behind(cause);
        return Ok((report, Vec::new()));
    }
    let end = runtime.block_on(end_lanes(vec![lane])).pop().flatten();
    let mut shipped = Vec::new();
    let mut failure = match end {
        Some(end) => {
            shipped = end.shipped;
            end.result.err().map(|error| causes(&error))
        }
        None => Some("its uploads ended early".to_owned()),
    };
    let mut warnings = Vec::new();
    if failure.is_none() {
        let published = publish_pending(
            runtime,
            state,
            request,
            survey,
            packed,
            &mut shipped,
            reporter,
        )?;
        warnings = published.warnings;
        failure = published.failure;
    }
    record_shipped(state, &survey.name, &shipped)?;
    report.shipped_objects = shipped.len() as u64;
    report.shipped_bytes = shipped.iter().map(|(_, bytes)| bytes).sum();
    if let Some(cause) = failure {
        report.state = TargetState::Behind(cause);
    }
    Ok((report, warnings))
}

#[derive(Default)]
struct Publishing {
    failure: Option<String>,
    warnings: Vec<String>,
}

fn publish_pending(
    runtime: &Runtime,
    state: &mut State,
    request: &PushRequest<'_>,
    survey: &Survey,
    packed: &Packed,
    shipped: &mut Vec<(ObjectKey, u64)>,
    reporter: &Arc<dyn Reporter>,
) -> Result<Publishing, AgentError> {
    let mut publishing = Publishing::default();
    let newest = packed.manifest.name();
    if let Err(error) = runtime.block_on(put_recovery(state, request, survey)) {
        publishing.failure = Some(error);
        return Ok(publishing);
    }
    for row in state.catalog.snapshots()? {
        let publication = state.catalog.publication(&survey.name, &row.known.core)?;
        if publication.is_some() || !state.spool.contains(&row.name.key()) {
            continue;
        }
        let Some(pending) = pending_publication(state, &row.name)? else {
            continue;
        };
        let published = {
            let gathered = std::sync::Mutex::new(&mut *shipped);
            let note = |key: &ObjectKey, bytes: u64| {
                reporter.shipped(&survey.name, bytes);
                if let Ok(mut shipped) = gathered.lock() {
                    shipped.push((key.clone(), bytes));
                }
            };
            runtime.block_on(publish(&survey.folder, &state.spool, &pending, note))
        };
        let (core, now) = (&row.known.core, crate::clock::now());
        match published {
            Ok(done) => {
                state
                    .catalog
                    .set_publication(&survey.name, core, "published", now)?;
                if !done.siblings.is_empty() {
                    publishing
                        .warnings
                        .push(fork_warning(survey, &row.name, &done.siblings));
                }
            }
            // An older snapshot that this target can never have whole: the newer one stands alone.
            Err(ShipError::Incomplete { .. }) if row.name != newest => {
                state
                    .catalog
                    .set_publication(&survey.name, core, "given up", now)?;
                publishing.warnings.push(format!(
                    "{} lacks archives of snapshot {} that are no longer here: it will not have that one",
                    survey.folder.target.label(),
                    row.known.stamp
                ));
            }
            Err(error) => {
                publishing.failure = Some(causes(&error));
                return Ok(publishing);
            }
        }
    }
    Ok(publishing)
}

fn fork_warning(survey: &Survey, name: &ManifestName, siblings: &[ManifestName]) -> String {
    let others: Vec<String> = siblings.iter().map(ManifestName::to_string).collect();
    format!(
        "{}: {} was published beside {name}, under the same sequence: two machines push under one name. \
         Stop one of them, or give it another `host`; then run `sealift adopt` on the one that stays",
        survey.folder.target.label(),
        others.join(", ")
    )
}

/// What publishing a spooled snapshot takes: its archives, read from its own pages.
fn pending_publication(
    state: &State,
    name: &ManifestName,
) -> Result<Option<Publication>, AgentError> {
    let bytes = state.spool.read(&name.key())?;
    let Ok(manifest) = Manifest::parse_named(name, &bytes) else {
        return Ok(None);
    };
    let mut archives = Vec::new();
    for page in &manifest.pages {
        let key = ObjectKey::table(page);
        let Ok(page) = crate::manifest::TablePage::parse(&state.spool.read(&key)?) else {
            return Ok(None);
        };
        archives.extend(page.rows.iter().map(|row| (row.key(), row.bytes)));
    }
    Ok(Some(Publication { manifest, archives }))
}

async fn put_recovery(
    state: &State,
    request: &PushRequest<'_>,
    survey: &Survey,
) -> Result<(), String> {
    let key = format!("recovery:{}", survey.name);
    let there = state.catalog.meta(&key).map_err(|e| causes(&e))?;
    let emptied = survey
        .seen
        .as_ref()
        .is_ok_and(|seen| seen.manifests.is_empty());
    if there.as_deref() == Some(RECOVERY_VERSION) && !emptied {
        return Ok(());
    }
    publish_recovery(&survey.folder, &request.recovery)
        .await
        .map_err(|e| causes(&e))?;
    state
        .catalog
        .set_meta(&key, RECOVERY_VERSION)
        .map_err(|e| causes(&e))
}

fn record_shipped(
    state: &State,
    target: &str,
    shipped: &[(ObjectKey, u64)],
) -> Result<(), AgentError> {
    let numbers: HashMap<Hash, i64> = state
        .catalog
        .archives()?
        .into_iter()
        .map(|archive| (archive.row.blake3, archive.n))
        .collect();
    for (key, _) in shipped {
        let hash = ObjectKey::archive_hash(key.as_str());
        if let Some(n) = hash.and_then(|hash| numbers.get(&hash)) {
            state.catalog.add_placement(target, *n)?;
        }
    }
    Ok(())
}

/// Removes from the spool what every target has, and what no snapshot will ever name.
fn tidy_spool(state: &mut State, targets: &[NamedTarget]) -> Result<(), AgentError> {
    let mut placed: Vec<HashSet<i64>> = Vec::new();
    for target in targets {
        placed.push(state.catalog.placed_on(&target.name)?);
    }
    let numbers: HashMap<Hash, i64> = state
        .catalog
        .archives()?
        .into_iter()
        .map(|archive| (archive.row.blake3, archive.n))
        .collect();
    for (key, _) in state.spool.list(ARCHIVES)? {
        let number = ObjectKey::archive_hash(&key).and_then(|hash| numbers.get(&hash));
        let needed = number.is_some_and(|n| placed.iter().any(|placed| !placed.contains(n)));
        if !needed {
            state.spool.remove(&key)?;
        }
    }
    let mut pages_needed = HashSet::new();
    for row in state.catalog.snapshots()? {
        let key = row.name.key();
        if !state.spool.contains(&key) {
            continue;
        }
        let mut settled = true;
        for target in targets {
            settled &= state
                .catalog
                .publication(&target.name, &row.known.core)?
                .is_some();
        }
        if settled {
            state.spool.remove(key.as_str())?;
            state.spool.remove(row.name.signature_key().as_str())?;
        } else if let Ok(manifest) = Manifest::parse(&state.spool.read(&key)?) {
            pages_needed.extend(manifest.pages.iter().map(ObjectKey::table));
        }
    }
    for (key, _) in state.spool.list(TABLES)? {
        if !pages_needed.iter().any(|needed| needed.as_str() == key) {
            state.spool.remove(&key)?;
        }
    }
    remove_stray_signatures(state)
}

/// A signature whose manifest was never written belongs to a run that died between the two.
fn remove_stray_signatures(state: &State) -> Result<(), AgentError> {
    let listed = state.spool.list(MANIFESTS)?;
    let names: HashSet<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    for key in &names {
        if let Some(manifest) = key.strip_suffix(".sig")
            && !names.contains(manifest)
        {
            state.spool.remove(key)?;
        }
    }
    Ok(())
}

/// An error and its causes, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
