//! The report of a verification.

use serde::Serialize;

use super::TargetVerdict;
use super::look::head;
use crate::base::ids::Stamp;
use crate::format::index::Skipped;
use crate::jobs::test_restore::TestRestore;
use crate::scrub::{Examined, Problem};

/// Report of a verification.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyReport {
    pub(crate) targets: Vec<VerifiedTarget>,
}

/// Findings on one target.
#[derive(Debug, Serialize)]
pub(crate) struct VerifiedTarget {
    pub(crate) name: String,
    pub(crate) label: String,
    /// `None` if the target could not be read.
    pub(crate) found: Option<FoundThere>,
    /// Archives that were read and hashed.
    pub(crate) read_archives: u64,
    pub(crate) read_bytes: u64,
    /// Archives that an earlier run, which this one continued, had read.
    pub(crate) read_before: u64,
    /// Archives that were to be read and are in cold storage.
    pub(crate) frozen_archives: u64,
    pub(crate) frozen_bytes: u64,
    pub(crate) problems: Vec<ProblemReport>,
    /// Repairs, and why some failed, each a line.
    pub(crate) repaired: Vec<String>,
    /// Archives that could not be repaired.
    pub(crate) lost_archives: u64,
    /// Trial restores.
    pub(crate) restored: Vec<RestoreTrial>,
    /// Messages that need no attention.
    pub(crate) notes: Vec<String>,
    /// Why the target could not be verified. `None` if it was.
    pub(crate) failure: Option<String>,
}

/// Objects on a target.
#[derive(Debug, Serialize)]
pub(crate) struct FoundThere {
    pub(crate) snapshots: usize,
    /// The sequence of the newest snapshot, 0 if there is none.
    pub(crate) sequence: u64,
    /// Archives that are complete.
    pub(crate) archives: usize,
    pub(crate) archive_bytes: u64,
    /// Objects that no snapshot refers to. `None` if they were not counted.
    pub(crate) stray_objects: Option<u64>,
    pub(crate) stray_bytes: Option<u64>,
}

/// Something that needs attention.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemReport {
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    /// The next step for the operator.
    pub(crate) next: &'static str,
    /// Whether `--repair` may repair it.
    #[serde(skip)]
    pub(crate) is_repairable: bool,
}

/// The result of a trial restore.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum RestoreTrial {
    /// Every file was restored, and its content is what the index says.
    Good {
        stamp: Stamp,
        files: u64,
        bytes: u64,
        /// Databases that passed their checks.
        databases: u64,
        /// Paths that the snapshot was made without.
        lacks: Vec<Skipped>,
    },
    /// Some archives are in cold storage.
    Frozen {
        stamp: Stamp,
        frozen_archives: u64,
        frozen_bytes: u64,
    },
    /// The snapshot is not what its index says.
    Wrong { what: String },
}

impl VerifyReport {
    pub(super) fn of(verdicts: Vec<TargetVerdict>) -> Self {
        Self {
            targets: verdicts.into_iter().map(VerifiedTarget::of).collect(),
        }
    }

    /// Returns what needs attention, in a line each.
    pub(crate) fn problem_lines(&self) -> Vec<String> {
        let of_target = |target: &VerifiedTarget| {
            let failure = target.failure.as_ref();
            let failure = failure.map(|why| format!("{}: {why}", target.name));
            let problems = target.problems.iter();
            let problems = problems.map(|problem| format!("{}: {}", target.name, problem.what));
            failure.into_iter().chain(problems).collect::<Vec<_>>()
        };
        self.targets.iter().flat_map(of_target).collect()
    }

    /// Whether no target could be verified.
    pub(crate) fn is_failed(&self) -> bool {
        self.targets.iter().all(|target| target.failure.is_some())
    }

    /// Whether every target was verified and nothing needs attention.
    pub(crate) fn is_clean(&self) -> bool {
        let is_clean =
            |target: &VerifiedTarget| target.problems.is_empty() && target.failure.is_none();
        self.targets.iter().all(is_clean)
    }
}

impl VerifiedTarget {
    fn of(verdict: TargetVerdict) -> Self {
        Self {
            name: verdict.name,
            label: verdict.label,
            found: verdict.examined.as_ref().map(FoundThere::of),
            read_archives: verdict.read_archives,
            read_bytes: verdict.read_bytes,
            read_before: verdict.read_before,
            frozen_archives: verdict.frozen.0,
            frozen_bytes: verdict.frozen.1,
            problems: verdict.problems.iter().map(ProblemReport::of).collect(),
            repaired: verdict.repaired,
            lost_archives: verdict.lost,
            restored: verdict
                .rehearsals
                .into_iter()
                .map(RestoreTrial::from)
                .collect(),
            notes: verdict.notes,
            failure: verdict.failure,
        }
    }
}

impl FoundThere {
    fn of(examined: &Examined) -> Self {
        Self {
            snapshots: examined.chain.snapshots.len(),
            sequence: head(&examined.chain),
            archives: examined.whole.len(),
            archive_bytes: examined.whole.values().map(|needed| needed.row.bytes).sum(),
            stray_objects: examined.stray.map(|(objects, _)| objects),
            stray_bytes: examined.stray.map(|(_, bytes)| bytes),
        }
    }
}

impl ProblemReport {
    fn of(problem: &Problem) -> Self {
        Self {
            kind: problem.kind(),
            what: problem.to_string(),
            next: problem.next(),
            is_repairable: problem.lost().is_some() || matches!(problem, Problem::Page { .. }),
        }
    }
}

impl From<TestRestore> for RestoreTrial {
    fn from(rehearsal: TestRestore) -> Self {
        match rehearsal {
            TestRestore::Good {
                stamp,
                files,
                bytes,
                databases,
                lacks,
            } => Self::Good {
                stamp,
                files,
                bytes,
                databases,
                lacks,
            },
            TestRestore::Frozen {
                stamp,
                archives,
                bytes,
            } => Self::Frozen {
                stamp,
                frozen_archives: archives,
                frozen_bytes: bytes,
            },
            TestRestore::Wrong(problem) => Self::Wrong {
                what: problem.to_string(),
            },
        }
    }
}
