//! `prune`: retention on targets.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use super::remote::{self, RemoteArgs};
use super::{Context, retention};
use crate::clock;
use crate::config::{Config, Retention};
use crate::error::with_causes;
use crate::ids::Stamp;
use crate::manifest::signature::Signer;
use crate::pins;
use crate::prune::{PlannedSnapshot, PrunePlan, PruneReport, PruneRequest};
use crate::repository::HostFolder;

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
}

pub fn run(context: &Context, args: &PruneArgs) -> Result<Outcome, Failure> {
    if args.local {
        return prune_local(context, args);
    }
    let runtime = remote::runtime()?;
    let config = match (&args.remote.from, context.load_config()) {
        (Some(_), config) => config.ok(),
        (None, config) => Some(config.map_err(|failure| {
            failure.hint("on a machine without a config, give --from URL, --policy and --sign-with")
        })?),
    };
    let requests = requests(context, args, config.as_ref(), &runtime)?;
    let signer = match args.dry_run {
        true => None,
        false => Some(signer(args, config.as_ref())?),
    };
    let mut done = Vec::new();
    for request in &requests {
        done.push(runtime.block_on(prune(request, signer.as_ref())));
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
    }
    if done.iter().all(|one| one.failure.is_some()) {
        return Err(Failure::from_error("nothing was pruned"));
    }
    let complete = |one: &Pruned| {
        let is_stuck = one.report.as_ref().is_some_and(|r| !r.stuck.is_empty());
        one.failure.is_none() && !is_stuck
    };
    Ok(match done.iter().all(complete) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn prune_local(context: &Context, args: &PruneArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let state = context.open_state(&config)?;
    let forgotten = retention::retain_local(&config, &state, args.yes, args.dry_run)
        .map_err(|failure| failure.hint("if what it would delete is right, say --yes"))?;
    match context.json {
        true => output::print_json(&json!({ "dry_run": args.dry_run, "forgotten": forgotten }))?,
        false => forgotten.iter().try_for_each(output::print_line)?,
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
) -> Result<Vec<PruneRequest>, Failure> {
    let mut pins: HashSet<Stamp> = args.keep.iter().copied().collect();
    if let Some(config) = config {
        pins.extend(pins::read(&config.state)?);
    }
    let request = |folder: HostFolder, trust, policy| PruneRequest {
        folder,
        trust,
        policy,
        now: clock::now(),
        pins: pins.clone(),
        gone: args.gone,
        confirmed: args.yes,
    };
    let no_policy = || {
        Failure::usage("nothing says what is to stay")
            .hint("write [retention] in the config, or give --policy")
    };
    if args.remote.from.is_some() {
        let policy = args.policy.ok_or_else(no_policy)?;
        let opened = runtime.block_on(args.remote.open(context))?;
        return Ok(vec![request(opened.folder, opened.trust, policy)]);
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
        let policy = args
            .policy
            .or(config.retention_of(target))
            .ok_or_else(no_policy)?;
        let folder = HostFolder::new(remote::open_target(target)?.target, host.clone());
        requests.push(request(folder, trust.clone(), policy));
    }
    if requests.is_empty() {
        let text = "no target of that name is configured, or it can only be written to";
        return Err(Failure::usage(text));
    }
    Ok(requests)
}

async fn prune(request: &PruneRequest, signer: Option<&Signer>) -> Pruned {
    let mut done = Pruned {
        label: request.folder.target.label().to_owned(),
        plan: None,
        report: None,
        failure: None,
    };
    let plan = match request.plan().await {
        Ok(plan) => done.plan.insert(plan),
        Err(error) => {
            done.failure = Some(with_causes(&error));
            return done;
        }
    };
    if let Some(signer) = signer {
        match request.run(plan, signer).await {
            Ok(report) => done.report = Some(report),
            Err(error) => done.failure = Some(with_causes(&error)),
        }
    } else if let Some(refusal) = &plan.refusal {
        done.failure = Some(refusal.to_string());
    }
    if let (Some(failure), true) = (
        &mut done.failure,
        plan.refusal.as_ref().is_some_and(|r| r.may_be_confirmed()),
    ) {
        failure.push_str("; if that is right, say --yes");
    }
    done
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
    let total = |archives: &std::collections::BTreeMap<crate::ids::Hash, u64>| {
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
        "label": one.label, "snapshots": snapshots, "failure": one.failure, "done": done,
        "to_free_archives": plan.map(|plan| plan.to_sweep().len()),
        "to_free_bytes": plan.map(|plan| plan.to_sweep().values().sum::<u64>()),
        "to_mark_archives": plan.map(|plan| plan.to_mark.len()),
        "to_mark_bytes": plan.map(|plan| plan.to_mark.values().sum::<u64>()),
        "findings": plan.map(|plan| plan.findings.iter().map(ToString::to_string).collect::<Vec<_>>()),
    })
}
