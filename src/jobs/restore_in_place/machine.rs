//! The machine: takes the steps of a restore in place, each after its record is on disk.
//!
//! - Until the service is stopped, a failure removes what was copied.
//! - From then until all new content is in place, a failure brings back what was exchanged and
//!   starts the service again: [`RestoreMachine::undo`].
//! - After that, a failure is a [rollback](super::rollback).

mod checks;
mod undo;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::because::{Because, code};
use super::mover::ItemMover;
use super::plan::{InPlacePlan, PlannedItem};
use super::report::InPlaceReport;
use super::services::{Services, explain_owners, still_in_use};
use super::slot::Slot;
use super::{caches, guard, stage};
use crate::base::openat::Dir;
use crate::base::progress::Stage;
use crate::base::sqlite::Shut;
use crate::config::Config;
use crate::jobs::context::FrontEnd;
use crate::jobs::in_place_content::InPlaceContent;
use crate::state::restores::{RecordPhase, RestoreLog, RestoreStep, Restores};
use checks::CheckedContent;
pub(super) use checks::check_failed;

/// What the caller wants of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineOptions {
    /// The service is started, and checked after that.
    pub(super) starts: bool,
    /// The checks run.
    pub(super) checks: bool,
    /// After a failure the service stays down.
    pub(super) keeps_down: bool,
    /// The system starts the services: none is started or stopped.
    pub(super) is_boot: bool,
}

/// One restore in place on its way.
pub(super) struct RestoreMachine<'a> {
    pub(super) config: &'a Config,
    pub(super) restores: &'a Restores,
    pub(super) plan: Arc<InPlacePlan>,
    pub(super) log: RestoreLog,
    pub(super) front: &'a dyn FrontEnd,
    pub(super) services: Services<'a>,
    pub(super) options: MachineOptions,
    pub(super) report: InPlaceReport,
    /// Locks on databases: no application can open one.
    pub(super) shut: Vec<Shut>,
    /// When the service was stopped by this process.
    stopped_at: Option<Instant>,
    /// Keeps a signal from ending the process without a word.
    guard: guard::InterruptGuard,
}

impl<'a> RestoreMachine<'a> {
    pub(super) fn new(
        config: &'a Config,
        restores: &'a Restores,
        plan: InPlacePlan,
        log: RestoreLog,
        options: MachineOptions,
        front: &'a dyn FrontEnd,
    ) -> Self {
        let plan = Arc::new(plan);
        Self {
            config,
            restores,
            guard: guard::InterruptGuard::register(&config.state, &plan),
            services: Services::new(&config.restore, &plan),
            report: InPlaceReport::new(&plan),
            plan,
            log,
            front,
            options,
            shut: Vec::new(),
            stopped_at: None,
        }
    }

    pub(super) fn append(
        &mut self,
        step: RestoreStep,
        item: Option<&str>,
        phase: RecordPhase,
        detail: Value,
    ) -> Result<(), Because> {
        let appended = self.log.append(step, item, phase, detail);
        appended.map_err(|error| Because::io("cannot write the journal of the restore", &error))
    }

    pub(super) fn intend(&mut self, step: RestoreStep, item: Option<&str>) -> Result<(), Because> {
        self.append(step, item, RecordPhase::Intend, Value::Null)
    }

    pub(super) fn done(&mut self, step: RestoreStep, item: Option<&str>) -> Result<(), Because> {
        self.append(step, item, RecordPhase::Done, Value::Null)
    }

