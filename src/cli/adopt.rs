//! `adopt`: this machine takes over a host's name.

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use super::terminal;
use crate::format::manifest::MAX_SEQUENCE;
use crate::jobs::adopt::{self, AdoptReport};

#[derive(Debug, Args)]
pub(super) struct AdoptArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Continue from this sequence when no target can be read (write-only credentials); 0: this
    /// host never pushed
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(..MAX_SEQUENCE))]
    after: Option<u64>,
}

pub(super) fn run(context: &Context, args: &AdoptArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    if let Some(sequence) = args.after {
        adopt::continue_after(&config, sequence, context)?;
        context.note(format_args!(
            "the next snapshot of {} has sequence {} or a later one",
            config.host,
            sequence + 1
        ));
        if context.json {
            output::print_json(&AdoptReport {
                host: config.host.clone(),
                adopted: Vec::new(),
            })?;
        }
        return Ok(Outcome::Complete);
    }
    let question = format!(
        "From now on this machine pushes as {}. Is the machine that did so before gone for good?",
        config.host
    );
    if !args.yes {
        if !terminal::is_interactive() {
            return Err(
                Failure::usage("adopt must be confirmed").hint("give --yes if you are sure")
            );
        }
        if !terminal::confirm(&question)? {
            return Err(Failure::from_error("nothing was adopted"));
        }
    }
    let report = adopt::run(&config, context)?;
    if context.json {
        output::print_json(&report)?;
    } else if report.adopted.is_empty() {
        output::print_line(
            "nothing to adopt: the targets have no snapshot that this machine does not know",
        )?;
    } else {
        for name in &report.adopted {
            output::print_line(format_args!("adopted {name}"))?;
        }
    }
    Ok(Outcome::Complete)
}
