//! Sends what is due.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rustix::fs::{FlockOperation, flock};

use super::is_quiet;
use crate::base::panics;
use crate::config::{Config, NotifyChannel};
use crate::notify::{self, ChannelAnswer, NotifyItem};
use crate::state::history::{
    ChannelFinding, ChannelRecord, History, HistoryError, OutboxItem, OutboxTransaction,
};

/// Age at which an item is given up.
const EXPIRY: chrono::Duration = chrono::Duration::hours(24);
/// Time until the second try.
const FIRST_WAIT_SECONDS: i64 = 30;
/// Longest time between two tries.
const LONGEST_WAIT_SECONDS: i64 = 15 * 60;
/// The file in the state directory that the sending process locks.
const LOCK: &str = "notify.lock";
/// Time between two tries to lock it.
const POLL: Duration = Duration::from_millis(50);

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeliveryReport {
    pub(crate) sent: usize,
    /// Channels whose last try failed now, each with the reason.
    pub(crate) failed: Vec<(String, String)>,
}

/// Sends what is due, each channel's items in their order. A channel that fails is left alone for a
/// time that grows, and its items stay. Does nothing while another process sends.
pub(crate) fn deliver(
    config: &Config,
    history: &History,
    now: DateTime<Utc>,
) -> Result<DeliveryReport, HistoryError> {
    deliver_within(config, history, now, None)
}

/// Does the same until `deadline`, and waits until then for another process that sends.
pub(crate) fn deliver_within(
    config: &Config,
    history: &History,
    now: DateTime<Utc>,
    deadline: Option<Instant>,
) -> Result<DeliveryReport, HistoryError> {
    let mut report = DeliveryReport::default();
    // Without a channel there is nothing to send, and the state directory may not be ours.
    if config.channels.is_empty() {
        return Ok(report);
    }
    let OutboxLock::Held(_lock) = lock(config, deadline) else {
        return Ok(report);
    };
    expire(history, now)?;
    loop {
        let due = due_items(config, history, now)?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if due.is_empty() || left.is_some_and(|left| left.is_zero()) {
            return Ok(report);
        }
        let most = left.unwrap_or(Duration::MAX);
        for (_, item) in &due {
            history.begin_try(item.id)?;
        }
        let mut unrecorded = Ok(());
        for (channel, item, result) in send_all(&due, most) {
            let recorded = match result {
                Ok(_) => {
                    report.sent += 1;
                    history.record_sent(&channel.name, Some(item.id), now)
                }
                Err(error) => {
                    let recorded = record_failure(history, &channel.name, (&error, now));
                    report.failed.push((channel.name.clone(), error));
                    recorded
                }
            };
            // The others are recorded still.
            unrecorded = unrecorded.and(recorded);
        }
        unrecorded?;
    }
}

/// Records a failed try of `channel`, which is left alone for a time that doubles with each.
pub(super) fn record_failure(
    history: &History,
    channel: &str,
    (error, now): (&str, DateTime<Utc>),
) -> Result<(), HistoryError> {
    let records = history.channel_records()?;
    let record = records.iter().find(|record| record.name == channel);
    let failures = record.map_or(0, |record| record.failures).min(16);
    let wait = (FIRST_WAIT_SECONDS << failures).min(LONGEST_WAIT_SECONDS);
    let retry_at = now + chrono::Duration::seconds(wait);
    history.record_unsent(channel, now, (error, retry_at))
}

/// Whether this process may send.
enum OutboxLock {
    /// It may, until this is dropped. `None`: the file of the lock cannot be opened, and the worst
    /// of that is that two processes send the same.
    Held(Option<File>),
    /// Another process sends.
    Busy,
}

/// Locks the outbox for the process that sends.
fn lock(config: &Config, deadline: Option<Instant>) -> OutboxLock {
    let mut options = File::options();
    let options = options.append(true).create(true).mode(0o600);
    let options = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let Ok(file) = options.open(config.state.join(LOCK)) else {
        return OutboxLock::Held(None);
    };
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return OutboxLock::Busy;
        }
        std::thread::sleep(POLL);
    }
    OutboxLock::Held(Some(file))
}

type Due<'a> = (&'a NotifyChannel, OutboxItem);

