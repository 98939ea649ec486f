//! `restore`: restores a snapshot to a new directory and verifies every file. Needs no
//! configuration.

mod content;
pub(super) mod in_place;
mod push;
mod thaw;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::Context;
use super::choose::{self, NarrowArgs};
use super::confinement;
use super::failure::{Failure, Outcome, system_hint};
use super::key::prompt;
use super::ls;
use super::output::{self, count, size};
use super::target_args::RemoteArgs;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::jobs::context::{FrontEnd as _, runtime};
use crate::jobs::wrong_key;
use crate::restore::open::Identities;
use crate::restore::{
    self, DatabaseCheck, DestinationError, ExtractError, PlanError, RestoreError, RestorePlan,
    RestoreReport, RestoreRequest, Resumed,
};

/// The heading of the options of a restore in place.
const IN_PLACE: &str = "In place";

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// latest, a sequence, a stamp, a hash, or a time: 2026-11-29, "2026-11-29 18:00", yesterday,
    /// "3 days ago"
    #[arg(default_value = "latest", value_parser = SnapshotChoice::parse)]
    snapshot: SnapshotChoice,
    /// Only these paths and everything under them; a glob such as 'photos/**/*.jpg' is one
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    narrow: NarrowArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file (age, age with a passphrase, OpenSSH); can be repeated
    #[arg(
        long,
        short,
        value_name = "FILE",
        required_unless_present_any = ["resume", "in_place"],
    )]
    identity: Vec<PathBuf>,
    /// The directory to restore to; it must be new or empty
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present_any = ["resume", "in_place"],
        conflicts_with = "in_place",
    )]
    to: Option<PathBuf>,
    /// Move what is at DIR aside first
    #[arg(long)]
    overwrite: bool,
    /// Refuse a snapshot with a lower sequence: an attacker may hide newer ones
    #[arg(long, value_name = "SEQUENCE")]
    at_least: Option<u64>,
    /// Also restore device nodes (root only)
    #[arg(long)]
    devices: bool,
    /// Run the integrity check of each database again; its hash is compared anyway
    #[arg(long)]
    check: bool,
    /// Request archives from cold storage, to be readable for DAYS [default: 7]
    #[arg(
        long,
        value_name = "DAYS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "7",
        value_parser = clap::value_parser!(u16).range(1..=365),
    )]
    thaw: Option<u16>,
    /// Show what would be restored, without restoring
    #[arg(long)]
    dry_run: bool,
    /// Finish or undo a restore that was interrupted: the one in place, or with --to one with
    /// --overwrite that moved files into DIR
    #[arg(
        long,
        conflicts_with_all = ["overwrite", "thaw", "dry_run", "at_least", "devices", "in_place"],
    )]
    resume: bool,
    #[command(flatten)]
    place: in_place::InPlaceArgs,
    #[command(flatten)]
    content: content::ContentArgs,
}

impl RestoreArgs {
    /// Whether it changes nothing.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether it restores in place, or continues to.
    pub(super) fn is_in_place(&self) -> bool {
        self.place.in_place || (self.resume && self.to.is_none())
    }

    /// Whether the content is received on standard input.
    pub(super) fn is_received(&self) -> bool {
        self.content.stdin
    }

    /// Whether it continues a restore.
    pub(super) fn is_resume(&self) -> bool {
        self.resume
    }
}

