//! The state for monitoring systems: one line for Nagios, and metrics as Prometheus reads them.

use std::collections::BTreeMap;

use super::super::failure::{Failure, Outcome};
use super::super::output;
use super::findings;
use crate::jobs::status::StatusReport;
use crate::jobs::verdict::Severity;

/// The exit codes of a plugin.
const CODES: [(Severity, u8, &str); 3] = [
    (Severity::Green, 0, "OK"),
    (Severity::Amber, 1, "WARNING"),
    (Severity::Red, 2, "CRITICAL"),
];
/// The exit code of a plugin that does not know.
pub(super) const UNKNOWN: u8 = 3;

/// Prints the line of a plugin that failed.
pub(super) fn print_unknown(failure: &Failure) -> Result<(), Failure> {
    let text = failure.text();
    let text: Vec<String> = std::iter::once(text.text).chain(text.causes).collect();
    output::print_line(format_args!("UNKNOWN - {}", plain(&text.join(": "))))?;
    Ok(())
}

/// Prints the line of a plugin, and returns its exit code.
pub(super) fn print_nagios(report: &StatusReport) -> Result<Outcome, Failure> {
    let verdict = &report.verdict;
    let age = verdict.newest.as_ref().map(|newest| newest.age_seconds);
    let age = age.map_or_else(String::new, |age| format!(" newest_age={age}s"));
    let number = verdict.findings.len();
    print_plugin(
        verdict.state,
        &verdict.sentence,
        &format!("findings={number}{age}"),
    )
}

/// Prints `OK - TEXT | DATA`, and returns the exit code.
pub(super) fn print_plugin(state: Severity, text: &str, data: &str) -> Result<Outcome, Failure> {
    let found = CODES.into_iter().find(|(severity, ..)| *severity == state);
    let (_, code, word) = found.unwrap_or((state, UNKNOWN, "UNKNOWN"));
    output::print_line(format_args!("{word} - {} | {data}", plain(text)))?;
    Ok(Outcome::Plugin(code))
}

/// Returns the text in one line, without the character that begins a plugin's figures.
fn plain(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "/")
}

/// Prints the verdict as metrics.
pub(super) fn print_prometheus(report: &StatusReport) -> Result<(), Failure> {
    let verdict = &report.verdict;
    let mut metrics = Metrics::default();
    let state = match verdict.state {
        Severity::Green => 0,
        Severity::Amber => 1,
        Severity::Red => 2,
    };
    metrics.family("sealift_verdict", "0 green, 1 amber, 2 red.");
    metrics.sample("sealift_verdict", &[], state);
    let mut numbers: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for finding in &verdict.findings {
        let severity = finding.severity.as_str();
        *numbers
            .entry((severity, finding.code.as_str()))
            .or_default() += 1;
    }
    metrics.family(
        "sealift_findings",
        "Open findings that are not acknowledged.",
    );
    for ((severity, code), number) in numbers {
        let labels = [("severity", severity), ("code", code)];
        metrics.sample("sealift_findings", &labels, number);
    }
    if let Some(newest) = &verdict.newest {
        let name = "sealift_last_snapshot_timestamp_seconds";
        metrics.family(name, "Time of the newest published snapshot.");
        metrics.sample(name, &[], newest.stamp.time().timestamp());
        let name = "sealift_last_snapshot_sequence";
        metrics.family(name, "Sequence of the newest published snapshot.");
        metrics.sample(name, &[], newest.sequence.cast_signed());
    }
    let name = "sealift_target_newest_stamp_timestamp_seconds";
    metrics.family(name, "Time of the newest snapshot on the target.");
    for target in &report.targets {
        if let Some(stamp) = target.newest {
            let labels = [("target", target.name.as_str())];
            metrics.sample(name, &labels, stamp.time().timestamp());
        }
    }
    let name = "sealift_target_behind_snapshots";
    metrics.family(name, "Snapshots that the target lacks.");
    for target in &report.targets {
        let labels = [("target", target.name.as_str())];
        let number = i64::try_from(target.behind.len()).unwrap_or(i64::MAX);
        metrics.sample(name, &labels, number);
    }
    metrics.print()
}

/// Gauges as text, version 0.0.4.
#[derive(Debug, Default)]
pub(super) struct Metrics(String);

impl Metrics {
    /// Begins a gauge.
    pub(super) fn family(&mut self, name: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
    }

    /// Adds a value of the gauge that was begun.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: i64) {
        let labels = labels.iter().map(|(label, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{label}=\"{value}\"")
        });
        let labels: Vec<String> = labels.collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        self.0 += &format!("{name}{labels} {value}\n");
    }

    /// Prints all of them.
    pub(super) fn print(&self) -> Result<(), Failure> {
        Ok(output::print_line(self.0.trim_end())?)
    }
}

/// Returns the sentence about several hosts.
pub(super) fn of_hosts(hosts: usize, problems: usize) -> String {
    let hosts = crate::base::units::count(hosts as u64, "host");
    match problems {
        0 => format!("{hosts}, all well"),
        number => format!("{hosts}, {}", findings(number)),
    }
}
