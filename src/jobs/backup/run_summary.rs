//! What a hook around a run learns of it, as JSON on its standard input.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::error::JobError;
use super::super::push::{PushReport, TargetReport, TargetState};
use crate::base::clock;
use crate::base::ids::Stamp;

/// A run, as far as it has come.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RunSummary {
    /// The run's number on this host. `None`: it failed before it had one.
    pub(super) id: Option<String>,
    pub(super) host: String,
    /// `backup` or `push`.
    pub(super) kind: &'static str,
    pub(super) started_at: DateTime<Utc>,
    /// `None`: it is under way.
    pub(super) ended_at: Option<DateTime<Utc>>,
    /// `complete`, `partial`, `failed` or `cancelled`. `None`: it is under way.
    pub(super) outcome: Option<&'static str>,
    /// `None`: it is under way, or it was cancelled.
    pub(super) exit_code: Option<u8>,
    pub(super) stamp: Option<Stamp>,
    pub(super) sequence: Option<u64>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) new_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) targets: Vec<TargetOutcome>,
    /// Number of entries that the snapshot lacks. Their paths stay on the host.
    pub(super) skipped: usize,
    /// Names of the sources that failed.
    pub(super) left_out: Vec<String>,
    pub(super) errors: Vec<FailureSummary>,
}

/// What became of the run on one target.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TargetOutcome {
    name: String,
    /// `published` or `behind`.
    state: &'static str,
    sent_bytes: u64,
    objects: u64,
    /// Archives that were copied from another target.
    copied: u64,
    error: Option<String>,
}

/// An error or a warning of the run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FailureSummary {
    text: String,
    causes: Vec<String>,
    next: Option<String>,
}

impl RunSummary {
    pub(super) fn begun(host: &str, kind: &'static str) -> Self {
        Self {
            id: None,
            host: host.to_owned(),
            kind,
            started_at: clock::now(),
            ended_at: None,
            outcome: None,
            exit_code: None,
            stamp: None,
            sequence: None,
            files: 0,
            bytes: 0,
            new_bytes: 0,
            stored_bytes: 0,
            targets: Vec::new(),
            skipped: 0,
            left_out: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Adds how the run ended. `is_alarmed`: a source shrank.
    pub(super) fn ended(&mut self, done: Result<&PushReport, &JobError>, is_alarmed: bool) {
        self.ended_at = Some(clock::now());
        self.errors.clear();
        let (outcome, exit_code) = match done {
            Err(error) => {
                self.errors.push(FailureSummary::of(error));
                ("failed", if error.is_request() { 2 } else { 1 })
            }
            Ok(report) => {
                self.take(report);
                match (report.is_published_somewhere(), report.is_complete()) {
                    (false, _) => ("failed", 1),
                    (true, true) if !is_alarmed => ("complete", 0),
                    (true, _) => ("partial", 3),
                }
            }
        };
        (self.outcome, self.exit_code) = (Some(outcome), Some(exit_code));
    }

    /// Notes that a signal ended the process.
    pub(super) fn cancelled(mut self) -> Self {
        self.ended_at = Some(clock::now());
        self.outcome = Some("cancelled");
        self
    }

    /// Whether it ended otherwise than complete.
    pub(super) fn is_failure(&self) -> bool {
        self.outcome.is_some_and(|outcome| outcome != "complete")
    }

    fn take(&mut self, report: &PushReport) {
        self.stamp = Some(report.manifest.stamp);
        self.sequence = Some(report.manifest.sequence);
        self.files = report.totals.files;
        self.bytes = report.totals.bytes;
        self.new_bytes = report.totals.new_bytes;
        self.stored_bytes = report.new_archive_bytes;
        self.targets = report.targets.iter().map(TargetOutcome::of).collect();
        self.skipped = report.skipped.len();
        self.errors = report
            .warnings
            .iter()
            .map(|warning| FailureSummary {
                text: warning.clone(),
                causes: Vec::new(),
                next: None,
            })
            .collect();
    }
}

impl FailureSummary {
    fn of(error: &JobError) -> Self {
        let mut causes = Vec::new();
        let mut source = error.error().source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self {
            text: error.to_string(),
            causes,
            next: error.next().map(str::to_owned),
        }
    }
}

impl TargetOutcome {
    fn of(report: &TargetReport) -> Self {
        let (state, error) = match &report.state {
            TargetState::Published => ("published", None),
            TargetState::Behind(cause) => ("behind", Some(cause.clone())),
        };
        Self {
            name: report.name.clone(),
            state,
            sent_bytes: report.shipped_bytes,
            objects: report.shipped_objects,
            copied: report.copied_archives,
            error,
        }
    }
}
