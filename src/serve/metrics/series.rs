//! Turns facts and verdict into series.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::base::ids::Stamp;
use crate::jobs::metric_facts::{AgentFigures, ChannelFacts, KindFacts, MetricFacts, TargetFacts};
use crate::jobs::verdict::{KeyAlive, Severity, Verdict};

/// A value as the output has it: whole numbers stay whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SeriesValue {
    Whole(i64),
    Part(f64),
}

/// The series by the metric's name, and within it by their labels: no two have the same.
#[derive(Debug, Default)]
pub(crate) struct SeriesByName(BTreeMap<&'static str, BTreeMap<Vec<String>, SeriesValue>>);

impl SeriesByName {
    /// Returns the series of the metric `name`.
    pub(crate) fn of(&self, name: &str) -> impl Iterator<Item = (&Vec<String>, SeriesValue)> {
        let series = self.0.get(name).into_iter().flatten();
        series.map(|(labels, value)| (labels, *value))
    }

    /// Returns the names of the metrics that have series.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    fn put(&mut self, name: &'static str, labels: &[&str], value: impl Into<SeriesValue>) {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        let series = self.0.entry(name).or_default();
        series.insert(labels, value.into());
    }

    fn put_some(
        &mut self,
        name: &'static str,
        labels: &[&str],
        value: Option<impl Into<SeriesValue>>,
    ) {
        if let Some(value) = value {
            self.put(name, labels, value);
        }
    }
}

