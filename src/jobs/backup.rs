//! A backup: produces a snapshot, pushes it, applies retention, and records the run.

pub(crate) mod report;
mod run_hooks;
mod run_record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::context::{FrontEnd, open_state, open_state_within, runtime};
use super::error::JobError;
use super::local_retention::retain_local;
use super::local_snapshots;
use super::mode::{Consent, Mode};
use super::operator_marks;
use super::prune::retain_on;
use super::push::{
    self, OrderedSnapshot, PresentSigner, PushReport, PushRequest, Resealing, TargetState,
};
use super::recovery_files::recovery_files;
use super::run_report::{DatabaseRun, SourceRun};
use super::shrunk::{self, ShrinkFinding};
use super::signer_change::{not_pushed, require_introduced};
use super::status::record::{EndedPush, record_push};
use super::targets::{listed_signers, open_for_push, own_trust};
use crate::base::clock;
use crate::base::progress::{Progress, ProgressEvent, Stage};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::base::sqlite::Depth;
use crate::base::units::count;
use crate::config::Config;
use crate::format::index::Skipped;
use crate::format::signature::{Signer, Trust};
use crate::packer::PackOptions;
use crate::packer::seal::Recipients;
use crate::producer::{self, InPlaceTrees, ProduceError, ProduceRequest, Produced, Reread};
use crate::state::State;
use crate::state::catalog::Catalog;
use crate::state::history::OperatorMark;
use crate::state::staged_snapshot::{LeftOut, StagedSnapshot};
use report::{BackupReport, RunDetails};
use run_hooks::HookedRun;
pub(crate) use run_hooks::Hooks;
use run_record::OngoingRun;

/// Options of a new snapshot.
#[derive(Debug, Default)]
pub(crate) struct BackupRequest {
    /// Sources to take although they are taken on request only.
    pub(crate) include: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) note: Option<String>,
    pub(crate) hooks: Hooks,
    pub(crate) resealing: Resealing,
    /// How long to wait for another process that holds the state directory.
    pub(crate) wait: Duration,
}

/// A snapshot directory to push.
#[derive(Debug)]
pub(crate) enum ExistingSnapshot {
    /// One of this host's.
    Chosen(SnapshotChoice),
    /// Created by any tool.
    Dir(PathBuf),
}

/// Produces a snapshot and pushes it to all targets, then applies retention there and on this host.
pub(crate) fn run(
    config: &Config,
    request: &BackupRequest,
    front: &dyn FrontEnd,
) -> Result<BackupReport, JobError> {
    recorded(config, || {
        let mut hooked = HookedRun::new(config, request.hooks, front);
        let begun = Pusher::open(config, request.wait, front).and_then(Pusher::begun);
        let mut pusher = match begun {
            Ok(pusher) => pusher.after_incident(),
            Err(error) => return Err(hooked.never_began(error)),
        };
        pusher.resealing = request.resealing;
        let before = hooked.begin();
        let mut done = before.and_then(|()| pusher.produce_and_push(request));
        if let Ok(report) = &mut done
            && report.is_published_somewhere()
            && pusher.may_retain
        {
            pusher.retain_targets(report);
            pusher.retain_local(report);
        }
        pusher.conclude(done, hooked)
    })
}

/// A push of a snapshot directory that exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExistingPushRequest<'a> {
    pub(crate) which: &'a ExistingSnapshot,
    pub(crate) hooks: Hooks,
    /// How long it waits for another process that is at work.
    pub(crate) wait: Duration,
}

/// Pushes a snapshot directory that exists.
pub(crate) fn push_existing(
    config: &Config,
    request: &ExistingPushRequest<'_>,
    front: &dyn FrontEnd,
) -> Result<BackupReport, JobError> {
    recorded(config, || {
        let mut hooked = HookedRun::new(config, request.hooks, front);
        let begun = Pusher::open(config, request.wait, front).and_then(|pusher| {
            let snapshot = existing(config, request.which, front)?;
            Ok((pusher.begun()?, snapshot))
        });
        let (mut pusher, snapshot) = match begun {
            Ok(begun) => begun,
            Err(error) => return Err(hooked.never_began(error)),
        };
        let before = hooked.begin();
        let done = before.and_then(|()| pusher.push(&snapshot, false));
        pusher.conclude(done, hooked)
    })
}

fn existing(
    config: &Config,
    which: &ExistingSnapshot,
    front: &dyn FrontEnd,
) -> Result<StagedSnapshot, JobError> {
    let snapshot = match which {
        ExistingSnapshot::Dir(dir) => producer::from_dir(config, dir, InPlaceTrees::Skip),
        ExistingSnapshot::Chosen(choice) => {
            let dir = local_snapshots::find(config, choice, front)?;
            producer::from_dir(config, &dir, InPlaceTrees::Attach)
        }
    };
    snapshot.map_err(not_produced)
}

