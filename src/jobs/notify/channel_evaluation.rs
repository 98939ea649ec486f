//! The evaluation of one channel: what it gets is written with this.

use chrono::{DateTime, Utc};

use super::edges::EdgeTiming;
use crate::base::ids::ulid;
use crate::config::{NotifyChannel, NotifyEvent};
use crate::notify::{NotifyItem, NotifyMessage, ReportedVerdict};
use crate::state::history::{HistoryError, NewOutboxItem, OutboxTransaction};

/// The evaluation of one channel.
pub(super) struct ChannelEvaluation<'a> {
    pub(super) host: &'a str,
    pub(super) channel: &'a NotifyChannel,
    pub(super) outbox: &'a OutboxTransaction<'a>,
    pub(super) verdict: &'a ReportedVerdict,
    pub(super) timing: EdgeTiming,
    pub(super) is_quiet: bool,
    pub(super) now: DateTime<Utc>,
}

impl ChannelEvaluation<'_> {
    pub(super) fn wants(&self, event: NotifyEvent) -> bool {
        self.channel.events.contains(&event)
    }

    /// Returns a message of this event that says nothing more than the verdict.
    pub(super) fn message(&self, event: NotifyEvent) -> NotifyMessage {
        message(self.host, event, self.verdict.clone(), self.now)
    }

    /// Writes what is sent now.
    pub(super) fn write(&self, item: &NotifyItem) -> Result<(), HistoryError> {
        self.add(item, 0)
    }

    pub(super) fn add(&self, item: &NotifyItem, wait_seconds: i64) -> Result<(), HistoryError> {
        let is_urgent = match item {
            NotifyItem::Ping(_) => true,
            NotifyItem::Message(message) => message.event == NotifyEvent::Red,
        };
        let has_edges = matches!(item, NotifyItem::Message(message) if has_edges(message));
        self.outbox.add(&NewOutboxItem {
            channel: self.channel.name.clone(),
            made_at: self.now,
            due_at: self.now + chrono::Duration::seconds(wait_seconds),
            is_urgent,
            has_edges,
            item: item_json(item),
        })
    }
}

/// Returns a message of this event that says nothing more than the verdict.
pub(super) fn message(
    host: &str,
    event: NotifyEvent,
    verdict: ReportedVerdict,
    now: DateTime<Utc>,
) -> NotifyMessage {
    NotifyMessage {
        v: NotifyMessage::VERSION,
        id: ulid(now),
        event,
        host: host.to_owned(),
        at: crate::base::clock::in_seconds(now),
        verdict,
        new: Vec::new(),
        resolved: Vec::new(),
        lasting: Vec::new(),
        run: None,
        lines: Vec::new(),
        thread: Vec::new(),
    }
}

/// Returns the item as the outbox keeps it: a struct of texts and numbers can always be written.
pub(super) fn item_json(item: &NotifyItem) -> String {
    serde_json::to_string(item).unwrap_or_default()
}

fn has_edges(message: &NotifyMessage) -> bool {
    let lists = [&message.new, &message.resolved, &message.lasting];
    lists.iter().any(|list| !list.is_empty())
}
