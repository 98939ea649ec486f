//! `backup` and `push`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::Context;
use super::dry_run;
use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use super::verdict;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::{Config, parse_duration};
use crate::jobs::backup::report::{BackupReport, PushedTarget};
use crate::jobs::backup::{self, BackupRequest, ExistingPushRequest, ExistingSnapshot, Hooks};
use crate::jobs::catch_up;
use crate::jobs::push::Resealing;
use crate::jobs::run_report::PushedState;
use crate::state::staged_snapshot::LeftOut;

/// Most skipped paths that are listed.
const MOST_SKIPPED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Also take a source that is taken on request only, such as chroma
    #[arg(long, value_name = "SOURCE")]
    include: Vec<String>,
    /// Tag for this snapshot (stored encrypted); can be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Note for this snapshot (stored encrypted)
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct BackupRunArgs {
    #[command(flatten)]
    snapshot: BackupArgs,
    /// Show what would be taken and what the exclude patterns leave out; take and send nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Encrypt again what a former recipient can decrypt; from now on that recipient opens nothing
    /// new
    #[arg(long, conflicts_with = "dry_run")]
    reseal: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    hooks: HookArgs,
}

#[derive(Debug, Args)]
struct WaitArgs {
    /// Wait for another sealift that is at work, at most for TIME [default: 2h]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "2h",
        value_parser = parse_duration,
    )]
    wait: Option<Duration>,
}

#[derive(Debug, Args)]
struct HookArgs {
    /// Do not run the commands of [hooks]
    #[arg(long)]
    no_hooks: bool,
}

impl WaitArgs {
    /// Returns how long it waits; nothing without the option.
    fn most(&self) -> Duration {
        self.wait.unwrap_or_default()
    }
}

impl HookArgs {
    fn hooks(&self) -> Hooks {
        match self.no_hooks {
            true => Hooks::Skip,
            false => Hooks::Run,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// latest, a stamp, a sequence, or a time such as yesterday
    #[arg(value_name = "SNAPSHOT", default_value = "latest", value_parser = SnapshotChoice::parse)]
    stamp: SnapshotChoice,
    /// Push this snapshot directory instead, created by any tool
    #[arg(long, value_name = "DIR", conflicts_with = "stamp")]
    dir: Option<PathBuf>,
    /// Pack nothing: send what waits in the spool to the targets that are behind
    #[arg(long, conflicts_with_all = ["stamp", "dir"])]
    spooled: bool,
    /// With --spooled: only to this [[target]]; can be repeated
    #[arg(long, value_name = "NAME", requires = "spooled")]
    target: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    hooks: HookArgs,
}

impl PushArgs {
    /// Whether it waits for another process.
    pub(super) fn waits(&self) -> bool {
        self.wait.wait.is_some()
    }
}

impl BackupRunArgs {
    /// Whether it takes and sends nothing.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether it waits for another process.
    pub(super) fn waits(&self) -> bool {
        self.wait.wait.is_some()
    }
}

impl BackupArgs {
    pub(super) fn request(&self) -> BackupRequest {
        BackupRequest {
            include: self.include.clone(),
            tags: self.tag.clone(),
            note: self.note.clone(),
            hooks: Hooks::default(),
            resealing: Resealing::default(),
            wait: Duration::ZERO,
        }
    }
}

pub(super) fn run(context: &Context, args: &BackupRunArgs) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let config = context.load_config_of_schedule()?;
    if args.dry_run {
        return dry_run::run(context, &config, &args.snapshot.request());
    }
    let request = BackupRequest {
        hooks: args.hooks.hooks(),
        resealing: match args.reseal {
            true => Resealing::FormerRecipients,
            false => Resealing::AsNeeded,
        },
        wait: args.wait.most(),
        ..args.snapshot.request()
    };
    let report = backup::run(&config, &request, context)?;
    conclude(context, report, started)
}

pub(super) fn push(context: &Context, args: &PushArgs) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let config = context.load_config_of_schedule()?;
    if args.spooled {
        return push_spooled(context, &config, args);
    }
    let which = match &args.dir {
        Some(dir) => ExistingSnapshot::Dir(dir.clone()),
        None => ExistingSnapshot::Chosen(args.stamp.clone()),
    };
    let request = ExistingPushRequest {
        which: &which,
        hooks: args.hooks.hooks(),
        wait: args.wait.most(),
    };
    let report = backup::push_existing(&config, &request, context)?;
    conclude(context, report, started)
}