/// Does the work, and records a failure that came before the run had a record.
fn recorded(
    config: &Config,
    work: impl FnOnce() -> Result<BackupReport, JobError>,
) -> Result<BackupReport, JobError> {
    let started = clock::now();
    let done = work();
    if let Err(error) = &done {
        run_record::record_failure(config, started, error);
    }
    done
}

/// Produces a snapshot and pushes it nowhere.
pub(crate) fn produce(
    config: &Config,
    request: &BackupRequest,
    front: &dyn FrontEnd,
) -> Result<Produced, JobError> {
    let state = open_state(config, front)?;
    let snapshots = local_snapshots::ordered(config, front)?;
    request.produce(config, snapshots, &state.catalog, Reread::Changed, front)
}

impl BackupRequest {
    /// Produces a snapshot after the newest of `snapshots`, which are oldest first.
    fn produce(
        &self,
        config: &Config,
        snapshots: Vec<OrderedSnapshot>,
        catalog: &Catalog,
        reread: Reread,
        front: &dyn FrontEnd,
    ) -> Result<Produced, JobError> {
        let now = clock::now();
        let known = catalog.snapshots()?;
        let ahead = known.iter().map(|row| row.known.stamp);
        // A running AtoCore makes the stamp by its own clock, which may be some seconds behind.
        let behind = chrono::Duration::seconds(10);
        let mut newest_first = snapshots.into_iter().rev();
        let usable = newest_first.find(|one| one.snapshot.valid != Some(false));
        let request = ProduceRequest {
            include: self.include.clone(),
            tags: self.tags.clone(),
            note: self.note.clone(),
            now,
            taken: ahead.filter(|stamp| stamp.time() > now - behind).collect(),
            previous: usable.map(|one| one.snapshot.path),
            reread,
        };
        let produced = producer::produce(config, &request, &FrontStages(front));
        let produced = produced.map_err(not_produced)?;
        for warning in &produced.warnings {
            front.warn(warning);
        }
        for note in &produced.notes {
            front.note(note);
        }
        Ok(produced)
    }
}

/// Classifies the error: the request or the configuration is wrong, or a source failed.
fn not_produced(error: ProduceError) -> JobError {
    match error {
        ProduceError::UnknownInclude { .. } | ProduceError::NoSources => JobError::request(error),
        error => match error.next() {
            Some(next) => JobError::from(error).with_next(next),
            None => JobError::from(error),
        },
    }
}

/// Everything that a push needs, opened and checked before a snapshot is produced.
struct Pusher<'a> {
    front: &'a dyn FrontEnd,
    config: &'a Config,
    state: State,
    recipients: Arc<Recipients>,
    signer: Signer,
    signer_is_listed: bool,
    next_signer: Option<String>,
    targets: Vec<push::Target>,
    /// `None` before the run begins.
    run: Option<OngoingRun>,
    left_out: Vec<LeftOut>,
    findings: Vec<ShrinkFinding>,
    /// How long each source was copied for, by name.
    took: Vec<(String, Duration)>,
    details: RunDetails,
    /// Whether it is known which snapshots the findings keep.
    may_retain: bool,
    resealing: Resealing,
    /// The incident after which this is the first backup. `None`: there is none.
    incident: Option<OperatorMark>,
}

impl<'a> Pusher<'a> {
    fn open(config: &'a Config, wait: Duration, front: &'a dyn FrontEnd) -> Result<Self, JobError> {
        let lines = config.read_recipients().map_err(JobError::request)?;
        let base = config.file.parent().unwrap_or(Path::new("."));
        let recipients = Arc::new(Recipients::load(&lines, base).map_err(JobError::request)?);
        let signer = Signer::load(&config.signer).map_err(|error| {
            JobError::request(error).with_next("`sealift init` makes a signer; see keys/README.md")
        })?;
        let next_signer = next_signer(config)?;
        let state = open_state_within(config, wait, front)?;
        let listed = Trust::AllowedSigners(listed_signers(config, &|text| front.warn(text))?);
        let present = PresentSigner::of(&signer, &config.host, &listed);
        require_introduced(config, &present, &signer, &state.catalog)?;
        let mut targets = Vec::new();
        for target in &config.targets {
            let has_published = state.catalog.has_published(&target.name)?;
            targets.push(open_for_push(target, &config.host, has_published)?);
        }
        Ok(Self {
            front,
            config,
            state,
            recipients,
            signer,
            signer_is_listed: present.is_listed,
            next_signer,
            targets,
            run: None,
            left_out: Vec::new(),
            findings: Vec::new(),
            took: Vec::new(),
            details: RunDetails::default(),
            may_retain: false,
            resealing: Resealing::AsNeeded,
            incident: None,
        })
    }

