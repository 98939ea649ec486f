//! The text that `verify` prints: a line for each target, its problems, repairs, and the next step.

use super::super::failure::Failure;
use super::super::{output, verdict};
use super::VerifyArgs;
use crate::format::index::Skipped;
use crate::jobs::verify::report::{
    FoundThere, ProblemReport, RestoreTrial, VerifiedTarget, VerifyReport,
};

/// Most problems of one kind that are shown one after the other; `--json` has all.
const MOST_PROBLEMS: usize = 20;
/// Most skipped paths of a snapshot that are shown.
const MOST_SKIPPED: usize = 5;

pub(super) fn print(args: &VerifyArgs, report: &VerifyReport) -> Result<(), Failure> {
    for target in &report.targets {
        let line = match (&target.failure, &target.found) {
            (Some(failure), _) => format!("{}: NOT VERIFIED: {failure}", target.label),
            (None, Some(found)) => summary(args, target, found),
            (None, None) => continue,
        };
        verdict::print_line(line)?;
        print_problems(args, &target.problems)?;
        for line in &target.repaired {
            output::print_line(format_args!("  repair: {line}"))?;
        }
        for restored in &target.restored {
            output::print_line(format_args!("  {}", restore_line(restored)))?;
        }
        for note in &target.notes {
            output::print_line(format_args!("  {note}"))?;
        }
    }
    Ok(())
}

/// Prints problems with the same next step after each other, and that step once below them.
fn print_problems(args: &VerifyArgs, problems: &[ProblemReport]) -> Result<(), Failure> {
    for alike in problems.chunk_by(|a, b| a.next == b.next) {
        for problem in alike.iter().take(MOST_PROBLEMS) {
            output::print_line(format_args!("  {}", problem.what))?;
        }
        if let Some(more) = alike.len().checked_sub(MOST_PROBLEMS + 1) {
            output::print_line(format_args!("  and {} more like this", more + 1))?;
        }
        // The lines on repairs follow below.
        if let Some(first) = alike.first()
            && !(args.repair && first.is_repairable)
        {
            output::print_line(format_args!("    next: {}", first.next))?;
        }
    }
    Ok(())
}

fn summary(args: &VerifyArgs, target: &VerifiedTarget, found: &FoundThere) -> String {
    let state = match target.problems.is_empty() {
        true => "ok",
        false => "ATTENTION",
    };
    let mut text = format!(
        "{}: {state}: {}, {} ({}) complete",
        target.label,
        output::count(found.snapshots as u64, "snapshot"),
        output::count(found.archives as u64, "archive"),
        output::size(found.archive_bytes),
    );
    if args.data.is_some() {
        let read = output::count(target.read_archives, "archive");
        let bytes = output::size(target.read_bytes);
        text += &format!("; {read} ({bytes}) read and hashed");
        if target.read_before > 0 {
            text += &format!(", {} before this run broke off earlier", target.read_before);
        }
    }
    if target.frozen_archives > 0 {
        let archives = output::count(target.frozen_archives, "archive");
        let size = output::size(target.frozen_bytes);
        text += &format!("; {archives} ({size}) in cold storage, which cannot be read now");
    }
    if let (Some(objects @ 1..), Some(bytes)) = (found.stray_objects, found.stray_bytes) {
        let (objects, size) = (
            output::count(objects, "unreferenced object"),
            output::size(bytes),
        );
        text += &format!("; {objects} ({size})");
    }
    text
}

/// Returns a line for each thing that the snapshot was made without.
fn lacking(lacks: &[Skipped]) -> String {
    let line = |one: &Skipped| {
        let path = output::printable(one.path.as_bytes());
        format!("\n  it was made without {path}: {}", one.reason)
    };
    let mut text: String = lacks.iter().take(MOST_SKIPPED).map(line).collect();
    if let more @ 1.. = lacks.len().saturating_sub(MOST_SKIPPED) {
        text.push_str(&format!("\n  and without {more} more"));
    }
    text
}

fn restore_line(restored: &RestoreTrial) -> String {
    match restored {
        RestoreTrial::Good {
            stamp,
            files,
            bytes,
            databases,
            lacks,
        } => {
            let checked = match databases {
                0 => String::new(),
                n => format!(", {} checked", output::count(*n, "database")),
            };
            let (files, size) = (output::count(*files, "file"), output::size(*bytes));
            format!(
                "snapshot {stamp} was restored and removed again: {files}, {size}, every byte verified{checked}{}",
                lacking(lacks)
            )
        }
        RestoreTrial::Frozen {
            stamp,
            frozen_archives,
            frozen_bytes,
        } => format!(
            "snapshot {stamp} was not restored: {} ({}) in cold storage; `sealift restore --thaw` requests them",
            output::count(*frozen_archives, "archive"),
            output::size(*frozen_bytes)
        ),
        RestoreTrial::Wrong { what } => what.clone(),
    }
}
