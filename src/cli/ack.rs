//! `ack`: somebody looked at a finding, and it is as it should be.
//!
//! One instance is acknowledged, never a code: the next time it is true it is told again.

use clap::Args;
use serde_json::json;

use super::failure::{Failure, Outcome};
use super::shrunk::{self, CODE};
use super::{Context, output};
use crate::base::clock;
use crate::config::Config;
use crate::state::figures::{self, Memory, OpenAlarm};

/// Codes of findings that can be acknowledged.
const CODES: &[&str] = &[CODE];

#[derive(Debug, Args)]
pub struct AckArgs {
    /// The code of the finding, as `status` shows it: shrunk
    #[arg(value_name = "CODE")]
    code: String,
    /// Only what is about this target
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only what is about this source
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Why; it is kept with the host's memory of its sources
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub fn run(context: &Context, args: &AckArgs) -> Result<Outcome, Failure> {
    if !CODES.contains(&args.code.as_str()) {
        let text = format!("no finding {:?} can be acknowledged", args.code);
        let known = CODES.join(", ");
        return Err(Failure::usage(text).hint(format!("the codes are: {known}")));
    }
    if let Some(target) = &args.target {
        let text = format!("{CODE} is about a source, and never about a target such as {target:?}");
        return Err(Failure::usage(text).hint("name a source with --source, or leave --target out"));
    }
    let config = context.load_config()?;
    // Held: a backup that is under way writes the same file.
    let state = context.open_state(&config)?;
    let mut memory = figures::load(&state.dir)?.unwrap_or_default();
    if let Some(source) = &args.source {
        check_source(&config, &memory, source)?;
    }
    let note = args.note.as_deref();
    let closed = memory.acknowledge(args.source.as_deref(), note, clock::now());
    if !closed.is_empty() {
        figures::save(&state.dir, &memory)?;
    }
    print(context, args, &closed, memory.open())?;
    Ok(Outcome::Complete)
}

fn check_source(config: &Config, memory: &Memory, name: &str) -> Result<(), Failure> {
    let mut sources = config.sources.iter();
    let is_configured = sources.any(|source| source.name == name || source.to == name);
    if is_configured || memory.knows(name) {
        return Ok(());
    }
    let names = config.sources.iter().map(|source| source.name.as_str());
    let names: Vec<&str> = names.collect();
    let text = format!("no source is named {name:?}");
    Err(Failure::usage(text).hint(format!("there is {}", names.join(", "))))
}

fn print(
    context: &Context,
    args: &AckArgs,
    closed: &[OpenAlarm],
    still_open: &[OpenAlarm],
) -> Result<(), Failure> {
    if context.json {
        return Ok(output::print_json(&json!({
            "code": args.code, "acknowledged": closed, "note": args.note, "still_open": still_open,
        }))?);
    }
    for one in closed {
        output::print_line(format_args!(
            "acknowledged: {}. Later runs compare with the present figures, and retention may delete snapshot {}",
            shrunk::losses(&[one]),
            shrunk::shown(&one.before),
        ))?;
    }
    if closed.is_empty() {
        let of = args
            .source
            .as_deref()
            .map_or_else(String::new, |source| format!(" of {source}"));
        output::print_line(format_args!("nothing{of} shrank that was not acknowledged"))?;
    }
    if !still_open.is_empty() {
        let open = output::count(still_open.len() as u64, "figure");
        context.note(format_args!(
            "still open: {open} of other sources; `sealift status` shows them"
        ));
    }
    Ok(())
}
