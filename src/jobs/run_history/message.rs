//! One line on how a run ended.

use crate::base::units::count;
use crate::jobs::run_report::{ErrorText, PushedState, ReportedOutcome, RunReport};

/// Most characters of the line.
const LONGEST: usize = 2000;
/// Warnings that the line quotes.
const QUOTED: usize = 2;

/// Returns why the run failed and the next step, or what is missing. Empty: nothing.
pub(super) fn of(report: &RunReport) -> String {
    let text = match report.outcome {
        Some(ReportedOutcome::Failed) => report.errors.last().map(of_error).unwrap_or_default(),
        Some(ReportedOutcome::Cancelled) => "a signal ended it".to_owned(),
        _ => missing_parts(report),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

fn of_error(error: &ErrorText) -> String {
    let mut text = error.text.clone();
    for cause in &error.causes {
        if !text.contains(cause) {
            text = format!("{text}: {cause}");
        }
    }
    match &error.next {
        Some(next) => format!("{text}. Next: {next}"),
        None => text,
    }
}

fn missing_parts(report: &RunReport) -> String {
    let mut parts = Vec::new();
    if !report.left_out.is_empty() {
        parts.push(format!("without {}", report.left_out.join(", ")));
    }
    if report.skipped_paths > 0 {
        parts.push(format!("skipped {}", count(report.skipped_paths, "path")));
    }
    for target in &report.targets {
        if target.state == PushedState::Behind {
            let cause = target.error.as_deref().unwrap_or("no cause is known");
            parts.push(format!("{} is behind: {cause}", target.name));
        }
    }
    parts.extend(report.warnings.iter().take(QUOTED).cloned());
    if let more @ 1.. = report.warnings.len().saturating_sub(QUOTED) {
        parts.push(format!("and {}", count(more as u64, "further warning")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::jobs::run_report::{TargetRun, Trigger};

    fn report(outcome: ReportedOutcome) -> RunReport {
        let now = DateTime::UNIX_EPOCH;
        let mut report = RunReport::begin("backup", Trigger::Manual, now);
        report.conclude(outcome, 0, now);
        report
    }

    #[test]
    fn the_line_says_why_or_what_is_missing() {
        assert_eq!(of(&report(ReportedOutcome::Complete)), "");
        let mut failed = report(ReportedOutcome::Failed);
        failed.errors.push(ErrorText {
            text: "cannot read a".to_owned(),
            causes: vec!["No such\nfile".to_owned(), "a".to_owned()],
            next: Some("make it".to_owned()),
        });
        assert_eq!(of(&failed), "cannot read a: No such file. Next: make it");
        let mut partial = report(ReportedOutcome::Partial);
        partial.left_out = vec!["db".to_owned()];
        partial.skipped_paths = 1;
        partial.targets.push(TargetRun {
            name: "s3".to_owned(),
            state: PushedState::Behind,
            sent_bytes: 0,
            objects: 0,
            copied: 0,
            seconds: 0.0,
            error: Some("403".to_owned()),
        });
        partial.warnings = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let expected =
            "without db; skipped 1 path; s3 is behind: 403; a; b; and 2 further warnings";
        assert_eq!(of(&partial), expected);
        partial.warnings = vec!["ü".repeat(5000)];
        assert_eq!(of(&partial).chars().count(), LONGEST + 3);
    }
}
