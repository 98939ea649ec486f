//! The verdict on this host's backups: one state, one sentence, and the findings that led to it.
//!
//! Everything that says how the backups are says it from here: `status`, its exit code and JSON,
//! the agent's pages, metrics and messages.
#![allow(dead_code, reason = "the function that makes it comes next")]

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::base::ids::Stamp;

/// How bad a finding is, and so the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Nothing needs attention. No finding has it.
    Green,
    /// Something needs attention soon.
    Amber,
    /// The backups are not safe.
    Red,
}

/// What a finding is about. The texts are those of the JSON, of metrics and of `ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FindingCode {
    NeverBackedUp,
    SnapshotStale,
    TargetStale,
    TargetBehind,
    /// The target was not looked at for an interval, or cannot be looked at.
    TargetUnknown,
    RunFailed,
    RunPartial,
    RunOverlong,
    /// Backups would be refused now.
    BackupRefused,
    Shrunk,
    Chain,
    Fork,
    LostArchives,
    ForeignManifest,
    VerifyOverdue,
    ProofOverdue,
    ProofFailed,
    ForeignReceipt,
    KeySilent,
    PartialRecipient,
    ChannelFailed,
    SpoolFull,
    DiskLow,
    Clock,
    ConfigChanged,
    Paused,
    RestoreOpen,
}

/// One thing that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VerdictFinding {
    pub(crate) code: FindingCode,
    pub(crate) severity: Severity,
    /// The target that it is about.
    pub(crate) target: Option<String>,
    /// The source that it is about.
    pub(crate) source: Option<String>,
    /// Since when it is true; `None`: not known.
    pub(crate) since: Option<DateTime<Utc>>,
    /// A sentence without its final period.
    pub(crate) text: String,
    /// The next step for the operator.
    pub(crate) next: String,
}

/// The newest snapshot that is published anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NewestPublished {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// Negative: its stamp is in the future.
    pub(crate) age_seconds: i64,
}

/// The newest snapshot that was restored for proof.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ProvenSnapshot {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    pub(crate) proven_at: DateTime<Utc>,
    /// Principal of the one who restored it.
    pub(crate) by: String,
    pub(crate) target: String,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

/// When a recipient's identity was last known to exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct KeyAlive {
    pub(crate) recipient: String,
    /// The stamp of the newest snapshot that it opened; `None`: never proven.
    pub(crate) alive_after: Option<DateTime<Utc>>,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) state: Severity,
    /// One sentence: the worst finding and the number of the others, or why all is well.
    pub(crate) sentence: String,
    /// Since when the state is what it is; `None`: not known.
    pub(crate) since: Option<DateTime<Utc>>,
    /// The worst first. Acknowledged ones are not among them.
    pub(crate) findings: Vec<VerdictFinding>,
    /// `None`: nothing was ever published.
    pub(crate) newest: Option<NewestPublished>,
    /// `None`: nothing was ever proven.
    pub(crate) proof: Option<ProvenSnapshot>,
    pub(crate) keys: Vec<KeyAlive>,
}
