//! The report of a prune.

use serde::Serialize;

use super::Pruned;
use crate::base::ids::Stamp;
use crate::prune::{PrunePlan, PruneReport};

/// Report of a prune.
#[derive(Debug, Serialize)]
pub(crate) struct PruneJobReport {
    pub(crate) dry_run: bool,
    /// When the report was made.
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    pub(crate) targets: Vec<TargetPruneReport>,
}

/// Deletions on one target, done or planned.
#[derive(Debug, Serialize)]
pub(crate) struct TargetPruneReport {
    pub(crate) label: String,
    /// Every snapshot there. `None` if the target could not be read; so are the fields below.
    pub(crate) snapshots: Option<Vec<SnapshotDecision>>,
    /// Number of snapshots that stay only because their tags are not known.
    pub(crate) unknown_tags: Option<u64>,
    /// Why the target was not pruned. `None` if it was, or of a dry run without an error.
    pub(crate) failure: Option<String>,
    /// Why the plan would be refused. `None` if it would not, and of a run that deletes.
    pub(crate) refusal: Option<String>,
    /// `None` if nothing was deleted.
    pub(crate) done: Option<PruneDone>,
    pub(crate) to_free_archives: Option<u64>,
    pub(crate) to_free_bytes: Option<u64>,
    pub(crate) to_mark_archives: Option<u64>,
    pub(crate) to_mark_bytes: Option<u64>,
    pub(crate) findings: Option<Vec<String>>,
}

/// Whether a snapshot stays, and why.
#[derive(Debug, Serialize)]
pub(crate) struct SnapshotDecision {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    pub(crate) stays: bool,
    pub(crate) reasons: Vec<String>,
}

/// The deletions on one target.
#[derive(Debug, Serialize)]
pub(crate) struct PruneDone {
    pub(crate) forgotten: Vec<Stamp>,
    pub(crate) freed_archives: u64,
    pub(crate) freed_bytes: u64,
    /// Archives that are freed once a later backup has seen that they are no longer needed.
    pub(crate) marked_archives: u64,
    pub(crate) marked_bytes: u64,
    /// Objects that could not be deleted, each with the reason.
    pub(crate) not_deleted: Vec<String>,
    /// Names of manifests that are being published: until they are, no archive is freed.
    pub(crate) under_way: Vec<String>,
    /// The recovery documents were deleted to make room and could not be put back yet.
    #[serde(skip)]
    pub(crate) without_recovery: bool,
}

impl TargetPruneReport {
    pub(super) fn of(pruned: Pruned) -> Self {
        let plan = pruned.plan.as_ref();
        let sweep = plan.map(PrunePlan::to_sweep);
        let sweep = sweep.as_ref();
        let marked = plan.map(|plan| &plan.to_mark);
        Self {
            label: pruned.label,
            snapshots: plan.map(decisions),
            unknown_tags: plan.map(PrunePlan::kept_for_unknown_tags),
            failure: pruned.failure,
            refusal: pruned.refusal,
            done: pruned.report.map(PruneDone::from),
            to_free_archives: sweep.map(|all| all.len() as u64),
            to_free_bytes: sweep.map(|all| all.values().sum()),
            to_mark_archives: marked.map(|all| all.len() as u64),
            to_mark_bytes: marked.map(|all| all.values().sum()),
            findings: plan.map(|plan| plan.findings.iter().map(ToString::to_string).collect()),
        }
    }

    /// Whether the target was pruned, or would be, without anything to see to.
    pub(crate) fn is_complete(&self) -> bool {
        let has_rest = |done: &PruneDone| !done.not_deleted.is_empty() || done.without_recovery;
        self.failure.is_none() && !self.done.as_ref().is_some_and(has_rest)
    }
}

fn decisions(plan: &PrunePlan) -> Vec<SnapshotDecision> {
    let decisions = plan.snapshots.iter().map(|snapshot| SnapshotDecision {
        stamp: snapshot.stamp,
        sequence: snapshot.sequence,
        stays: snapshot.stays(),
        reasons: snapshot.reasons.iter().map(ToString::to_string).collect(),
    });
    decisions.collect()
}

impl From<PruneReport> for PruneDone {
    fn from(report: PruneReport) -> Self {
        Self {
            forgotten: report.forgotten,
            freed_archives: report.swept_archives,
            freed_bytes: report.swept_bytes,
            marked_archives: report.marked_archives,
            marked_bytes: report.marked_bytes,
            not_deleted: report.stuck,
            under_way: report.under_way.iter().map(ToString::to_string).collect(),
            without_recovery: report.without_recovery,
        }
    }
}
