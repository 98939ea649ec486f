//! `status`: whether every target is up to date and complete.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::hosts;
use super::output;
use super::proof;
use super::target_args::Side;
use super::verdict;
use crate::jobs::status::{
    self, Asking, LastRun, RUNNING, SAME_TIME_SECONDS, StatusReport, TargetHealth, UNFINISHED,
};
use crate::keys::recipients::short;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Do not ask the targets; show what this host remembers
    #[arg(long)]
    offline: bool,
    /// Show every host on this target instead: the name of a [[target]] or of a remote, or a URL;
    /// needs no config
    #[arg(long, value_name = "URL", conflicts_with = "offline")]
    from: Option<String>,
    /// With --from: count only what these signers signed: an allowed_signers file, a public key or
    /// a fingerprint
    #[arg(long, value_name = "SIGNER", requires = "from")]
    signer: Option<String>,
    /// S3 endpoint for --from
    #[arg(long, value_name = "URL", requires = "from")]
    endpoint: Option<String>,
    /// S3 region for --from
    #[arg(long, value_name = "REGION", requires = "from")]
    region: Option<String>,
    /// For rsync and sftp with --from: the command, such as "ssh -i KEY"
    #[arg(long, value_name = "COMMAND", requires = "from")]
    ssh: Option<String>,
}

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<Outcome, Failure> {
    if let Some(from) = &args.from {
        let side = Side {
            text: from,
            endpoint: &args.endpoint,
            region: &args.region,
            ssh: &args.ssh,
        };
        return hosts::run(context, &side, args.signer.as_deref());
    }
    let asking = match args.offline {
        true => Asking::Catalog,
        false => Asking::Targets,
    };
    let report = status::run(&context.load_config()?, asking, context)?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(&report)?,
    }
    Ok(match report.is_well() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print(report: &StatusReport) -> Result<(), Failure> {
    output::print_line(format_args!("host {}", report.host))?;
    match &report.last_run {
        Some(run) => output::print_line(run_line(run))?,
        None => output::print_line("no run yet")?,
    }
    let has_failed = report.last_run.as_ref().is_some_and(LastRun::has_failed);
    if let (true, Some(complete)) = (has_failed, report.last_complete_run) {
        let complete = readable_time(complete);
        output::print_line(format_args!("last complete run {complete}"))?;
    }
    if let Some(next) = &report.next_run {
        output::print_line(format_args!(
            "next run due {}",
            next.format("%Y-%m-%d %H:%M UTC")
        ))?;
    }
    if let Some(refusal) = &report.refusal {
        output::print_line(format_args!("next backup: ATTENTION: {refusal}"))?;
        output::print_line("  next: `sealift backup` prints the steps")?;
    }
    for note in &report.notes {
        output::print_line(format_args!("next backup: {note}"))?;
    }
    if let Some(open) = &report.restore_open {
        verdict::print_line(format_args!("restore in place: ATTENTION: {}", open.text))?;
        output::print_line(format_args!("  next: {}", open.next))?;
    }
    for copy in &report.safety_copies {
        output::print_line(format_args!(
            "safety copy {}, {}: may be deleted since {} (`sealift rollback --clean`)",
            copy.path,
            output::size(copy.bytes),
            copy.deletable_from.format("%Y-%m-%d")
        ))?;
    }
    for finding in &report.findings {
        verdict::print_line(format_args!("shrunk: ATTENTION: {}", finding.text))?;
        output::print_line(format_args!("  next: {}", finding.next))?;
    }
    if report.targets.is_empty() {
        output::print_line("no target is configured, so nothing is backed up off this host")?;
    }
    if let Some(proof) = &report.proof {
        proof::print(proof)?;
    }
    report.targets.iter().try_for_each(print_target)
}

fn run_line(run: &LastRun) -> String {
    let started = run.started_at;
    let started = started.map_or_else(|| "?".to_owned(), readable_time);
    let outcome = run.outcome.as_deref().unwrap_or(UNFINISHED);
    if let (RUNNING, Some(pid)) = (outcome, run.pid) {
        return format!("running since {started} (pid {pid})");
    }
    let outcome = match outcome {
        UNFINISHED => "did not finish: it was killed, or the machine went down",
        outcome => outcome,
    };
    let message = run.message.as_deref().unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    format!("last run {started}: {outcome}{colon}{message}")
}

fn print_target(health: &TargetHealth) -> Result<(), Failure> {
    let verdict = match health.problems.is_empty() {
        true => "ok",
        false => "ATTENTION",
    };
    let heading = format_args!("{} ({}): {verdict}", health.name, health.url);
    verdict::print_line(heading)?;
    match (&health.newest, health.sequence) {
        (Some(stamp), Some(sequence)) => {
            let age = age(health.age_seconds.unwrap_or_default());
            output::print_line(format_args!(
                "  newest: {stamp}, sequence {sequence}, {age}"
            ))?;
        }
        _ => output::print_line("  newest: none")?,
    }
    for access in &health.recipients {
        let recipient = short(&access.recipient);
        output::print_line(match access.opens_in_full {
            true => format!("  can be fully decrypted by {recipient}"),
            false => format!("  can be decrypted only in part by {recipient}"),
        })?;
    }
    for line in health.problems.iter().chain(&health.notes) {
        output::print_line(format_args!("  {line}"))?;
    }
    Ok(())
}

fn age(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => format!("{} ago", output::duration(Duration::from_secs(seconds))),
        Err(_) if seconds >= -SAME_TIME_SECONDS => "just now".to_owned(),
        Err(_) => "its timestamp is in the future; check the clock".to_owned(),
    }
}

fn readable_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
