//! `target …`: the targets of the configuration.

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::setup_args::ServerArgs;
use super::{Context, output};
use crate::config::{Config, TargetConfig};
use crate::jobs::init::TriedTarget;
use crate::jobs::target_setup::{self, RemovedTarget};
use crate::storage::TargetSpec;

#[derive(Debug, Subcommand)]
pub(super) enum TargetCommand {
    /// Add targets to the configuration, and try them
    Add(AddTargetArgs),
    /// Remove a target from the configuration; what it stores stays there
    Remove {
        /// The target's name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Try what the credentials of the targets may do, and compare clocks
    Test {
        /// Only these targets
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// List the targets of the configuration
    List,
}

#[derive(Debug, Args)]
pub(super) struct AddTargetArgs {
    /// Where to back up to: s3://..., gs://..., az://..., https://... (WebDAV), rsync://..., sftp://...,
    /// file:///... or a path; or NAME=URL
    #[arg(value_name = "[NAME=]URL", required = true)]
    target: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(context: &Context, command: &TargetCommand) -> Result<Outcome, Failure> {
    match command {
        TargetCommand::Add(args) => add(context, args),
        TargetCommand::Remove { name } => remove(context, name),
        TargetCommand::Test { names } => test(context, names),
        TargetCommand::List => list(context),
    }
}

fn add(context: &Context, args: &AddTargetArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let names = config.targets.iter().map(|target| target.name.clone());
    let new = args
        .server
        .targets(&args.target, &names.collect::<Vec<_>>())?;
    if let Some(double) = new.iter().find_map(|new| same_place(&config, &new.url)) {
        let what = format!("the target {double} has that URL already");
        return Err(
            Failure::usage(what).hint(format!("try it with `sealift target test {double}`"))
        );
    }
    let report = target_setup::add(&config, &new, context)?;
    match context.json {
        true => output::print_json(&report)?,
        false => {
            if !context.quiet {
                output::print_line(format_args!("config   {}", report.edit.config_path))?;
            }
            print_tried(&report.targets)?;
            if report.targets.iter().all(|target| target.problem.is_none()) {
                context.note("next: the next backup sends it the newest snapshot; `sealift sync` copies older ones");
            }
        }
    }
    Ok(outcome(&report.targets))
}

/// Returns the name of the target with this URL.
fn same_place<'a>(config: &'a Config, url: &str) -> Option<&'a str> {
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    let same = |target: &&TargetConfig| bare(&target.url) == bare(url);
    let found = config.targets.iter().find(same);
    found.map(|target| target.name.as_str())
}

fn remove(context: &Context, name: &str) -> Result<Outcome, Failure> {
    let report = target_setup::remove(&context.load_config()?, name)?;
    if context.json {
        output::print_json(&report)?;
        return Ok(Outcome::Complete);
    }
    print_removed(context, name, &report)?;
    Ok(Outcome::Complete)
}

fn print_removed(context: &Context, name: &str, report: &RemovedTarget) -> Result<(), Failure> {
    let RemovedTarget { edit, url, .. } = report;
    if !context.quiet {
        output::print_line(format_args!("removed  {name} from {}", edit.config_path))?;
    }
    context.note(format_args!(
        "note: nothing was deleted at {url}; restore, list and verify read it with --from"
    ));
    if let only @ 1.. = report.snapshots_only_there {
        context.note(format_args!(
            "note: {} {} on no other target: to copy, run `sealift sync {url} TARGET`",
            output::count(only, "snapshot"),
            if only == 1 { "is" } else { "are" },
        ));
    }
    context.note(format_args!(
        "note: the catalog still knows what is there, as {name}: add the same place under that name again, and another \
         place under another name"
    ));
    if report.targets_left == 0 {
        output::tell("warning: no target is left, so nothing is backed up: sealift target add URL");
    }
    Ok(())
}

fn test(context: &Context, names: &[String]) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let tried = target_setup::test(&config, names, context)?;
    match context.json {
        true => output::print_json(&json!({ "targets": tried }))?,
        false => print_tried(&tried)?,
    }
    Ok(outcome(&tried))
}

/// Prints what each target allows and what is wrong with it, as `init` does.
pub(super) fn print_tried(targets: &[TriedTarget]) -> Result<(), Failure> {
    for target in targets {
        let name = &target.name;
        if let Some(allowed) = &target.may {
            let held = match target.snapshots {
                Some(held @ 1..) => format!("; {} there", output::count(held, "snapshot")),
                _ => String::new(),
            };
            output::print_line(format_args!("target   {name}: {}{held}", allowed.words))?;
        }
        if let Some(problem) = &target.problem {
            output::print_line(format_args!("target   {name}: ATTENTION: {problem}"))?;
        }
    }
    Ok(())
}

fn outcome(targets: &[TriedTarget]) -> Outcome {
    match targets.iter().all(|target| target.problem.is_none()) {
        true => Outcome::Complete,
        false => Outcome::Partial,
    }
}

fn list(context: &Context) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let url = |target: &TargetConfig| TargetSpec::from_url(&target.url).label();
    if context.json {
        let rows = config.targets.iter();
        let rows = rows.map(|target| json!({ "name": target.name, "url": url(target) }));
        output::print_json(&rows.collect::<Vec<_>>())?;
        return Ok(Outcome::Complete);
    }
    let rows = config.targets.iter();
    let rows: Vec<Vec<String>> = rows
        .map(|target| vec![target.name.clone(), url(target)])
        .collect();
    output::write_stdout(output::table(&["TARGET", "URL"], &rows).as_bytes())?;
    Ok(Outcome::Complete)
}