    /// Looks for an incident, after which the backup reads and checks every database.
    fn after_incident(mut self) -> Self {
        self.incident = operator_marks::unchecked_incident(self.config, self.front);
        self
    }

    /// Returns what is read of files that look unchanged.
    fn reread(&self) -> Reread {
        match self.incident {
            Some(_) => Reread::Everything,
            None => Reread::Changed,
        }
    }

    /// Records the begin of the run.
    fn begun(mut self) -> Result<Self, JobError> {
        self.run = Some(OngoingRun::begin(&self.state)?);
        Ok(self)
    }

    /// Records how the run ended, and makes the report. An error of the push itself comes first.
    fn conclude(
        mut self,
        done: Result<PushReport, JobError>,
        mut hooked: HookedRun<'_>,
    ) -> Result<BackupReport, JobError> {
        hooked.leave_out(&self.left_out);
        let mut done = done.map(|report| BackupReport {
            details: self.details,
            ..BackupReport::of(report, self.left_out, self.findings)
        });
        hooked.end(&mut done);
        let recorded = match self.run.take() {
            Some(run) => run.end(&self.state.catalog, &done),
            None => Ok(()),
        };
        hooked.conclude();
        let mut report = done?;
        report.not_recorded = recorded.err();
        Ok(report)
    }

    fn produce_and_push(&mut self, request: &BackupRequest) -> Result<PushReport, JobError> {
        let catalog = &self.state.catalog;
        let snapshots = local_snapshots::ordered_by(self.config, catalog, self.front)?;
        let produced =
            request.produce(self.config, snapshots, catalog, self.reread(), self.front)?;
        if let Some(run) = self.run.as_ref().and_then(OngoingRun::number) {
            // If this run does not end, retention knows the directory that it left.
            let stamp = produced.snapshot.stamp;
            self.state.catalog.set_run_stamp(run, stamp)?;
        }
        self.took = produced.took;
        let snapshot = &produced.snapshot;
        let (dir, metadata) = (&produced.dir, &produced.metadata);
        self.front.snapshot_ready(snapshot.stamp, dir, metadata);
        let report = self.push(snapshot, true)?;
        // One that fails the check is checked in full again, so that the finding stays.
        let is_sound = |one: &Skipped| !one.reason.contains("integrity_check");
        if let Some(incident) = &self.incident
            && report.skipped.iter().all(is_sound)
        {
            operator_marks::note_check(self.config, incident, report.manifest.stamp, self.front);
        }
        Ok(report)
    }

    /// Pushes `snapshot`. `made_now`: it holds the present content of the sources.
    fn push(&mut self, snapshot: &StagedSnapshot, made_now: bool) -> Result<PushReport, JobError> {
        self.left_out.clone_from(&snapshot.left_out);
        let display = self.front.show_push();
        let next_by = self.config.schedule.next_by(clock::now());
        let request = PushRequest {
            host: &self.config.host,
            snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            signer_is_listed: self.signer_is_listed,
            next_signer: self.next_signer.clone(),
            trust: own_trust(self.config, self.front)?,
            targets: &self.targets,
            next_by,
            options: PackOptions {
                check: match self.reread() {
                    Reread::Everything => Depth::Indexes,
                    Reread::Changed => Depth::Structure,
                },
                ..pack_options(self.config)
            },
            spool_limit: self.config.spool_limit,
            resealing: self.resealing,
            recovery: recovery_files(),
        };
        let reporter = Arc::clone(&display.progress);
        let report = push::push(&mut self.state, &request, reporter);
        drop(display);
        let mut report = report.map_err(|error| not_pushed(self.config, &self.signer, error))?;
        self.record_looks(&report, next_by);
        self.details = details(self.config, &report, &self.took);
        // Before retention, which keeps the last snapshot before a source shrank.
        let compared = shrunk::compare(
            self.config,
            &self.state,
            &mut report,
            &self.left_out,
            made_now,
        );
        self.may_retain = compared.is_some();
        self.findings = compared.unwrap_or_default();
        Ok(report)
    }

    /// Records what the push saw of the targets. If that fails, warns: no backup depends on it.
    fn record_looks(&self, report: &PushReport, next_by: Option<DateTime<Utc>>) {
        let push = EndedPush {
            report,
            next_by,
            recipients: self.recipients.texts(),
        };
        let recorded = record_push(self.config, &self.state.catalog, &push, clock::now());
        if let Err(error) = recorded {
            let error = error.with_causes();
            let text = format!("what this run saw of the targets is not recorded: {error}");
            self.front.warn(&text);
        }
    }

