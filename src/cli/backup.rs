//! `backup` and `push`: produce, pack, ship, and say what came of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use super::shrunk::{self, Alarm};
use super::terminal::PushDisplay;
use super::{Context, remote, retention, status};
use crate::agent::{self, OrderedSnapshot, PushReport, PushRequest, State, TargetState};
use crate::config::Config;
use crate::ids::ObjectKey;
use crate::manifest::signature::Signer;
use crate::packer::seal::Recipients;
use crate::packer::{PackOptions, PackProgress};
use crate::producer::{self, LocalSnapshot, ProduceError, ProduceRequest};
use crate::snapshot::{LeftOut, Snapshot};
use crate::{clock, fs};

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Also take a source that is taken on request only, such as chroma
    #[arg(long, value_name = "SOURCE")]
    pub include: Vec<String>,
    /// A tag; it travels sealed
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// A note; it travels sealed
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
}

#[derive(Debug, Args)]
pub struct PushArgs {
    /// Which snapshot of the snapshots directory
    #[arg(default_value = "latest")]
    pub stamp: String,
    /// Push this snapshot directory instead, made by whatever tool
    #[arg(long, value_name = "DIR", conflicts_with = "stamp")]
    pub dir: Option<PathBuf>,
}

impl BackupArgs {
    /// Returns what is to be produced, after the newest of `snapshots`, which are oldest first.
    pub fn request(&self, snapshots: Vec<OrderedSnapshot>) -> ProduceRequest {
        let mut newest_first = snapshots.into_iter().rev();
        let usable = newest_first.find(|one| one.snapshot.valid != Some(false));
        ProduceRequest {
            include: self.include.clone(),
            tags: self.tag.clone(),
            note: self.note.clone(),
            now: clock::now(),
            previous: usable.map(|one| one.snapshot.path),
        }
    }
}

pub fn run(context: &Context, args: &BackupArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let mut pusher = Pusher::open(context, &config)?;
    pusher.begin_run()?;
    let mut done = produce_and_push(&mut pusher, args);
    if let Ok(report) = &mut done
        && report.is_published_somewhere()
        && pusher.may_retain
    {
        pusher.retain_targets(report);
        pusher.retain_local(report);
    }
    pusher.conclude(done)
}

fn produce_and_push(pusher: &mut Pusher<'_>, args: &BackupArgs) -> Result<PushReport, Failure> {
    let there = producer::list(&pusher.config.snapshots_dir)?;
    let catalog = &pusher.state.catalog;
    let ordered = agent::in_order(there.clone(), Some(catalog), clock::now());
    let ordered = ordered.or_else(|error| by_stamps(there, &error.into()))?;
    let request = args.request(ordered);
    let produced = producer::produce(pusher.config, &request).map_err(not_produced)?;
    for warning in &produced.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    for note in &produced.notes {
        pusher.context.note(note);
    }
    pusher.push(&produced.snapshot, true)
}

/// What the command line or the configuration asks for in vain is no failed backup.
pub fn not_produced(error: ProduceError) -> Failure {
    match error {
        ProduceError::UnknownInclude { .. } | ProduceError::NoSources => Failure::usage(error),
        error => match error.next() {
            Some(next) => Failure::from(error).hint(next),
            None => Failure::from(error),
        },
    }
}

pub fn push(context: &Context, args: &PushArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let mut pusher = Pusher::open(context, &config)?;
    let snapshot = match &args.dir {
        Some(dir) => producer::from_dir(&config, dir, false).map_err(not_produced)?,
        None => {
            let dir = local_snapshot(&config, &args.stamp)?;
            producer::from_dir(&config, &dir, true).map_err(not_produced)?
        }
    };
    pusher.begin_run()?;
    let done = pusher.push(&snapshot, false);
    pusher.conclude(done)
}

/// Returns the snapshots of this host in the order of their making, oldest first.
pub fn local_snapshots(config: &Config) -> Result<Vec<OrderedSnapshot>, Failure> {
    let there = producer::list(&config.snapshots_dir)?;
    let now = clock::now();
    let ordered = status::open_catalog(config)
        .and_then(|catalog| Ok(agent::in_order(there.clone(), catalog.as_ref(), now)?));
    ordered.or_else(|failure| by_stamps(there, &failure))
}

