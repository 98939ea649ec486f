//! `status`: whether the backups are safe, and the state of every target.

mod monitoring;
mod watcher;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};

use super::Context;
use super::failure::{Failure, Outcome};
use super::hosts;
use super::output;
use super::proof;
use super::target_args::Side;
use super::verdict;
use crate::base::units::count;
use crate::config::parse_age;
use crate::jobs::status::{
    self, Asking, LastRun, RUNNING, STALE, StatusReport, StatusRequest, TargetHealth, UNFINISHED,
};
use crate::jobs::verdict::{FindingCode, SAME_TIME_SECONDS, VerdictFinding};
use crate::keys::recipients::short;

/// How to print the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusFormat {
    /// One line for a Nagios plugin, with its exit codes: 0, 1 (amber), 2 (red), 3 (not known)
    Nagios,
    /// Metrics as text, such as for node_exporter's textfile collector
    Prometheus,
    /// As --json prints it
    Json,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Do not ask the targets; show what this host remembers
    #[arg(long)]
    offline: bool,
    /// Look at this target of the config only; the verdict is about all of them
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Print for a monitoring system
    #[arg(long, value_name = "FORMAT")]
    format: Option<StatusFormat>,
    /// Show every host on this target instead: the name of a [[target]] or of a remote, or a URL;
    /// needs no config
    #[arg(long, value_name = "URL", conflicts_with_all = ["offline", "target"])]
    from: Option<String>,
    /// With --from: a host whose newest snapshot is older, such as 26h, needs attention
    #[arg(long, value_name = "AGE", requires = "from", value_parser = parse_age)]
    max_age: Option<Duration>,
    /// With --from: a host of which no backup was restored for proof within this time, such as
    /// 100d, needs attention
    #[arg(long, value_name = "AGE", requires = "from", value_parser = parse_age)]
    proof_max_age: Option<Duration>,
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

impl StatusArgs {
    /// Whether the format is JSON without `--json`.
    pub(super) fn wants_json(&self) -> bool {
        self.format == Some(StatusFormat::Json)
    }
}

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<Outcome, Failure> {
    let done = match &args.from {
        Some(from) => run_watcher(context, args, from),
        None => run_here(context, args),
    };
    match (done, args.format) {
        // A plugin of Nagios prints one line on stdout, whatever happens.
        (Err(failure), Some(StatusFormat::Nagios)) => {
            monitoring::print_unknown(&failure)?;
            Ok(Outcome::Plugin(monitoring::UNKNOWN))
        }
        (done, _) => done,
    }
}

