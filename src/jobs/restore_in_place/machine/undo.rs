//! What the machine does if a step fails before all new content is in place, or if it cannot go on.

use std::sync::Arc;

use serde_json::json;

use super::super::because::{Because, code};
use super::super::mover::ItemMover;
use super::super::report::InPlaceReport;
use super::{RestoreMachine, Undoing};
use crate::base::progress::Stage;
use crate::state::restores::{RecordPhase, RestoreStep};

impl RestoreMachine<'_> {
    /// Brings back what was exchanged before all of it was, removes the copies, and starts the
    /// service again.
    pub(in crate::jobs::restore_in_place) fn undo(
        mut self,
        because: Because,
        undoing: Undoing,
    ) -> InPlaceReport {
        self.report.because.push(because);
        match self.try_undo(undoing) {
            Ok(()) => self.end(),
            Err(because) => self.stuck(because),
        }
    }

    fn try_undo(&mut self, undoing: Undoing) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        let was_stopped = self
            .log
            .has(RestoreStep::Stopping, None, RecordPhase::Intend);
        if was_stopped {
            self.front.stage(Stage::RollingBack, None);
            // On a full disk it must do without.
            let _ = self.intend(RestoreStep::Undone, None);
        }
        for item in plan.items.iter().rev() {
            let mover = self.mover(item)?;
            let is_used = undoing == Undoing::MaybeUsed;
            if is_used {
                mover.close_new(|| self.services.users(&plan.items))?;
            }
            mover.back(is_used.then_some(&item.failed))?;
            let removed = mover.remove_copy();
            removed.map_err(|error| {
                Because::io(format!("cannot remove the copy of {}", item.name), &error)
            })?;
            item.safety.remove_empty();
        }
        self.shut.clear();
        if was_stopped && self.options.is_boot && self.config.restore.start.is_some() {
            return self.leave_start_to_later();
        }
        if was_stopped && !self.options.keeps_down && !self.options.is_boot {
            self.front.stage(Stage::StartingService, None);
            match self.services.start() {
                Ok(started) => self.report.started = started,
                Err(because) => self.report.because.push(because),
            }
        }
        self.report.safety_copy = None;
        self.report.state = RestoreStep::Undone;
        if !was_stopped {
            let removed = self.restores.remove(&self.plan.id);
            return removed
                .map_err(|error| Because::io("cannot remove the restore\'s plan", &error));
        }
        let detail = json!({ "report": self.report });
        self.append(RestoreStep::Undone, None, RecordPhase::Done, detail)
    }

    /// Ends with the old content in place and an open journal: the restore had stopped the service,
    /// and a system that boots may not start what was stopped on purpose.
    fn leave_start_to_later(&mut self) -> Result<(), Because> {
        let text = "the restore had stopped the service, which the system may not start by itself";
        let next = "start it, and end the restore: sealift restore --resume";
        let stopped = Because::new(code::SERVICE_STOPPED, text, next);
        self.report.warnings.push(stopped);
        self.report.safety_copy = None;
        self.report.state = RestoreStep::Undone;
        let detail = json!({ "boot": true });
        self.append(RestoreStep::Undone, None, RecordPhase::Intend, detail)
    }

    /// Ends with an open journal: says what holds what.
    pub(in crate::jobs::restore_in_place) fn stuck(
        mut self,
        mut because: Because,
    ) -> InPlaceReport {
        let plan = Arc::clone(&self.plan);
        for item in &plan.items {
            if let Ok(mover) = ItemMover::new(item, &self.log) {
                because
                    .text
                    .push_str(&format!("; {}: {}", item.name, mover.whereabouts()));
            }
        }
        let first = because.next.trim_end_matches(", then run it again");
        let first = first.trim_end_matches("; then run it again");
        because.next = match first.is_empty() {
            true => "finish or undo it: sealift restore --resume".to_owned(),
            false => format!("{first}; then finish or undo it: sealift restore --resume"),
        };
        self.report.because.push(because);
        self.report.state = self.log.step().unwrap_or(RestoreStep::Planned);
        self.end()
    }

    /// Ends with the new content in place, which a person must judge: after a power cut nothing is
    /// rolled back without `rollback_after_boot`.
    pub(super) fn leave_open(mut self, mut because: Because) -> InPlaceReport {
        because.next = format!(
            "{}; `sealift rollback` brings the old content back, `sealift restore --resume --no-checks` keeps the new",
            because.next
        );
        self.report.because.push(because);
        self.pause()
    }

    pub(in crate::jobs::restore_in_place) fn end(self) -> InPlaceReport {
        self.guard.release();
        self.report
    }

    /// Ends at this point with an open journal that is in order.
    pub(in crate::jobs::restore_in_place) fn pause(mut self) -> InPlaceReport {
        self.report.state = self.log.step().unwrap_or(RestoreStep::Planned);
        self.end()
    }
}
