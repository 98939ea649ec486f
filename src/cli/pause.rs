//! `pause` and `resume`: scheduled jobs wait, or go on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use crate::base::snapshot_choice::date;
use crate::base::{clock, local_time};
use crate::config::parse_duration;
use crate::jobs::operator_marks::{self, PauseEnd};

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// How long, at most 24h [default: 24h]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, conflicts_with = "until")]
    length: Option<Duration>,
    /// Until when, also for longer: 2026-11-29, "2026-11-29 18:00"
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<DateTime<Utc>>,
    /// Why; it is kept in the state directory
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    match date::parse(text, &local_time::now()) {
        Ok(Some(span)) => Ok(span.begin),
        Ok(None) => Err(format!(
            "{text:?} is no time: write 2026-11-29, or \"2026-11-29 18:00\""
        )),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn run(context: &Context, args: &PauseArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let end = match (args.until, args.length) {
        (Some(until), _) => PauseEnd::At(until),
        (None, Some(length)) => PauseEnd::After(length),
        (None, None) => PauseEnd::default(),
    };
    let report = operator_marks::pause(&config, end, args.note.as_deref(), clock::now())?;
    if context.json {
        output::print_json(&report)?;
        return Ok(Outcome::Complete);
    }
    if let Some(until) = report.paused_until {
        output::print_line(format_args!(
            "scheduled jobs wait until {}; `sealift resume` ends the pause",
            shown(until)
        ))?;
    }
    context
        .note("commands by hand still run, and backups that are late are still reported as late");
    Ok(Outcome::Complete)
}

pub(super) fn resume(context: &Context) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let report = operator_marks::resume(&config, clock::now())?;
    match (context.json, report.was_paused_until) {
        (true, _) => output::print_json(&report)?,
        (false, Some(until)) => output::print_line(format_args!(
            "scheduled jobs go on; they would have waited until {}",
            shown(until)
        ))?,
        (false, None) => output::print_line("scheduled jobs were not paused")?,
    }
    Ok(Outcome::Complete)
}

fn shown(time: DateTime<Utc>) -> String {
    format!(
        "{} ({})",
        local_time::minute(time),
        local_time::offset(time)
    )
}