fn run_watcher(context: &Context, args: &StatusArgs, from: &str) -> Result<Outcome, Failure> {
    let side = Side {
        text: from,
        endpoint: &args.endpoint,
        region: &args.region,
        ssh: &args.ssh,
    };
    let limits = status::hosts::WatcherLimits {
        max_age: args.max_age,
        proof_max_age: args.proof_max_age,
    };
    let report = hosts::look(context, &side, args.signer.as_deref(), limits)?;
    let is_watched = args.max_age.is_some() || args.proof_max_age.is_some() || context.quiet;
    match args.format {
        Some(StatusFormat::Nagios) => return watcher::print_nagios(&report),
        Some(StatusFormat::Prometheus) => watcher::print_prometheus(&report)?,
        _ if context.json => output::print_json(&report)?,
        _ if is_watched => watcher::print_lines(context, &report)?,
        _ => hosts::print(&report)?,
    }
    Ok(match report.is_well() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn run_here(context: &Context, args: &StatusArgs) -> Result<Outcome, Failure> {
    let request = StatusRequest {
        asking: match args.offline {
            true => Asking::Catalog,
            false => Asking::Targets,
        },
        target: args.target.as_deref(),
    };
    let report = status::run(&context.load_config()?, request, context)?;
    match args.format {
        Some(StatusFormat::Nagios) => return monitoring::print_nagios(&report),
        Some(StatusFormat::Prometheus) => monitoring::print_prometheus(&report)?,
        _ if context.json => output::print_json(&report)?,
        _ => print(&report)?,
    }
    Ok(match report.is_well() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print(report: &StatusReport) -> Result<(), Failure> {
    let judged = &report.verdict;
    verdict::print_judged(judged.state, &judged.sentence)?;
    for finding in &judged.findings {
        print_finding(finding, &judged.sentence)?;
    }
    for finding in &report.acknowledged {
        let (code, text) = (finding.code.as_str(), &finding.text);
        output::print_line(format_args!("acknowledged: {code}: {text}"))?;
    }
    output::print_line(format_args!("host {}", report.host))?;
    print_runs(report)?;
    for note in &report.notes {
        output::print_line(format_args!("next backup: {note}"))?;
    }
    for copy in &report.safety_copies {
        output::print_line(format_args!(
            "safety copy {}, {}: may be deleted since {} (`sealift rollback --clean`)",
            copy.path,
            output::size(copy.bytes),
            copy.deletable_from.format("%Y-%m-%d")
        ))?;
    }
    let mut targets = report.targets.iter();
    targets.try_for_each(|health| print_target(report, health))
}

/// Prints a finding and its next step. If the sentence says it already, prints its code only.
fn print_finding(finding: &VerdictFinding, sentence: &str) -> Result<(), Failure> {
    let word = verdict::word(finding.severity);
    let code = finding.code.as_str();
    let line = match sentence.contains(&finding.text) {
        true => format!("{word} {code}"),
        false => format!("{word} {code}: {}", finding.text),
    };
    verdict::print_judged(finding.severity, &line)?;
    if !finding.next.is_empty() {
        output::print_line(format_args!("  next: {}", finding.next))?;
    }
    Ok(())
}

fn print_runs(report: &StatusReport) -> Result<(), Failure> {
    match &report.last_run {
        Some(run) => output::print_line(run_line(run, report))?,
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
    if let Some(proof) = &report.proof {
        proof::print(proof)?;
    }
    Ok(())
}

/// Returns the line of the last run, without the message that a finding has.
fn run_line(run: &LastRun, report: &StatusReport) -> String {
    let started = run.started_at;
    let started = started.map_or_else(|| "?".to_owned(), readable_time);
    let outcome = run.outcome.as_deref().unwrap_or(UNFINISHED);
    if let (RUNNING, Some(pid)) = (outcome, run.pid) {
        return format!("running since {started} (pid {pid})");
    }
    let outcome = match outcome {
        UNFINISHED => "did not finish",
        outcome => outcome,
    };
    let is_told = report.verdict.findings.iter().any(|finding| {
        use FindingCode::{RunFailed, RunPartial, TargetBehind, TargetStale, TargetUnknown};
        let codes = [
            RunFailed,
            RunPartial,
            TargetBehind,
            TargetStale,
            TargetUnknown,
        ];
        codes.contains(&finding.code)
    });
    let message = match run.message.as_deref() {
        _ if is_told => "",
        Some(_) if run.is_only_behind => "every target has caught up since",
        message => message.unwrap_or_default(),
    };
    let colon = if message.is_empty() { "" } else { ": " };
    format!("last run {started}: {outcome}{colon}{message}")
}

fn print_target(report: &StatusReport, health: &TargetHealth) -> Result<(), Failure> {
    let findings = report.verdict.findings.iter();
    let name = Some(health.name.as_str());
    let number = findings.filter(|one| one.target.as_deref() == name).count();
    // A finding about the whole host says so once.
    let is_stale = |line: &str| line.starts_with(STALE);
    let codes = report.verdict.findings.iter().map(|one| one.code);
    let is_late = codes
        .into_iter()
        .any(|code| code == FindingCode::SnapshotStale)
        && health.problems.iter().any(|line| is_stale(line));
    let state = match (number, health.newest) {
        (0, None) => "no snapshot yet",
        (0, Some(_)) if is_late => "ATTENTION",
        (0, Some(_)) => "ok",
        _ => "ATTENTION",
    };
    let heading = format_args!("{} ({}): {state}", health.name, health.url);
    verdict::print_line(heading)?;
    if let (Some(stamp), Some(sequence)) = (&health.newest, health.sequence) {
        let age = age(health.age_seconds.unwrap_or_default());
        output::print_line(format_args!(
            "  newest: {stamp}, sequence {sequence}, {age}"
        ))?;
    } else if number > 0 {
        output::print_line("  newest: none")?;
    }
    for access in &health.recipients {
        let recipient = short(&access.recipient);
        output::print_line(match access.opens_in_full {
            true => format!("  can be fully decrypted by {recipient}"),
            false => format!("  can be decrypted only in part by {recipient}"),
        })?;
    }
    // What is wrong, and no finding: the operator acknowledged it, or `max_age` allows it.
    let is_new = report.verdict.newest.is_none();
    let rest = health.problems.iter();
    let rest = rest.filter(|line| number == 0 && !is_new && !(is_late && is_stale(line)));
    for line in rest.chain(&health.notes) {
        output::print_line(format_args!("  {line}"))?;
    }
    Ok(())
}

pub(super) fn age(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => format!("{} ago", output::duration(Duration::from_secs(seconds))),
        Err(_) if seconds >= -SAME_TIME_SECONDS => "just now".to_owned(),
        Err(_) => "its timestamp is in the future; check the clock".to_owned(),
    }
}

fn readable_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns `2 findings`.
fn findings(number: usize) -> String {
    count(number as u64, "finding")
}
