//! The steps of a restore in place.

use serde::{Deserialize, Serialize};

/// A step of a restore in place, in the order in which they are taken; from `RollbackStopping` on,
/// on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreStep {
    /// The plan is on disk.
    Planned,
    /// New content is copied beside the live paths.
    Staged,
    /// What uses the data is stopped.
    Stopping,
    /// Nothing uses the data.
    Stopped,
    /// The old content is closed up, and copied if its safety copy is a copy.
    Preserving,
    /// New content takes the place of the old.
    Swapping,
    /// All new content is in its place.
    Swapped,
    /// What uses the data is started.
    Starting,
    /// It is started.
    Started,
    /// The checks run.
    Checking,
    /// The end: the new content stays.
    Committed,
    /// The end: it was given up before anything was replaced.
    Undone,
    /// On the way back: what uses the data is stopped.
    RollbackStopping,
    /// Old content takes its place again.
    Unswapping,
    /// On the way back: what uses the data is started.
    RollbackStarting,
    /// On the way back: the checks have run.
    RollbackChecked,
    /// The end: the old content is back.
    RolledBack,
    /// After the end: the safety copy was deleted.
    Cleaned,
}

impl RestoreStep {
    /// Returns whether the restore has ended.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Committed | Self::Undone | Self::RolledBack | Self::Cleaned
        )
    }

    /// Returns the step as the journal names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Staged => "staged",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Preserving => "preserving",
            Self::Swapping => "swapping",
            Self::Swapped => "swapped",
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Checking => "checking",
            Self::Committed => "committed",
            Self::Undone => "undone",
            Self::RollbackStopping => "rollback_stopping",
            Self::Unswapping => "unswapping",
            Self::RollbackStarting => "rollback_starting",
            Self::RollbackChecked => "rollback_checked",
            Self::RolledBack => "rolled_back",
            Self::Cleaned => "cleaned",
        }
    }

    /// Returns a clause on the step, such as `it put db in place`.
    pub(super) fn clause(self, item: &str) -> String {
        let clause = match self {
            Self::Planned => "it began",
            Self::Staged => "it copied the new content",
            Self::Stopping | Self::Stopped => "it stopped the service",
            Self::Preserving => return format!("it kept the old content of {item}"),
            Self::Swapping => return format!("it put {item} in place"),
            Self::Swapped | Self::Starting | Self::Started => "it started the service",
            Self::Checking => "its checks ran",
            Self::RollbackStopping => "it began to go back",
            Self::Unswapping => return format!("it put the old {item} back"),
            Self::RollbackStarting | Self::RollbackChecked => {
                "it started the service with the old content"
            }
            Self::Committed | Self::Undone | Self::RolledBack | Self::Cleaned => "it ended",
        };
        clause.to_owned()
    }
}
