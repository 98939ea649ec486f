//! The way back, after the new content was in place: stops the service, exchanges each item back,
//! starts the service and checks it. The new content is kept as evidence.

use std::sync::Arc;

use serde_json::json;

use super::because::{Because, code};
use super::caches;
use super::digest::signature;
use super::machine::{RestoreMachine, check_failed};
use super::plan::ThingId;
use super::report::InPlaceReport;
use super::resume::Continuation;
use crate::base::progress::Stage;
use crate::state::restores::{RecordPhase, RestoreStep};

impl RestoreMachine<'_> {
    /// Rolls back because of a failure.
    pub(super) fn roll_back(mut self, because: Because) -> InPlaceReport {
        self.report.because.push(because);
        self.begin_back(false)
    }

    /// Rolls back because the operator wants it.
    pub(super) fn roll_back_by_hand(self, discards: bool) -> InPlaceReport {
        self.begin_back(discards)
    }

    /// Records that everything goes back, and which files are the new content now: their numbers
    /// are others if the disk was copied since.
    fn begin_back(mut self, discards: bool) -> InPlaceReport {
        let mut live = serde_json::Map::new();
        for item in &self.plan.items {
            let meta = self
                .mover(item)
                .ok()
                .and_then(|mover| mover.live().meta().ok());
            if let Some(meta) = meta.flatten() {
                live.insert(item.name.clone(), json!(ThingId::of(&meta)));
            }
        }
        let begun = json!({
            "because": self.report.because, "discards": discards, "live": live,
        });
        let step = RestoreStep::RollbackStopping;
        match self.append(step, None, RecordPhase::Intend, begun) {
            Ok(()) => self.continue_back(),
            Err(because) => self.stuck(because),
        }
    }

    /// Rolls back an open restore whose new content is in place.
    pub(super) fn roll_back_open(mut self) -> InPlaceReport {
        match Continuation::of(&self.log) {
            Continuation::Back => self.continue_back(),
            // Originals whose copies are kept may be gone in part: the copies count from here on.
            Continuation::Commit => match self.try_commit() {
                Ok(()) => self.roll_back_by_hand(false),
                Err(because) => self.stuck(because),
            },
            _ => self.roll_back_by_hand(false),
        }
    }

    /// Undoes an open restore of which not all new content is in place.
    pub(super) fn undo_open(self) -> InPlaceReport {
        match Continuation::of(&self.log) {
            Continuation::Back => self.continue_back(),
            Continuation::FinishSwap => self.undo_swap(),
            _ => self.resume(),
        }
    }

    /// Ends without a change of anything.
    pub(super) fn refuse(mut self, because: Because) -> InPlaceReport {
        self.report.because.push(because);
        self.pause()
    }

    /// Takes the steps of the way back that are not done yet.
    pub(super) fn continue_back(mut self) -> InPlaceReport {
        self.front.stage(Stage::RollingBack, None);
        match self.try_back() {
            Ok(()) => self.pause(),
            Err(because) => self.stuck(because),
        }
    }

    fn discards(&self) -> bool {
        let begun = self
            .log
            .find(RestoreStep::RollbackStopping, None, RecordPhase::Intend);
        begun.is_some_and(|begun| begun.detail["discards"] == true)
    }

    fn try_back(&mut self) -> Result<(), Because> {
        let starting = (RestoreStep::RollbackStarting, RecordPhase::Intend);
        if !self.log.has(starting.0, None, starting.1) {
            self.bring_back()?;
        }
        if self.options.is_boot {
            // The data is one state; the system starts the service.
            return Ok(());
        }
        self.restart()?;
        self.finish_back()
    }

    fn bring_back(&mut self) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        self.shut.clear();
        match self.options.is_boot {
            true => self.services.require_unused(&plan.items)?,
            false => {
                self.front.stage(Stage::StoppingService, None);
                self.services.stop(&plan.items)?;
            }
        }
        self.done(RestoreStep::RollbackStopping, None)?;
        let discards = self.discards();
        for item in plan.items.iter().rev() {
            self.front.stage(Stage::RollingBack, Some(&item.name));
            let name = Some(item.name.as_str());
            self.mover(item)?
                .close_new(|| self.services.users(&plan.items))?;
            let again = self.mover(item)?.begin_back().map_err(|error| {
                Because::io(
                    format!("cannot copy the safety copy of {}", item.name),
                    &error,
                )
            })?;
            self.append(RestoreStep::Unswapping, name, RecordPhase::Intend, again)?;
        }
        self.shut_databases()?;
        for item in plan.items.iter().rev() {
            let evidence = item.evidence(discards);
            self.mover(item)?.back(Some(evidence))?;
            self.done(RestoreStep::Unswapping, Some(&item.name))?;
        }
        self.shut.clear();
        self.intend(RestoreStep::RollbackStarting, None)
    }

    fn restart(&mut self) -> Result<(), Because> {
        if self.options.keeps_down {
            return Ok(());
        }
        self.front.stage(Stage::StartingService, None);
        self.report.started = self.services.start()?;
        self.done(RestoreStep::RollbackStarting, None)?;
        if !self.options.checks {
            return Ok(());
        }
        self.front.stage(Stage::CheckingService, None);
        self.report.checks_after_rollback = self.check_live();
        let results = self.report.checks_after_rollback.clone();
        for failed in results.iter().filter(|result| !result.passed) {
            let because = check_failed(failed);
            let before = match self.failed_before(failed) {
                true => "as before the restore",
                false => "which it passed before the restore",
            };
            let text = format!("after the rollback {}, {before}", because.text);
            self.report.because.push(Because { text, ..because });
        }
        let detail = json!({ "checks": self.report.checks_after_rollback });
        self.append(
            RestoreStep::RollbackChecked,
            None,
            RecordPhase::Done,
            detail,
        )
    }

    fn finish_back(&mut self) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        let discards = self.discards();
        self.intend(RestoreStep::RolledBack, None)?;
        caches::forget(&self.config.state, &plan).map_err(|error| {
            Because::io("cannot have the next backup look at everything", &error)
        })?;
        for item in &plan.items {
            item.safety.remove_empty();
        }
        let has_copy = plan.items.iter().any(|item| {
            let safety = item.safety.find().ok().flatten();
            safety.is_some_and(|slot| slot.is_taken().unwrap_or(true))
        });
        if !has_copy {
            self.report.safety_copy = None;
        }
        let failed = plan.failed_copy(discards);
        self.report.failed_copy = failed.map(|path| path.display().to_string());
        self.report.state = RestoreStep::RolledBack;
        let detail = json!({ "report": self.report });
        self.append(RestoreStep::RolledBack, None, RecordPhase::Done, detail)
    }

    /// Fails if a safety copy cannot bring its item back.
    pub(super) fn require_whole_copies(&self) -> Result<(), Because> {
        for item in &self.plan.items {
            let whole = self.mover(item)?.require_whole_copy();
            whole.map_err(|error| {
                let next = "restore a snapshot instead: sealift restore --in-place";
                let text = format!("the safety copy of {} is no use: {error}", item.name);
                Because::new(code::CONTENT_CHANGED, text, next)
            })?;
        }
        Ok(())
    }

    /// Returns why the live data is not what the restore left, if it is not.
    pub(super) fn later_changes(&self) -> Result<Option<Because>, Because> {
        let committed = self
            .log
            .find(RestoreStep::Committed, None, RecordPhase::Done);
        let mut changed = Vec::new();
        for item in &self.plan.items {
            let known = committed.map(|record| &record.detail["signatures"][&item.name]);
            let failed = |error| Because::io(format!("cannot look at {}", item.name), &error);
            let now = signature(self.mover(item)?.live(), item.is_database()).map_err(failed)?;
            if known.and_then(|known| known.as_str()) != Some(now.to_string().as_str()) {
                changed.push(item.name.as_str());
            }
        }
        if changed.is_empty() {
            return Ok(None);
        }
        let text = format!("{} changed since the restore", changed.join(", "));
        let next = "to give these changes up: the same command with --discard-changes, which moves them to post-restore-STAMP";
        Ok(Some(Because::new(code::LIVE_CHANGED, text, next)))
    }
}
