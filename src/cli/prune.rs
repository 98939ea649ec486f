//! `prune`: retention on targets.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::backup::recovery_files;
use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use super::target_args::{self, RemoteArgs};
use super::{Context, retention};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::panics::caught;
use crate::config::{Config, Retention};
use crate::format::signature::Signer;
use crate::jobs::local_retention::LocalPruned;
use crate::prune::{PlannedSnapshot, PruneError, PrunePlan, PruneReport, PruneRequest};
use crate::repository::HostFolder;
use crate::retention::{Pins, Refusal};
use crate::state::State;
use crate::storage::is_full;

#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// What stays, such as "daily=7,weekly=4,within=2d" [default: what the config says of the target]
    #[arg(long, value_name = "POLICY", value_parser = retention::parse)]
    policy: Option<Retention>,
    /// Keep this snapshot too; may be given again
    #[arg(long, value_name = "STAMP")]
    keep: Vec<Stamp>,
    /// Forget this snapshot and no other, whatever the policy says: a stamp, a sequence number, or the last 16
    /// digits of a manifest's name; may be given again. The newest stays
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["policy", "keep"])]
    forget: Vec<String>,
    /// Prune the snapshots on this host instead, as `backup` does
    #[arg(long, conflicts_with_all = ["from", "target", "policy", "gone", "keep"])]
    local: bool,
    /// Sign the tombstones with this OpenSSH key [default: the config's signer]
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete even if it is more than half of all
    #[arg(long)]
    yes: bool,
    /// The host will never push again: archives go without waiting for it to take notice
    #[arg(long)]
    gone: bool,
}

struct Pruned {
    label: String,
    plan: Option<PrunePlan>,
    report: Option<PruneReport>,
    failure: Option<String>,
    /// Why the plan would not be carried out without --yes; of a dry run only.
    refusal: Option<String>,
}

/// A target to prune, and what the config calls it.
struct Asked {
    name: Option<String>,
    request: PruneRequest,
}

