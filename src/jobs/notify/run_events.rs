//! The begin and the end of runs: the events `started` and `complete`, and pings of healthchecks.

use chrono::{DateTime, Utc};

use super::channel_evaluation::ChannelEvaluation;
use super::safe_text;
use crate::base::ids::ulid_as_uuid;
use crate::config::{ChannelKind, NotifyEvent, PartialPing, PingJob};
use crate::notify::{HealthPing, MessageRun, NotifyItem, PingKind};
use crate::state::history::{EndedRun, History, HistoryError, RunFilter, RunRow};

/// Number of runs that are looked at.
const RECENT_RUNS: u32 = 50;
/// Age from which neither the begin nor the end of a run is news.
const OLD: chrono::Duration = chrono::Duration::hours(24);
/// Age from which the mark of a run is forgotten: later than its run is old.
const FORGET: chrono::Duration = chrono::Duration::days(7);
/// Kinds of runs that are no news: the agent begins them by itself, every few minutes.
const SMALL_KINDS: [&str; 3] = ["catch_up", "probe", "status"];

/// The newest runs of the history.
pub(super) struct RecentRuns {
    /// The oldest first.
    rows: Vec<RunRow>,
    /// The run that the caller named.
    named: Option<String>,
    /// The newest backup that ended; `None`: none did.
    pub(super) last_backup: Option<RunRow>,
}

impl RecentRuns {
    /// Reads the newest runs; `named` is among them in any case.
    pub(super) fn read(history: &History, named: Option<&RunRow>) -> Result<Self, HistoryError> {
        let mut rows = history.runs(&RunFilter {
            limit: Some(RECENT_RUNS),
            ..RunFilter::default()
        })?;
        rows.reverse();
        if let Some(named) = named
            && !rows.iter().any(|row| row.run.id == named.run.id)
        {
            rows.push(named.clone());
        }
        let last_backup = history.runs(&RunFilter {
            kind: Some("backup".to_owned()),
            is_ended: true,
            limit: Some(1),
            ..RunFilter::default()
        })?;
        Ok(Self {
            rows,
            named: named.map(|row| row.run.id.clone()),
            last_backup: last_backup.into_iter().next(),
        })
    }
}

/// Writes what the channel wants to know of runs. Each begin and each end is written once.
pub(super) fn write(
    channel: &ChannelEvaluation<'_>,
    runs: &RecentRuns,
    known_since: DateTime<Utc>,
) -> Result<(), HistoryError> {
    let (outbox, name, now) = (channel.outbox, &channel.channel.name, channel.now);
    for row in runs.rows.iter().filter(|row| is_of_interest(channel, row)) {
        let (stage, at) = match &row.end {
            None => ("started", row.run.started_at),
            Some(end) => ("ended", end.ended_at),
        };
        let is_named = runs.named.as_deref() == Some(&row.run.id);
        let is_news = at >= known_since && now - at < OLD;
        let mark = format!("{stage}:{}", row.run.id);
        if !(is_named || is_news) || outbox.mark(name, &mark)?.is_some() {
            continue;
        }
        if let Some(item) = item(channel, row) {
            channel.write(&item)?;
        }
        outbox.set_mark(name, &mark, now)?;
    }
    outbox.forget_marks(name, "started:", now - FORGET)?;
    outbox.forget_marks(name, "ended:", now - FORGET)
}

fn is_of_interest(channel: &ChannelEvaluation<'_>, row: &RunRow) -> bool {
    let kind = row.run.kind.as_str();
    match &channel.channel.kind {
        ChannelKind::Healthchecks { job, .. } => *job != PingJob::Verdict && job.name() == kind,
        _ => {
            let events = [NotifyEvent::Started, NotifyEvent::Complete];
            let is_wanted = events.iter().any(|event| channel.wants(*event));
            is_wanted && !SMALL_KINDS.contains(&kind)
        }
    }
}

/// Returns what the channel gets; `None`: nothing.
fn item(channel: &ChannelEvaluation<'_>, row: &RunRow) -> Option<NotifyItem> {
    if let ChannelKind::Healthchecks { partial, .. } = &channel.channel.kind {
        return Some(NotifyItem::Ping(ping(channel, row, *partial)));
    }
    let event = match &row.end {
        None => NotifyEvent::Started,
        Some(end) if end.outcome == "complete" => NotifyEvent::Complete,
        // The findings report it.
        Some(_) => return None,
    };
    if !channel.wants(event) {
        return None;
    }
    let mut message = channel.message(event);
    message.run = Some(run_of(row));
    Some(NotifyItem::Message(Box::new(message)))
}

fn run_of(row: &RunRow) -> MessageRun {
    let end = row.end.as_ref();
    MessageRun {
        id: row.run.id.clone(),
        kind: row.run.kind.clone(),
        started_at: row.run.started_at,
        ended_at: end.map(|end| end.ended_at),
        outcome: end.map(|end| end.outcome.clone()),
        exit_code: end.and_then(|end| end.exit_code),
        stamp: end.and_then(|end| end.stamp.clone()),
        sequence: end.and_then(|end| end.sequence),
    }
}

fn ping(channel: &ChannelEvaluation<'_>, row: &RunRow, partial: PartialPing) -> HealthPing {
    let kind = match row.end.as_ref().map(|end| end.outcome.as_str()) {
        None => PingKind::Start,
        Some("complete") => PingKind::Success,
        Some("partial") if partial == PartialPing::Log => PingKind::Log,
        Some(_) => PingKind::Fail,
    };
    HealthPing {
        kind,
        rid: ulid_as_uuid(&row.run.id),
        body: match &row.end {
            None => String::new(),
            Some(end) => report(channel, row, end),
        },
    }
}

/// Returns the report of an ended run, without paths and tables.
fn report(channel: &ChannelEvaluation<'_>, row: &RunRow, end: &EndedRun) -> String {
    let run = &row.run;
    let mut text = format!("{} {}: {}", run.kind, run.id, end.outcome);
    if let Some(code) = end.exit_code {
        text.push_str(&format!(" (exit code {code})"));
    }
    let time = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S UTC");
    text.push_str(&format!(
        "\nfrom {} to {}\n",
        time(run.started_at),
        time(end.ended_at)
    ));
    if let (Some(stamp), Some(sequence)) = (&end.stamp, end.sequence) {
        text.push_str(&format!("snapshot {stamp}, number {sequence}\n"));
    }
    for fact in figures(end).into_iter().chain(safe_text::facts(end)) {
        text.push_str(&format!("{fact}\n"));
    }
    text.push_str(&format!("{}\n", channel.verdict.sentence));
    text
}

fn figures(end: &EndedRun) -> Vec<String> {
    let report = end.report.as_deref().unwrap_or_default();
    let Ok(report) = serde_json::from_str::<serde_json::Value>(report) else {
        return Vec::new();
    };
    let figures = ["files", "bytes", "new_bytes", "stored_bytes"];
    let figures = figures.iter().filter_map(|key| {
        let value = report.get(key)?.as_u64()?;
        Some(format!("{}: {value}", key.replace('_', " ")))
    });
    figures.collect()
}
