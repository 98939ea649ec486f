//! What `verify` prints: a line per target, what is wrong with it, what was mended, and the next step.

use serde_json::json;

use super::super::failure::Failure;
use super::super::output;
use super::look::head;
use super::{Verdict, VerifyArgs};
use crate::format::index::Skipped;
use crate::jobs::test_restore::TestRestore;
use crate::scrub::{Examined, Problem};

/// Of one kind, one after the other; --json has all.
const MOST_SHOWN: usize = 20;
const MOST_LACKS: usize = 5;

pub(super) fn print(args: &VerifyArgs, verdicts: &[Verdict]) -> Result<(), Failure> {
    for verdict in verdicts {
        let line = match (&verdict.failure, &verdict.examined) {
            (Some(failure), _) => format!("{}: NOT VERIFIED: {failure}", verdict.label),
            (None, Some(examined)) => summary(args, verdict, examined),
            (None, None) => continue,
        };
        output::print_line(line)?;
        print_problems(args, &verdict.problems)?;
        for line in &verdict.repaired {
            output::print_line(format_args!("  repair: {line}"))?;
        }
        for rehearsal in &verdict.rehearsals {
            output::print_line(format_args!("  {}", told(rehearsal)))?;
        }
        for note in &verdict.notes {
            output::print_line(format_args!("  {note}"))?;
        }
    }
    Ok(())
}

/// Those that ask for the same follow each other, and the next step stands once below them.
fn print_problems(args: &VerifyArgs, problems: &[Problem]) -> Result<(), Failure> {
    for alike in problems.chunk_by(|a, b| a.next() == b.next()) {
        for problem in alike.iter().take(MOST_SHOWN) {
            output::print_line(format_args!("  {problem}"))?;
        }
        if let Some(more) = alike.len().checked_sub(MOST_SHOWN + 1) {
            output::print_line(format_args!("  and {} more like this", more + 1))?;
        }
        // Of what is being mended the lines below tell.
        if let Some(first) = alike.first()
            && !(args.repair && is_mendable(first))
        {
            output::print_line(format_args!("    next: {}", first.next()))?;
        }
    }
    Ok(())
}

fn is_mendable(problem: &Problem) -> bool {
    problem.lost().is_some() || matches!(problem, Problem::Page { .. })
}

fn summary(args: &VerifyArgs, verdict: &Verdict, examined: &Examined) -> String {
    let state = match verdict.problems.is_empty() {
        true => "ok",
        false => "ATTENTION",
    };
    let whole = examined.whole.values().map(|needed| needed.row.bytes).sum();
    let mut text = format!(
        "{}: {state}: {}, {} ({}) there in full",
        verdict.label,
        output::count(examined.chain.snapshots.len() as u64, "snapshot"),
        output::count(examined.whole.len() as u64, "archive"),
        output::size(whole),
    );
    if args.data.is_some() {
        let read = output::count(verdict.read_archives, "archive");
        let bytes = output::size(verdict.read_bytes);
        text += &format!("; {read} ({bytes}) read and hashed");
        if verdict.read_before > 0 {
            text += &format!(
                ", {} before this run broke off earlier",
                verdict.read_before
            );
        }
    }
    if verdict.frozen.0 > 0 {
        let (count, bytes) = verdict.frozen;
        let (archives, size) = (output::count(count, "archive"), output::size(bytes));
        text += &format!("; {archives} ({size}) in cold storage, not to be read now");
    }
    if let Some((count, bytes)) = examined.stray.filter(|(count, _)| *count > 0) {
        let (strays, size) = (output::count(count, "object"), output::size(bytes));
        text += &format!("; {strays} ({size}) that no snapshot needs");
    }
    text
}

/// What the snapshot was made without, a line each.
fn lacking(lacks: &[Skipped]) -> String {
    let line = |one: &Skipped| {
        let path = output::printable(one.path.as_bytes());
        format!("\n  it was made without {path}: {}", one.reason)
    };
    let mut text: String = lacks.iter().take(MOST_LACKS).map(line).collect();
    if let more @ 1.. = lacks.len().saturating_sub(MOST_LACKS) {
        text.push_str(&format!("\n  and without {more} more"));
    }
    text
}

fn told(rehearsal: &TestRestore) -> String {
    match rehearsal {
        TestRestore::Good {
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
        TestRestore::Frozen {
            stamp,
            archives,
            bytes,
        } => format!(
            "snapshot {stamp} was not restored: {} ({}) in cold storage; `sealift restore --thaw` asks for them",
            output::count(*archives, "archive"),
            output::size(*bytes)
        ),
        TestRestore::Wrong(problem) => problem.to_string(),
    }
}

pub(super) fn print_json(verdicts: &[Verdict]) -> Result<(), Failure> {
    let targets: Vec<_> = verdicts.iter().map(to_json).collect();
    Ok(output::print_json(&json!({ "targets": targets }))?)
}

fn to_json(verdict: &Verdict) -> serde_json::Value {
    let found = verdict.examined.as_ref().map(|examined| {
        let whole: u64 = examined.whole.values().map(|n| n.row.bytes).sum();
        json!({
            "snapshots": examined.chain.snapshots.len(), "sequence": head(&examined.chain),
            "archives": examined.whole.len(), "archive_bytes": whole,
            "stray_objects": examined.stray.map(|(count, _)| count),
            "stray_bytes": examined.stray.map(|(_, bytes)| bytes),
        })
    });
    let problems = verdict.problems.iter();
    let problems: Vec<_> = problems
        .map(|problem| {
            json!({ "kind": problem.kind(), "what": problem.to_string(), "next": problem.next() })
        })
        .collect();
    let rehearsals: Vec<_> = verdict.rehearsals.iter().map(rehearsal_json).collect();
    json!({
        "name": verdict.name, "label": verdict.label, "found": found,
        "read_archives": verdict.read_archives, "read_bytes": verdict.read_bytes,
        "read_before": verdict.read_before,
        "frozen_archives": verdict.frozen.0, "frozen_bytes": verdict.frozen.1,
        "problems": problems, "repaired": verdict.repaired, "lost_archives": verdict.lost,
        "restored": rehearsals, "notes": verdict.notes, "failure": verdict.failure,
    })
}

fn rehearsal_json(rehearsal: &TestRestore) -> serde_json::Value {
    match rehearsal {
        TestRestore::Good {
            stamp,
            files,
            bytes,
            databases,
            lacks,
        } => json!({
            "stamp": stamp, "state": "good", "files": files, "bytes": bytes, "databases": databases,
            "lacks": lacks,
        }),
        TestRestore::Frozen {
            stamp,
            archives,
            bytes,
        } => json!({
            "stamp": stamp, "state": "frozen", "frozen_archives": archives, "frozen_bytes": bytes,
        }),
        TestRestore::Wrong(problem) => json!({ "state": "wrong", "what": problem.to_string() }),
    }
}
