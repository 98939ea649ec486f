//! `incident`: marks that something touched the storage.

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use crate::base::clock;
use crate::jobs::operator_marks;

#[derive(Debug, Args)]
pub(super) struct IncidentArgs {
    /// What happened; it is kept in the state directory
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub(super) fn run(context: &Context, args: &IncidentArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let marked = operator_marks::mark_incident(&config, args.note.as_deref(), clock::now())?;
    match context.json {
        true => output::print_json(&marked)?,
        false => output::print_line(
            "marked: the next backup reads every database again and checks it with integrity_check; a proof from before \
             does not count any more",
        )?,
    }
    Ok(Outcome::Complete)
}
