//! `prune`: retention on targets, or on this host.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, count, size};
use super::target_args::RemoteArgs;
use super::{Context, policy};
use crate::base::ids::Stamp;
use crate::base::snapshot_choice::exact_name;
use crate::config::{Config, Retention};
use crate::jobs::context::{open_state, runtime};
use crate::jobs::forget_local::forget_local;
use crate::jobs::local_retention::{LocalPruneReport, retain_local};
use crate::jobs::mode::Mode;
use crate::jobs::prune::report::{PruneJobReport, SnapshotDecision, TargetPruneReport};
use crate::jobs::prune::{self, PrunePlaces, TargetPruneRequest};
use crate::restore::open::Identities;

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The policy, such as "daily=7,weekly=4,within=2d" [default: the config's for the target]
    #[arg(long, value_name = "POLICY", value_parser = policy::parse)]
    policy: Option<Retention>,
    /// Keep this snapshot too; can be repeated
    #[arg(long, value_name = "STAMP")]
    keep: Vec<Stamp>,
    /// Keep snapshots with this tag too, as [retention] keep_tags does; can be repeated
    #[arg(long, value_name = "TAG", value_parser = policy::tag)]
    keep_tag: Vec<String>,
    /// An identity file, to decrypt tags that this host does not know; can be repeated
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Delete this snapshot and no other, whatever the policy is: a stamp, a sequence number, or
    /// the last 16 digits of a manifest's name; can be repeated. The newest snapshot stays
    #[arg(
        long,
        value_name = "SNAPSHOT",
        conflicts_with_all = ["policy", "keep", "keep_tag"],
        value_parser = exact_name,
    )]
    forget: Vec<String>,
    /// Delete every snapshot that this recipient can decrypt, in full or in part, and no other;
    /// without --yes it only shows them. The newest snapshot stays: `backup --reseal` makes one
    /// that the recipient cannot decrypt
    #[arg(
        long,
        value_name = "RECIPIENT",
        conflicts_with_all = ["policy", "keep", "keep_tag", "forget", "local"],
    )]
    sealed_to: Option<String>,
    /// Delete older snapshots on this host instead, as `backup` does ([snapshots] keep)
    #[arg(long, conflicts_with_all = ["from", "target", "policy", "gone", "keep", "identity"])]
    local: bool,
    /// Sign the tombstones with this OpenSSH key [default: the config's signer]
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete even if it is more than half of all snapshots
    #[arg(long)]
    yes: bool,
    /// Host is decommissioned: delete unused archives at once
    #[arg(long)]
    gone: bool,
}

impl PruneArgs {
    /// Whether it changes nothing.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }
}