/// Orders `there` by stamps, and says why.
fn by_stamps(
    there: Vec<LocalSnapshot>,
    failure: &Failure,
) -> Result<Vec<OrderedSnapshot>, Failure> {
    output::tell(format_args!(
        "warning: the catalog cannot say in which order the snapshots were made, so their stamps do: {}",
        failure.with_causes()
    ));
    Ok(agent::in_order(there, None, clock::now())?)
}

/// Returns the directory of a local snapshot by its stamp, its sequence or `latest`.
pub fn local_snapshot(config: &Config, text: &str) -> Result<PathBuf, Failure> {
    let snapshots = local_snapshots(config)?;
    let is_named = |one: &&OrderedSnapshot| {
        let sequence = one.sequence.map(|sequence| sequence.to_string());
        one.snapshot.stamp.to_string() == text || sequence.as_deref() == Some(text)
    };
    let found = match text {
        "latest" => snapshots.last(),
        _ => snapshots.iter().find(is_named),
    };
    found.map(|one| one.snapshot.path.clone()).ok_or_else(|| {
        let dir = config.snapshots_dir.display();
        Failure::from_error(format!("no snapshot {text} in {dir}"))
            .hint("`sealift list` shows what there is")
    })
}

/// What a push needs, opened and checked before anything is produced.
pub struct Pusher<'a> {
    context: &'a Context,
    config: &'a Config,
    state: State,
    recipients: Arc<Recipients>,
    signer: Signer,
    next_signer: Option<String>,
    targets: Vec<agent::NamedTarget>,
    run: Option<i64>,
    started: Instant,
    /// The sources that the snapshot lacks because they failed.
    left_out: Vec<LeftOut>,
    /// Sources that shrank, and nobody acknowledged it.
    shrunk: Vec<Alarm>,
    /// It is known which snapshots an alarm keeps.
    may_retain: bool,
}

impl<'a> Pusher<'a> {
    pub fn open(context: &'a Context, config: &'a Config) -> Result<Self, Failure> {
        let lines = config.read_recipients().map_err(Failure::usage)?;
        let base = config.file.parent().unwrap_or(Path::new("."));
        let recipients = Arc::new(Recipients::load(&lines, base).map_err(Failure::usage)?);
        let signer = Signer::load(&config.signer).map_err(|error| {
            Failure::usage(error).hint("`sealift init` makes a signer; see keys/README.md")
        })?;
        let next_signer = match &config.next_signer {
            Some(path) => Some(Signer::read_next(path).map_err(|error| {
                Failure::usage(format!(
                    "cannot read next_signer {}: {error}",
                    path.display()
                ))
            })?),
            None => None,
        };
        let state = context.open_state(config)?;
        let mut targets = Vec::new();
        for target in &config.targets {
            let has_published = state.catalog.has_published(&target.name)?;
            targets.push(remote::open_for_push(target, &config.host, has_published)?);
        }
        Ok(Self {
            context,
            config,
            state,
            recipients,
            signer,
            next_signer,
            targets,
            run: None,
            started: Instant::now(),
            left_out: Vec::new(),
            shrunk: Vec::new(),
            may_retain: false,
        })
    }

    fn begin_run(&mut self) -> Result<(), Failure> {
        self.run = Some(self.state.catalog.begin_run(clock::now())?);
        Ok(())
    }

    /// Notes the run and tells of it; what went wrong with the push itself comes first.
    fn conclude(&self, done: Result<PushReport, Failure>) -> Result<Outcome, Failure> {
        let noted = self.end_run(&done);
        let outcome = self.finish(&done?)?;
        noted?;
        Ok(outcome)
    }

    fn end_run(&self, done: &Result<PushReport, Failure>) -> Result<(), Failure> {
        let Some(run) = self.run else { return Ok(()) };
        let (stamp, outcome, message) = match done {
            Ok(report) => {
                let outcome = match report.is_complete() {
                    true => "complete",
                    false => "partial",
                };
                (Some(report.manifest.stamp), outcome, self.lacks())
            }
            Err(failure) => (None, "failed", failure.to_string()),
        };
        let catalog = &self.state.catalog;
        Ok(catalog.end_run(run, clock::now(), stamp, outcome, &message)?)
    }

    /// `without registry: …`, for the run's record; empty if no source failed.
    fn lacks(&self) -> String {
        let lack = |one: &LeftOut| format!("without {}: {}", one.source, one.cause);
        let lacks: Vec<String> = self.left_out.iter().map(lack).collect();
        lacks.join("; ")
    }

