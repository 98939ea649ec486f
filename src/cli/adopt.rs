//! `adopt`: this machine takes over a host's name.

use clap::Args;
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use super::target_args;
use super::terminal;
use crate::format::manifest::MAX_SEQUENCE;
use crate::jobs::push;

#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Go on after this sequence, where no target can be looked at (write-only credentials); 0: this host
    /// never pushed
    #[arg(long, value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(..MAX_SEQUENCE))]
    after: Option<u64>,
}

pub fn run(context: &Context, args: &AdoptArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    if let Some(sequence) = args.after {
        push::begin_after(&context.open_state(&config)?, sequence)?;
        context.note(format_args!(
            "the next snapshot of {} has sequence {} or a later one",
            config.host,
            sequence + 1
        ));
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
    let mut state = context.open_state(&config)?;
    let targets = config
        .targets
        .iter()
        .map(target_args::open_target)
        .collect::<Result<Vec<_>, _>>()?;
    let trust = target_args::own_trust(&config)?;
    let heads = push::adopt(&mut state, &config.host, &targets, &trust)?;
    if context.json {
        output::print_json(&json!({ "host": config.host, "adopted": heads }))?;
    } else if heads.is_empty() {
        output::print_line(
            "nothing to adopt: the targets show nothing that this machine does not know",
        )?;
    } else {
        for head in heads {
            output::print_line(format_args!("adopted {head}"))?;
        }
    }
    Ok(Outcome::Complete)
}