pub(super) fn run(context: &Context, args: &PruneArgs) -> Result<Outcome, Failure> {
    if args.local {
        return prune_local(context, args);
    }
    let runtime = runtime()?;
    let config = match &args.remote.from {
        // Its pins count there, too.
        Some(_) => context.load_config_if_any()?,
        None => Some(context.load_config().map_err(|failure| {
            failure.hint("on a machine without a config, give --from URL, --policy and --sign-with")
        })?),
    };
    let is_dry_run = args.dry_run || (args.sealed_to.is_some() && !args.yes);
    let request = TargetPruneRequest {
        places: places(context, args, config.as_ref(), &runtime)?,
        policy: args.policy,
        keep: args.keep.clone(),
        keep_tags: args.keep_tag.clone(),
        identities: match args.identity.as_slice() {
            [] => None,
            files => Some(Arc::new(Identities::load(files, &prompt())?)),
        },
        forget: args.forget.clone(),
        sealed_to: args.sealed_to.clone(),
        gone: args.gone,
        mode: Mode::of(is_dry_run, args.yes),
        sign_with: args.sign_with.clone(),
    };
    let report = prune::run(config.as_ref(), request, &runtime, context)?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(context, &report)?,
    }
    report.targets.iter().for_each(tell_problems);
    if args.sealed_to.is_some() && is_dry_run && !args.dry_run {
        context.note("nothing was deleted; --yes deletes these");
    }
    context.report_warnings(report.targets.iter().flat_map(problem_lines));
    let is_asked = !report.targets.is_empty();
    if is_asked && report.targets.iter().all(|target| target.failure.is_some()) {
        return Err(Failure::from_error("nothing was pruned"));
    }
    let mut targets = report.targets.iter();
    Ok(match targets.all(TargetPruneReport::is_complete) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn places(
    context: &Context,
    args: &PruneArgs,
    config: Option<&Config>,
    runtime: &tokio::runtime::Runtime,
) -> Result<PrunePlaces, Failure> {
    if let Some(url) = &args.remote.from {
        if args.policy.is_none() && args.forget.is_empty() && args.sealed_to.is_none() {
            return Err(prune::no_policy().into());
        }
        let opened = runtime.block_on(args.remote.open(context))?;
        return Ok(PrunePlaces::Opened {
            folder: opened.folder,
            trust: opened.trust,
            url: url.clone(),
            endpoint: args.remote.endpoint.clone(),
        });
    }
    let config = config.ok_or_else(prune::no_policy)?;
    let (host, trust) = args.remote.whom(config, context)?;
    Ok(PrunePlaces::Configured {
        host,
        trust,
        name: args.remote.target.clone(),
    })
}

/// Returns what needs attention on one target, in a line each.
fn problem_lines(target: &TargetPruneReport) -> Vec<String> {
    let label = &target.label;
    let failure = target.failure.as_ref();
    let failure = failure.map(|why| format!("{label}: {why}"));
    let left = target.done.iter().flat_map(|done| &done.not_deleted);
    let left = left.map(|object| format!("{label}: not deleted: {object}"));
    failure.into_iter().chain(left).collect()
}

/// Prints what needs attention on one target.
fn tell_problems(target: &TargetPruneReport) {
    let label = &target.label;
    if let Some(failure) = &target.failure {
        output::tell(format_args!("failed: {label}: {failure}"));
    }
    if let Some(done) = &target.done {
        for name in &done.under_way {
            output::tell(format_args!(
                "{label}: no archive is freed this time: {name} is being published there. If that broke off, `prune` \
                 waits a week for it"
            ));
        }
        for object in &done.not_deleted {
            output::tell(format_args!("not deleted: {object}"));
        }
        if done.without_recovery {
            output::tell(format_args!(
                "warning: {label}: the recovery documents were deleted to make room, and there is no room yet to put \
                 them back; the next `prune` does"
            ));
        }
    }
    if let Some(unknown @ 1..) = target.unknown_tags {
        output::tell(format_args!("{label}: {}", prune::unknown_tags(unknown)));
    }
    if let Some(refusal) = &target.refusal {
        output::tell(format_args!("{label}: it would be refused: {refusal}"));
    }
}

fn prune_local(context: &Context, args: &PruneArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let state = open_state(&config, context)?;
    let mode = Mode::of(args.dry_run, args.yes);
    let report = match args.forget.as_slice() {
        [] => retain_local(&config, &state, mode, &args.keep_tag, None)?,
        named => forget_local(&config, &state, named, mode)?,
    };
    if context.json {
        output::print_json(&LocalPruneOutput {
            dry_run: args.dry_run,
            report: &report,
        })?;
        return Ok(Outcome::Complete);
    }
    report.forgotten.iter().try_for_each(output::print_line)?;
    let summary = local_summary(&report, args.dry_run);
    match args.dry_run {
        true => output::print_line(summary)?,
        false => context.note(summary),
    }
    if let Some(refusal) = &report.refusal {
        output::tell(format_args!("it would be refused: {refusal}"));
    }
    Ok(Outcome::Complete)
}

/// The report of a prune on this host, as JSON.
#[derive(Serialize)]
struct LocalPruneOutput<'a> {
    dry_run: bool,
    #[serde(flatten)]
    report: &'a LocalPruneReport,
}

