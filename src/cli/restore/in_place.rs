//! `restore --in-place` and `restore --resume`: shows the plan, asks, and prints what came of it.

use clap::Args;
use serde_json::json;

use super::super::Context;
use super::super::failure::{Failure, Outcome};
use super::super::output::{self, count, size};
use super::super::terminal;
use super::{IN_PLACE, RestoreArgs, content, push};
use crate::config::{Config, Preserve};
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::InPlaceContent;
use crate::jobs::restore_in_place::{
    self, Because, InPlacePlan, InPlaceRefusal, InPlaceReport, InPlaceRequest, PreparedRestore,
    ResumeRequest, UnpreparedRestore, code,
};

/// The options of a restore in place.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct InPlaceArgs {
    /// Restore to where the sources are, from this host's snapshots: stop the service, keep the
    /// old content, put the new in place, start, check, and go back if a check fails
    #[arg(long, conflicts_with_all = ["paths", "overwrite", "devices"], help_heading = IN_PLACE)]
    pub(super) in_place: bool,
    /// Only this source; can be repeated
    #[arg(long, value_name = "NAME", requires = "in_place", help_heading = IN_PLACE)]
    only: Vec<String>,
    /// Do not ask
    #[arg(long, requires = "in_place", help_heading = IN_PLACE)]
    yes: bool,
    /// Leave the service stopped, and do not check it
    #[arg(long, requires = "in_place", help_heading = IN_PLACE)]
    no_start: bool,
    /// Run no checks
    #[arg(long, help_heading = IN_PLACE)]
    no_checks: bool,
    /// Leave the service stopped after a failure
    #[arg(long, help_heading = IN_PLACE)]
    keep_down: bool,
    /// Keep the old content by moving it, or keep a copy of it [default: as in [restore]]
    #[arg(long, value_name = "HOW", requires = "in_place", value_parser = ["move", "copy"], help_heading = IN_PLACE)]
    preserve: Option<String>,
    /// Restore a snapshot that another host made, or that was made from other paths
    #[arg(long, requires = "in_place", help_heading = IN_PLACE)]
    from_other_host: bool,
    /// With --resume, while the system boots: make the data one state, and start nothing
    #[arg(long, requires = "resume", conflicts_with = "to", help_heading = IN_PLACE)]
    boot: bool,
}

/// Sources that a summary names.
const DRY_RUN_NOTE: &str = "note: this was a dry run: nothing was copied, stopped or changed";

impl InPlaceArgs {
    /// Returns the options that a restore by push passes on to the other host.
    fn passed_on(&self, dry_run: bool) -> push::RemoteOptions {
        let flags = [
            (dry_run, "--dry-run"),
            (self.no_start, "--no-start"),
            (self.no_checks, "--no-checks"),
            (self.keep_down, "--keep-down"),
            (self.from_other_host, "--from-other-host"),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(given, flag)| given.then_some(flag));
        push::RemoteOptions {
            only: self.only.clone(),
            flags: flags.collect(),
            preserve: self.preserve.clone(),
        }
    }
}

/// Restores in place.
pub(super) fn run(context: &Context, args: &RestoreArgs) -> Result<Outcome, Failure> {
    let place = &args.place;
    if let Some(via) = &args.content.via {
        return push::run(context, args, via, place.passed_on(args.dry_run));
    }
    let config = context.load_config()?;
    let request = InPlaceRequest {
        only: place.only.clone(),
        preserve: place.preserve.as_deref().map(|how| match how {
            "copy" => Preserve::Copy,
            _ => Preserve::Move,
        }),
        starts: !place.no_start,
        checks: !place.no_checks,
        keeps_down: place.keep_down,
        from_other_host: place.from_other_host,
    };
    let choice = args.narrow.narrow(&args.snapshot)?;
    let content = content::content(context, args, &config, &choice, &place.only)?;
    let prepared = prepare(context, &config, &request, content, place.yes)?;
    if args.dry_run {
        return print_plan(context, &prepared.plan);
    }
    agree(context, place, &prepared)?;
    let report = restore_in_place::run(prepared, context)?;
    conclude(context, &report)
}

