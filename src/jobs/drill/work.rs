//! The work of a drill: restore, check, start, check, stop, remove.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::databases::check_all;
use super::failure::{self, DrillProblem, code};
use super::left_service;
use super::service::{DrillEnvironment, StartedService};
use super::{AfterDrill, DrillPlace, DrillRequest};
use crate::base::error_chain::with_causes;
use crate::base::openat::Dir;
use crate::base::path_choice::is_at_or_below;
use crate::base::progress::Stage;
use crate::base::units::size;
use crate::checks::{CheckResult, CheckSubject, run_checks};
use crate::config::PostCheck;
use crate::format::chain::VerifiedSnapshot;
use crate::format::index::IndexHeader;
use crate::format::receipt::{
    ReceiptCheck, ReceiptOutcome, ReceiptTimes, RestoredTotals, keyed_schema, salt_of,
};
use crate::jobs::context::FrontEnd;
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::ContentScratch;
use crate::jobs::wrong_key;
use crate::restore::{self, DatabaseCheck, RestoreError, RestoreRequest};

/// What came of the restore and the checks.
#[derive(Default)]
pub(super) struct Rehearsal {
    /// The salt in the sealed index. `None`: it could not be opened.
    pub(super) salt: Option<[u8; 32]>,
    /// The schema of the databases, as receipts state it.
    pub(super) schema: Option<String>,
    /// `None`: not everything was restored.
    pub(super) restored: Option<RestoredTotals>,
    pub(super) times: ReceiptTimes,
    pub(super) checks: Vec<CheckResult>,
    pub(super) problems: Vec<DrillProblem>,
    pub(super) notes: Vec<String>,
    /// Paths of files that changed while the snapshot was made.
    torn: Vec<String>,
    /// The directory with the restored data. `None`: it was removed.
    pub(super) kept: Option<String>,
}

impl Rehearsal {
    /// A service that did not stop says nothing about the snapshot.
    pub(super) fn outcome(&self) -> ReceiptOutcome {
        let mut problems = self.problems.iter();
        match problems.all(|one| one.code == code::STOP_FAILED) {
            true => ReceiptOutcome::Passed,
            false => ReceiptOutcome::Failed,
        }
    }

    /// Returns each code once.
    pub(super) fn codes(&self) -> Vec<String> {
        let mut codes: Vec<String> = self.problems.iter().map(|one| one.code.clone()).collect();
        codes.sort();
        codes.dedup();
        codes
    }

    /// Returns the checks without what they found: no values, no paths.
    pub(super) fn receipt_checks(&self) -> Vec<ReceiptCheck> {
        let checks = self.checks.iter();
        let checks = checks.map(|one| ReceiptCheck {
            name: one.name.clone(),
            outcome: match one.passed {
                true => ReceiptOutcome::Passed,
                false => ReceiptOutcome::Failed,
            },
            milliseconds: milliseconds(
                Duration::try_from_secs_f64(one.seconds).unwrap_or_default(),
            ),
        });
        checks.collect()
    }