/// Returns a line on what was deleted on this host, or would be.
fn local_summary(report: &LocalPruneReport, is_dry_run: bool) -> String {
    let all = count(report.snapshots, "snapshot");
    let leftovers = match report.leftovers.len() as u64 {
        0 => String::new(),
        n => format!(", {n} of them left by interrupted runs"),
    };
    let (verb, freed) = match is_dry_run {
        true => ("would delete", size(report.freed_bytes)),
        false => ("deleted", size(report.freed_bytes)),
    };
    match report.forgotten.len() {
        0 => format!("nothing to delete on this host: all of {all} stay"),
        n => format!("{verb} {n} of {all} on this host{leftovers}; {freed} freed"),
    }
}

/// Prints what becomes of the snapshots. A dry run on several targets has a line for each, and with
/// `--verbose` a table for each.
fn print(context: &Context, report: &PruneJobReport) -> Result<(), Failure> {
    let examined = report.targets.iter();
    let examined = examined.filter(|target| target.snapshots.is_some()).count();
    let is_brief = report.dry_run && examined > 1 && !context.verbose;
    for target in &report.targets {
        let Some(snapshots) = &target.snapshots else {
            continue;
        };
        if report.dry_run && !is_brief {
            print_decisions(&target.label, snapshots)?;
        }
        let range = if is_brief {
            which(snapshots)
        } else {
            String::new()
        };
        match summary(target, snapshots, &range) {
            Some(line) if is_brief => {
                output::print_line(format_args!("{}: {line}", target.label))?;
            }
            Some(line) => output::print_line(line)?,
            None => {}
        }
    }
    if is_brief {
        context.note("--verbose, or --target NAME, shows each snapshot and why it stays");
    }
    Ok(())
}

/// Returns which snapshots go, to follow their number; nothing if none does.
fn which(snapshots: &[SnapshotDecision]) -> String {
    let mut going = snapshots.iter().filter(|snapshot| !snapshot.stays);
    match (going.next(), going.next_back()) {
        (Some(first), Some(last)) => format!(", {} to {}", first.stamp, last.stamp),
        (Some(only), None) => format!(", {}", only.stamp),
        _ => String::new(),
    }
}

fn print_decisions(label: &str, snapshots: &[SnapshotDecision]) -> Result<(), Failure> {
    output::print_line(format_args!("{label}:"))?;
    let row = |snapshot: &SnapshotDecision| {
        let verb = if snapshot.stays { "keep" } else { "forget" };
        vec![
            snapshot.stamp.to_string(),
            snapshot.sequence.to_string(),
            verb.to_owned(),
            snapshot.reasons.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    let header = ["SNAPSHOT", "SEQUENCE", "", "REASONS"];
    Ok(output::write_stdout(
        output::table(&header, &rows).as_bytes(),
    )?)
}

/// Returns a line on what was deleted, or would be; `range`: which. `None` if the target should
/// have been pruned and was not.
fn summary(
    target: &TargetPruneReport,
    snapshots: &[SnapshotDecision],
    range: &str,
) -> Option<String> {
    let all = count(snapshots.len() as u64, "snapshot");
    if let Some(done) = &target.done {
        return Some(format!(
            "{}: deleted {} of {all}{}",
            target.label,
            done.forgotten.len(),
            freed(
                (done.freed_archives, done.freed_bytes),
                (done.marked_archives, done.marked_bytes)
            ),
        ));
    }
    if target.failure.is_some() {
        return None;
    }
    let deleted = match snapshots.iter().filter(|snapshot| !snapshot.stays).count() {
        0 => format!("nothing to delete: all of {all} stay"),
        n => format!("would delete {n} of {all}{range}"),
    };
    let freed = freed(
        (target.to_free_archives?, target.to_free_bytes?),
        (target.to_mark_archives?, target.to_mark_bytes?),
    );
    Some(format!("{deleted}{freed}"))
}

/// Returns `; 1.2 MB freed, 23 kB freed by the next prune after a backup`, without the parts of
/// which there are none. Each part: number and bytes of archives.
fn freed(at_once: (u64, u64), later: (u64, u64)) -> String {
    let parts = [
        (at_once, "freed"),
        (later, "freed by the next prune after a backup"),
    ];
    let parts = parts.iter().filter(|((number, _), _)| *number > 0);
    let parts = parts.map(|((_, bytes), how)| format!("{} {how}", size(*bytes)));
    let parts: Vec<String> = parts.collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("; {}", parts.join(", ")),
    }
}
