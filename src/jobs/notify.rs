//! Notifications: compares the verdict with what each channel knows, writes messages into the
//! outbox, and sends what is due.
//!
//! - [`evaluate`] decides and writes, in one transaction. It contacts no server.
//! - [`deliver`] sends. An item is removed from the outbox in the transaction that records its
//!   success, so a crash in between repeats at most that item.
//! - Both look only at the rows of the history and at the verdict, which is made of rows and time.
//!   So no failure has a way of its own on which it could be missed.
//!
//! The layer below sends ([`crate::notify`]); nothing that it gets has a path or a table in it
//! ([`safe_text`]).

mod after_run;
mod channel_evaluation;
mod deliver;
mod edges;
mod evaluate;
mod run_events;
mod safe_text;
mod test_message;
#[cfg(test)]
mod tests;
mod timed_events;

use chrono::{DateTime, Utc};
use serde::Serialize;

pub(crate) use after_run::{RunNotifier, agent_is_running};
pub(crate) use deliver::deliver;
pub(crate) use evaluate::evaluate;
pub(crate) use test_message::{ChannelTest, send_tests};

use crate::config::{Config, NotifyChannel};
use crate::state::history::{History, HistoryError};

/// How a channel's last tries went, for the finding `channel_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ChannelState {
    pub(crate) name: String,
    /// Such as `ntfy`.
    pub(crate) kind: &'static str,
    /// When it last accepted something; `None`: never.
    pub(crate) succeeded_at: Option<DateTime<Utc>>,
    /// When the first of the failed tries in a row was; `None`: the last try did not fail.
    pub(crate) failing_since: Option<DateTime<Utc>>,
    /// Why the last try failed; `None`: it did not.
    pub(crate) error: Option<String>,
    /// Number of items that wait in the outbox.
    pub(crate) waiting: usize,
}

/// Returns the state of each channel of the configuration, in its order.
pub(crate) fn channel_states(
    history: &History,
    config: &Config,
) -> Result<Vec<ChannelState>, HistoryError> {
    let records = history.channel_records()?;
    let outbox = history.outbox()?;
    let states = config.channels.iter().map(|channel| {
        let record = records.iter().find(|record| record.name == channel.name);
        ChannelState {
            name: channel.name.clone(),
            kind: channel.kind.name(),
            succeeded_at: record.and_then(|record| record.succeeded_at),
            failing_since: record.and_then(|record| record.failing_since),
            error: record.and_then(|record| record.error.clone()),
            waiting: outbox
                .iter()
                .filter(|item| item.channel == channel.name)
                .count(),
        }
    });
    Ok(states.collect())
}

/// Returns the zone of the channel's quiet hours and of its weekly report.
fn zone_of(config: &Config, channel: &NotifyChannel) -> chrono_tz::Tz {
    channel.zone.unwrap_or(config.schedule.zone)
}

fn is_quiet(config: &Config, channel: &NotifyChannel, now: DateTime<Utc>) -> bool {
    let zone = zone_of(config, channel);
    channel.quiet.is_some_and(|hours| hours.contain(now, zone))
}