/// Returns the next item of each channel that may be tried now.
fn due_items<'a>(
    config: &'a Config,
    history: &History,
    now: DateTime<Utc>,
) -> Result<Vec<Due<'a>>, HistoryError> {
    let outbox = history.outbox()?;
    let records = history.channel_records()?;
    let due = config.channels.iter().filter_map(|channel| {
        let record = records.iter().find(|record| record.name == channel.name);
        if record.is_some_and(|record| is_left_alone(record, now)) {
            return None;
        }
        let is_quiet = is_quiet(config, channel, now);
        let mut items = outbox.iter().filter(|item| item.channel == channel.name);
        let next = items.find(|item| item.due_at <= now && (item.is_urgent || !is_quiet))?;
        Some((channel, next.clone()))
    });
    Ok(due.collect())
}

/// Whether the channel failed so recently that it is not tried. A time of the next try that is too
/// far away was written before the clock was set back.
fn is_left_alone(record: &ChannelRecord, now: DateTime<Utc>) -> bool {
    let longest = chrono::Duration::seconds(LONGEST_WAIT_SECONDS);
    let retry_at = record.retry_at.filter(|_| record.failing_since.is_some());
    retry_at.is_some_and(|at| now < at && at - now <= longest)
}

/// Sends one item to each channel at the same time.
fn send_all<'a>(
    due: &'a [Due<'a>],
    most: Duration,
) -> Vec<(
    &'a NotifyChannel,
    &'a OutboxItem,
    Result<ChannelAnswer, String>,
)> {
    std::thread::scope(|scope| {
        let sending: Vec<_> = due
            .iter()
            .map(|(channel, item)| {
                let name = format!("notify {}", channel.name);
                let thread = std::thread::Builder::new().name(name);
                let begun = thread.spawn_scoped(scope, move || send_caught(channel, item, most));
                (channel, item, begun)
            })
            .collect();
        let sent = sending.into_iter().map(|(channel, item, begun)| {
            let result = match begun {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|_| Err("sending ended by a fault of sealift".to_owned())),
                Err(error) => Err(format!("no thread can be started: {error}")),
            };
            (*channel, item, result)
        });
        sent.collect()
    })
}

fn send_caught(
    channel: &NotifyChannel,
    item: &OutboxItem,
    most: Duration,
) -> Result<ChannelAnswer, String> {
    let send = || {
        let parsed = serde_json::from_str::<NotifyItem>(&item.item);
        let parsed = parsed.map_err(|_| "what the outbox holds cannot be read".to_owned())?;
        notify::send(channel, &parsed, most).map_err(|error| error.to_string())
    };
    panics::caught_now(send).unwrap_or_else(|panicked| Err(panicked.to_string()))
}

/// Gives up items that are too old. The findings that they report count as not reported, so that a
/// message about the present takes their place.
fn expire(history: &History, now: DateTime<Utc>) -> Result<(), HistoryError> {
    let outbox = history.outbox()?;
    let old: Vec<&OutboxItem> = outbox
        .iter()
        .filter(|item| now - item.made_at >= EXPIRY)
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    history.in_outbox(|outbox| {
        let mut by_channel: BTreeMap<&str, Vec<&OutboxItem>> = BTreeMap::new();
        for item in &old {
            by_channel.entry(&item.channel).or_default().push(item);
        }
        for (channel, items) in by_channel {
            forget_reports(outbox, channel, &items)?;
            for item in items {
                outbox.remove(item.id)?;
                history.count_expired(channel)?;
            }
        }
        Ok(())
    })
}

fn forget_reports(
    outbox: &OutboxTransaction<'_>,
    channel: &str,
    items: &[&OutboxItem],
) -> Result<(), HistoryError> {
    let mut known = outbox.findings(channel)?;
    for item in items {
        let Ok(NotifyItem::Message(message)) = serde_json::from_str(&item.item) else {
            continue;
        };
        for finding in message.new.iter().chain(&message.lasting) {
            let key = super::edges::key_of(finding);
            if let Some(entry) = known.iter_mut().find(|entry| entry.finding == key) {
                entry.reported = 0;
                entry.reported_at = None;
            }
        }
        for finding in &message.resolved {
            let key = super::edges::key_of(finding);
            let entry = known.iter_mut().find(|entry| entry.finding == key);
            let reported = super::edges::level_of(&finding.severity);
            match entry {
                Some(entry) if entry.level == 0 && entry.reported == 0 => entry.reported = reported,
                Some(_) => {}
                None => known.push(ChannelFinding {
                    finding: key,
                    seen_at: item.made_at,
                    level: 0,
                    reported,
                    reported_at: None,
                    thread: message.thread.first().cloned(),
                    content: serde_json::to_string(finding).unwrap_or_default(),
                }),
            }
        }
    }
    outbox.set_findings(channel, &known)
}