    fn fail(&mut self, codes: &[&str], text: &str) {
        let problems = codes.iter().map(|code| DrillProblem::new(code, text));
        self.problems.extend(problems);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Restores `snapshot` of `place`, checks it, and removes it again.
pub(super) fn rehearse(
    request: &DrillRequest,
    place: &DrillPlace,
    snapshot: &VerifiedSnapshot,
    runtime: &Runtime,
    front: &dyn FrontEnd,
) -> Result<Rehearsal, JobError> {
    left_service::stop_left(request.scratch.as_deref(), request.service.as_ref(), front)?;
    let scratch = match request.after {
        AfterDrill::Remove => ContentScratch::for_drill(request.scratch.as_deref())?,
        AfterDrill::Keep => ContentScratch::for_kept_drill(request.scratch.as_deref())?,
    };
    let mut rehearsal = Rehearsal::default();
    let restored = runtime.block_on(restore_into(
        scratch.dir(),
        scratch.tree().0,
        (request, place, snapshot),
        &mut rehearsal,
        front,
    ));
    let header = match restored {
        Ok(header) => header,
        Err(DrillError::Job(error)) => return Err(error),
        Err(DrillError::Restore(error)) => match failure::codes(&error) {
            Some(codes) => {
                rehearsal.fail(&codes, &with_causes(&error));
                return Ok(rehearsal);
            }
            None => return Err(circumstance(error)),
        },
    };
    let tree = scratch.tree().1;
    check_content(&tree, &header, &mut rehearsal, front);
    if rehearsal.problems.is_empty() {
        let place = (scratch.dir(), &*tree);
        if let Some(service) = &request.service {
            let environment =
                DrillEnvironment::new(&tree, snapshot.stamp(), request.base_url.as_deref());
            left_service::record(scratch.dir(), service, &environment)?;
        }
        run_service(request, snapshot, (place, &header), &mut rehearsal, front);
    }
    if request.after == AfterDrill::Keep {
        scratch.keep();
        rehearsal.kept = Some(tree.display().to_string());
    }
    Ok(rehearsal)
}

enum DrillError {
    Restore(RestoreError),
    Job(JobError),
}

impl From<RestoreError> for DrillError {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}

/// Returns the error of a drill that says nothing about the snapshot.
fn circumstance(error: RestoreError) -> JobError {
    let next = wrong_key::next_step(&error);
    let error = JobError::work(error);
    match next {
        Some(next) => error.with_next(next),
        None => error,
    }
}

/// Restores everything into the new directory `name` in `dir`. Every byte is verified.
async fn restore_into(
    dir: &Dir,
    name: &str,
    (request, place, snapshot): (&DrillRequest, &DrillPlace, &VerifiedSnapshot),
    rehearsal: &mut Rehearsal,
    front: &dyn FrontEnd,
) -> Result<IndexHeader, DrillError> {
    let began = Instant::now();
    let wanted = RestoreRequest {
        // By its hash, which no later snapshot shares.
        snapshot: snapshot.choice(),
        to: PathBuf::from(name),
        paths: Vec::new(),
        overwrite: false,
        at_least: None,
        devices: false,
        databases: DatabaseCheck::AsSealed,
    };
    let (chain, identities) = (place.chain.clone(), Arc::clone(&request.identities));
    let plan = restore::plan_within(dir, &place.folder, chain, &wanted, identities).await?;
    rehearsal.times.fetch = milliseconds(began.elapsed());
    let header = plan.header().clone();
    rehearsal.salt = salt_of(&header.salt);
    if let Some(most) = request.max_bytes
        && plan.bytes > most
    {
        let text = format!(
            "snapshot {} has {}, and drills restore at most {} (max_bytes)",
            plan.stamp,
            size(plan.bytes),
            size(most)
        );
        let error = JobError::request(text);
        return Err(DrillError::Job(
            error.with_next("raise max_bytes, or choose a smaller snapshot"),
        ));
    }
    let archives = plan.archives;
    let began = Instant::now();
    let display = front.show_restore();
    let report = restore::execute(plan, Arc::clone(&display.progress)).await;
    drop(display);
    let report = report?;
    rehearsal.times.restore = milliseconds(began.elapsed());
    rehearsal.restored = Some(RestoredTotals {
        files: report.files,
        bytes: report.bytes,
        databases: 0,
        fetched_bytes: report.fetched_bytes,
        archives,
    });
    rehearsal.torn = report.torn;
    rehearsal.notes.extend(report.problems);
    let lacks = report.skipped_in_snapshot.iter();
    let lacks = lacks.map(|one| format!("the snapshot itself lacks {}: {}", one.path, one.reason));
    rehearsal.notes.extend(lacks);
    Ok(header)
}

/// Checks the databases in full.
fn check_content(
    tree: &Path,
    header: &IndexHeader,
    rehearsal: &mut Rehearsal,
    front: &dyn FrontEnd,
) {
    front.stage(Stage::Validating, None);
    let began = Instant::now();
    let checked = check_all(tree, &header.databases, &rehearsal.torn);
    rehearsal.times.restore += milliseconds(began.elapsed());
    if let Some(restored) = &mut rehearsal.restored {
        restored.databases = checked.good;
    }
    let expected = header.databases.iter().filter(|one| one.can_be_checked());
    let is_complete = expected.count() == checked.schemas.len();
    if let Some(salt) = &rehearsal.salt
        && is_complete
    {
        rehearsal.schema = keyed_schema(salt, &checked.schemas);
    }
    rehearsal.problems.extend(checked.problems);
    rehearsal.notes.extend(checked.notes);
}

/// Starts the service, runs the checks, and stops it.
fn run_service(
    request: &DrillRequest,
    snapshot: &VerifiedSnapshot,
    ((dir, tree), header): ((&Dir, &Path), &IndexHeader),
    rehearsal: &mut Rehearsal,
    front: &dyn FrontEnd,
) {
    front.stage(Stage::CheckingService, None);
    let began = Instant::now();
    let base_url = request.base_url.as_deref();
    let (service, failure) = match &request.service {
        None => (None, None),
        Some(service) => {
            let environment = DrillEnvironment::new(tree, snapshot.stamp(), base_url);
            let (started, failure) = StartedService::start(service, environment);
            (Some(started), failure)
        }
    };
    match failure {
        Some(why) => {
            let text = format!("the service did not start: {why}");
            rehearsal.fail(&[code::START_FAILED], &text);
        }
        None => {
            rehearsal.checks = checks(request, tree, header);
            let failed = rehearsal.checks.iter().filter(|one| !one.passed);
            let failed = failed.map(|one| {
                let text = format!("the check {:?} failed: {}", one.name, one.found);
                DrillProblem::new(code::CHECK_FAILED, text)
            });
            let failed: Vec<DrillProblem> = failed.collect();
            rehearsal.problems.extend(failed);
        }
    }
    if let Some(service) = service {
        match service.stop() {
            Ok(()) => left_service::forget(dir),
            Err(why) => {
                let text = format!("the service did not stop: {why}");
                rehearsal.fail(&[code::STOP_FAILED], &text);
            }
        }
    }
    rehearsal.times.checks = milliseconds(began.elapsed());
}

fn checks(request: &DrillRequest, tree: &Path, header: &IndexHeader) -> Vec<CheckResult> {
    let checks: Vec<&PostCheck> = request.checks.iter().collect();
    if checks.is_empty() {
        return Vec::new();
    }
    let subject = CheckSubject {
        base_url: request.base_url.as_deref(),
        restored: Some(tree),
        database: &|name| database(tree, header, name),
        file: &|path| file(tree, header, path),
    };
    run_checks(&checks, &subject, request.check_timeout)
}

/// Returns where the database `name` was restored: named by its path in the snapshot, or by what is
/// unique in it, its first directory or its file's name with or without its ending.
fn database(tree: &Path, header: &IndexHeader, name: &str) -> Option<PathBuf> {
    let paths = || header.databases.iter().map(|one| one.path.as_str());
    if let Some(exact) = paths().find(|path| *path == name) {
        return Some(tree.join(exact));
    }
    let is_named = |path: &str| {
        let path_of = Path::new(path);
        is_at_or_below(path.as_bytes(), name.as_bytes())
            || path_of.file_name() == Some(OsStr::new(name))
            || path_of.file_stem() == Some(OsStr::new(name))
    };
    let mut named = paths().filter(|path| is_named(path));
    match (named.next(), named.next()) {
        (Some(only), None) => Some(tree.join(only)),
        _ => None,
    }
}

/// Returns where the file `path` was restored: a path in the snapshot, or an absolute one of the
/// host.
fn file(tree: &Path, header: &IndexHeader, path: &Path) -> Option<PathBuf> {
    let is_plain = |path: &Path| {
        let mut parts = path.components();
        parts.all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    if !path.is_absolute() {
        return is_plain(path).then(|| tree.join(path));
    }
    header.sources.iter().find_map(|source| {
        let rest = path.strip_prefix(&source.path).ok()?;
        let below = Path::new(&source.to).join(rest);
        is_plain(&below).then(|| tree.join(below))
    })
}
