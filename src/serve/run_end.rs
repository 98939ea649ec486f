//! How a run ended, for the history: from its report, its exit code, and what it printed last.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::child_log;
use super::wake::EndedChild;
use crate::state::history::{EndedRun, NewRun};
use crate::state::run_file::{RunFile, RunOutcome};

/// The outcome of a run whose process is gone, or was killed.
const KILLED: &str = "killed";
const FAILED: &str = "failed";
/// Longest report that the history keeps whole, in bytes.
const MOST_REPORT: usize = 1 << 20;
/// Skipped paths that stay in a longer one.
const KEPT_PATHS: usize = 100;
/// Targets, warnings and errors that a message names.
const NAMED: usize = 3;

/// Returns how the run of `child` ended. Its log is in the state directory `state`.
pub(super) fn of_child(child: EndedChild, state: &Path, now: DateTime<Utc>) -> EndedRun {
    let last_lines = || child_log::last_lines(&child_log::path(state, &child.id));
    let Some(report) = child
        .report
        .as_ref()
        .filter(|report| report["outcome"].is_string())
    else {
        return without_report(child.status, last_lines(), now);
    };
    let text = |key: &str| report[key].as_str().map(str::to_owned);
    let code = child.status.and_then(|status| status.code());
    EndedRun {
        ended_at: now,
        outcome: text("outcome").unwrap_or_default(),
        exit_code: code.or_else(|| {
            report["exit_code"]
                .as_i64()
                .and_then(|it| it.try_into().ok())
        }),
        stamp: text("stamp"),
        sequence: report["sequence"].as_u64(),
        message: message(report),
        report: Some(kept(report.clone())),
    }
}

/// A run that ended without a report: it crashed, or its last event was lost.
fn without_report(status: Option<ExitStatus>, last_lines: String, now: DateTime<Utc>) -> EndedRun {
    let code = status.and_then(|status| status.code());
    let signal = status.and_then(|status| status.signal());
    let (outcome, said) = match (code, signal) {
        (Some(0), _) => ("complete", String::new()),
        (Some(3), _) => ("partial", String::new()),
        (Some(code), _) => (FAILED, format!("it ended with exit code {code}")),
        (None, Some(libc::SIGKILL)) => (KILLED, "signal 9 ended it".to_owned()),
        (None, Some(signal)) => (FAILED, format!("signal {signal} ended it")),
        (None, None) => (KILLED, "how it ended is not known".to_owned()),
    };
    let message = match (outcome, last_lines.is_empty()) {
        ("complete", _) | (_, true) => said,
        ("partial", false) => last_lines,
        (_, false) => format!("{said}. Its last lines:\n{last_lines}"),
    };
    end(outcome, code, message, now)
}

/// A run whose process is gone, and which no agent saw ending.
pub(super) fn of_gone(run: &NewRun, state: &Path, now: DateTime<Utc>) -> EndedRun {
    if let Some(recorded) = recorded(run, state) {
        return recorded;
    }
    let message = format!(
        "its process (pid {}) is gone: it was killed, or the machine went down",
        run.pid
    );
    end(KILLED, None, message, now)
}

/// Returns the end that the process of the run recorded itself, outside of the history.
fn recorded(run: &NewRun, state: &Path) -> Option<EndedRun> {
    let file = RunFile::read(state)?;
    let parse = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    let started = parse(&file.started_at)?.to_utc();
    let is_same = file.pid == run.pid && started >= run.started_at;
    let ended_at = parse(file.ended_at.as_deref()?)?.to_utc();
    let (outcome, code) = match file.outcome? {
        RunOutcome::Complete => ("complete", 0),
        RunOutcome::Partial => ("partial", 3),
        RunOutcome::Failed => (FAILED, 1),
        RunOutcome::Interrupted => ("cancelled", 1),
    };
    is_same.then(|| end(outcome, Some(code), file.message, ended_at))
}

/// A run that could not be started.
pub(super) fn not_started(error: &std::io::Error, now: DateTime<Utc>) -> EndedRun {
    let message = format!("its process could not be started: {error}");
    end(FAILED, None, message, now)
}

fn end(outcome: &str, exit_code: Option<i32>, message: String, now: DateTime<Utc>) -> EndedRun {
    EndedRun {
        ended_at: now,
        outcome: outcome.to_owned(),
        exit_code,
        stamp: None,
        sequence: None,
        message,
        report: None,
    }
}

