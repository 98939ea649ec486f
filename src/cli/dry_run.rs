//! Prints what `backup --dry-run` found.

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use crate::config::Config;
use crate::jobs::backup::BackupRequest;
use crate::jobs::dry_run::{self, DryRunReport, PlannedSource};

/// Most skipped paths that are listed of one source.
const MOST_SKIPPED: usize = 10;

pub(super) fn run(
    context: &Context,
    config: &Config,
    request: &BackupRequest,
) -> Result<Outcome, Failure> {
    let report = dry_run::run(config, request)?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(context, &report)?,
    }
    if report.makes_no_snapshot {
        return Err(Failure::from_error(
            "a backup would make no snapshot: a required source, or every source, fails",
        ));
    }
    Ok(match report.is_complete() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print(context: &Context, report: &DryRunReport) -> Result<(), Failure> {
    for source in &report.sources {
        print_source(context, source)?;
    }
    let about = if report.is_exact { "" } else { "about " };
    let changed = match report.changed_bytes {
        Some(bytes) => format!("at most {}", size(bytes)),
        None => "unknown".to_owned(),
    };
    output::print_line(format_args!(
        "a backup would take {}, {about}{}; new or changed: {changed}",
        count(report.files, "file"),
        size(report.bytes),
    ))?;
    for target in &report.targets {
        output::print_line(format_args!("  to {target}"))?;
    }
    context
        .note("note: this was a dry run: nothing was taken, written or sent, and no command ran");
    Ok(())
}

fn print_source(context: &Context, source: &PlannedSource) -> Result<(), Failure> {
    let PlannedSource {
        name, kind, from, ..
    } = source;
    if let Some(why) = &source.left_out {
        let verdict = if source.fails { "FAILS" } else { "not taken" };
        output::print_line(format_args!("{name}: {kind} {from}: {verdict}: {why}"))?;
        return Ok(());
    }
    let bytes = match (source.bytes, source.is_exact) {
        (Some(bytes), true) => size(bytes),
        (Some(bytes), false) => format!("about {}", size(bytes)),
        (None, _) => "size unknown".to_owned(),
    };
    let files = count(source.files, "file");
    output::print_line(format_args!("{name}: {kind} {from}: {files}, {bytes}"))?;
    for dropped in &source.dropped {
        let why = match dropped.is_pattern {
            true => format!("exclude {:?}", dropped.why),
            false => dropped.why.clone(),
        };
        let what = match dropped.files {
            0 => "nothing".to_owned(),
            files => format!("{}, {}", count(files, "file"), size(dropped.bytes)),
        };
        output::print_line(format_args!("  leaves out {what}: {why}"))?;
    }
    for skipped in source.skipped.iter().take(MOST_SKIPPED) {
        output::print_line(format_args!(
            "  skips {}: {}",
            output::printable(skipped.path.as_bytes()),
            skipped.reason
        ))?;
    }
    if let more @ 1.. = source.skipped.len().saturating_sub(MOST_SKIPPED) {
        output::print_line(format_args!("  skips {more} more"))?;
    }
    for line in &source.would_run {
        output::print_line(format_args!("  would run {line}"))?;
    }
    for note in &source.notes {
        context.note(format_args!("note: {note}"));
    }
    Ok(())
}