/// Plans the restore. A person may want content of another deployment.
fn prepare<'a>(
    context: &Context,
    config: &'a Config,
    request: &InPlaceRequest,
    content: InPlaceContent,
    is_agreed: bool,
) -> Result<PreparedRestore<'a>, Failure> {
    let unprepared = match restore_in_place::prepare(config, request, content, context) {
        Ok(prepared) => return Ok(prepared),
        Err(unprepared) => unprepared,
    };
    let UnpreparedRestore { error, content } = *unprepared;
    let because = refusal(&error).unwrap_or_default();
    let [only] = &because[..] else {
        return Err(refused(context, error));
    };
    let asks = only.code == code::WRONG_DEPLOYMENT && !is_agreed && terminal::is_interactive();
    if !asks || !terminal::confirm(&format!("{only}. Restore it in spite of that?"))? {
        return Err(refused(context, error));
    }
    let request = InPlaceRequest {
        from_other_host: true,
        ..request.clone()
    };
    restore_in_place::prepare(config, &request, content, context)
        .map_err(|unprepared| refused(context, unprepared.error))
}

fn refusal(error: &JobError) -> Option<Vec<Because>> {
    let refusal = error.error().downcast_ref::<InPlaceRefusal>();
    refusal.map(|refusal| refusal.because.clone())
}

/// Returns the failure of a restore that did not begin, and sets its report.
fn refused(context: &Context, error: JobError) -> Failure {
    let Some(because) = refusal(&error) else {
        return error.into();
    };
    if context.json {
        let _ = output::print_json(&json!({ "state": "refused", "because": because }));
    }
    failure("nothing was changed", &because)
}

/// Makes the failure of these reasons: the first one with its next step, the others before it.
fn failure(outcome: &str, because: &[Because]) -> Failure {
    let Some((last, others)) = because.split_last() else {
        return Failure::from_error(outcome.to_owned());
    };
    for one in others {
        output::tell(format_args!("{one}"));
        if !one.next.is_empty() {
            output::tell(format_args!("  next: {}", one.next));
        }
    }
    let failure = Failure::from_error(format!("{last}; {outcome}"));
    match last.next.is_empty() {
        true => failure,
        false => failure.hint(last.next.clone()),
    }
}

/// Shows the plan and asks. Without a terminal `--yes` is needed.
fn agree(
    context: &Context,
    place: &InPlaceArgs,
    prepared: &PreparedRestore<'_>,
) -> Result<(), Failure> {
    if place.yes {
        plan_lines(&prepared.plan)
            .iter()
            .for_each(|line| context.note(line));
        return Ok(());
    }
    if !terminal::is_interactive() {
        return Err(Failure::usage(
            "a restore in place replaces live data, and there is no terminal to ask on",
        )
        .hint("look at the plan with --dry-run, then say --yes"));
    }
    plan_lines(&prepared.plan).iter().for_each(output::tell);
    match terminal::confirm("Restore in place as above?")? {
        true => Ok(()),
        false => Err(Failure::from_error("not confirmed; nothing was changed")),
    }
}

fn print_plan(context: &Context, plan: &InPlacePlan) -> Result<Outcome, Failure> {
    match context.json {
        true => {
            let report = plan.report();
            output::print_json(&json!({
                "state": "planned", "stamp": report.stamp, "host": report.host,
                "origin": report.origin, "items": report.items, "left": report.left,
                "warnings": report.warnings, "safety_copy": report.safety_copy,
                "stop": plan.stop, "start": plan.start, "checks": plan.checks,
            }))?;
        }
        false => plan_lines(plan).iter().try_for_each(output::print_line)?,
    }
    context.note(DRY_RUN_NOTE);
    Ok(Outcome::Complete)
}

