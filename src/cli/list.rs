//! `list`: the snapshots of this host, or those on a target.

pub(super) mod remote;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args;

use super::Context;
use super::choose::NarrowArgs;
use super::failure::{Failure, Outcome};
use super::output::{self, count, printable, size};
use super::target_args::RemoteArgs;
use super::verdict;
use crate::base::local_time;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::jobs::list::{self, ListReport, ListedSnapshot};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    narrow: NarrowArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file, to decrypt the tags and sources of snapshots on a target; can be repeated
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
}

pub(super) fn run(context: &Context, args: &ListArgs) -> Result<Outcome, Failure> {
    let choice = args.narrow.narrow(&SnapshotChoice::latest())?;
    if args.remote.from.is_some() || args.remote.target.is_some() {
        return remote::run(context, args, &choice);
    }
    if !args.identity.is_empty() {
        return Err(Failure::usage(
            "an identity is for the snapshots on a target, and none is named",
        )
        .hint("add --target NAME or --from URL"));
    }
    list_local(context, &context.load_config()?, &choice)
}

fn list_local(
    context: &Context,
    config: &Config,
    choice: &SnapshotChoice,
) -> Result<Outcome, Failure> {
    let report = list::run(config, choice, context)?;
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    match context.json {
        true => output::print_json(&report)?,
        false => print_local(context, config, choice, &report)?,
    }
    Ok(match report.warnings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print_local(
    context: &Context,
    config: &Config,
    choice: &SnapshotChoice,
    report: &ListReport,
) -> Result<(), Failure> {
    if report.backups.is_empty() {
        context.note(match *choice == SnapshotChoice::latest() {
            true => "no snapshot yet; `sealift backup` makes the first".to_owned(),
            false => format!("no snapshot is {choice}"),
        });
    }
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let columns = ListColumns {
        targets: &targets,
        local_time: has_local_time(report.backups.iter().filter_map(|one| one.time)),
        kept: report.backups.iter().any(|one| !one.kept.is_empty()),
        on_request: config.sources.iter().any(|source| source.on_request),
    };
    let rows: Vec<Vec<String>> = report.backups.iter().map(|one| columns.row(one)).collect();
    verdict::print_table(&columns.header(), &rows)?;
    note_the_rest(context, report);
    Ok(())
}

/// Prints notes on what is no row of the table, and on what the table does not know.
fn note_the_rest(context: &Context, report: &ListReport) {
    let name = |path: &str| {
        let path = std::path::Path::new(path).file_name().unwrap_or_default();
        printable(path.as_encoded_bytes())
    };
    for one in &report.invalid {
        let sources = match one.sources.is_empty() {
            true => "copies".to_owned(),
            false => printable(one.sources.join(", ").as_bytes()),
        };
        context.note(format_args!(
            "{}: {sources} failed the check; kept for you to look at, in no backup",
            name(&one.path)
        ));
    }
    for one in &report.unfinished {
        let state = match one.is_in_use {
            true => "a run is working on it now",
            false => "left by a run that did not finish; the next backup removes it",
        };
        context.note(format_args!("{}: {state}", name(&one.path)));
    }
    let is_unsent = |one: &&ListedSnapshot| one.sequence.is_none() && one.valid == Some(true);
    let unsent = report.backups.iter().filter(is_unsent);
    if let Some(newest) = unsent.clone().filter_map(|one| one.stamp).max() {
        context.note(format_args!(
            "{} never sent: `sealift push {newest}` sends the newest of them",
            count(unsent.count() as u64, "snapshot")
        ));
    }
    for (target, as_of) in &report.as_of {
        match as_of {
            Some(time) => context.note(format_args!(
                "{target}: as this host noted on {}; `sealift status` looks there",
                shown_time(*time)
            )),
            None => context.note(format_args!("{target}: nothing was sent there yet")),
        }
    }
    note_unknown_tags(context, report.without_known_tags);
}

fn note_unknown_tags(context: &Context, number: u64) {
    if number > 0 {
        context.note(format_args!(
            "the tags of {} are not known here: list a target with --identity to see them",
            count(number, "other snapshot")
        ));
    }
}

/// Returns `2026-11-29 18:00`, with the zone.
fn shown_time(time: DateTime<Utc>) -> String {
    format!(
        "{} {}",
        local_time::minute(time),
        match local_time::is_utc(time) {
            true => "UTC".to_owned(),
            false => format!("({})", local_time::offset(time)),
        }
    )
}

/// Whether a column of local times says more than the stamps, which are UTC.
fn has_local_time(mut times: impl Iterator<Item = DateTime<Utc>>) -> bool {
    times.any(|time| !local_time::is_utc(time))
}

/// The columns of the table that are not always there.
struct ListColumns<'a> {
    targets: &'a [&'a str],
    local_time: bool,
    /// Some snapshot stays whatever the policy says.
    kept: bool,
    /// Some source is taken on request only.
    on_request: bool,
}

impl ListColumns<'_> {
    fn header(&self) -> Vec<&str> {
        let mut header = vec!["STAMP"];
        header.extend(self.local_time.then_some("LOCAL TIME"));
        header.extend(["SEQUENCE", "SIZE", "NEW", "HERE"]);
        header.extend(self.targets);
        header.extend(self.on_request.then_some("INCLUDES"));
        header.extend(self.kept.then_some("KEPT"));
        header.push("TAGS");
        header
    }

    fn row(&self, one: &ListedSnapshot) -> Vec<String> {
        let dash = || "-".to_owned();
        let mut row = vec![one.stamp.map_or_else(dash, |stamp| stamp.to_string())];
        if self.local_time {
            row.push(one.time.map_or_else(dash, local_time::minute));
        }
        row.extend([
            one.sequence
                .map_or_else(dash, |sequence| sequence.to_string()),
            one.bytes.map_or_else(dash, size),
            one.new_bytes.map_or_else(dash, size),
            here(one),
        ]);
        row.extend(self.targets.iter().map(|name| match one.sequence {
            Some(_) => {
                let state = one.targets.get(*name).cloned().flatten();
                state.unwrap_or_else(|| "behind".to_owned())
            }
            None => "never sent".to_owned(),
        }));
        if self.on_request {
            row.push(match &one.on_request {
                None => "?".to_owned(),
                Some(names) if names.is_empty() => dash(),
                Some(names) => printable(names.join(",").as_bytes()),
            });
        }
        if self.kept {
            row.push(match one.kept.is_empty() {
                true => dash(),
                false => one.kept.join(", "),
            });
        }
        row.push(match &one.tags {
            Some(tags) => printable(tags.join(" ").as_bytes()),
            None => "?".to_owned(),
        });
        row
    }
}

/// Returns the state of the directory on this host.
fn here(one: &ListedSnapshot) -> String {
    let lacks = one.lacks.as_ref().filter(|lacks| !lacks.is_empty());
    match (&one.path, one.valid) {
        (None, _) => "-".to_owned(),
        (Some(_), Some(true)) => match lacks {
            Some(lacks) => format!("lacks {}", printable(lacks.join(",").as_bytes())),
            None => "valid".to_owned(),
        },
        (Some(_), Some(false)) => "NOT VALID".to_owned(),
        (Some(_), None) => "not validated".to_owned(),
    }
}
