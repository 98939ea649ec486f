//! What depends on the time or on the verdict alone: proofs, the weekly report, hourly pings.

use chrono::{DateTime, Datelike as _, NaiveTime, TimeZone as _, Utc};

use super::channel_evaluation::ChannelEvaluation;
use super::zone_of;
use crate::config::{ChannelKind, Config, NotifyEvent, PingJob};
use crate::jobs::verdict::{ProvenSnapshot, Verdict};
use crate::notify::{HealthPing, NotifyItem, PingKind};
use crate::state::history::{History, HistoryError, TargetLook};

/// Time between two pings of the verdict.
const PING_INTERVAL: chrono::Duration = chrono::Duration::hours(1);
/// The hour of the weekly report, on Mondays.
const WEEKLY_HOUR: u32 = 8;
const PROOF: &str = "proof";
const WEEKLY: &str = "weekly";
const PING: &str = "ping";

/// Writes what is due.
pub(super) fn write(
    channel: &ChannelEvaluation<'_>,
    config: &Config,
    (history, verdict): (&History, &Verdict),
    known_since: DateTime<Utc>,
) -> Result<(), HistoryError> {
    if let ChannelKind::Healthchecks { job, .. } = &channel.channel.kind {
        return match job {
            PingJob::Verdict => ping(channel),
            _ => Ok(()),
        };
    }
    if channel.wants(NotifyEvent::Proof) {
        proof(channel, verdict.proof.as_ref(), known_since)?;
    }
    if channel.wants(NotifyEvent::Weekly) {
        weekly(channel, config, history)?;
    }
    Ok(())
}

/// Writes the ping of this hour. One that was not sent yet has no value any more.
fn ping(channel: &ChannelEvaluation<'_>) -> Result<(), HistoryError> {
    let (outbox, name, now) = (channel.outbox, &channel.channel.name, channel.now);
    let last = outbox.mark(name, PING)?;
    // A time in the future: the clock was set back.
    if last.is_some_and(|last| last <= now && now - last < PING_INTERVAL) {
        return Ok(());
    }
    outbox.remove_all(name)?;
    let kind = match channel.verdict.state.as_str() {
        "red" => PingKind::Fail,
        _ => PingKind::Success,
    };
    let mut body = format!("{}\n", channel.verdict.sentence);
    for finding in &channel.verdict.findings {
        body.push_str(&format!("- {}\n", finding.text));
    }
    channel.write(&NotifyItem::Ping(HealthPing {
        kind,
        rid: None,
        body,
    }))?;
    outbox.set_mark(name, PING, now)
}

/// Reports a proof that is newer than the last one that the channel knows.
fn proof(
    channel: &ChannelEvaluation<'_>,
    newest: Option<&ProvenSnapshot>,
    known_since: DateTime<Utc>,
) -> Result<(), HistoryError> {
    let (outbox, name) = (channel.outbox, &channel.channel.name);
    let Some(newest) = newest else { return Ok(()) };
    let known = outbox.mark(name, PROOF)?;
    if known.is_some_and(|known| known >= newest.proven_at) {
        return Ok(());
    }
    // A proof from before this host knew the channel is no news.
    if known.is_some() || newest.proven_at >= known_since {
        let mut message = channel.message(NotifyEvent::Proof);
        message.lines.push(format!(
            "Snapshot {} was restored from {} by {} on {}: {} bytes in {:.1} s.",
            newest.stamp,
            newest.target,
            newest.by,
            newest.proven_at.format("%Y-%m-%d"),
            newest.bytes,
            newest.seconds
        ));
        channel.write(&NotifyItem::Message(Box::new(message)))?;
    }
    outbox.set_mark(name, PROOF, newest.proven_at)
}

/// Writes the report of the newest Monday, unless the channel has it.
fn weekly(
    channel: &ChannelEvaluation<'_>,
    config: &Config,
    history: &History,
) -> Result<(), HistoryError> {
    let (outbox, name, now) = (channel.outbox, &channel.channel.name, channel.now);
    let Some(due) = newest_monday(now, zone_of(config, channel.channel)) else {
        return Ok(());
    };
    let last = outbox.mark(name, WEEKLY)?;
    if last.is_some_and(|last| last >= due) || channel.is_quiet {
        return Ok(());
    }
    if last.is_some() {
        let mut message = channel.message(NotifyEvent::Weekly);
        let looks = history.looks()?;
        for target in &config.targets {
            let look = looks.iter().find(|look| look.target == target.name);
            let line = target_line(channel, &target.name, look);
            message.lines.push(line);
        }
        channel.write(&NotifyItem::Message(Box::new(message)))?;
    }
    outbox.set_mark(name, WEEKLY, due)
}

fn target_line(channel: &ChannelEvaluation<'_>, target: &str, look: Option<&TargetLook>) -> String {
    let mut findings = channel.verdict.findings.iter();
    let worst = findings.find(|finding| finding.target.as_deref() == Some(target));
    let seen = look.and_then(|look| look.succeeded_at);
    let seen = match seen {
        Some(at) => format!("last seen {}", at.format("%Y-%m-%d %H:%M UTC")),
        None => "never seen".to_owned(),
    };
    match worst {
        Some(finding) => format!("{target}: {}; {seen}", finding.text),
        None => format!("{target}: nothing to report; {seen}"),
    }
}

/// Returns the newest Monday 8:00 in `zone` that is not after `now`; `None`: the calendar has none.
fn newest_monday(now: DateTime<Utc>, zone: chrono_tz::Tz) -> Option<DateTime<Utc>> {
    let local = now.with_timezone(&zone);
    let hour = NaiveTime::from_hms_opt(WEEKLY_HOUR, 0, 0)?;
    let days = i64::from(local.weekday().num_days_from_monday());
    let monday = local.date_naive() - chrono::Duration::days(days);
    let candidates = [monday, monday - chrono::Duration::days(7)];
    let moments = candidates.into_iter().filter_map(|day| {
        let moment = zone.from_local_datetime(&day.and_time(hour)).latest()?;
        Some(moment.to_utc())
    });
    moments.into_iter().find(|moment| *moment <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mondays_follow_the_zone() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let berlin = chrono_tz::Europe::Berlin;
        for (now, monday) in [
            ("2026-04-13T05:59:59Z", "2026-04-06T06:00:00Z"),
            ("2026-04-13T06:00:00Z", "2026-04-13T06:00:00Z"),
            ("2026-04-19T23:00:00Z", "2026-04-13T06:00:00Z"),
            ("2026-03-30T06:00:00Z", "2026-03-30T06:00:00Z"),
            ("2026-03-29T12:00:00Z", "2026-03-23T07:00:00Z"),
        ] {
            assert_eq!(newest_monday(at(now), berlin), Some(at(monday)), "{now}");
        }
    }
}