/// Describes the plan.
fn plan_lines(plan: &InPlacePlan) -> Vec<String> {
    let host = match plan.host.as_str() {
        "" => String::new(),
        host => format!(" of host {host}"),
    };
    let mut lines = vec![format!(
        "snapshot {}{host}, from {}",
        plan.stamp, plan.origin
    )];
    for item in &plan.items {
        let new = format!("{}, {}", count(item.files, "file"), size(item.bytes));
        let path = item.live.display();
        lines.push(match &item.old {
            None => format!("  {}: {path} is new: {new}", item.name),
            Some(old) => format!(
                "  {}: {path}, {}, is replaced by {new}",
                item.name,
                size(old.bytes)
            ),
        });
        if item.old.is_some() {
            let verb = if item.copies { "copied to" } else { "moved to" };
            lines.push(format!(
                "    the old content is {verb} {}",
                item.safety.path().display()
            ));
        }
        if item.old.is_some() && item.leaves_out {
            let line = "    what its `exclude` keeps out of snapshots leaves the live path with the old content";
            lines.push(line.to_owned());
        }
    }
    for left in &plan.left {
        lines.push(format!("  {} stays as it is: {}", left.name, left.why));
    }
    for warning in &plan.warnings {
        lines.push(format!("  warning: {warning}"));
    }
    let command = |verb: &str, line: &Option<String>| match line {
        Some(line) => format!("  {verb}: {line}"),
        None => format!("  {verb}: no command is configured"),
    };
    lines.push(command("stop", &plan.stop));
    lines.push(command("start", &plan.start));
    lines.push(match plan.checks.is_empty() {
        true => "  checks: none".to_owned(),
        false => format!("  checks: {}", plan.checks.join(", ")),
    });
    lines
}

/// Finishes or undoes a restore that was interrupted.
pub(super) fn resume(context: &Context, place: &InPlaceArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let request = ResumeRequest {
        is_boot: place.boot,
        checks: !place.no_checks,
        keeps_down: place.keep_down,
    };
    match restore_in_place::resume(&config, request, context)? {
        Some(report) if place.boot && report.is_one_state() => {
            context.report_restore(&report);
            print(context, &report)?;
            Ok(Outcome::Complete)
        }
        Some(report) => conclude(context, &report),
        None => {
            match context.json {
                true => output::print_json(&json!({ "state": "none" }))?,
                false => {
                    output::print_line("no restore in place was interrupted: nothing to finish")?
                }
            }
            Ok(Outcome::Complete)
        }
    }
}

/// Prints the report of a restore or a rollback, and picks the outcome.
pub(in crate::cli) fn conclude(
    context: &Context,
    report: &InPlaceReport,
) -> Result<Outcome, Failure> {
    context.report_restore(report);
    print(context, report)?;
    if report.is_committed() && report.because.is_empty() {
        return Ok(match report.warnings.is_empty() {
            true => Outcome::Complete,
            false => Outcome::Partial,
        });
    }
    let copy = report.safety_copy.as_deref();
    let kept = copy.map_or(String::new(), |copy| format!("; the safety copy is {copy}"));
    let outcome = match (report.state.name(), report.is_open()) {
        ("rolled_back", _) => format!("the old content is back in place{kept}"),
        ("undone", _) => "the old content is in place".to_owned(),
        ("committed", _) => format!("the restored content stays in place{kept}"),
        (state, _) => format!("the restore is open, at the step {state}{kept}"),
    };
    Err(failure(&outcome, &report.because))
}

fn print(context: &Context, report: &InPlaceReport) -> Result<(), Failure> {
    if context.json {
        return Ok(output::print_json(report)?);
    }
    for warning in &report.warnings {
        output::tell(format_args!("warning: {warning}"));
        if !warning.next.is_empty() {
            output::tell(format_args!("  next: {}", warning.next));
        }
    }
    let results = report.checks.iter().chain(&report.checks_after_rollback);
    for result in results {
        let verdict = if result.passed { "passed" } else { "FAILED" };
        context.note(format_args!(
            "check {}: {verdict}: {}",
            result.name, result.found
        ));
    }
    if !report.is_committed() || !report.because.is_empty() {
        return Ok(());
    }
    let items = report.items.iter().map(|item| item.name.as_str());
    let down = report.downtime_seconds.map_or(String::new(), |seconds| {
        format!("; the service was down for {seconds:.1} s")
    });
    output::print_line(format_args!(
        "restored {} of snapshot {} in place{down}",
        items.collect::<Vec<_>>().join(", "),
        report.stamp
    ))?;
    if let Some(copy) = &report.safety_copy {
        output::print_line(format_args!(
            "the old content is in {copy}; `sealift rollback` brings it back"
        ))?;
    }
    Ok(())
}
