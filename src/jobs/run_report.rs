//! The report of a run for other programs: the last event of `--events-fd`.
//!
//! Every field is always there, so that a reader needs to know one shape; docs/events.md describes
//! it. Paths and tables are for the history of this host only: they must not leave it in clear.

use chrono::{DateTime, SubsecRound as _, Utc};
use serde::Serialize;

use super::backup::report::{BackupReport, DatabaseRun, PushedState, SourceRun};
use super::restore_in_place::InPlaceReport;
use crate::base::ids::{Stamp, ulid};

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

/// The report of one run.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    /// A ULID.
    pub(crate) id: String,
    /// The command, such as `backup`.
    pub(crate) kind: String,
    /// Who began it.
    pub(crate) trigger: &'static str,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) ended_at: DateTime<Utc>,
    pub(crate) outcome: ReportedOutcome,
    pub(crate) exit_code: u8,
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
    pub(crate) retention: RetentionRun,
    /// What a restore in place did. `None`: this is another command.
    pub(crate) restore: Option<InPlaceReport>,
    pub(crate) errors: Vec<ErrorText>,
}

/// One target's part.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub(crate) struct SkippedPath {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// What retention did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RetentionRun {
    /// Stamps of the snapshots that were deleted on this host.
    pub(crate) forgot: Vec<Stamp>,
}

/// An error as text.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorText {
    pub(crate) text: String,
    /// Its causes, the nearest first.
    pub(crate) causes: Vec<String>,
    /// The next step for the operator.
    pub(crate) next: Option<String>,
}

impl RunReport {
    /// Begins the report of a run that starts now. Until it is concluded, it says `cancelled`.
    pub(crate) fn begin(kind: &str, now: DateTime<Utc>) -> Self {
        Self {
            id: ulid(now),
            kind: kind.to_owned(),
            trigger: "manual",
            started_at: now.trunc_subsecs(3),
            ended_at: now.trunc_subsecs(3),
            outcome: ReportedOutcome::Cancelled,
            exit_code: 1,
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
            retention: RetentionRun::default(),
            restore: None,
            errors: Vec::new(),
        }
    }

    /// Adds what a backup or a push did.
    pub(crate) fn add_backup(&mut self, report: &BackupReport) {
        self.stamp = Some(report.stamp);
        self.sequence = Some(report.sequence);
        self.files = report.totals.files;
        self.bytes = report.totals.bytes;
        self.new_bytes = report.totals.new_bytes;
        self.stored_bytes = report.new_archive_bytes;
        self.sources.clone_from(&report.details.sources);
        self.databases.clone_from(&report.details.databases);
        self.retention.forgot.clone_from(&report.details.forgot);
        let targets = report.targets.iter().map(|target| TargetRun {
            name: target.name.clone(),
            state: target.state,
            sent_bytes: target.shipped_bytes,
            objects: target.shipped_objects,
            copied: target.copied_archives,
            seconds: target.took.as_secs_f64(),
            error: target.cause.clone(),
        });
        self.targets = targets.collect();
        let skipped = report.skipped.iter().map(|one| SkippedPath {
            path: one.path.clone(),
            reason: one.reason.clone(),
        });
        self.skipped = skipped.collect();
    }

    /// Ends the report.
    pub(crate) fn conclude(&mut self, outcome: ReportedOutcome, exit_code: u8, now: DateTime<Utc>) {
        self.outcome = outcome;
        self.exit_code = exit_code;
        self.ended_at = now.trunc_subsecs(3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_always_there() {
        let report = RunReport::begin("verify", DateTime::UNIX_EPOCH);
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
                "id",
                "kind",
                "new_bytes",
                "outcome",
                "restore",
                "retention",
                "sequence",
                "skipped",
                "sources",
                "stamp",
                "started_at",
                "stored_bytes",
                "targets",
                "trigger"
            ]
        );
    }
}
