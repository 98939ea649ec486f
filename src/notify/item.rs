//! What is sent, as the outbox keeps it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::NotifyEvent;

/// What one channel gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NotifyItem {
    Message(Box<NotifyMessage>),
    /// Only for healthchecks.
    Ping(HealthPing),
}

/// A message. A webhook and a command get it as JSON: docs/notifications.md describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NotifyMessage {
    /// Version of this form.
    pub(crate) v: u32,
    /// The same for each try of one message.
    pub(crate) id: String,
    pub(crate) event: NotifyEvent,
    pub(crate) host: String,
    /// When it was written.
    pub(crate) at: DateTime<Utc>,
    pub(crate) verdict: ReportedVerdict,
    /// The findings that this message reports.
    pub(crate) new: Vec<ReportedFinding>,
    /// The findings that have ended.
    pub(crate) resolved: Vec<ReportedFinding>,
    /// Red findings that were reported before and last.
    pub(crate) lasting: Vec<ReportedFinding>,
    /// The run of `started` and `complete`.
    pub(crate) run: Option<MessageRun>,
    /// Further lines of the text.
    pub(crate) lines: Vec<String>,
    /// The ids of the messages that reported the begin of what this one is about.
    pub(crate) thread: Vec<String>,
}

impl NotifyMessage {
    /// The version of the form.
    pub(crate) const VERSION: u32 = 1;
}

/// The verdict without paths and tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReportedVerdict {
    /// `green`, `amber` or `red`.
    pub(crate) state: String,
    pub(crate) sentence: String,
    /// Since when the state is what it is; `None`: not known.
    pub(crate) since: Option<DateTime<Utc>>,
    /// The worst first.
    pub(crate) findings: Vec<ReportedFinding>,
    /// Stamp of the newest published snapshot; `None`: there is none.
    pub(crate) newest: Option<String>,
    /// Stamp of the newest proven snapshot; `None`: there is none.
    pub(crate) proven: Option<String>,
}

/// A finding without paths and tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedFinding {
    pub(crate) code: String,
    /// `amber` or `red`.
    pub(crate) severity: String,
    pub(crate) target: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) since: Option<DateTime<Utc>>,
    /// A sentence without its final period.
    pub(crate) text: String,
    pub(crate) next: String,
}

/// A run in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MessageRun {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) started_at: DateTime<Utc>,
    /// `None`, as the next two: it is under way.
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) outcome: Option<String>,
    pub(crate) exit_code: Option<i32>,
    /// The new snapshot; `None`: there is none.
    pub(crate) stamp: Option<String>,
    pub(crate) sequence: Option<u64>,
}

/// What a ping says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PingKind {
    Start,
    Success,
    Fail,
    /// An entry in the log, which changes nothing.
    Log,
}

/// A ping of healthchecks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthPing {
    pub(crate) kind: PingKind,
    /// The run as a UUID, so that start and end belong together; `None`: it is about no run.
    pub(crate) rid: Option<String>,
    pub(crate) body: String,
}
