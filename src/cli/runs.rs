//! `runs`: the history of runs, or one run with its report and its log.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::Value;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, count, size};
use crate::base::progress::Stage;
use crate::base::{clock, local_time};
use crate::jobs::run_history::{self, ListedRun, RunListRequest, ShownRun};

/// Skipped paths that are shown.
const MOST_SKIPPED: usize = 100;
/// Characters of a message in the list.
const MESSAGE: usize = 70;

#[derive(Debug, Args)]
pub(super) struct RunsArgs {
    /// Show this run: its id, or the begin of it
    #[arg(value_name = "ID", conflicts_with_all = ["kind", "outcome", "limit"])]
    id: Option<String>,
    /// Only runs of this command: backup, push, verify, prune, sync, restore, rollback
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only runs that ended so: complete, partial, failed, cancelled, killed
    #[arg(long, value_name = "OUTCOME", value_parser = ["complete", "partial", "failed", "cancelled", "killed"])]
    outcome: Option<String>,
    /// Most runs to show
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub(super) fn run(context: &Context, args: &RunsArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    if let Some(id) = &args.id {
        let shown = run_history::show(&config.state, id)?;
        match context.json {
            true => output::print_json(&shown)?,
            false => run_lines(&shown).iter().try_for_each(output::print_line)?,
        }
        return Ok(Outcome::Complete);
    }
    let request = RunListRequest {
        kind: args.kind.clone(),
        outcome: args.outcome.clone(),
        limit: args.limit,
    };
    let runs = run_history::list(&config.state, &request)?;
    match context.json {
        true => output::print_json(&runs)?,
        false => print_list(args, &runs)?,
    }
    Ok(Outcome::Complete)
}

fn print_list(args: &RunsArgs, runs: &[ListedRun]) -> Result<(), Failure> {
    if runs.is_empty() {
        let none = match (&args.kind, &args.outcome) {
            (None, None) => "no run is in the history of this host yet",
            _ => "no such run is in the history of this host",
        };
        return Ok(output::print_line(none)?);
    }
    let header = ["RUN", "BEGAN", "COMMAND", "BY", "TOOK", "OUTCOME", ""];
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    Ok(output::write_stdout(
        output::table(&header, &rows).as_bytes(),
    )?)
}

fn row(run: &ListedRun) -> Vec<String> {
    let message = run.message.chars().count();
    let message = match message > MESSAGE {
        true => run
            .message
            .chars()
            .take(MESSAGE)
            .chain("...".chars())
            .collect(),
        false => run.message.clone(),
    };
    vec![
        run.id.clone(),
        local_time::minute(run.started_at),
        run.kind.clone(),
        run.trigger.clone(),
        took(run.started_at, run.ended_at.unwrap_or_else(clock::now)),
        outcome(run),
        message,
    ]
}

/// Returns the outcome, or what the run does now.
fn outcome(run: &ListedRun) -> String {
    match (&run.outcome, &run.stage) {
        (Some(outcome), _) => outcome.clone(),
        (None, Some(stage)) => format!("running: {}", stage.replace('_', " ")),
        (None, None) => "running".to_owned(),
    }
}

fn took(began: DateTime<Utc>, ended: DateTime<Utc>) -> String {
    output::duration((ended - began).to_std().unwrap_or_default())
}

/// Describes one run.
fn run_lines(shown: &ShownRun) -> Vec<String> {
    let run = &shown.run;
    let mut lines = vec![format!("{} {}: {}", run.kind, run.id, outcome(run))];
    let began = local_time::minute(run.started_at);
    let offset = local_time::offset(run.started_at);
    let time = match (run.ended_at, run.pid) {
        (Some(ended), _) => format!("took {}", took(run.started_at, ended)),
        (None, Some(pid)) => format!("under way, pid {pid}"),
        (None, None) => "under way".to_owned(),
    };
    let code = run
        .exit_code
        .map_or_else(String::new, |code| format!(", exit code {code}"));
    lines.push(format!(
        "began {began} ({offset}) by {}, {time}{code}",
        run.trigger
    ));
    lines.extend(run.note.iter().map(|note| format!("note: {note}")));
    match &shown.report {
        Some(report) => lines.extend(report_lines(report)),
        None if !run.message.is_empty() => lines.push(run.message.clone()),
        None => {}
    }
    if let (Some(path), Some(log)) = (&shown.log_path, &shown.log) {
        lines.push(format!("log, {path}:"));
        lines.extend(log.lines().map(|line| format!("  {line}")));
    }
    lines
}

/// Describes the report of a run, as docs/events.md has it.
fn report_lines(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(stamp) = report["stamp"].as_str() {
        lines.push(format!(
            "snapshot {stamp} (sequence {}): {}, {}; {} new, {} stored",
            number(&report["sequence"]),
            count(number(&report["files"]), "file"),
            size(number(&report["bytes"])),
            size(number(&report["new_bytes"])),
            size(number(&report["stored_bytes"])),
        ));
    }
    section(
        &mut lines,
        "stages:",
        list(&report["stages"]).map(stage_line),
    );
    section(
        &mut lines,
        "targets:",
        list(&report["targets"]).map(target_line),
    );
    let left_out = list(&report["left_out"]).map(text);
    section(&mut lines, "left out:", left_out);
    let skipped = number(&report["skipped_paths"]);
    let paths = list(&report["skipped"]).take(MOST_SKIPPED);
    let paths = paths.map(|one| format!("{}: {}", text(&one["path"]), text(&one["reason"])));
    let paths: Vec<String> = paths.collect();
    let more = skipped.saturating_sub(paths.len() as u64);
    let more = (more > 0).then(|| format!("and {more} more"));
    let heading = format!("skipped {}:", count(skipped, "path"));
    section(&mut lines, &heading, paths.into_iter().chain(more));
    section(&mut lines, "warnings:", list(&report["warnings"]).map(text));
    if let Some(state) = report["restore"]["state"].as_str() {
        lines.push(format!("restore in place: {}", state.replace('_', " ")));
    }
    for error in list(&report["errors"]) {
        lines.push(format!("error: {}", text(&error["text"])));
        let causes = list(&error["causes"]).map(|cause| format!("  because: {}", text(cause)));
        lines.extend(causes);
        lines.extend(error["next"].as_str().map(|next| format!("  next: {next}")));
    }
    lines
}

fn section(lines: &mut Vec<String>, heading: &str, content: impl Iterator<Item = String>) {
    let content: Vec<String> = content.map(|line| format!("  {line}")).collect();
    if !content.is_empty() {
        lines.push(heading.to_owned());
        lines.extend(content);
    }
}

fn stage_line(one: &Value) -> String {
    let stage: Option<Stage> = serde_json::from_value(one["stage"].clone()).ok();
    let stage = stage.map_or_else(|| text(&one["stage"]), |stage| stage.to_string());
    format!("{stage}: {}", seconds(&one["seconds"]))
}

fn target_line(one: &Value) -> String {
    let name = text(&one["name"]);
    if let Some(error) = one["error"].as_str() {
        return format!("{name}: BEHIND: {error}");
    }
    format!(
        "{name}: {}, {} sent in {}, {}",
        text(&one["state"]),
        size(number(&one["sent_bytes"])),
        count(number(&one["objects"]), "object"),
        seconds(&one["seconds"]),
    )
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn seconds(value: &Value) -> String {
    let seconds = value.as_f64().unwrap_or_default();
    output::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
