//! `list`: the snapshots of this host, or those on a target.

use clap::Args;
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, printable, size};
use super::target_args::RemoteArgs;
use super::verdict;
use crate::config::Config;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::jobs::context::runtime;
use crate::jobs::list::{self, ListReport, ListedSnapshot};

/// Most findings that are shown: an attacker may plant thousands.
const MOST_FINDINGS: usize = 20;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(context: &Context, args: &ListArgs) -> Result<Outcome, Failure> {
    match args.remote.from.is_some() || args.remote.target.is_some() {
        true => list_remote(context, &args.remote),
        false => list_local(context, &context.load_config()?),
    }
}

fn list_local(context: &Context, config: &Config) -> Result<Outcome, Failure> {
    let report = list::run(config, context)?;
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    match context.json {
        true => output::print_json(&report)?,
        false => print_local(context, config, &report)?,
    }
    Ok(match report.warnings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print_local(context: &Context, config: &Config, report: &ListReport) -> Result<(), Failure> {
    if report.backups.is_empty() {
        context.note("no snapshot yet; `sealift backup` makes the first");
    }
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let mut header = vec!["STAMP", "SEQUENCE", "SIZE", "NEW", "HERE"];
    header.extend(&targets);
    header.push("TAGS");
    let rows = report.backups.iter().map(|one| cells(one, &targets));
    let rows: Vec<Vec<String>> = rows.collect();
    Ok(verdict::print_table(&header, &rows)?)
}

fn cells(one: &ListedSnapshot, targets: &[&str]) -> Vec<String> {
    let dash = || "-".to_owned();
    let here = match (&one.path, one.valid) {
        (None, _) => dash(),
        (Some(_), Some(true)) if !one.lacks.is_empty() => {
            format!("lacks {}", printable(one.lacks.join(",").as_bytes()))
        }
        (Some(_), Some(true)) => "valid".to_owned(),
        (Some(_), Some(false)) => "NOT VALID".to_owned(),
        (Some(_), None) => "not validated".to_owned(),
    };
    let mut cells = vec![
        one.stamp.map_or_else(dash, |stamp| stamp.to_string()),
        one.sequence
            .map_or_else(dash, |sequence| sequence.to_string()),
        one.bytes.map_or_else(dash, size),
        one.new_bytes.map_or_else(dash, size),
        here,
    ];
    cells.extend(targets.iter().map(|name| match one.sequence {
        Some(_) => {
            let state = one.targets.get(*name).cloned().flatten();
            state.unwrap_or_else(|| "behind".to_owned())
        }
        None => dash(),
    }));
    cells.push(printable(one.tags().join(" ").as_bytes()));
    cells
}

fn list_remote(context: &Context, args: &RemoteArgs) -> Result<Outcome, Failure> {
    let chain = runtime()?.block_on(args.open(context))?.chain;
    for finding in chain.findings.iter().take(MOST_FINDINGS) {
        output::tell(format_args!("warning: {finding}"));
    }
    if let more @ 1.. = chain.findings.len().saturating_sub(MOST_FINDINGS) {
        output::tell(format_args!("warning: and {more} more; --json has all"));
    }
    match context.json {
        true => print_json(&chain)?,
        false => print(&chain.snapshots)?,
    }
    Ok(match chain.findings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print(snapshots: &[VerifiedSnapshot]) -> Result<(), Failure> {
    let row = |snapshot: &VerifiedSnapshot| {
        let core = &snapshot.manifest.core;
        vec![
            core.stamp.to_string(),
            core.sequence.to_string(),
            core.totals.files.to_string(),
            size(core.totals.bytes),
            size(core.totals.new_bytes),
            snapshot.manifest.name().hash16,
        ]
    };
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    let header = ["STAMP", "SEQUENCE", "FILES", "SIZE", "NEW", "MANIFEST"];
    Ok(output::write_stdout(
        output::table(&header, &rows).as_bytes(),
    )?)
}

fn print_json(chain: &Chain) -> Result<(), Failure> {
    let row = |snapshot: &VerifiedSnapshot| {
        let core = &snapshot.manifest.core;
        json!({
            "stamp": core.stamp, "sequence": core.sequence, "host": core.host,
            "manifest": snapshot.manifest.name().to_string(), "signer": snapshot.signer,
            "totals": core.totals, "recipients": core.recipients, "next_by": core.next_by,
        })
    };
    let rows: Vec<_> = chain.snapshots.iter().map(row).collect();
    let findings: Vec<String> = chain.findings.iter().map(ToString::to_string).collect();
    Ok(output::print_json(
        &json!({ "snapshots": rows, "findings": findings }),
    )?)
}