pub(super) fn run(context: &Context, args: &RestoreArgs) -> Result<Outcome, Failure> {
    let to = match (&args.to, args.resume) {
        (Some(to), true) => return resume(to, context.json),
        (None, true) => return in_place::resume(context, &args.place),
        (None, false) => return in_place::run(context, args),
        (Some(to), false) => to,
    };
    let started = Instant::now();
    let choice = args.narrow.narrow(&args.snapshot)?;
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    if !args.dry_run
        && let Ok(dirs) = confinement::around(to)
    {
        confinement::confine(context, &args.remote, &identities, dirs)?;
    }
    let runtime = runtime()?;
    let mut request = RestoreRequest {
        snapshot: choice,
        to: to.clone(),
        paths: args
            .paths
            .iter()
            .map(|path| choose::snapshot_path(path))
            .collect(),
        overwrite: args.overwrite,
        at_least: args.at_least,
        devices: args.devices,
        databases: match args.check {
            true => DatabaseCheck::Repeat,
            false => DatabaseCheck::AsSealed,
        },
    };
    runtime.block_on(async {
        let remote = args.remote.open(context).await?;
        let folder = remote.folder.clone();
        request.snapshot = choose::exactly(
            context,
            &folder,
            &remote.chain,
            &request.snapshot,
            &identities,
        )
        .await?;
        let attempt = async {
            let chain = remote.chain;
            let plan = restore::plan_from(&remote.folder, chain, &request, identities).await?;
            announce(context, &plan);
            if args.dry_run {
                return Ok(print_plan(context, &plan).await);
            }
            let display = context.show_restore();
            let done = restore::execute(plan, Arc::clone(&display.progress)).await;
            drop(display);
            Ok(print_report(context, &done?, started))
        };
        match (attempt.await, args.thaw) {
            (Ok(done), _) => done,
            (Err(RestoreError::Frozen(frozen)), Some(days)) if !args.dry_run => {
                Err(thaw::ask(&folder, &frozen, days).await)
            }
            (Err(error), _) => Err(failed(error)),
        }
    })
}

