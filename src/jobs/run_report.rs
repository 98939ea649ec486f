//! The report of a run for other programs: the last event of `--events-fd`, and what the commands
//! of `[hooks]` read.
//!
//! Every field is always there, so that a reader needs to know one shape; docs/events.md describes
//! it. Paths and tables are for the history of this host only: they must not leave it in clear, so
//! hooks, which may send the report anywhere, get it without them.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound as _, Utc};
use serde::Serialize;

use crate::base::ids::{HostName, Stamp, ulid};
use crate::base::progress::Stage;

/// Who began a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trigger {
    /// A person, or a script of theirs.
    Manual,
    /// The agent's schedule.
    Schedule,
    /// A request to the agent.
    Api,
    /// The agent, after the machine started.
    Boot,
    /// A unit of systemd, such as a timer's.
    Timer,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReportedOutcome {
    /// Everything was done, and nothing needs attention.
    Complete,
    /// The run finished, but something was skipped or needs attention.
    Partial,
    /// The run did not do its work.
    Failed,
    /// A signal ended it.
    Cancelled,
}

impl Trigger {
    /// Returns the text that reports use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Schedule => "schedule",
            Self::Api => "api",
            Self::Boot => "boot",
            Self::Timer => "timer",
        }
    }
}

impl ReportedOutcome {
    /// Returns the text that reports use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The report of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunReport {
    /// A ULID.
    pub(crate) id: String,
    /// The command, such as `backup`.
    pub(crate) kind: String,
    pub(crate) trigger: Trigger,
    /// The host of the configuration. `None`: no configuration was read.
    pub(crate) host: Option<HostName>,
    pub(crate) started_at: DateTime<Utc>,
    /// `None`, as the next two: it is under way.
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) outcome: Option<ReportedOutcome>,
    pub(crate) exit_code: Option<u8>,
    /// What it did, in the order in which it first did so.
    pub(crate) stages: Vec<StageRun>,
    /// The new snapshot. `None`: there is none.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) sequence: Option<u64>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) new_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) sources: Vec<SourceRun>,
    pub(crate) databases: Vec<DatabaseRun>,
    pub(crate) targets: Vec<TargetRun>,
    pub(crate) skipped: Vec<SkippedPath>,
    /// Number of the skipped paths, also where these are not named.
    pub(crate) skipped_paths: u64,
    /// Names of the sources that failed.
    pub(crate) left_out: Vec<String>,
    pub(crate) retention: RetentionRun,
    /// What else keeps the run from being complete than skipped paths and targets that are behind.
    pub(crate) warnings: Vec<String>,
    /// What a restore in place did, as the command prints it with `--json`. `None`: this is another
    /// command.
    pub(crate) restore: Option<serde_json::Value>,
    pub(crate) errors: Vec<ErrorText>,
}

/// How long a run did one thing, in all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StageRun {
    pub(crate) stage: Stage,
    pub(crate) seconds: f64,
}

/// One source of the new snapshot.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SourceRun {
    pub(crate) name: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Time that the source was copied for. `None`: this run did not copy it.
    pub(crate) seconds: Option<f64>,
}

/// One database of the new snapshot.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DatabaseRun {
    /// Its path within the snapshot.
    pub(crate) path: String,
    /// Rows by table; `None`: they were not counted.
    pub(crate) tables: Option<BTreeMap<String, u64>>,
}

/// Whether a target has the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PushedState {
    Published,
    /// The spool keeps what the target lacks for the next run.
    Behind,
}

/// One target's part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TargetRun {
    pub(crate) name: String,
    /// `published` or `behind`.
    pub(crate) state: PushedState,
    pub(crate) sent_bytes: u64,
    pub(crate) objects: u64,
    /// Archives that came from another target.
    pub(crate) copied: u64,
    /// Time from the beginning of the push to the end of the target's part.
    pub(crate) seconds: f64,
    /// Why it is behind.
    pub(crate) error: Option<String>,
}

/// A path that the snapshot lacks.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SkippedPath {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// What retention did.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct RetentionRun {
    /// Stamps of the snapshots that were deleted on this host.
    pub(crate) forgot: Vec<Stamp>,
}

/// An error as text.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ErrorText {
    pub(crate) text: String,
    /// Its causes, the nearest first.
    pub(crate) causes: Vec<String>,
    /// The next step for the operator.
    pub(crate) next: Option<String>,
}

impl ErrorText {
    /// Returns the error and its causes; `next`: the next step.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static), next: Option<&str>) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        Self {
            text: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
            next: next.map(str::to_owned),
        }
    }
}

impl RunReport {
    /// Begins the report of a run that starts now.
    pub(crate) fn begin(kind: &str, trigger: Trigger, now: DateTime<Utc>) -> Self {
        Self {
            id: ulid(now),
            kind: kind.to_owned(),
            trigger,
            host: None,
            started_at: now.trunc_subsecs(3),
            ended_at: None,
            outcome: None,
            exit_code: None,
            stages: Vec::new(),
            stamp: None,
            sequence: None,
            files: 0,
            bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            sources: Vec::new(),
            databases: Vec::new(),
            targets: Vec::new(),
            skipped: Vec::new(),
            skipped_paths: 0,
            left_out: Vec::new(),
            retention: RetentionRun::default(),
            warnings: Vec::new(),
            restore: None,
            errors: Vec::new(),
        }
    }

    /// Ends the report of a run that a signal ended.
    pub(crate) fn cancel(&mut self, now: DateTime<Utc>) {
        self.conclude(ReportedOutcome::Cancelled, 1, now);
    }

    /// Ends the report.
    pub(crate) fn conclude(&mut self, outcome: ReportedOutcome, exit_code: u8, now: DateTime<Utc>) {
        self.outcome = Some(outcome);
        self.exit_code = Some(exit_code);
        self.ended_at = Some(now.trunc_subsecs(3));
    }

    /// Whether the run ended otherwise than complete.
    pub(crate) fn is_failure(&self) -> bool {
        let complete = ReportedOutcome::Complete;
        self.outcome.is_some_and(|outcome| outcome != complete)
    }

    /// Returns the report without paths and tables.
    pub(crate) fn without_paths(&self) -> Self {
        Self {
            databases: Vec::new(),
            skipped: Vec::new(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_always_there() {
        let report = RunReport::begin("verify", Trigger::Manual, DateTime::UNIX_EPOCH);
        let value = serde_json::to_value(&report).unwrap();
        let mut names: Vec<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "bytes",
                "databases",
                "ended_at",
                "errors",
                "exit_code",
                "files",
                "host",
                "id",
                "kind",
                "left_out",
                "new_bytes",
                "outcome",
                "restore",
                "retention",
                "sequence",
                "skipped",
                "skipped_paths",
                "sources",
                "stages",
                "stamp",
                "started_at",
                "stored_bytes",
                "targets",
                "trigger",
                "warnings"
            ]
        );
    }
}
