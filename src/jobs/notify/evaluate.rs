//! Decides what each channel gets, and writes it into the outbox.

use chrono::{DateTime, Utc};

use super::channel_evaluation::{ChannelEvaluation, item_json};
use super::edges::{EdgeTiming, EdgeView, Edges, key_of, level_of, plan};
use super::run_events::{self, RecentRuns};
use super::{is_quiet, safe_text, timed_events};
use crate::config::{Config, NotifyEvent};
use crate::jobs::verdict::Verdict;
use crate::notify::{NotifyItem, NotifyMessage, ReportedFinding, ReportedVerdict};
use crate::state::history::{ChannelRecord, History, HistoryError, RunRow};

/// Time for which a message waits for more findings.
const GATHER_SECONDS: i64 = 30;

/// Compares `verdict` with what each channel knows, and writes what is new into the outbox.
/// `ended`: the run that began or ended now, if it is one that the history may not return as
/// recent. Call it whenever a run begins or ends, and every 30 seconds; without a change it writes
/// nothing.
pub(crate) fn evaluate(
    config: &Config,
    history: &History,
    verdict: &Verdict,
    ended: Option<&RunRow>,
    now: DateTime<Utc>,
) -> Result<(), HistoryError> {
    evaluate_with(config, history, (verdict, ended), EdgeTiming::Settled, now)
}

/// Does the same with another timing.
pub(crate) fn evaluate_with(
    config: &Config,
    history: &History,
    (verdict, ended): (&Verdict, Option<&RunRow>),
    timing: EdgeTiming,
    now: DateTime<Utc>,
) -> Result<(), HistoryError> {
    if config.channels.is_empty() && history.channel_records()?.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = config
        .channels
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    history.in_outbox(|outbox| {
        outbox.forget_other_channels(&names)?;
        let runs = RecentRuns::read(history, ended)?;
        let reported = safe_text::reported(verdict, runs.last_backup.as_ref());
        let records = history.channel_records()?;
        for channel in &config.channels {
            let known_since = outbox.known_since(&channel.name, now)?;
            let evaluation = ChannelEvaluation {
                host: config.host.as_str(),
                channel,
                outbox,
                verdict: &reported,
                timing,
                is_quiet: is_quiet(config, channel, now),
                now,
            };
            evaluation.edges(&records)?;
            if timing == EdgeTiming::AtOnce {
                outbox.make_due(&channel.name, now)?;
            }
            run_events::write(&evaluation, &runs, known_since)?;
            timed_events::write(&evaluation, config, (history, verdict), known_since)?;
        }
        Ok(())
    })
}

impl ChannelEvaluation<'_> {
    /// Reports the findings that began, ended, or last.
    fn edges(&self, records: &[ChannelRecord]) -> Result<(), HistoryError> {
        let name = &self.channel.name;
        let record = records.iter().find(|record| record.name == *name);
        let view = EdgeView {
            channel: self.channel,
            is_failing: record.is_some_and(|record| record.failing_since.is_some()),
            is_quiet: self.is_quiet,
            timing: self.timing,
            now: self.now,
        };
        let known = self.outbox.findings(name)?;
        let open = self.outbox.open_item(name, self.now)?;
        let open = open.and_then(|item| match serde_json::from_str(&item.item) {
            Ok(NotifyItem::Message(message)) => Some((item.id, *message)),
            _ => None,
        });
        let fresh = self.message(NotifyEvent::Amber);
        let id = open.as_ref().map_or(&fresh.id, |(_, message)| &message.id);
        let mut edges = plan(&view, known.clone(), &self.verdict.findings, id);
        edges.known.sort_by(|a, b| a.finding.cmp(&b.finding));
        if edges.known != known {
            self.outbox.set_findings(name, &edges.known)?;
        }
        if edges.are_none() {
            return Ok(());
        }
        match open {
            Some((id, message)) => {
                let message = joined(message, edges, self.verdict);
                let is_urgent = message.event == NotifyEvent::Red;
                let item = item_json(&NotifyItem::Message(Box::new(message)));
                self.outbox.replace(id, is_urgent, &item)
            }
            None => {
                let message = joined(fresh, edges, self.verdict);
                let wait = match self.timing {
                    EdgeTiming::Settled => GATHER_SECONDS,
                    EdgeTiming::AtOnce => 0,
                };
                self.add(&NotifyItem::Message(Box::new(message)), wait)
            }
        }
    }
}

/// Adds `edges` to the message, which was not sent yet. A finding that is both new and resolved in
/// it came and went.
fn joined(mut message: NotifyMessage, edges: Edges, verdict: &ReportedVerdict) -> NotifyMessage {
    message.verdict = verdict.clone();
    for finding in edges.new.iter().chain(&edges.lasting) {
        remove(&mut message.new, finding);
        remove(&mut message.lasting, finding);
        remove(&mut message.resolved, finding);
    }
    for finding in &edges.resolved {
        remove(&mut message.lasting, finding);
        remove(&mut message.resolved, finding);
    }
    message.new.extend(edges.new);
    message.resolved.extend(edges.resolved);
    message.lasting.extend(edges.lasting);
    message.thread.extend(edges.threads);
    message.thread.retain(|id| *id != message.id);
    message.thread.sort();
    message.thread.dedup();
    message.event = event_of(&message);
    message
}

fn remove(list: &mut Vec<ReportedFinding>, finding: &ReportedFinding) {
    let key = key_of(finding);
    list.retain(|one| key_of(one) != key);
}

/// Returns what the message is about: the worst that began or lasts and has not ended meanwhile.
fn event_of(message: &NotifyMessage) -> NotifyEvent {
    let ended: Vec<String> = message.resolved.iter().map(key_of).collect();
    let open = message.new.iter().chain(&message.lasting);
    let open = open.filter(|finding| !ended.contains(&key_of(finding)));
    match open.map(|finding| level_of(&finding.severity)).max() {
        Some(2) => NotifyEvent::Red,
        Some(_) => NotifyEvent::Amber,
        None => NotifyEvent::Recovered,
    }
}