    /// Applies retention on the targets that are configured to prune and have the new snapshot. If
    /// that fails, adds a warning.
    fn retain_targets(&self, report: &mut PushReport) {
        let is_due = |name: &str| {
            let mut states = report.targets.iter();
            states.any(|target| target.name == name && target.state == TargetState::Published)
        };
        let pairs = self.config.targets.iter().zip(&self.targets);
        let due: Vec<_> = pairs
            .filter(|(config, _)| config.prune && is_due(&config.name))
            .collect();
        if due.is_empty() {
            return;
        }
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                let error = error.with_causes();
                let text = format!("retention could not be applied on the targets: {error}");
                report.warnings.push(text);
                return;
            }
        };
        for pair in due {
            let label = pair.1.target.label();
            self.front.stage(Stage::Pruning, Some(&pair.0.name));
            let (config, signer) = (self.config, &self.signer);
            match retain_on(config, &self.state, pair, signer, &runtime, self.front) {
                Ok(note) => report
                    .notes
                    .extend(note.map(|text| format!("{label}: {text}"))),
                Err(error) => report.warnings.push(format!(
                    "retention could not be applied on {label}: {}; see `sealift prune --dry-run`",
                    error.with_causes()
                )),
            }
        }
    }

    /// Deletes older snapshots on this host. If that fails, adds a warning.
    fn retain_local(&mut self, report: &mut PushReport) {
        self.front.stage(Stage::Pruning, None);
        let mode = Mode::Delete(Consent::Missing);
        let completed = report.is_complete().then_some(report.manifest.stamp);
        match retain_local(self.config, &self.state, mode, &[], completed) {
            Ok(done) => {
                let leftovers = done.leftovers.len() as u64;
                let others = done.forgotten.len() as u64 - leftovers;
                // One copy a day comes and one goes: that is no news.
                if others > 1 {
                    report.notes.push(format!(
                        "{} deleted on this host, as [snapshots] keep says; every target has them",
                        count(others, "older snapshot")
                    ));
                }
                if leftovers > 0 {
                    report.notes.push(format!(
                        "{} of runs that did not finish deleted on this host",
                        count(leftovers, "snapshot")
                    ));
                }
                self.details.forgot = done.forgotten;
            }
            Err(error) => report.warnings.push(format!(
                "older snapshots could not be deleted on this host: {}; see `sealift prune --local --dry-run`",
                error.with_causes()
            )),
        }
    }
}

/// Passes the stages of a producer on.
struct FrontStages<'a>(&'a dyn FrontEnd);

impl Progress for FrontStages<'_> {
    fn report(&self, event: &ProgressEvent<'_>) {
        match event {
            ProgressEvent::StageStarted { stage, subject } => self.0.stage(*stage, *subject),
            ProgressEvent::SourceCopied { bytes, bytes_total } => {
                self.0.stage_bytes(*bytes, *bytes_total);
            }
            _ => {}
        }
    }
}

/// Returns the figures of the new snapshot for the report of the run.
fn details(config: &Config, report: &PushReport, took: &[(String, Duration)]) -> RunDetails {
    let mut details = RunDetails::default();
    for (to, figures) in &report.figures {
        let source = config.sources.iter().find(|source| source.to == *to);
        let name = source.map_or(to, |source| &source.name);
        let took = took.iter().find(|(source, _)| source == name);
        details.sources.push(SourceRun {
            name: name.clone(),
            files: figures.files,
            bytes: figures.bytes,
            seconds: took.map(|(_, took)| took.as_secs_f64()),
        });
        let databases = figures.databases.iter();
        details
            .databases
            .extend(databases.map(|(path, database)| DatabaseRun {
                path: path.clone(),
                tables: database.tables.clone(),
            }));
    }
    details
}

fn next_signer(config: &Config) -> Result<Option<String>, JobError> {
    let Some(path) = &config.next_signer else {
        return Ok(None);
    };
    let read = Signer::read_next(path).map_err(|error| {
        let path = path.display();
        JobError::request(format!("cannot read next_signer {path}: {error}"))
    });
    read.map(Some)
}

fn pack_options(config: &Config) -> PackOptions {
    let defaults = PackOptions::default();
    PackOptions {
        archive_bytes: config.pack.archive_bytes,
        level: config.pack.level,
        threads: config.pack.threads.map_or(defaults.threads, |n| n as usize),
        ..defaults
    }
}
