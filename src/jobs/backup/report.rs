//! The report of a backup or a push.

use std::time::Duration;

use serde::Serialize;

use super::super::error::JobError;
use super::super::push::{PushReport, TargetReport, TargetState};
use super::super::run_report::{
    DatabaseRun, PushedState, ReportedOutcome, RunReport, SkippedPath, SourceRun, TargetRun,
};
use super::super::shrunk::ShrinkFinding;
use crate::base::ids::Stamp;
use crate::format::index::Skipped;
use crate::format::manifest::Totals;
use crate::state::staged_snapshot::LeftOut;

/// Report of a backup or a push.
#[derive(Debug, Serialize)]
pub(crate) struct BackupReport {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// The manifest's name.
    pub(crate) manifest: String,
    pub(crate) totals: Totals,
    pub(crate) new_archives: u64,
    pub(crate) new_archive_bytes: u64,
    /// Paths that the snapshot lacks.
    pub(crate) skipped: Vec<Skipped>,
    /// Sources that the snapshot lacks because they failed.
    pub(crate) left_out: Vec<LeftOut>,
    /// Messages that need no attention.
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) targets: Vec<PushedTarget>,
    /// Everything is stored on every target, and nothing needs attention.
    pub(crate) complete: bool,
    /// Sources that shrank.
    pub(crate) findings: Vec<ShrinkFinding>,
    /// What only the report of the run has.
    #[serde(skip)]
    pub(crate) details: RunDetails,
    /// Why the run could not be recorded in the catalog.
    #[serde(skip)]
    pub(crate) not_recorded: Option<JobError>,
}

/// Result of a push on one target.
#[derive(Debug, Serialize)]
pub(crate) struct PushedTarget {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) state: PushedState,
    /// Why the target lacks the snapshot. `None` if it has it.
    pub(crate) cause: Option<String>,
    pub(crate) shipped_objects: u64,
    pub(crate) shipped_bytes: u64,
    /// Archives that were copied from another target.
    pub(crate) copied_archives: u64,
    /// Time from the beginning of the push to the end of the target's part.
    #[serde(skip)]
    pub(crate) took: Duration,
}

/// Details of a backup that only the report of the run has.
#[derive(Debug, Default)]
pub(crate) struct RunDetails {
    pub(crate) sources: Vec<SourceRun>,
    pub(crate) databases: Vec<DatabaseRun>,
    pub(crate) forgot: Vec<Stamp>,
}

impl BackupReport {
    pub(super) fn of(
        report: PushReport,
        left_out: Vec<LeftOut>,
        findings: Vec<ShrinkFinding>,
    ) -> Self {
        Self {
            stamp: report.manifest.stamp,
            sequence: report.manifest.sequence,
            manifest: report.manifest.to_string(),
            totals: report.totals,
            new_archives: report.new_archives,
            new_archive_bytes: report.new_archive_bytes,
            complete: report.is_complete() && findings.is_empty(),
            skipped: report.skipped,
            left_out,
            notes: report.notes,
            warnings: report.warnings,
            targets: report.targets.into_iter().map(PushedTarget::of).collect(),
            findings,
            details: RunDetails::default(),
            not_recorded: None,
        }
    }

    /// Adds what the backup or push did to the report of the run.
    pub(crate) fn add_to(&self, run: &mut RunReport) {
        run.stamp = Some(self.stamp);
        run.sequence = Some(self.sequence);
        run.files = self.totals.files;
        run.bytes = self.totals.bytes;
        run.new_bytes = self.totals.new_bytes;
        run.stored_bytes = self.new_archive_bytes;
        run.sources.clone_from(&self.details.sources);
        run.databases.clone_from(&self.details.databases);
        run.retention.forgot.clone_from(&self.details.forgot);
        run.targets = self.targets.iter().map(PushedTarget::run).collect();
        let skipped = self.skipped.iter().map(|one| SkippedPath {
            path: one.path.clone(),
            reason: one.reason.clone(),
        });
        run.skipped = skipped.collect();
        run.skipped_paths = self.skipped.len() as u64;
        let left_out = self.left_out.iter().map(|one| one.source.clone());
        run.left_out = left_out.collect();
        run.warnings.clone_from(&self.warnings);
    }

    /// Returns how the run ended, and its exit code.
    pub(super) fn outcome(&self) -> (ReportedOutcome, u8) {
        match (self.is_published_somewhere(), self.complete) {
            (false, _) => (ReportedOutcome::Failed, 1),
            (true, true) => (ReportedOutcome::Complete, 0),
            (true, false) => (ReportedOutcome::Partial, 3),
        }
    }

    /// Whether every target has the whole snapshot, and there is nothing to warn of. An alarm about
    /// a source that shrank does not count.
    pub(crate) fn is_everywhere(&self) -> bool {
        let published = |target: &PushedTarget| target.state == PushedState::Published;
        self.targets.iter().all(published) && self.skipped.is_empty() && self.warnings.is_empty()
    }

    /// Adds something that keeps the run from being complete.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
        self.complete = false;
    }

    /// Whether at least one target has the snapshot.
    pub(crate) fn is_published_somewhere(&self) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| target.state == PushedState::Published)
    }

    /// Returns the skipped paths that are not those of sources that were left out.
    pub(crate) fn other_skipped(&self) -> Vec<&Skipped> {
        skipped_beside(&self.left_out, &self.skipped)
    }
}

/// Returns those of `skipped` that are not the entries of the sources in `left_out`.
pub(crate) fn skipped_beside<'a>(left_out: &[LeftOut], skipped: &'a [Skipped]) -> Vec<&'a Skipped> {
    let named: Vec<_> = left_out.iter().map(LeftOut::skipped).collect();
    skipped.iter().filter(|one| !named.contains(one)).collect()
}

impl PushedTarget {
    /// Returns the target's part in the report of the run.
    pub(crate) fn run(&self) -> TargetRun {
        TargetRun {
            name: self.name.clone(),
            state: self.state,
            sent_bytes: self.shipped_bytes,
            objects: self.shipped_objects,
            copied: self.copied_archives,
            seconds: self.took.as_secs_f64(),
            error: self.cause.clone(),
        }
    }

    pub(crate) fn of(report: TargetReport) -> Self {
        let (state, cause) = match report.state {
            TargetState::Published => (PushedState::Published, None),
            TargetState::Behind(cause) => (PushedState::Behind, Some(cause)),
        };
        Self {
            name: report.name,
            label: report.label,
            state,
            cause,
            shipped_objects: report.shipped_objects,
            shipped_bytes: report.shipped_bytes,
            copied_archives: report.copied_archives,
            took: report.took,
        }
    }
}
