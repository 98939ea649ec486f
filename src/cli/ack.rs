//! `ack`: acknowledges a finding of `status`.

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output;
use crate::jobs::acknowledge::{self, AckReport, AckRequest};
use crate::jobs::shrunk;

#[derive(Debug, Args)]
pub(super) struct AckArgs {
    /// The code of the finding, as `status` shows it, such as shrunk
    #[arg(value_name = "CODE")]
    code: String,
    /// Only findings about this target
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Only findings about this source
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// The reason; it is kept in the state directory
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub(super) fn run(context: &Context, args: &AckArgs) -> Result<Outcome, Failure> {
    let request = AckRequest {
        code: &args.code,
        target: args.target.as_deref(),
        source: args.source.as_deref(),
        note: args.note.as_deref(),
    };
    request.check()?;
    let report = acknowledge::run(&context.load_config()?, &request, context)?;
    match context.json {
        true => output::print_json(&report)?,
        false => print(context, args, &report)?,
    }
    Ok(Outcome::Complete)
}

fn print(context: &Context, args: &AckArgs, report: &AckReport) -> Result<(), Failure> {
    for one in &report.acknowledged {
        output::print_line(format_args!(
            "acknowledged: {}. Later runs compare with the present figures, and retention may delete snapshot {}",
            shrunk::losses(&[one]),
            shrunk::shown(&one.before),
        ))?;
    }
    for finding in &report.findings {
        let text = &finding.text;
        output::print_line(format_args!(
            "acknowledged: {text}. If it ends and comes back, or gets worse, it is reported again"
        ))?;
    }
    if args.code != shrunk::CODE {
        if report.findings.is_empty() {
            let of = args.target.as_deref();
            let of = of.map_or_else(String::new, |target| format!(" about {target}"));
            output::print_line(format_args!(
                "no finding {}{of} is open: `sealift status` looks again",
                args.code
            ))?;
        }
        return Ok(());
    }
    if report.acknowledged.is_empty() {
        let of = args
            .source
            .as_deref()
            .map_or_else(String::new, |source| format!(" of {source}"));
        output::print_line(format_args!("nothing{of} shrank that was not acknowledged"))?;
    }
    if !report.still_open.is_empty() {
        let open = output::count(report.still_open.len() as u64, "figure");
        context.note(format_args!(
            "still open: {open} of other sources; `sealift status` shows them"
        ));
    }
    Ok(())
}
