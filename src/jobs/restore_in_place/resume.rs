//! Finishes or undoes a restore in place whose process ended: from what its journal and the names
//! on disk show.

use std::sync::Arc;

use super::because::{Because, code};
use super::machine::{RestoreMachine, Undoing};
use super::report::InPlaceReport;
use crate::base::progress::Stage;
use crate::state::restores::{RecordPhase, RestoreLog, RestoreStep};

/// What is to be done with an open restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuation {
    /// Nothing was replaced: what was copied is removed, and a service that was stopped is started.
    Undo,
    /// Some items may be in place: forward if all new content is whole, else back.
    FinishSwap,
    /// All new content is in place: start, check, commit.
    GoOn,
    /// Only its last record is missing.
    Commit,
    /// It was on its way back.
    Back,
}

impl Continuation {
    /// Decides by the journal alone.
    pub(super) fn of(log: &RestoreLog) -> Self {
        let intends = |step| log.has(step, None, RecordPhase::Intend);
        let began = |step| log.records.iter().any(|record| record.step == step);
        if intends(RestoreStep::RollbackStopping) || intends(RestoreStep::RolledBack) {
            Self::Back
        } else if intends(RestoreStep::Undone) {
            Self::Undo
        } else if intends(RestoreStep::Committed) {
            Self::Commit
        } else if log.has(RestoreStep::Swapped, None, RecordPhase::Done) {
            Self::GoOn
        } else if began(RestoreStep::Swapping) {
            Self::FinishSwap
        } else {
            Self::Undo
        }
    }
}

/// Makes the reason of a restore that is undone because its process ended.
fn interrupted() -> Because {
    Because::new(
        code::INTERRUPTED,
        "its process ended before the new content was in place",
        "run the restore again",
    )
}

impl RestoreMachine<'_> {
    /// Continues an open restore.
    pub(super) fn resume(mut self) -> InPlaceReport {
        match Continuation::of(&self.log) {
            Continuation::Undo => {
                let mut records = self.log.records.iter();
                match records.any(|record| record.step == RestoreStep::Swapping) {
                    true => self.undo_swap(),
                    false => self.undo(interrupted(), Undoing::Unused),
                }
            }
            Continuation::Back => self.continue_back(),
            Continuation::Commit => self.commit(),
            Continuation::GoOn => self.go_on_from_swapped(),
            Continuation::FinishSwap => match self.finish_swap() {
                Ok(true) => self.go_on_from_swapped(),
                Ok(false) => self.undo(interrupted(), Undoing::MaybeUsed),
                Err(because) => self.stuck(because),
            },
        }
    }

    /// Makes the data one state. Returns whether that is the new one.
    fn finish_swap(&mut self) -> Result<bool, Because> {
        let plan = Arc::clone(&self.plan);
        match self.options.is_boot {
            true => self.services.require_unused(&plan.items)?,
            false => {
                self.front.stage(Stage::StoppingService, None);
                self.services.stop(&plan.items)?;
            }
        }
        for item in &plan.items {
            if !self.mover(item)?.can_go_forward().unwrap_or(false) {
                return Ok(false);
            }
        }
        let forward = self.preserve().and_then(|()| self.swap());
        match forward {
            Ok(()) => Ok(true),
            Err(because) => {
                self.shut.clear();
                self.report.because.push(because);
                Ok(false)
            }
        }
    }

    /// Undoes an exchange that was interrupted. Nothing may use the data meanwhile.
    pub(super) fn undo_swap(self) -> InPlaceReport {
        let unused = match self.options.is_boot {
            true => self.services.require_unused(&self.plan.items),
            false => {
                self.front.stage(Stage::StoppingService, None);
                self.services.stop(&self.plan.items)
            }
        };
        match unused {
            Ok(()) => self.undo(interrupted(), Undoing::MaybeUsed),
            Err(because) => self.stuck(because),
        }
    }

    fn go_on_from_swapped(self) -> InPlaceReport {
        match self.options.is_boot {
            // The data is one state. Starting and checking are for later.
            true => self.settle_at_boot(),
            false => self.go_on(),
        }
    }

    fn settle_at_boot(mut self) -> InPlaceReport {
        self.shut.clear();
        let detail = serde_json::json!({ "boot": true });
        match self.append(RestoreStep::Swapped, None, RecordPhase::Done, detail) {
            Ok(()) => self.pause(),
            Err(because) => self.stuck(because),
        }
    }

    /// Whether the data was made one state while the system booted.
    pub(super) fn was_settled_at_boot(&self) -> bool {
        let settled = self.log.find(RestoreStep::Swapped, None, RecordPhase::Done);
        settled.is_some_and(|record| record.detail["boot"] == true)
    }
}