    /// `made_now`: the snapshot is what the sources hold now.
    pub fn push(&mut self, snapshot: &Snapshot, made_now: bool) -> Result<PushReport, Failure> {
        self.left_out.clone_from(&snapshot.left_out);
        let progress = Arc::new(PackProgress::default());
        let quiet = self.context.quiet || self.context.json;
        let (display, ticker) = PushDisplay::start(quiet, &progress);
        let defaults = PackOptions::default();
        let pack = &self.config.pack;
        let request = PushRequest {
            host: &self.config.host,
            snapshot,
            recipients: self.recipients.clone(),
            signer: &self.signer,
            next_signer: self.next_signer.clone(),
            trust: remote::own_trust(self.config)?,
            targets: &self.targets,
            next_by: self.config.schedule.next_by(clock::now()),
            options: PackOptions {
                archive_bytes: pack.archive_bytes,
                level: pack.level,
                threads: pack.threads.map_or(defaults.threads, |n| n as usize),
            },
            spool_limit: self.config.spool_limit,
            recovery: recovery_files(),
        };
        let report = agent::push(&mut self.state, &request, &progress, display.clone());
        display.finish(ticker);
        let mut report = report?;
        // Before retention, which keeps the last snapshot before a source shrank.
        let compared = shrunk::compare(
            self.config,
            &self.state,
            &mut report,
            &self.left_out,
            made_now,
        );
        self.may_retain = compared.is_some();
        self.shrunk = compared.unwrap_or_default();
        Ok(report)
    }

    /// Applies retention on the targets that say so and have the new snapshot.
    fn retain_targets(&self, report: &mut PushReport) {
        for (config, target) in self.config.targets.iter().zip(&self.targets) {
            let mut states = report.targets.iter();
            let has_it = states.any(|t| t.name == config.name && t.state == TargetState::Published);
            if !config.prune || !has_it {
                continue;
            }
            let retained =
                retention::retain_on(self.config, &self.state, config, target, &self.signer);
            let label = target.target.label();
            match retained {
                Ok(done) => report
                    .notes
                    .extend(done.map(|text| format!("{label}: {text}"))),
                Err(failure) => report.warnings.push(format!(
                    "retention could not be applied on {label}: {}; see `sealift prune --dry-run`",
                    failure.with_causes()
                )),
            }
        }
    }

    /// Applies retention to the snapshots on this host; what keeps it from that is a warning.
    fn retain_local(&self, report: &mut PushReport) {
        match retention::retain_local(self.config, &self.state, retention::Local::default()) {
            Ok(done) if done.forgotten.is_empty() => {}
            Ok(done) => report.notes.push(format!(
                "{} deleted on this host, as [retention] says",
                count(done.forgotten.len() as u64, "older snapshot")
            )),
            Err(failure) => report.warnings.push(format!(
                "retention could not be applied on this host: {}; see `sealift prune --local --dry-run`",
                failure.with_causes()
            )),
        }
    }

    /// Prints the report and picks the outcome.
    pub fn finish(&self, report: &PushReport) -> Result<Outcome, Failure> {
        print_report(
            self.context,
            report,
            &self.left_out,
            &self.shrunk,
            self.started,
        )?;
        if !report.is_published_somewhere() {
            return Err(Failure::from_error(format!(
                "snapshot {} is packed, but no target has it; the next run ships it from the spool",
                report.manifest.stamp
            )));
        }
        Ok(match report.is_complete() && self.shrunk.is_empty() {
            true => Outcome::Complete,
            false => Outcome::Partial,
        })
    }
}

/// What the first push leaves beside the archives (docs/format.md; DESIGN 3.5).
pub fn recovery_files() -> Vec<(ObjectKey, Bytes)> {
    vec![
        (
            ObjectKey::fixed("RECOVER.md"),
            Bytes::from_static(RECOVER_MD),
        ),
        (
            ObjectKey::fixed("recover-v3.py"),
            Bytes::from_static(RECOVER_PY),
        ),
    ]
}

pub const RECOVER_PY: &[u8] = include_bytes!("../../deploy/recover.py");
const RECOVER_MD: &[u8] = include_bytes!("../../deploy/RECOVER.md");

