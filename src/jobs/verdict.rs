//! The verdict on this host's backups: one state, one sentence, and the findings that led to it.
//!
//! Everything that says how the backups are says it from here: `status`, its exit code and JSON,
//! the agent's pages, metrics and messages.
//!
//! [`judge`](judge::judge) makes it from plain facts ([`observed`]), without looking at anything
//! itself. docs/verdict.md has the table of the codes.

mod host_rules;
mod judge;
pub(crate) mod observed;
mod proof_rules;
mod raised;
mod run_rules;
mod target_rules;
#[cfg(test)]
mod truth_table;
mod words;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub(crate) use host_rules::SAME_TIME_SECONDS;
pub(crate) use judge::{Judged, judge};

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

impl Severity {
    /// Returns the text of JSON and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Amber => "amber",
            Self::Red => "red",
        }
    }
}

/// What a finding is about. The texts are those of the JSON, of metrics and of `ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

impl FindingCode {
    /// Every code, in the order of the table in docs/verdict.md.
    pub(crate) const ALL: [Self; 27] = [
        Self::NeverBackedUp,
        Self::SnapshotStale,
        Self::TargetStale,
        Self::TargetBehind,
        Self::TargetUnknown,
        Self::RunFailed,
        Self::RunPartial,
        Self::RunOverlong,
        Self::BackupRefused,
        Self::Shrunk,
        Self::Chain,
        Self::Fork,
        Self::LostArchives,
        Self::ForeignManifest,
        Self::VerifyOverdue,
        Self::ProofOverdue,
        Self::ProofFailed,
        Self::ForeignReceipt,
        Self::KeySilent,
        Self::PartialRecipient,
        Self::ChannelFailed,
        Self::SpoolFull,
        Self::DiskLow,
        Self::Clock,
        Self::ConfigChanged,
        Self::Paused,
        Self::RestoreOpen,
    ];

    /// Returns the text of the code. It never changes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NeverBackedUp => "never_backed_up",
            Self::SnapshotStale => "snapshot_stale",
            Self::TargetStale => "target_stale",
            Self::TargetBehind => "target_behind",
            Self::TargetUnknown => "target_unknown",
            Self::RunFailed => "run_failed",
            Self::RunPartial => "run_partial",
            Self::RunOverlong => "run_overlong",
            Self::BackupRefused => "backup_refused",
            Self::Shrunk => "shrunk",
            Self::Chain => "chain",
            Self::Fork => "fork",
            Self::LostArchives => "lost_archives",
            Self::ForeignManifest => "foreign_manifest",
            Self::VerifyOverdue => "verify_overdue",
            Self::ProofOverdue => "proof_overdue",
            Self::ProofFailed => "proof_failed",
            Self::ForeignReceipt => "foreign_receipt",
            Self::KeySilent => "key_silent",
            Self::PartialRecipient => "partial_recipient",
            Self::ChannelFailed => "channel_failed",
            Self::SpoolFull => "spool_full",
            Self::DiskLow => "disk_low",
            Self::Clock => "clock",
            Self::ConfigChanged => "config_changed",
            Self::Paused => "paused",
            Self::RestoreOpen => "restore_open",
        }
    }

    /// Returns the code with this text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
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

impl std::fmt::Display for FindingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl VerdictFinding {
    /// Returns the target or source that it is about; empty: neither.
    pub(crate) fn about(&self) -> &str {
        let about = self.target.as_deref().or(self.source.as_deref());
        about.unwrap_or_default()
    }
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
