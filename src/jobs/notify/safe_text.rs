//! The verdict as it may leave this host: without paths and tables.
//!
//! Messages leave the host in clear text, by way of servers of others. So a finding whose text can
//! name a file or a table gets a text of this module in its place, with counts and names of sources
//! only; and in all other texts each word that looks like a path is replaced.

use crate::base::ids::Stamp;
use crate::jobs::verdict::{FindingCode, Severity, Verdict, VerdictFinding};
use crate::notify::{ReportedFinding, ReportedVerdict};
use crate::state::history::{EndedRun, RunRow};

/// What takes the place of a path.
const PATH: &str = "[path]";

/// Returns the verdict as it may leave this host. `last_backup`: the newest backup that ended.
pub(super) fn reported(verdict: &Verdict, last_backup: Option<&RunRow>) -> ReportedVerdict {
    let findings: Vec<ReportedFinding> = verdict
        .findings
        .iter()
        .map(|one| finding(one, last_backup))
        .collect();
    ReportedVerdict {
        state: name_of(verdict.state).to_owned(),
        sentence: sentence(verdict, &findings),
        since: verdict.since,
        findings,
        newest: verdict
            .newest
            .as_ref()
            .map(|newest| newest.stamp.to_string()),
        proven: verdict.proof.as_ref().map(|proof: &_| stamp(&proof.stamp)),
    }
}

fn stamp(stamp: &Stamp) -> String {
    stamp.to_string()
}

/// Returns the severity as JSON has it.
pub(super) fn name_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Green => "green",
        Severity::Amber => "amber",
        Severity::Red => "red",
    }
}

fn sentence(verdict: &Verdict, findings: &[ReportedFinding]) -> String {
    let Some(worst) = findings.first() else {
        return without_paths(&verdict.sentence);
    };
    let begin = match verdict.state {
        Severity::Red => "Not safe",
        _ => "Needs attention",
    };
    let others = match findings.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    format!("{begin}: {}{others}.", worst.text)
}

fn finding(one: &VerdictFinding, last_backup: Option<&RunRow>) -> ReportedFinding {
    let (text, next) = texts(one, last_backup);
    ReportedFinding {
        code: code_of(one.code),
        severity: name_of(one.severity).to_owned(),
        target: one.target.clone(),
        source: one.source.clone(),
        since: one.since,
        text,
        next,
    }
}

/// Returns the code as JSON has it.
pub(super) fn code_of(code: FindingCode) -> String {
    let value = serde_json::to_value(code).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(one: &VerdictFinding, last_backup: Option<&RunRow>) -> (String, String) {
    let run = || match last_backup {
        Some(row) => format!("sealift runs {}", row.run.id),
        None => "sealift runs".to_owned(),
    };
    match one.code {
        FindingCode::RunFailed => (failed(last_backup), run()),
        FindingCode::RunPartial => (partial(last_backup), run()),
        FindingCode::Shrunk => {
            let source = one.source.as_deref().unwrap_or("a source");
            let text = format!("{source} lost much of what it held; it was backed up as it is");
            (
                text,
                "sealift status; if that is right: sealift ack shrunk".to_owned(),
            )
        }
        FindingCode::BackupRefused => (
            "backups would be refused now".to_owned(),
            "sealift status".to_owned(),
        ),
        FindingCode::ConfigChanged => (
            "the configuration cannot be used, or is not in use yet".to_owned(),
            "sealift config check".to_owned(),
        ),
        FindingCode::RestoreOpen => (
            "a restore in place is open".to_owned(),
            "sealift restore --resume".to_owned(),
        ),
        _ => (without_paths(&one.text), without_paths(&one.next)),
    }
}

fn failed(last_backup: Option<&RunRow>) -> String {
    let end = last_backup.and_then(|row| row.end.as_ref());
    match end.map(|end| (end.outcome.as_str(), end.exit_code)) {
        Some(("killed", _)) => "the last backup was killed".to_owned(),
        Some(("cancelled", _)) => "the last backup was cancelled".to_owned(),
        Some((_, Some(code))) => format!("the last backup failed (exit code {code})"),
        _ => "the last backup failed".to_owned(),
    }
}

fn partial(last_backup: Option<&RunRow>) -> String {
    let end = last_backup.and_then(|row| row.end.as_ref());
    let facts = end.map(facts).unwrap_or_default();
    match facts.is_empty() {
        true => "the last backup is not complete".to_owned(),
        false => format!("the last backup is not complete: {}", facts.join("; ")),
    }
}

/// Returns what the report of a run says, as counts and names of sources and targets.
pub(super) fn facts(end: &EndedRun) -> Vec<String> {
    let report = end.report.as_deref().unwrap_or_default();
    let Ok(report) = serde_json::from_str::<serde_json::Value>(report) else {
        return Vec::new();
    };
    let names = |list: &str, key: Option<&str>, wanted: Option<(&str, &str)>| {
        let list = report.get(list).and_then(serde_json::Value::as_array);
        let items = list.into_iter().flatten();
        let items = items.filter(|item| {
            wanted.is_none_or(|(key, value)| item.get(key).is_some_and(|found| found == value))
        });
        let names = items.filter_map(|item| match key {
            Some(key) => item.get(key)?.as_str(),
            None => item.as_str(),
        });
        names.map(without_paths).collect::<Vec<_>>().join(", ")
    };
    let count = |key: &str| {
        report
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0)
    };
    let mut facts = Vec::new();
    let left_out = names("left_out", None, None);
    if !left_out.is_empty() {
        facts.push(format!("sources left out: {left_out}"));
    }
    match count("skipped_paths") {
        0 => {}
        1 => facts.push("1 path skipped".to_owned()),
        paths => facts.push(format!("{paths} paths skipped")),
    }
    let behind = names("targets", Some("name"), Some(("state", "behind")));
    if !behind.is_empty() {
        facts.push(format!("targets behind: {behind}"));
    }
    facts
}

/// Returns `text` in one line, with [`PATH`] in the place of each word that looks like a path or a
/// URL, and of each quoted text that has one in it.
pub(super) fn without_paths(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(plain).collect();
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find(['"', '`']) {
        let (before, from_quote) = rest.split_at(open);
        let quote = &from_quote[..1];
        quoted.push_str(before);
        let Some(end) = from_quote[1..].find(quote) else {
            rest = from_quote;
            break;
        };
        let (inner, after) = from_quote[1..].split_at(end);
        match is_path(inner) {
            true => quoted.push_str(PATH),
            false => quoted.extend([quote, inner, quote]),
        }
        rest = &after[1..];
    }
    quoted.push_str(rest);
    let words = quoted.split(' ').map(|word| match is_path(word) {
        true => PATH,
        false => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether `text` has a slash that is neither part of a fraction nor alone.
fn is_path(text: &str) -> bool {
    let is_number = |c: char| c.is_ascii_digit() || ".,:;()/%".contains(c);
    text.contains('/') && text != "/" && !text.chars().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_not_leave() {
        for (text, safe) in [
            ("s3 is 3 days late", "s3 is 3 days late"),
            ("2/3 archives (1/2)", "2/3 archives (1/2)"),
            (
                "cannot read /srv/x.db: Permission denied",
                "cannot read [path] Permission denied",
            ),
            ("\"/srv/my photos/a b.jpg\" is gone", "[path] is gone"),
            ("`cp a b` failed, ./x", "`cp a b` failed, [path]"),
            ("an open \" quote /a", "an open \" quote [path]"),
            ("s3://bucket/x\nand 'a/b c'", "[path] and [path] c'"),
        ] {
            assert_eq!(without_paths(text), safe);
        }
    }
}
