//! `status --from` as the watcher on a third machine: one line for each host.

use super::super::context::Context;
use super::super::failure::{Failure, Outcome};
use super::super::verdict;
use super::age;
use super::monitoring::{self, Metrics, of_hosts};
use crate::jobs::status::hosts::{HostsReport, Member};
use crate::jobs::verdict::Severity;

/// Prints one line for each host; with `--quiet`, for those that need attention.
pub(super) fn print_lines(context: &Context, report: &HostsReport) -> Result<(), Failure> {
    for member in &report.hosts {
        let is_well = member.problems.is_empty();
        if is_well && context.quiet {
            continue;
        }
        let text = match is_well {
            true => format!("{}: ok: {}", member.host, newest(member)),
            false => format!("{}: ATTENTION: {}", member.host, member.problems.join("; ")),
        };
        verdict::print_line(text)?;
    }
    Ok(())
}

fn newest(member: &Member) -> String {
    match &member.newest {
        Some(newest) => format!(
            "snapshot {} of {}",
            newest.sequence,
            age(newest.age_seconds)
        ),
        None => "no snapshot".to_owned(),
    }
}

/// Prints the line of a plugin of Nagios.
pub(super) fn print_nagios(report: &HostsReport) -> Result<Outcome, Failure> {
    let problems = report.hosts.iter().flat_map(|member| {
        let host = &member.host;
        member
            .problems
            .iter()
            .map(move |problem| format!("{host}: {problem}"))
    });
    let problems: Vec<String> = problems.collect();
    let begin = of_hosts(report.hosts.len(), problems.len());
    let (state, text) = match problems.is_empty() {
        true => (Severity::Green, begin),
        false => (Severity::Red, format!("{begin}: {}", problems.join("; "))),
    };
    let ages = report.hosts.iter().filter_map(|member| {
        let age = member.newest.as_ref()?.age_seconds;
        Some(format!("'{} age'={age}s", member.host))
    });
    let data: Vec<String> = ages.collect();
    monitoring::print_plugin(state, &text, &data.join(" "))
}

/// Prints metrics about each host.
pub(super) fn print_prometheus(report: &HostsReport) -> Result<(), Failure> {
    let mut metrics = Metrics::default();
    let name = "sealift_host_problems";
    metrics.family(name, "Problems of the host on the watched target.");
    for member in &report.hosts {
        let number = i64::try_from(member.problems.len()).unwrap_or(i64::MAX);
        metrics.sample(name, &[("host", member.host.as_str())], number);
    }
    let name = "sealift_host_newest_stamp_timestamp_seconds";
    metrics.family(name, "Time of the host's newest snapshot.");
    for member in &report.hosts {
        if let Some(newest) = &member.newest {
            let time = newest.stamp.time().timestamp();
            metrics.sample(name, &[("host", member.host.as_str())], time);
        }
    }
    metrics.print()
}
