//! `rollback`: brings back the content that a restore in place replaced; lists such restores and
//! deletes their safety copies.

use clap::Args;

use super::Context;
use super::failure::{Failure, Outcome};
use super::output::{self, size};
use super::restore::in_place;
use super::terminal;
use crate::config::Config;
use crate::jobs::restore_in_place::{self, PastRestore, RollbackRequest};

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The restore to undo, as `rollback --list` shows it [default: the newest]
    id: Option<String>,
    /// Show every restore in place, and where its safety copy is
    #[arg(long, conflicts_with_all = ["id", "clean", "yes", "discard_changes", "no_start", "no_checks"])]
    list: bool,
    /// Delete the safety copies that are older than `keep_preserved` in [restore]
    #[arg(long, conflicts_with_all = ["id", "yes", "discard_changes", "no_start", "no_checks"])]
    clean: bool,
    /// Give up what was changed since the restore; it is moved to post-restore-STAMP
    #[arg(long)]
    discard_changes: bool,
    /// Leave the service stopped, and do not check it
    #[arg(long)]
    no_start: bool,
    /// Run no checks
    #[arg(long)]
    no_checks: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl RollbackArgs {
    /// Whether it brings content back.
    pub(super) fn is_rollback(&self) -> bool {
        !self.list && !self.clean
    }

    /// Whether it deletes safety copies.
    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }
}

pub(super) fn run(context: &Context, args: &RollbackArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    if args.list {
        return list(context, &config);
    }
    if args.clean {
        return clean(context, &config);
    }
    let request = RollbackRequest {
        id: args.id.clone(),
        discards_changes: args.discard_changes,
        starts: !args.no_start,
        checks: !args.no_checks,
    };
    let found = restore_in_place::rollback_plan(&config, &request)?;
    let plan = &found.plan;
    let mut lines = vec![format!(
        "the restore {} of snapshot {} is undone:",
        plan.id, plan.stamp
    )];
    lines.extend(plan.items.iter().map(|item| match &item.old {
        Some(_) => format!(
            "  {} comes back from {}",
            item.live.display(),
            item.safety.path().display()
        ),
        None => format!(
            "  {} is moved away: nothing was there before",
            item.live.display()
        ),
    }));
    if !args.yes {
        if !terminal::is_interactive() {
            return Err(Failure::usage(
                "a rollback replaces live data, and there is no terminal to ask on",
            )
            .hint("say --yes"));
        }
        lines.iter().for_each(output::tell);
        if !terminal::confirm("Bring the old content back?")? {
            return Err(Failure::from_error("not confirmed; nothing was changed"));
        }
    } else {
        lines.iter().for_each(|line| context.note(line));
    }
    let report = restore_in_place::rollback(&config, &request, context)?;
    let is_back = matches!(report.state.name(), "rolled_back" | "undone");
    // That it was interrupted is why it is undone; any other reason is a failure.
    let has_failed = report.because.iter().any(|one| !one.is_interruption());
    match is_back && !has_failed {
        false => in_place::conclude(context, &report),
        _ => {
            context.report_restore(&report);
            match context.json {
                true => output::print_json(&report)?,
                false => output::print_line(format_args!(
                    "the content from before the restore of snapshot {} is back in place",
                    report.stamp
                ))?,
            }
            if let (Some(copy), false) = (&report.failed_copy, context.json) {
                output::print_line(format_args!("the restored content is in {copy}"))?;
            }
            Ok(Outcome::Complete)
        }
    }
}

fn list(context: &Context, config: &Config) -> Result<Outcome, Failure> {
    let found = restore_in_place::list(config)?;
    let outcome = match found.damaged.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    };
    for damaged in &found.damaged {
        output::tell(format_args!(
            "warning: the restore {} cannot be shown: {}; its safety copy is not deleted. Look at {}",
            damaged.id, damaged.why, damaged.directory
        ));
    }
    if context.json {
        output::print_json(&found)?;
        return Ok(outcome);
    }
    if found.restores.is_empty() {
        if found.damaged.is_empty() {
            output::print_line("no restore in place was made on this host")?;
        }
        return Ok(outcome);
    }
    let rows: Vec<Vec<String>> = found.restores.iter().map(row).collect();
    let table = output::table(&["RESTORE", "BEGAN", "SNAPSHOT", "STATE"], &rows);
    let mut lines = table.lines();
    lines.next().map(output::print_line).transpose()?;
    for (line, one) in lines.zip(&found.restores) {
        output::print_line(line)?;
        details(one).iter().try_for_each(output::print_line)?;
    }
    Ok(outcome)
}

fn row(one: &PastRestore) -> Vec<String> {
    vec![
        one.id.clone(),
        one.began_at.format("%Y-%m-%d %H:%M").to_string(),
        one.stamp.to_string(),
        one.state.name().to_owned(),
    ]
}

/// Returns the lines below a restore in the list: a path has no room in a column.
fn details(one: &PastRestore) -> Vec<String> {
    let mut lines = vec![format!("  sources: {}", one.sources.join(", "))];
    let copies = [
        ("safety copy", &one.safety_copy),
        ("restored content", &one.failed_copy),
    ];
    for (what, copy) in copies {
        lines.extend(copy.as_ref().map(|copy| format!("  {what}: {copy}")));
    }
    let from = one.deletable_from.filter(|_| one.kept_bytes > 0);
    lines.extend(from.map(|from| {
        let (bytes, from) = (size(one.kept_bytes), from.format("%Y-%m-%d"));
        format!("  {bytes}, which may be deleted from {from} on")
    }));
    lines
}

fn clean(context: &Context, config: &Config) -> Result<Outcome, Failure> {
    let report = restore_in_place::clean(config)?;
    if context.json {
        output::print_json(&report)?;
        return Ok(Outcome::Complete);
    }
    for one in &report.cleaned {
        let copies = [&one.safety_copy, &one.failed_copy];
        for copy in copies.into_iter().flatten() {
            output::print_line(format_args!("deleted {copy}"))?;
        }
    }
    for one in &report.kept {
        if let (Some(copy), Some(from)) = (&one.safety_copy, one.deletable_from) {
            let from = from.format("%Y-%m-%d");
            context.note(format_args!("{copy} stays until {from}"));
        }
    }
    match report.cleaned.len() {
        0 => output::print_line("no safety copy is old enough to be deleted")?,
        _ => output::print_line(format_args!("{} freed", size(report.freed_bytes)))?,
    }
    Ok(Outcome::Complete)
}