pub fn run(context: &Context, args: &PruneArgs) -> Result<Outcome, Failure> {
    if args.local {
        return prune_local(context, args);
    }
    let runtime = target_args::runtime()?;
    let config = match (&args.remote.from, context.load_config()) {
        (Some(_), config) => config.ok(),
        (None, config) => Some(config.map_err(|failure| {
            failure.hint("on a machine without a config, give --from URL, --policy and --sign-with")
        })?),
    };
    let asked = requests(context, args, config.as_ref(), &runtime)?;
    let signer = match args.dry_run {
        true => None,
        false => Some(signer(args, config.as_ref())?),
    };
    let mut done = Vec::new();
    for one in &asked {
        done.push(runtime.block_on(plan(&one.request, args.dry_run)));
    }
    require_found(args, &done)?;
    if let Some(signer) = &signer {
        for (one, done) in asked.iter().zip(&mut done) {
            runtime.block_on(carry_out(&one.request, done, signer));
        }
        remember(config.as_ref(), &asked, &done);
    }
    match context.json {
        true => print_json(args, &done)?,
        false => print(args, &done)?,
    }
    for one in &done {
        if let Some(failure) = &one.failure {
            output::tell(format_args!("failed: {}: {failure}", one.label));
        }
        for name in one.report.iter().flat_map(|report| &report.under_way) {
            output::tell(format_args!(
                "{}: no archive is freed this time: {name} is being published there. If that broke off, it is waited \
                 for during a week",
                one.label
            ));
        }
        for stuck in one.report.iter().flat_map(|report| &report.stuck) {
            output::tell(format_args!("not deleted: {stuck}"));
        }
        if is_without_recovery(one) {
            output::tell(format_args!(
                "warning: {}: the recovery documents went to make room, and there is none yet to put them back; the \
                 next `prune` does",
                one.label
            ));
        }
        if let Some(refusal) = &one.refusal {
            output::tell(format_args!(
                "{}: it would be refused: {refusal}",
                one.label
            ));
        }
    }
    if done.iter().all(|one| one.failure.is_some()) {
        return Err(Failure::from_error("nothing was pruned"));
    }
    let complete = |one: &Pruned| {
        let is_stuck = one.report.as_ref().is_some_and(|r| !r.stuck.is_empty());
        one.failure.is_none() && !is_stuck && !is_without_recovery(one)
    };
    Ok(match done.iter().all(complete) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn is_without_recovery(one: &Pruned) -> bool {
    one.report.as_ref().is_some_and(|r| r.without_recovery)
}

/// Each name must be one of a snapshot on some target, or nothing is deleted anywhere.
fn require_found(args: &PruneArgs, done: &[Pruned]) -> Result<(), Failure> {
    let plans: Vec<&PrunePlan> = done.iter().filter_map(|one| one.plan.as_ref()).collect();
    let is_nowhere = |name: &&String| plans.iter().all(|plan| plan.not_here.contains(name));
    match args.forget.iter().find(is_nowhere) {
        Some(name) if !plans.is_empty() => {
            let text = format!("no target that was looked at has a snapshot {name}");
            Err(Failure::from_error(text).hint(
                "`sealift list --target NAME` shows them; those on this host go with --local",
            ))
        }
        _ => Ok(()),
    }
}

/// Notes in the catalog what went, so that `list` says so. A backup that is at work notes it the next time.
fn remember(config: Option<&Config>, asked: &[Asked], done: &[Pruned]) {
    let state = config.and_then(|config| State::open(&config.state).ok());
    let Some(state) = state else { return };
    for (asked, done) in asked.iter().zip(done) {
        if let (Some(name), Some(plan), Some(report)) = (&asked.name, &done.plan, &done.report)
            && let Err(failure) = retention::note_pruned(&state, name, plan, report)
        {
            output::tell(format_args!("warning: {}", failure.with_causes()));
        }
    }
}

fn prune_local(context: &Context, args: &PruneArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let state = context.open_state(&config)?;
    let how = retention::Local {
        confirmed: args.yes,
        dry_run: args.dry_run,
    };
    let done = match args.forget.as_slice() {
        [] => retention::retain_local(&config, &state, how)?,
        named => LocalPruned {
            forgotten: retention::forget_local(&config, &state, named, how)?,
            refusal: None,
        },
    };
    let (forgotten, refusal) = (done.forgotten, done.refusal);
    match context.json {
        true => output::print_json(&json!({
            "dry_run": args.dry_run, "forgotten": forgotten,
            "refusal": refusal.as_ref().map(ToString::to_string),
        }))?,
        false => forgotten.iter().try_for_each(output::print_line)?,
    }
    if forgotten.is_empty() {
        context.note("nothing is to be deleted on this host");
    }
    if let Some(refusal) = &refusal {
        let how = match refusal.may_be_confirmed() {
            true => "without --yes it would be refused",
            false => "it would be refused",
        };
        output::tell(format_args!("{how}: {refusal}"));
    }
    Ok(Outcome::Complete)
}

fn signer(args: &PruneArgs, config: Option<&Config>) -> Result<Signer, Failure> {
    let path = args.sign_with.as_ref().or(config.map(|c| &c.signer));
    let path = path.ok_or_else(|| {
        Failure::usage("what is deleted is signed for").hint("give a key with --sign-with")
    })?;
    Signer::load(path).map_err(Failure::usage)
}

fn requests(
    context: &Context,
    args: &PruneArgs,
    config: Option<&Config>,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<Asked>, Failure> {
    let mut pins = match config {
        Some(config) => retention::pins_of(config)?,
        None => Pins::default(),
    };
    pins.by_hand.extend(&args.keep);
    let request = |folder: HostFolder, trust, policy| PruneRequest {
        folder,
        trust,
        policy,
        forget: args.forget.clone(),
        now: clock::now(),
        pins: pins.clone(),
        gone: args.gone,
        confirmed: args.yes,
        recovery: recovery_files(),
    };
    // Where snapshots are named, no policy decides.
    let given = match args.forget.is_empty() {
        true => args.policy,
        false => Some(Retention::default()),
    };
    let no_policy = || {
        Failure::usage("nothing says what is to stay")
            .hint("write [retention] in the config, or give --policy")
    };
    if args.remote.from.is_some() {
        let policy = given.ok_or_else(no_policy)?;
        let opened = runtime.block_on(args.remote.open(context))?;
        return Ok(vec![Asked {
            name: None,
            request: request(opened.folder, opened.trust, policy),
        }]);
    }
    let config = config.ok_or_else(no_policy)?;
    let (host, trust) = args.remote.whom(config)?;
    let mut requests = Vec::new();
    for target in &config.targets {
        let is_named = args
            .remote
            .target
            .as_ref()
            .is_none_or(|name| *name == target.name);
        // What can only be written to is pruned where it lies.
        if !is_named || target.write_only {
            continue;
        }
        let policy = given
            .or(config.retention_of(target))
            .ok_or_else(no_policy)?;
        let folder = HostFolder::new(target_args::open_target(target)?.target, host.clone());
        requests.push(Asked {
            name: (host == config.host).then(|| target.name.clone()),
            request: request(folder, trust.clone(), policy),
        });
    }
    if requests.is_empty() {
        let text = "no target of that name is configured, or it can only be written to";
        return Err(Failure::usage(text));
    }
    Ok(requests)
}

/// Decides what goes; deletes nothing.
async fn plan(request: &PruneRequest, dry_run: bool) -> Pruned {
    let mut done = Pruned {
        label: request.folder.target.label().to_owned(),
        plan: None,
        report: None,
        failure: None,
        refusal: None,
    };
    match caught(request.plan()).await {
        Err(panicked) => done.failure = Some(panicked.to_string()),
        Ok(Ok(plan)) => {
            let refusal = plan.refusal.as_ref().filter(|_| dry_run);
            done.refusal = refusal.map(|refusal| match refusal.may_be_confirmed() {
                true => format!("{refusal} (--yes confirms it)"),
                false => refusal.to_string(),
            });
            done.plan = Some(plan);
        }
        Ok(Err(error)) => done.failure = Some(told(&error)),
    }
    done
}

async fn carry_out(request: &PruneRequest, done: &mut Pruned, signer: &Signer) {
    let Some(plan) = &done.plan else { return };
    match caught(request.run(plan, signer)).await {
        Err(panicked) => done.failure = Some(panicked.to_string()),
        Ok(Ok(report)) => done.report = Some(report),
        Ok(Err(error)) => {
            let mut failure = told(&error);
            if plan.refusal.as_ref().is_some_and(Refusal::may_be_confirmed) {
                failure.push_str("; if that is right, say --yes");
            }
            done.failure = Some(failure);
        }
    }
}

/// With the way out where a disk is so full that nothing can be written for a prune.
fn told(error: &PruneError) -> String {
    let mut text = with_causes(error);
    if is_full(error) {
        text += ". Make some 64 KiB of room there (delete or move a file that is none of Sealift's, or raise the quota), \
                 then run `sealift prune` again";
    }
    text
}

fn reasons(snapshot: &PlannedSnapshot) -> String {
    let reasons: Vec<String> = snapshot.reasons.iter().map(ToString::to_string).collect();
    reasons.join(", ")
}

fn print(args: &PruneArgs, done: &[Pruned]) -> Result<(), Failure> {
    for one in done {
        let Some(plan) = &one.plan else { continue };
        if args.dry_run {
            output::print_line(format_args!("{}:", one.label))?;
            let rows: Vec<Vec<String>> = plan
                .snapshots
                .iter()
                .map(|snapshot| {
                    let verb = if snapshot.stays() { "keep" } else { "forget" };
                    vec![
                        snapshot.stamp.to_string(),
                        snapshot.sequence.to_string(),
                        verb.to_owned(),
                        reasons(snapshot),
                    ]
                })
                .collect();
            let header = ["SNAPSHOT", "SEQUENCE", "", "REASONS"];
            output::write_stdout(output::table(&header, &rows).as_bytes())?;
        }
        if let Some(line) = summary(one, plan) {
            output::print_line(line)?;
        }
    }
    Ok(())
}

/// `None` where the plan was not carried out, though it should have been.
fn summary(one: &Pruned, plan: &PrunePlan) -> Option<String> {
    let kept = plan.snapshots.iter().filter(|s| s.stays()).count() as u64;
    let total = |archives: &std::collections::BTreeMap<crate::base::ids::Hash, u64>| {
        (archives.len() as u64, archives.values().sum::<u64>())
    };
    let (gone, swept, marked, prefix) = match &one.report {
        Some(report) => (
            report.forgotten.len() as u64,
            (report.swept_archives, report.swept_bytes),
            (report.marked_archives, report.marked_bytes),
            format!("{}: ", one.label),
        ),
        None if one.failure.is_some() => return None,
        None => (
            plan.forgotten().count() as u64,
            total(&plan.to_sweep()),
            total(&plan.to_mark),
            "would be: ".to_owned(),
        ),
    };
    let archives =
        |(number, bytes): (u64, u64)| format!("{} ({})", count(number, "archive"), size(bytes));
    Some(format!(
        "{prefix}{} forgotten, {kept} kept; {} freed, {} marked to be freed once a later backup has taken notice",
        count(gone, "snapshot"),
        archives(swept),
        archives(marked),
    ))
}

fn print_json(args: &PruneArgs, done: &[Pruned]) -> Result<(), Failure> {
    let targets: Vec<_> = done.iter().map(to_json).collect();
    Ok(output::print_json(&json!({
        "dry_run": args.dry_run, "at": clock::now(), "targets": targets,
    }))?)
}

fn to_json(one: &Pruned) -> serde_json::Value {
    let plan = one.plan.as_ref();
    let snapshots = plan.map(|plan| {
        let snapshots = plan.snapshots.iter().map(|snapshot| {
            let reasons: Vec<String> = snapshot.reasons.iter().map(ToString::to_string).collect();
            json!({
                "stamp": snapshot.stamp, "sequence": snapshot.sequence,
                "stays": snapshot.stays(), "reasons": reasons,
            })
        });
        snapshots.collect::<Vec<_>>()
    });
    let done = one.report.as_ref().map(|report| {
        json!({
            "forgotten": report.forgotten,
            "freed_archives": report.swept_archives, "freed_bytes": report.swept_bytes,
            "marked_archives": report.marked_archives, "marked_bytes": report.marked_bytes,
            "not_deleted": report.stuck,
            "under_way": report.under_way.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    json!({
        "label": one.label, "snapshots": snapshots, "failure": one.failure, "refusal": one.refusal, "done": done,
        "to_free_archives": plan.map(|plan| plan.to_sweep().len()),
        "to_free_bytes": plan.map(|plan| plan.to_sweep().values().sum::<u64>()),
        "to_mark_archives": plan.map(|plan| plan.to_mark.len()),
        "to_mark_bytes": plan.map(|plan| plan.to_mark.values().sum::<u64>()),
        "findings": plan.map(|plan| plan.findings.iter().map(ToString::to_string).collect::<Vec<_>>()),
    })
}