/// Sends what waits in the spool.
fn push_spooled(context: &Context, config: &Config, args: &PushArgs) -> Result<Outcome, Failure> {
    let report = catch_up::run(config, &args.target, args.wait.most(), context)?;
    context.report_catch_up(&report);
    for note in &report.notes {
        context.note(format_args!("note: {note}"));
    }
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    match (context.json, context.quiet) {
        (true, _) => output::print_json(&report)?,
        (false, true) => tell_behind(&report.targets),
        (false, false) if report.targets.is_empty() => {
            output::print_line("nothing in the spool waits for a target")?;
        }
        (false, false) => {
            for target in &report.targets {
                verdict::print_line(format_args!("{}: {}", target.label, target_line(target)))?;
            }
        }
    }
    Ok(match report.complete {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// Prints the report and picks the outcome.
fn conclude(context: &Context, report: BackupReport, started: Instant) -> Result<Outcome, Failure> {
    context.report_backup(&report);
    print_messages(context, &report);
    match (context.json, context.quiet) {
        (true, _) => output::print_json(&report)?,
        (false, true) => tell_behind(&report.targets),
        (false, false) => print_summary(&report, started)?,
    }
    if !report.is_published_somewhere() {
        return Err(Failure::from_error(format!(
            "snapshot {} is packed, but no target has it; the next run sends it from the spool",
            report.stamp
        )));
    }
    match report.not_recorded {
        Some(error) => Err(error.into()),
        None if report.complete => Ok(Outcome::Complete),
        None => Ok(Outcome::Partial),
    }
}

/// Prints the sources that failed, each with cause and next step.
pub(super) fn print_left_out(left_out: &[LeftOut]) {
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

fn print_messages(context: &Context, report: &BackupReport) {
    for note in &report.notes {
        context.note(format_args!("note: {note}"));
    }
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    print_left_out(&report.left_out);
    for finding in &report.findings {
        output::tell(format_args!(
            "shrunk: {}\n  next: {}",
            finding.text, finding.next
        ));
    }
    let others = report.other_skipped();
    for skipped in others.iter().take(MOST_SKIPPED) {
        output::tell(format_args!(
            "skipped: {}: {}",
            output::printable(skipped.path.as_bytes()),
            skipped.reason
        ));
    }
    if let more @ 1.. = others.len().saturating_sub(MOST_SKIPPED) {
        output::tell(format_args!(
            "skipped: and {more} more (all are in the snapshot's index)"
        ));
    }
}

/// Prints the targets that are behind, for a run that prints warnings only.
fn tell_behind(targets: &[PushedTarget]) {
    for target in targets {
        if let Some(cause) = &target.cause {
            output::tell(format_args!("warning: {}: BEHIND: {cause}", target.label));
        }
    }
}

fn print_summary(report: &BackupReport, started: Instant) -> Result<(), Failure> {
    let totals = &report.totals;
    output::print_line(format_args!(
        "snapshot {} (sequence {}): {}, {}; {} new, {} stored, in {}",
        report.stamp,
        report.sequence,
        count(totals.files, "file"),
        size(totals.bytes),
        size(totals.new_bytes),
        size(report.new_archive_bytes),
        output::duration(started.elapsed()),
    ))?;
    for target in &report.targets {
        verdict::print_line(format_args!("  {}: {}", target.label, target_line(target)))?;
    }
    let mut targets = report.targets.iter();
    if targets.any(|target| target.state == PushedState::Behind) {
        output::print_line("  what a target lacks is queued; the next backup sends it")?;
    }
    Ok(())
}

fn target_line(target: &PushedTarget) -> String {
    if let Some(cause) = &target.cause {
        return format!("BEHIND: {cause}");
    }
    let copied = match target.copied_archives {
        0 => String::new(),
        n => format!(
            ", of which {} came from another target",
            count(n, "archive")
        ),
    };
    format!(
        "published, {} sent in {}{copied}",
        size(target.shipped_bytes),
        count(target.shipped_objects, "object"),
    )
}