impl From<u64> for SeriesValue {
    fn from(value: u64) -> Self {
        Self::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<bool> for SeriesValue {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for SeriesValue {
    fn from(value: f64) -> Self {
        Self::Part(value)
    }
}

impl From<DateTime<Utc>> for SeriesValue {
    fn from(time: DateTime<Utc>) -> Self {
        match time.timestamp_subsec_millis() {
            0 => Self::Whole(time.timestamp()),
            _ => Self::Part(time.timestamp_millis() as f64 / 1000.0),
        }
    }
}

/// Returns `time`, or 0 for never.
fn or_never(time: Option<DateTime<Utc>>) -> SeriesValue {
    time.map_or(SeriesValue::Whole(0), SeriesValue::from)
}

/// Returns the series of all metrics that have a value.
pub(crate) fn series(facts: &MetricFacts, verdict: &Verdict) -> SeriesByName {
    let mut all = SeriesByName::default();
    let version = env!("CARGO_PKG_VERSION");
    all.put("sealift_build_info", &[version, facts.host.as_str()], 1_u64);
    of_verdict(&mut all, verdict);
    of_snapshot(&mut all, facts);
    for (job, due) in &facts.next_due {
        all.put("sealift_next_due_timestamp_seconds", &[job], *due);
    }
    for target in &facts.targets {
        of_target(&mut all, target);
    }
    for (kind, outcome, number) in &facts.run_totals {
        all.put("sealift_runs_total", &[kind, outcome], *number);
    }
    for (kind, facts) in &facts.kinds {
        of_kind(&mut all, kind, facts);
    }
    all.put("sealift_spool_bytes", &[], facts.spool_bytes);
    all.put_some("sealift_spool_limit_bytes", &[], facts.spool_limit);
    for channel in &facts.channels {
        of_channel(&mut all, channel);
    }
    if let Some(agent) = &facts.agent {
        of_agent(&mut all, agent);
    }
    all
}

fn of_verdict(all: &mut SeriesByName, verdict: &Verdict) {
    let state: u64 = match verdict.state {
        Severity::Green => 0,
        Severity::Amber => 1,
        Severity::Red => 2,
    };
    all.put("sealift_verdict", &[], state);
    let mut findings: BTreeMap<(String, String), u64> = BTreeMap::new();
    for finding in &verdict.findings {
        let labels = (text(&finding.severity), text(&finding.code));
        *findings.entry(labels).or_default() += 1;
    }
    for ((severity, code), number) in findings {
        all.put("sealift_findings", &[&severity, &code], number);
    }
    for KeyAlive {
        recipient,
        alive_after,
    } in &verdict.keys
    {
        let label = recipient_label(recipient);
        let name = "sealift_key_alive_timestamp_seconds";
        all.put_some(name, &[&label], *alive_after);
    }
}

fn of_snapshot(all: &mut SeriesByName, facts: &MetricFacts) {
    let Some(newest) = &facts.newest else {
        return;
    };
    let stamp = newest.stamp.time();
    all.put("sealift_last_snapshot_timestamp_seconds", &[], stamp);
    all.put("sealift_last_snapshot_sequence", &[], newest.sequence);
    all.put("sealift_last_snapshot_bytes", &[], newest.bytes);
    all.put("sealift_last_snapshot_new_bytes", &[], newest.new_bytes);
    let Some(reported) = &newest.reported else {
        return;
    };
    all.put("sealift_last_snapshot_files", &[], reported.files);
    let stored = reported.stored_bytes;
    all.put("sealift_last_snapshot_stored_bytes", &[], stored);
    for (source, number) in &reported.skipped {
        all.put("sealift_skipped_files", &[source], *number);
    }
}

fn of_target(all: &mut SeriesByName, target: &TargetFacts) {
    let name = [&target.name[..]];
    let published = target.published.map(|published| published.published_at);
    let name_of = "sealift_target_last_published_timestamp_seconds";
    all.put_some(name_of, &name, published);
    let stamp = target.newest_stamp.as_ref().map(Stamp::time);
    all.put_some(
        "sealift_target_newest_stamp_timestamp_seconds",
        &name,
        stamp,
    );
    all.put("sealift_target_behind_snapshots", &name, target.behind);
    all.put("sealift_target_archives", &name, target.stored.archives);
    all.put("sealift_target_stored_bytes", &name, target.stored.bytes);
    if let Some(look) = target.look {
        all.put("sealift_target_last_look_timestamp_seconds", &name, look.at);
        all.put("sealift_target_last_look_success", &name, look.succeeded);
    }
    all.put("sealift_sent_bytes_total", &name, target.sent_bytes);
    let verified = or_never(target.verified_at);
    all.put(
        "sealift_verify_last_success_timestamp_seconds",
        &name,
        verified,
    );
    let oldest = target.readings.oldest;
    all.put_some(
        "sealift_verify_oldest_read_timestamp_seconds",
        &name,
        oldest,
    );
    let damaged = target.readings.damaged;
    all.put("sealift_verify_damaged_archives", &name, damaged);
    if let Some(proof) = &target.proof {
        all.put("sealift_proof_timestamp_seconds", &name, proof.proven_at);
        all.put("sealift_proof_sequence", &name, proof.sequence);
        let took = proof.seconds;
        all.put("sealift_proof_restore_duration_seconds", &name, took);
    }
}

fn of_kind(all: &mut SeriesByName, kind: &str, facts: &KindFacts) {
    let kind = [kind];
    let success = or_never(facts.last_success);
    all.put("sealift_run_last_success_timestamp_seconds", &kind, success);
    if let Some(last) = &facts.last {
        all.put(
            "sealift_run_last_end_timestamp_seconds",
            &kind,
            last.ended_at,
        );
        let code = last.exit_code.map(|code| SeriesValue::Whole(code.into()));
        all.put_some("sealift_run_last_exit_code", &kind, code);
        // A clock that was set back meanwhile makes no run shorter than nothing.
        let took = (last.ended_at - last.started_at).num_milliseconds().max(0);
        let took = took as f64 / 1000.0;
        all.put("sealift_run_last_duration_seconds", &kind, took);
    }
    all.put("sealift_run_running", &kind, facts.running_since.is_some());
    let since = facts.running_since;
    all.put_some("sealift_run_started_timestamp_seconds", &kind, since);
}

fn of_channel(all: &mut SeriesByName, channel: &ChannelFacts) {
    for (outcome, number) in &channel.totals {
        all.put("sealift_notify_total", &[&channel.name, outcome], *number);
    }
    let success = or_never(channel.last_success);
    let name = "sealift_notify_last_success_timestamp_seconds";
    all.put(name, &[&channel.name], success);
}

fn of_agent(all: &mut SeriesByName, agent: &AgentFigures) {
    let current = agent.is_config_current;
    all.put("sealift_config_last_reload_successful", &[], current);
    let process = agent.process;
    all.put_some("process_resident_memory_bytes", &[], process.resident_bytes);
    all.put_some("process_open_fds", &[], process.open_fds);
    all.put_some("process_start_time_seconds", &[], process.started_at);
}

/// Returns the text that the JSON of `value` has.
fn text(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

/// How many characters of a recipient its label has.
const RECIPIENT_CHARS: usize = 12;

/// Returns the first characters of a recipient. All keys of ssh, and all of one plugin, begin with
/// the same characters: those have the last characters of the key.
fn recipient_label(recipient: &str) -> String {
    let is_native = recipient.starts_with("age1") && recipient.rfind('1') == Some(3);
    let key = match recipient.strip_prefix("ssh-") {
        Some(typed) => typed.split_whitespace().nth(1).unwrap_or(typed),
        None => recipient,
    };
    let chars = key.chars();
    match is_native {
        true => chars.take(RECIPIENT_CHARS).collect(),
        false => {
            let beyond = key.chars().count().saturating_sub(RECIPIENT_CHARS);
            chars.skip(beyond).collect()
        }
    }
}