/// Names the sources that failed, each with cause and next step.
pub fn print_left_out(left_out: &[LeftOut]) {
    for one in left_out {
        let kept = match &one.kept {
            Some(kept) => format!("\n  kept: {kept}"),
            None => String::new(),
        };
        output::tell(format_args!(
            "left out: the source {:?} ({}): {}{kept}\n  next: {}",
            one.source, one.to, one.cause, one.next
        ));
    }
}

fn print_report(
    context: &Context,
    report: &PushReport,
    left_out: &[LeftOut],
    shrunk: &[Alarm],
    started: Instant,
) -> Result<(), Failure> {
    for note in &report.notes {
        context.note(format_args!("note: {note}"));
    }
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    print_left_out(left_out);
    for finding in shrunk {
        output::tell(format_args!(
            "shrunk: {}\n  next: {}",
            finding.text, finding.next
        ));
    }
    const SHOWN: usize = 20;
    let named: Vec<_> = left_out.iter().map(LeftOut::skipped).collect();
    let others = report.skipped.iter().filter(|one| !named.contains(one));
    let others: Vec<_> = others.collect();
    for skipped in others.iter().take(SHOWN) {
        output::tell(format_args!(
            "skipped: {}: {}",
            output::printable(skipped.path.as_bytes()),
            skipped.reason
        ));
    }
    if others.len() > SHOWN {
        output::tell(format_args!(
            "skipped: and {} more (all are in the snapshot's index)",
            others.len() - SHOWN
        ));
    }
    if context.json {
        return Ok(output::print_json(&report_json(report, left_out, shrunk))?);
    }
    if context.quiet {
        for target in &report.targets {
            if let TargetState::Behind(cause) = &target.state {
                output::tell(format_args!("warning: {}: BEHIND: {cause}", target.label));
            }
        }
        return Ok(());
    }
    let totals = &report.totals;
    output::print_line(format_args!(
        "snapshot {} (sequence {}): {}, {}; {} new, {} stored, in {}",
        report.manifest.stamp,
        report.manifest.sequence,
        count(totals.files, "file"),
        size(totals.bytes),
        size(totals.new_bytes),
        size(report.new_archive_bytes),
        output::duration(started.elapsed()),
    ))?;
    for target in &report.targets {
        let line = match &target.state {
            TargetState::Published => format!(
                "  {}: published, {} sent in {}{}",
                target.label,
                size(target.shipped_bytes),
                count(target.shipped_objects, "object"),
                copied(target.copied_archives),
            ),
            TargetState::Behind(cause) => {
                format!("  {}: BEHIND: {cause}", target.label)
            }
        };
        output::print_line(line)?;
    }
    let mut targets = report.targets.iter();
    if targets.any(|target| target.state != TargetState::Published) {
        output::print_line("  what a target lacks waits in the spool; the next backup ships it")?;
    }
    Ok(())
}

fn copied(archives: u64) -> String {
    match archives {
        0 => String::new(),
        n => format!(
            ", of which {} came from another target",
            count(n, "archive")
        ),
    }
}

fn report_json(report: &PushReport, left_out: &[LeftOut], shrunk: &[Alarm]) -> serde_json::Value {
    let targets: Vec<_> = report
        .targets
        .iter()
        .map(|target| {
            let (state, cause) = match &target.state {
                TargetState::Published => ("published", None),
                TargetState::Behind(cause) => ("behind", Some(cause)),
            };
            json!({
                "name": target.name, "label": target.label, "state": state, "cause": cause,
                "shipped_objects": target.shipped_objects, "shipped_bytes": target.shipped_bytes,
                "copied_archives": target.copied_archives,
            })
        })
        .collect();
    json!({
        "stamp": report.manifest.stamp, "sequence": report.manifest.sequence,
        "manifest": report.manifest.to_string(), "totals": report.totals,
        "new_archives": report.new_archives, "new_archive_bytes": report.new_archive_bytes,
        "skipped": report.skipped, "left_out": left_out, "notes": report.notes, "warnings": report.warnings,
        "targets": targets, "complete": report.is_complete() && shrunk.is_empty(),
        "findings": shrunk.iter().map(shrunk::to_json).collect::<Vec<_>>(),
    })
}

/// Writes `bytes` to a new file, naming it in the error.
pub fn write_new_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    fs::write_new(path, bytes, mode).map_err(|error| {
        let hint = "nothing was replaced; choose another path or move the old file away";
        Failure::from_error(format!("cannot write {}: {error}", path.display())).hint(hint)
    })
}
