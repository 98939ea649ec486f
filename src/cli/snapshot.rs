//! `snapshot` and `validate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::backup::{BackupArgs, local_snapshot, local_snapshots, not_produced, print_left_out};
use super::failure::{Failure, Outcome};
use super::output;
use crate::producer;
use crate::state::staged_snapshot::LeftOut;

#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    produce: BackupArgs,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Which snapshot of the snapshots directory
    #[arg(default_value = "latest")]
    stamp: String,
    /// Validate this snapshot directory instead, made by whatever tool
    #[arg(long, value_name = "DIR", conflicts_with = "stamp")]
    dir: Option<PathBuf>,
}

pub fn run(context: &Context, args: &SnapshotArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let _state = context.open_state(&config)?;
    let request = args.produce.request(local_snapshots(&config)?);
    let produced = producer::produce(&config, &request).map_err(not_produced)?;
    for warning in &produced.warnings {
        output::tell(format_args!("warning: {warning}"));
    }
    for note in &produced.notes {
        context.note(note);
    }
    let left_out = &produced.snapshot.left_out;
    print_left_out(left_out);
    let named: Vec<_> = left_out.iter().map(LeftOut::skipped).collect();
    let others = produced.snapshot.skipped.iter();
    for skipped in others.filter(|one| !named.contains(one)) {
        output::tell(format_args!(
            "skipped: {}: {}",
            output::printable(skipped.path.as_bytes()),
            skipped.reason
        ));
    }
    if context.json {
        output::print_json(&produced.metadata)?;
    } else {
        output::print_line(produced.dir.display())?;
    }
    Ok(match produced.snapshot.skipped.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

pub fn validate(context: &Context, args: &ValidateArgs) -> Result<Outcome, Failure> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => local_snapshot(&context.load_config()?, &args.stamp)?,
    };
    let validation = producer::validate(&dir);
    if context.json {
        output::print_json(&json!({
            "snapshot": dir.display().to_string(),
            "valid": validation.valid,
            "errors": validation.errors,
            "details": validation.details,
            "databases": validation.databases,
            "unchecked": validation.unchecked,
            "left_out": validation.left_out,
        }))?;
    } else {
        output::print_line(format_args!(
            "{}: {}",
            dir.display(),
            if validation.valid {
                "valid"
            } else {
                "NOT VALID"
            }
        ))?;
        for line in validation.errors.iter().chain(&validation.details) {
            output::print_line(format_args!("  {line}"))?;
        }
        for one in &validation.left_out {
            output::print_line(format_args!("  it lacks {}: {}", one.to, one.reason()))?;
        }
    }
    match validation.valid {
        true if validation.unchecked.is_empty() && validation.left_out.is_empty() => {
            Ok(Outcome::Complete)
        }
        true => Ok(Outcome::Partial),
        false => Err(
            Failure::from_error(format!("{} is not valid", dir.display())).hint(
                "take a fresh snapshot; if it fails twice, suspect the disk or the source itself",
            ),
        ),
    }
}