/// Returns in one line why the run failed and the next step, or what is missing.
fn message(report: &Value) -> String {
    let list = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(error) = list("errors").first() {
        let mut parts = vec![text(&error["text"]).unwrap_or_default()];
        let causes = error["causes"].as_array().into_iter().flatten();
        parts.extend(causes.filter_map(text));
        let next = text(&error["next"]).map_or_else(String::new, |next| format!(". Next: {next}"));
        return format!("{}{next}", parts.join(": "));
    }
    let mut parts: Vec<String> = list("left_out")
        .iter()
        .filter_map(|source| Some(format!("without {}", source.as_str()?)))
        .collect();
    if let Some(number @ 1..) = report["skipped_paths"].as_u64() {
        parts.push(format!(
            "skipped {}",
            crate::base::units::count(number, "path")
        ));
    }
    parts.extend(list("targets").iter().filter_map(|target| {
        let (name, error) = (target["name"].as_str()?, target["error"].as_str()?);
        Some(format!("{name} is behind: {error}"))
    }));
    parts.extend(list("warnings").iter().filter_map(text));
    let more = parts.len().saturating_sub(NAMED);
    parts.truncate(NAMED);
    let more = match more {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{}{more}", parts.join("; "))
}

/// Returns the report as the history keeps it.
fn kept(mut report: Value) -> String {
    let text = report.to_string();
    if text.len() <= MOST_REPORT {
        return text;
    }
    if let Some(skipped) = report["skipped"].as_array_mut() {
        skipped.truncate(KEPT_PATHS);
    }
    let text = report.to_string();
    if text.len() <= MOST_REPORT {
        return text;
    }
    report["databases"] = Value::Array(Vec::new());
    report.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    /// The status of a process that ended with this code (256 times as large), or signal.
    fn child(status: i32, report: Option<Value>) -> EndedChild {
        EndedChild {
            id: "01J".to_owned(),
            status: Some(ExitStatus::from_raw(status)),
            report,
        }
    }

    #[test]
    fn the_report_says_how_a_run_ended() {
        let dir = tempfile::tempdir().unwrap();
        let report = json!({
            "outcome": "partial", "exit_code": 3, "stamp": "20260407T060000Z", "sequence": 7,
            "errors": [], "left_out": ["chroma"], "skipped_paths": 2, "warnings": ["w1", "w2"],
            "targets": [
                {"name": "s3", "error": null}, {"name": "laptop", "error": "connection refused"},
            ],
        });
        let end = of_child(child(3 << 8, Some(report)), dir.path(), now());
        assert_eq!((&end.outcome[..], end.exit_code), ("partial", Some(3)));
        assert_eq!(end.sequence, Some(7));
        assert_eq!(
            end.message,
            "without chroma; skipped 2 paths; laptop is behind: connection refused; and 2 more"
        );
        let failed = json!({
            "outcome": "failed",
            "errors": [{"text": "cannot read", "causes": ["denied"], "next": "look"}],
        });
        let end = of_child(child(1 << 8, Some(failed)), dir.path(), now());
        assert_eq!(end.message, "cannot read: denied. Next: look");
    }

    #[test]
    fn without_a_report_the_exit_code_and_the_last_lines_say_it() {
        let dir = tempfile::tempdir().unwrap();
        use std::io::Write as _;
        writeln!(child_log::open(dir.path(), "01J").unwrap(), "oh no").unwrap();
        let of = |status| of_child(child(status, None), dir.path(), now());
        assert_eq!(
            (of(0).outcome, of(0).message),
            ("complete".into(), String::new())
        );
        assert_eq!(of(3 << 8).outcome, "partial");
        let crashed = of(2 << 8);
        assert_eq!(crashed.outcome, "failed");
        assert_eq!(
            crashed.message,
            "it ended with exit code 2. Its last lines:\noh no"
        );
        let (killed, aborted) = (of(libc::SIGKILL), of(libc::SIGABRT));
        assert_eq!((&killed.outcome[..], killed.exit_code), ("killed", None));
        assert_eq!(&aborted.outcome, "failed");
    }

    #[test]
    fn a_long_report_is_kept_without_most_of_its_paths() {
        let path = json!({ "path": "p".repeat(1000), "reason": "r" });
        let report = json!({ "skipped": vec![path; 2000], "databases": [] });
        let kept: Value = serde_json::from_str(&kept(report)).unwrap();
        assert_eq!(kept["skipped"].as_array().unwrap().len(), KEPT_PATHS);
    }
}
