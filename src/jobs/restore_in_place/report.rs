//! The report of a restore in place, or of its rollback.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::because::Because;
use super::plan::{InPlacePlan, LeftSource};
use crate::base::ids::Stamp;
use crate::checks::CheckResult;
use crate::state::restores::RestoreStep;

/// How a restore in place ended, or where it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InPlaceReport {
    /// A ULID.
    pub(crate) id: String,
    /// The last step; the restore is open if that is not a final one.
    pub(crate) state: RestoreStep,
    /// The snapshot.
    pub(crate) stamp: Stamp,
    /// The host that made it. Empty: the content does not say.
    pub(crate) host: String,
    /// Where the content came from.
    pub(crate) origin: String,
    pub(crate) began_at: DateTime<Utc>,
    pub(crate) items: Vec<InPlaceItem>,
    /// The sources that stay as they are.
    pub(crate) left: Vec<LeftSource>,
    /// Why it went back, or could not. Empty: the new content is in place.
    pub(crate) because: Vec<Because>,
    /// What needs attention though the new content is in place.
    pub(crate) warnings: Vec<Because>,
    /// The directory of the old content, or its first part. `None`: nothing was replaced.
    pub(crate) safety_copy: Option<String>,
    /// The directory of the new content after a rollback. `None`: it is in place, or was removed.
    pub(crate) failed_copy: Option<String>,
    /// The results before the service was stopped.
    pub(crate) checks_before: Vec<CheckResult>,
    /// The results with the new content.
    pub(crate) checks: Vec<CheckResult>,
    /// The results after a rollback.
    pub(crate) checks_after_rollback: Vec<CheckResult>,
    /// Time from the stop to the end of the start, in seconds. `None`: not stopped, or not started
    /// by this process.
    pub(crate) downtime_seconds: Option<f64>,
    /// Whether the service was started by this process.
    pub(crate) started: bool,
}

/// One item of a restore in place.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InPlaceItem {
    /// The source's name.
    pub(crate) name: String,
    /// The live path.
    pub(crate) path: String,
    /// The place in the content.
    pub(crate) from: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Sizes of the replaced files. `None`: nothing was there.
    pub(crate) replaced_bytes: Option<u64>,
    /// The path of the safety copy. `None`: nothing was there.
    pub(crate) safety_copy: Option<String>,
    /// Whether the safety copy is a copy, and not the old content itself.
    pub(crate) is_copied: bool,
}

impl InPlacePlan {
    /// Returns the report of a restore that only was planned.
    pub(crate) fn report(&self) -> InPlaceReport {
        InPlaceReport::new(self)
    }
}

impl InPlaceReport {
    pub(super) fn new(plan: &InPlacePlan) -> Self {
        let items = plan.items.iter().map(|item| InPlaceItem {
            name: item.name.clone(),
            path: item.live.display().to_string(),
            from: item.to.clone(),
            files: item.files,
            bytes: item.bytes,
            replaced_bytes: item.old.as_ref().map(|old| old.bytes),
            safety_copy: item
                .old
                .as_ref()
                .map(|_| item.safety.path().display().to_string()),
            is_copied: item.copies,
        });
        Self {
            id: plan.id.clone(),
            state: RestoreStep::Planned,
            stamp: plan.stamp,
            host: plan.host.clone(),
            origin: plan.origin.clone(),
            began_at: plan.made_at,
            items: items.collect(),
            left: plan.left.clone(),
            because: Vec::new(),
            warnings: plan.warnings.clone(),
            safety_copy: plan.safety_copy().map(|path| path.display().to_string()),
            failed_copy: None,
            checks_before: Vec::new(),
            checks: Vec::new(),
            checks_after_rollback: Vec::new(),
            downtime_seconds: None,
            started: false,
        }
    }

    /// Returns whether a later command must finish or undo it.
    pub(crate) fn is_open(&self) -> bool {
        !self.state.is_final()
    }

    /// Returns whether the data is one state, old or new, though the restore may be open.
    pub(crate) fn is_one_state(&self) -> bool {
        use RestoreStep::{
            Checking, RollbackChecked, RollbackStarting, Started, Starting, Swapped,
        };
        let step = self.state;
        step.is_final()
            || matches!(step, Swapped | Starting | Started | Checking)
            || matches!(step, RollbackStarting | RollbackChecked)
    }

    /// Returns whether the new content is in place for good.
    pub(crate) fn is_committed(&self) -> bool {
        self.state == RestoreStep::Committed
    }
}