    pub(super) fn mover<'i>(&self, item: &'i PlannedItem) -> Result<ItemMover<'i>, Because> {
        ItemMover::new(item, &self.log).map_err(|error| {
            Because::io(
                format!("cannot open the directory of {}", item.name),
                &error,
            )
        })
    }

    /// Takes all steps from the plan to the end.
    pub(super) fn run(mut self, content: &InPlaceContent) -> InPlaceReport {
        if let Err(because) = self.stage(content) {
            return self.undo(because, Undoing::Unused);
        }
        let steps = [Self::stop, Self::preserve, Self::swap];
        for step in steps {
            if let Err(because) = step(&mut self) {
                return self.undo(because, Undoing::Unused);
            }
        }
        self.go_on()
    }

    fn stage(&mut self, content: &InPlaceContent) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        let open = |error: io::Error| Because::io("cannot open the content", &error);
        let root = Dir::open_trusted(&content.dir).map_err(open)?;
        for item in &plan.items {
            self.front.stage(Stage::Staging, Some(&item.name));
            let name = Some(item.name.as_str());
            self.intend(RestoreStep::Staged, name)?;
            let from = Slot {
                dir: root.clone(),
                name: item.to.clone().into(),
            };
            let to = self.mover(item)?.staged().clone();
            let staged = stage::stage(item, &from, &to, content.record.as_ref())?;
            let detail = json!({
                "new": staged.id, "digest": staged.digest.hash, "bytes": staged.digest.bytes,
                "files": staged.digest.files,
            });
            for note in staged.notes {
                let text = format!("{}: {note}", item.name);
                self.report.warnings.push(Because::new(code::IO, text, ""));
            }
            self.append(RestoreStep::Staged, name, RecordPhase::Done, detail)?;
        }
        if self.options.checks {
            let staged = self.checks(|check| check.when_staged);
            let results = self.run_checks(&staged, CheckedContent::Staged, Duration::ZERO);
            if let Some(failed) = results.iter().find(|result| !result.passed) {
                return Err(check_failed(failed));
            }
            let before = self.checks(|_| true);
            self.front.stage(Stage::CheckingService, None);
            self.report.checks_before =
                self.run_checks(&before, CheckedContent::Live, Duration::ZERO);
        }
        let before = json!({ "checks": self.report.checks_before });
        self.append(RestoreStep::Staged, None, RecordPhase::Done, before)
    }

    fn stop(&mut self) -> Result<(), Because> {
        self.intend(RestoreStep::Stopping, None)?;
        self.front.stage(Stage::StoppingService, None);
        self.stopped_at = self.config.restore.stop.as_ref().map(|_| Instant::now());
        let plan = Arc::clone(&self.plan);
        self.services.stop(&plan.items)?;
        self.done(RestoreStep::Stopped, None)
    }

    pub(super) fn preserve(&mut self) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        for item in &plan.items {
            if item.old.is_none() {
                continue;
            }
            self.front.stage(Stage::KeepingOld, Some(&item.name));
            let name = Some(item.name.as_str());
            self.intend(RestoreStep::Preserving, name)?;
            let mut mover = self.mover(item)?;
            let closed = mover.close_old(|| self.services.users(&plan.items))?;
            if !closed.is_null() {
                self.append(RestoreStep::Preserving, name, RecordPhase::Intend, closed)?;
            }
            let detail = self.mover(item)?.keep()?;
            self.append(RestoreStep::Preserving, name, RecordPhase::Done, detail)?;
        }
        Ok(())
    }

    pub(super) fn swap(&mut self) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        self.services.require_unused(&plan.items)?;
        self.shut_databases()?;
        for item in &plan.items {
            self.front.stage(Stage::PuttingInPlace, Some(&item.name));
            let name = Some(item.name.as_str());
            self.intend(RestoreStep::Swapping, name)?;
            let forward = self.mover(item)?.forward();
            forward.map_err(|error| {
                Because::io(format!("cannot put {} in place", item.name), &error)
            })?;
            self.done(RestoreStep::Swapping, name)?;
        }
        self.done(RestoreStep::Swapped, None)
    }

    /// Keeps applications from opening the databases, old and new, until this restore starts the
    /// service.
    pub(super) fn shut_databases(&mut self) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        for item in &plan.items {
            let mover = self.mover(item)?;
            for slot in [mover.live(), mover.staged()] {
                // Where there are no such locks, only the looks for open files remain.
                for file in stage::databases(item, slot).unwrap_or_default() {
                    match Shut::take(file) {
                        Ok(Some(shut)) => self.shut.push(shut),
                        Ok(None) => {
                            let users = self.services.users(&plan.items)?;
                            return Err(still_in_use(&users));
                        }
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts the service with the new content, checks it, and commits or rolls back.
    pub(super) fn go_on(mut self) -> InPlaceReport {
        match self.start_and_check() {
            Ok(()) => self.commit(),
            Err(because)
                if self.was_settled_at_boot() && !self.config.restore.rollback_after_boot =>
            {
                self.leave_open(because)
            }
            Err(because) => self.roll_back(because),
        }
    }

    fn start_and_check(&mut self) -> Result<(), Because> {
        self.shut.clear();
        if !self.options.starts {
            return Ok(());
        }
        self.intend(RestoreStep::Starting, None)?;
        self.front.stage(Stage::StartingService, None);
        let started = self.services.start();
        if let (Some(at), true) = (self.stopped_at, started.is_ok()) {
            self.report.downtime_seconds = Some(at.elapsed().as_secs_f64());
        }
        match started {
            Ok(started) => self.report.started = started,
            Err(mut because) => {
                let _ = explain_owners(&mut because, &self.plan.items);
                return Err(because);
            }
        }
        self.done(RestoreStep::Started, None)?;
        if !self.options.checks {
            return Ok(());
        }
        self.intend(RestoreStep::Checking, None)?;
        self.front.stage(Stage::CheckingService, None);
        let checks = self.checks(|_| true);
        let patience = self.config.restore.check_timeout;
        self.report.checks = self.run_checks(&checks, CheckedContent::Live, patience);
        let failed = self.report.checks.iter().filter(|result| !result.passed);
        let mut fatal = None;
        for result in failed {
            let because = check_failed(result);
            match self.failed_before(result) && !self.config.restore.strict {
                true => self.report.warnings.push(Because {
                    text: format!("{} (it failed before the restore, too)", because.text),
                    ..because
                }),
                false => drop(fatal.get_or_insert(because)),
            }
        }
        match fatal {
            Some(because) => Err(because),
            None => {
                let detail = json!({ "checks": self.report.checks });
                self.append(RestoreStep::Checking, None, RecordPhase::Done, detail)
            }
        }
    }

    pub(super) fn commit(mut self) -> InPlaceReport {
        match self.try_commit() {
            Ok(()) => self.end(),
            Err(because) => self.stuck(because),
        }
    }

    pub(super) fn try_commit(&mut self) -> Result<(), Because> {
        let plan = Arc::clone(&self.plan);
        self.intend(RestoreStep::Committed, None)?;
        let mut signatures = serde_json::Map::new();
        for item in &plan.items {
            let mover = self.mover(item)?;
            let failed = |error| Because::io(format!("cannot finish {}", item.name), &error);
            mover.remove_originals().map_err(failed)?;
            let signature = super::digest::signature(mover.live(), item.is_database());
            signatures.insert(item.name.clone(), json!(signature.map_err(failed)?));
        }
        caches::forget(&self.config.state, &plan).map_err(|error| {
            Because::io("cannot have the next backup look at everything", &error)
        })?;
        self.report.state = RestoreStep::Committed;
        let detail = json!({ "report": self.report, "signatures": signatures });
        self.append(RestoreStep::Committed, None, RecordPhase::Done, detail)
    }
}

/// Whether new content that was in place may have been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undoing {
    /// It was not: this process kept applications away.
    Unused,
    /// It may have been, since the process before this one ended.
    MaybeUsed,
}
