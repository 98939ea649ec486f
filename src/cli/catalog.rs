//! `catalog rebuild`: rebuilds the index of stored data from the targets.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::Context;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, count};
use crate::jobs::rebuild_catalog::{self, Fetching, LearnedContent, RebuildReport, RebuildRequest};
use crate::restore::open::Identities;

#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    /// Rebuild the catalog from what the targets show; the old one is kept beside it
    Rebuild(RebuildArgs),
}

#[derive(Debug, Args)]
pub(super) struct RebuildArgs {
    /// Also learn where content is stored, so that the next push need not store everything again;
    /// an identity file, can be repeated. If others may control this host, they get the identity:
    /// then rather push everything
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Fetch only the index: content that is not on this host any more is stored again
    #[arg(long, requires = "identity")]
    at_hand: bool,
    /// Temporary directory for fetched files [default: the system's]
    #[arg(long, value_name = "DIR", requires = "identity")]
    scratch: Option<PathBuf>,
}

pub(super) fn run(context: &Context, command: &CatalogCommand) -> Result<Outcome, Failure> {
    match command {
        CatalogCommand::Rebuild(args) => rebuild(context, args),
    }
}

fn rebuild(context: &Context, args: &RebuildArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let identities = match args.identity.as_slice() {
        [] => None,
        files => Some(Arc::new(Identities::load(files, &prompt())?)),
    };
    let request = RebuildRequest {
        identities,
        fetching: match args.at_hand {
            true => Fetching::IndexOnly,
            false => Fetching::Missing,
        },
        scratch: args.scratch.clone(),
    };
    let report = rebuild_catalog::run(&config, request, context)?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(config.host.as_str(), &report)?,
    }
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    Ok(match report.warnings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

fn print(host: &str, report: &RebuildReport) -> Result<(), Failure> {
    let snapshots = count(report.snapshots as u64, "snapshot");
    output::print_line(format_args!("found {snapshots} of {host} on the targets"))?;
    if let unknown @ 1.. = report.without_known_tags {
        output::print_line(format_args!(
            "the tags of {} are not known: --identity decrypts them",
            count(unknown as u64, "snapshot")
        ))?;
    }
    match &report.content {
        Some(learned) => print_content(learned)?,
        None if report.snapshots > 0 => output::print_line(
            "only an identity can read their content: without --identity the next push stores everything again",
        )?,
        None => {}
    }
    if let Some(path) = &report.kept {
        output::print_line(format_args!("the old catalog is {}", path.display()))?;
    }
    Ok(())
}

fn print_content(learned: &LearnedContent) -> Result<(), Failure> {
    output::print_line(format_args!(
        "in snapshot {}: {} ({}) in {}; {} had to be fetched",
        learned.stamp,
        count(learned.files, "file"),
        output::size(learned.bytes),
        count(learned.chunks, "chunk"),
        count(learned.fetched_files, "file")
    ))?;
    if learned.unknown_files > 0 {
        output::print_line(format_args!(
            "{} that are not on this host are stored again by the next push",
            count(learned.unknown_files, "file")
        ))?;
    }
    Ok(())
}