/// Adds the next step for a restore, if it differs from the general one.
fn failed(error: RestoreError) -> Failure {
    let wrong_key = wrong_key::next_step(&error);
    let hint = match &error {
        _ if wrong_key.is_some() => wrong_key,
        // The general advice applies: another target would not help.
        _ if system_hint(&error).is_some() => None,
        RestoreError::Frozen(frozen) => return thaw::needed(frozen),
        RestoreError::Plan(PlanError::Doubtful { next, .. }) => *next,
        RestoreError::Incomplete { .. }
        | RestoreError::Index { .. }
        | RestoreError::IndexArchives { .. }
        | RestoreError::IndexContent { .. } => Some(NEXT_STEP),
        RestoreError::Extract(ExtractError::Databases(_)) => Some(NEXT_STEP),
        RestoreError::Extract(ExtractError::Make { .. }) => Some(
            "nothing was changed; if the file system there cannot hold such an entry, restore to another one, or restore other paths",
        ),
        RestoreError::Destination(DestinationError::NoRoom { .. }) => {
            Some("make room there, restore to another disk, or restore single paths")
        }
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn resume(to: &Path, as_json: bool) -> Result<Outcome, Failure> {
    let resumed = restore::resume(to)?;
    let aside = |one: &Resumed| {
        one.moved_aside
            .as_ref()
            .map(|path| path.display().to_string())
    };
    if as_json {
        let list = resumed.iter().map(|one| {
            json!({
                "stamp": one.stamp, "to": one.to.display().to_string(), "moved_aside": aside(one),
            })
        });
        output::print_json(&json!({ "resumed": list.collect::<Vec<_>>() }))?;
        return Ok(Outcome::Complete);
    }
    if resumed.is_empty() {
        let to = to.display();
        output::print_line(format_args!(
            "no restore to {to} was interrupted: nothing to finish"
        ))?;
    }
    for one in &resumed {
        output::print_line(format_args!(
            "finished the restore to {} that was interrupted at {}",
            one.to.display(),
            one.stamp
        ))?;
        if let Some(aside) = aside(one) {
            output::print_line(format_args!("what was there before is in {aside}"))?;
        }
    }
    Ok(Outcome::Complete)
}

const NEXT_STEP: &str = "nothing was changed; try another target or an older snapshot (`sealift list` shows them), or \
     restore single paths";

fn announce(context: &Context, plan: &RestorePlan) {
    for finding in &plan.findings {
        output::tell(format_args!("warning: {finding}"));
    }
    context.note(format_args!(
        "snapshot {} (sequence {}), signed by {}\nto fetch: {} in {}, for {} of {}",
        plan.stamp,
        plan.sequence,
        plan.signer,
        size(plan.fetch_bytes),
        count(plan.archives, "archive"),
        count(plan.files, "file"),
        size(plan.bytes),
    ));
    if plan.replaces {
        context.note(format_args!(
            "{} is not empty: it will be moved aside",
            plan.to.display()
        ));
    }
}

async fn print_plan(context: &Context, plan: &RestorePlan) -> Result<Outcome, Failure> {
    let frozen = plan.frozen().await;
    if let Some(frozen) = &frozen {
        context.note(thaw::amount(frozen));
    }
    if context.json {
        output::print_json(&json!({
            "snapshot": plan.snapshot, "stamp": plan.stamp, "sequence": plan.sequence,
            "signer": plan.signer, "to": plan.to.display().to_string(), "replaces": plan.replaces,
            "entries": plan.entries, "files": plan.files, "bytes": plan.bytes,
            "archives": plan.archives, "fetch_bytes": plan.fetch_bytes, "findings": plan.findings,
            "frozen_archives": frozen.as_ref().map_or(0, |frozen| frozen.archives.len()),
            "frozen_bytes": frozen.as_ref().map_or(0, restore::Frozen::bytes),
        }))?;
    } else {
        let entries = || plan.contents().iter();
        ls::print_entries(false, ls::LsColumns::default(), entries)?;
    }
    Ok(Outcome::Complete)
}

fn print_report(
    context: &Context,
    report: &RestoreReport,
    started: Instant,
) -> Result<Outcome, Failure> {
    tell_about(context, report);
    match context.json {
        true => print_json(report)?,
        false => print_summary(context, report, started)?,
    }
    let is_flawless = report.skipped_in_snapshot.is_empty()
        && report.torn.is_empty()
        && report.problems.is_empty()
        && report.not_kept.iter().all(|lost| lost.expected);
    Ok(match is_flawless {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// Prints what the restored tree lacks or could not keep.
fn tell_about(context: &Context, report: &RestoreReport) {
    for skipped in &report.skipped_in_snapshot {
        let path = output::printable(skipped.path.as_bytes());
        output::tell(format_args!(
            "warning: the snapshot itself lacks {path}: {}",
            skipped.reason
        ));
    }
    for path in &report.torn {
        let path = output::printable(path.as_bytes());
        output::tell(format_args!(
            "warning: {path} changed while the snapshot was made; this is what was read"
        ));
    }
    for problem in &report.problems {
        let problem = output::printable(problem.as_bytes());
        output::tell(format_args!("warning: {problem}"));
    }
    for lost in &report.not_kept {
        let text = output::printable(lost.to_string().as_bytes());
        match lost.expected {
            true => context.note(format_args!("note: {text}")),
            false => output::tell(format_args!("warning: {text}")),
        }
    }
    if !report.has_record {
        context.note(
            "note: the snapshot has an entry restored.jsonl of its own, so no record of the restored files was written; \
             `restore --in-place --dir` refuses this directory",
        );
    }
    for unchecked in &report.unchecked {
        let unchecked = output::printable(unchecked.as_bytes());
        context.note(format_args!(
            "note: verified, but not checked as a database: {unchecked}"
        ));
    }
}

fn print_json(report: &RestoreReport) -> Result<(), Failure> {
    Ok(output::print_json(&json!({
        "snapshot": report.snapshot, "stamp": report.stamp, "sequence": report.sequence,
        "signer": report.signer, "to": report.to.display().to_string(),
        "entries": report.entries, "files": report.files, "bytes": report.bytes,
        "fetched_bytes": report.fetched_bytes, "databases": report.databases,
        "databases_as_sealed": report.databases_as_sealed,
        "unchecked": report.unchecked,
        "findings": report.findings, "skipped_in_snapshot": report.skipped_in_snapshot,
        "torn": report.torn, "problems": report.problems, "not_kept": report.not_kept,
        "record": report.has_record,
        "moved_aside": report.moved_aside.as_ref().map(|path| path.display().to_string()),
    }))?)
}

fn print_summary(
    context: &Context,
    report: &RestoreReport,
    started: Instant,
) -> Result<(), Failure> {
    let counted = |databases: &[String], what: &str| match databases.len() as u64 {
        0 => String::new(),
        n => format!(", {}{what}", count(n, "database")),
    };
    let checked = counted(&report.databases, " checked")
        + &counted(&report.databases_as_sealed, " as checked when sealed");
    output::print_line(format_args!(
        "restored {}, {}, to {} in {}; every byte verified{checked}",
        count(report.files, "file"),
        size(report.bytes),
        report.to.display(),
        output::duration(started.elapsed()),
    ))?;
    if report.is_new {
        context.note(format_args!(
            "only you can enter {to}: `chmod 755 {to}` opens it to others",
            to = output::shell_word(&report.to)
        ));
    }
    if let Some(aside) = &report.moved_aside {
        output::print_line(format_args!(
            "what was there before is in {}",
            aside.display()
        ))?;
    }
    Ok(())
}
