//! `notify test`: one real message to each channel.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::channel_evaluation::message;
use super::deliver::record_failure;
use crate::config::{ChannelKind, Config, NotifyChannel, NotifyEvent};
use crate::jobs::error::JobError;
use crate::notify::{self, HealthPing, NotifyItem, PingKind, ReportedVerdict};
use crate::state::history::{History, HistoryError};

/// What became of the messages.
#[derive(Debug, Serialize)]
pub(crate) struct NotifyTestReport {
    pub(crate) channels: Vec<ChannelTest>,
    /// What else the operator should know.
    pub(crate) warnings: Vec<String>,
}

/// One channel's answer.
#[derive(Debug, Serialize)]
pub(crate) struct ChannelTest {
    pub(crate) name: String,
    /// Such as `ntfy`.
    pub(crate) kind: &'static str,
    pub(crate) sent: bool,
    /// What came back, such as `200`. `None`: nothing, or a failure.
    pub(crate) answer: Option<String>,
    /// The id that the service gave to the message. `None`: it gives none.
    pub(crate) id: Option<String>,
    /// Why it was not sent.
    pub(crate) error: Option<String>,
}

/// Sends a message to the channel `name`, or to each channel, and records how it went.
pub(crate) fn send_tests(
    config: &Config,
    name: Option<&str>,
    now: DateTime<Utc>,
) -> Result<NotifyTestReport, JobError> {
    let chosen = choose(config, name)?;
    let mut report = NotifyTestReport {
        channels: Vec::new(),
        warnings: Vec::new(),
    };
    for channel in chosen {
        let item = test_item(config, channel, now);
        let result = notify::send(channel, &item, notify::COMMAND_TIMEOUT);
        let result = result.map_err(|error| error.to_string());
        if let Err(error) = record(config, channel, &result, now) {
            let text = crate::base::error_chain::with_causes(&error);
            report
                .warnings
                .push(format!("the result is not recorded: {text}"));
        }
        let (answer, id, error) = match result {
            Ok(answer) => (Some(answer.status), answer.id, None),
            Err(error) => (None, None, Some(error)),
        };
        report.channels.push(ChannelTest {
            name: channel.name.clone(),
            kind: channel.kind.name(),
            sent: error.is_none(),
            answer,
            id,
            error,
        });
    }
    Ok(report)
}

fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<Vec<&'a NotifyChannel>, JobError> {
    if config.channels.is_empty() {
        let text = "no channel is configured: nothing would be reported";
        let next = "add a [[notify]] table, as docs/notifications.md shows";
        return Err(JobError::request(text).with_next(next));
    }
    let wanted = config.channels.iter();
    let wanted = wanted.filter(|channel| name.is_none_or(|name| channel.name == name));
    let wanted: Vec<&NotifyChannel> = wanted.collect();
    match (wanted.is_empty(), name) {
        (true, Some(name)) => {
            let names: Vec<&str> = config
                .channels
                .iter()
                .map(|one| one.name.as_str())
                .collect();
            let text = format!("no channel is named {name:?}");
            Err(JobError::request(text).with_next(format!("there is {}", names.join(", "))))
        }
        _ => Ok(wanted),
    }
}

fn test_item(config: &Config, channel: &NotifyChannel, now: DateTime<Utc>) -> NotifyItem {
    let host = config.host.as_str();
    let sentence = format!("This is a test message of sealift on {host}: the channel works.");
    if matches!(channel.kind, ChannelKind::Healthchecks { .. }) {
        return NotifyItem::Ping(HealthPing {
            kind: PingKind::Log,
            rid: None,
            body: format!("{sentence}\n"),
        });
    }
    let verdict = ReportedVerdict {
        state: "green".to_owned(),
        sentence,
        since: None,
        findings: Vec::new(),
        newest: None,
        proven: None,
    };
    let message = message(host, NotifyEvent::Test, verdict, now);
    NotifyItem::Message(Box::new(message))
}

fn record(
    config: &Config,
    channel: &NotifyChannel,
    result: &Result<notify::ChannelAnswer, String>,
    now: DateTime<Utc>,
) -> Result<(), HistoryError> {
    // A host that never made a backup has no state directory, and needs none for a test.
    if !config.state.is_dir() {
        return Ok(());
    }
    let history = History::open(&config.state)?;
    match result {
        Ok(_) => history.record_sent(&channel.name, None, now),
        Err(error) => record_failure(&history, &channel.name, (error, now)),
    }
}
