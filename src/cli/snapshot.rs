//! `snapshot` and `validate`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Context;
use super::backup::{BackupArgs, print_left_out};
use super::failure::{Failure, Outcome};
use super::output;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::index::DatabaseRecord;
use crate::jobs::backup::report::skipped_beside;
use crate::jobs::{backup, local_snapshots};
use crate::producer::{self, Validation};
use crate::state::staged_snapshot::LeftOut;

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    produce: BackupArgs,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// latest, a stamp, a sequence, or a time such as yesterday
    #[arg(value_name = "SNAPSHOT", default_value = "latest", value_parser = SnapshotChoice::parse)]
    stamp: SnapshotChoice,
    /// Validate this snapshot directory instead, created by any tool
    #[arg(long, value_name = "DIR", conflicts_with = "stamp")]
    dir: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &SnapshotArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let produced = backup::produce(&config, &args.produce.request(), context)?;
    let snapshot = &produced.snapshot;
    print_left_out(&snapshot.left_out);
    for skipped in skipped_beside(&snapshot.left_out, &snapshot.skipped) {
        output::tell(format_args!(
            "skipped: {}: {}",
            output::printable(skipped.path.as_bytes()),
            skipped.reason
        ));
    }
    match context.json {
        true => output::print_json(&produced.metadata)?,
        false => output::print_line(produced.dir.display())?,
    }
    Ok(match snapshot.skipped.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// What `validate` found.
#[derive(Debug, Serialize)]
struct ValidationReport<'a> {
    /// The snapshot's directory.
    snapshot: &'a str,
    valid: bool,
    errors: &'a [String],
    details: &'a [String],
    databases: &'a [DatabaseRecord],
    unchecked: &'a [String],
    left_out: &'a [LeftOut],
}

impl<'a> ValidationReport<'a> {
    fn of(snapshot: &'a str, validation: &'a Validation) -> Self {
        Self {
            snapshot,
            valid: validation.valid,
            errors: &validation.errors,
            details: &validation.details,
            databases: &validation.databases,
            unchecked: &validation.unchecked,
            left_out: &validation.left_out,
        }
    }
}

pub(super) fn validate(context: &Context, args: &ValidateArgs) -> Result<Outcome, Failure> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => local_snapshots::find(&context.load_config()?, &args.stamp, context)?,
    };
    let validation = producer::validate(&dir);
    let shown = dir.display().to_string();
    match context.json {
        true => output::print_json(&ValidationReport::of(&shown, &validation))?,
        false => print_validation(&shown, &validation)?,
    }
    match validation.valid {
        true if validation.unchecked.is_empty() && validation.left_out.is_empty() => {
            Ok(Outcome::Complete)
        }
        true => Ok(Outcome::Partial),
        false => Err(Failure::from_error(format!("{shown} is not valid")).hint(
            "take a fresh snapshot; if it fails twice, suspect the disk or the source itself",
        )),
    }
}

fn print_validation(snapshot: &str, validation: &Validation) -> Result<(), Failure> {
    let verdict = match validation.valid {
        true => "valid",
        false => "NOT VALID",
    };
    output::print_line(format_args!("{snapshot}: {verdict}"))?;
    for line in validation.errors.iter().chain(&validation.details) {
        output::print_line(format_args!("  {line}"))?;
    }
    for one in &validation.left_out {
        output::print_line(format_args!("  it lacks {}: {}", one.to, one.reason()))?;
    }
    Ok(())
}
