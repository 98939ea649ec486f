//! `restore --in-place` and `rollback`: puts the content of a snapshot where this host's sources
//! are, as one change.
//!
//! [`prepare`] makes the [plan](plan) and changes nothing. [`run`] takes its steps; each is in a
//! journal before it is taken (`state::restores`), so that a process that dies leaves enough for
//! the next one: [`resume`] finishes or undoes the restore. The steps:
//!
//! 1. The new content is [copied beside](stage) each live path and checked. The service still runs.
//! 2. The service is [stopped](services), and nothing uses the data any more.
//! 3. The old content is closed up, and the two are [exchanged](mover), item by item.
//! 4. The service is started and checked. If that fails, everything [goes back](rollback).
//!
//! Invariants, whatever fails and whenever the power goes:
//!
//! - Each item is wholly old or wholly new at every moment; all are, after [`resume`].
//! - The old content is renamed, never changed or deleted, until `rollback --clean`. (If its safety
//!   copy must be a copy, the original goes when the restore is committed.)
//! - Nothing that is not in the plan is touched.

mod because;
mod caches;
mod candidate;
mod digest;
mod guard;
mod history;
mod machine;
mod mover;
mod plan;
mod prepare;
mod report;
mod requirements;
mod resume;
mod rollback;
mod services;
mod slot;
mod stage;
mod validation;

use serde_json::json;

use super::context::FrontEnd;
use super::error::JobError;
use super::in_place_content::InPlaceContent;
use crate::base::progress::Stage;
use crate::config::{Config, Preserve};
use crate::state::restores::{self, RecordPhase, RestoreStep, Restores};
use crate::state::{StateError, StateLock};
use machine::{MachineOptions, RestoreMachine};
use mover::ItemMover;

pub(crate) use because::{Because, InPlaceRefusal, code};
pub(crate) use history::{PastRestore, clean, list};
pub(crate) use plan::InPlacePlan;
pub(crate) use report::InPlaceReport;

/// What the operator wants.
#[derive(Debug, Clone)]
pub(crate) struct InPlaceRequest {
    /// Names of the sources to restore. Empty: all that the content has.
    pub(crate) only: Vec<String>,
    /// What becomes of the old content. `None`: as the configuration says.
    pub(crate) preserve: Option<Preserve>,
    /// The service is started, and checked after that.
    pub(crate) starts: bool,
    /// The checks run.
    pub(crate) checks: bool,
    /// After a failure the service stays down.
    pub(crate) keeps_down: bool,
    /// Content of another host, or from other paths, is meant.
    pub(crate) from_other_host: bool,
}

/// A restore that is planned and can begin.
pub(crate) struct PreparedRestore<'a> {
    config: &'a Config,
    /// What it will do.
    pub(crate) plan: InPlacePlan,
    content: InPlaceContent,
    options: MachineOptions,
}

/// A restore that cannot begin.
pub(crate) struct UnpreparedRestore {
    /// Why.
    pub(crate) error: JobError,
    /// The content, for another attempt.
    pub(crate) content: InPlaceContent,
}

/// Returns the error of a restore that is open.
fn require_none_open(config: &Config) -> Result<(), JobError> {
    match restores::open_restore(&config.state)? {
        Some(open) => Err(StateError::RestoreOpen(open).into()),
        None => Ok(()),
    }
}

/// Plans the restore of `content`, and changes nothing. Everything that would make it fail, and can
/// be known now, is an error: an [`InPlaceRefusal`].
pub(crate) fn prepare<'a>(
    config: &'a Config,
    request: &InPlaceRequest,
    content: InPlaceContent,
    front: &dyn FrontEnd,
) -> Result<PreparedRestore<'a>, Box<UnpreparedRestore>> {
    front.stage(Stage::Validating, None);
    let planned =
        require_none_open(config).and_then(|()| prepare::prepare(config, request, &content));
    match planned {
        Ok(plan) => Ok(PreparedRestore {
            config,
            plan,
            content,
            options: MachineOptions {
                starts: request.starts,
                checks: request.checks,
                keeps_down: request.keeps_down,
                is_boot: false,
            },
        }),
        Err(error) => Err(Box::new(UnpreparedRestore { error, content })),
    }
}

/// Locks the state directory and that of the restores.
fn lock(config: &Config, front: &dyn FrontEnd) -> Result<(StateLock, Restores), JobError> {
    let state = StateLock::take(&config.state)?;
    for warning in &state.warnings {
        front.warn(warning);
    }
    let restores = Restores::lock(&config.state).map_err(|error| {
        let text = match error.kind() {
            std::io::ErrorKind::WouldBlock => "another restore in place is running".to_owned(),
            _ => format!("cannot lock the restores of this host: {error}"),
        };
        JobError::work(text)
    })?;
    remove_unbegun(&restores)?;
    Ok((state, restores))
}

/// Removes the directories of restores that had not begun. Fails if one had, and its journal is
/// gone.
fn remove_unbegun(restores: &Restores) -> Result<(), JobError> {
    for (id, plan) in restores.unbegun()? {
        let plan = plan.and_then(|text| serde_json::from_slice::<InPlacePlan>(&text).ok());
        let begun = plan.iter().flat_map(|plan| &plan.items).find_map(|item| {
            let slots = item.slots().ok()?;
            let traces = [slots.staged, slots.aside];
            traces
                .into_iter()
                .find(|slot| slot.is_taken().unwrap_or(true))
        });
        if let Some(trace) = begun {
            let trace = trace.path();
            let text = format!(
                "the journal of the restore {id} is gone, and {} is there: the data may be between two states",
                trace.display()
            );
            let next = format!(
                "compare the paths that its plan.json names in the state directory, put each item right, then move \
                 {} away",
                trace.display()
            );
            return Err(JobError::work(text).with_next(next));
        }
        restores.remove(&id)?;
    }
    Ok(())
}

/// Restores in place as planned.
pub(crate) fn run(
    prepared: PreparedRestore<'_>,
    front: &dyn FrontEnd,
) -> Result<InPlaceReport, JobError> {
    let PreparedRestore {
        config,
        plan,
        content,
        options,
    } = prepared;
    let (_state, restores) = lock(config, front)?;
    require_none_open(config)?;
    let (text, hash) = plan.encode()?;
    let first = json!({ "plan": hash, "stamp": plan.stamp });
    let log = restores.begin(&plan.id, &text, first)?;
    let changed = changed_since(&plan, &log);
    let machine = RestoreMachine::new(config, &restores, plan, log, options, front);
    match changed {
        Ok(None) => Ok(machine.run(&content)),
        Ok(Some(because)) | Err(because) => Ok(machine.undo(because, machine::Undoing::Unused)),
    }
}

/// Returns the reason that something else is at a live path than when the plan was made.
fn changed_since(
    plan: &InPlacePlan,
    log: &restores::RestoreLog,
) -> Result<Option<Because>, Because> {
    for item in &plan.items {
        let failed = |error| Because::io(format!("cannot look at {}", item.name), &error);
        let now = ItemMover::new(item, log)
            .map_err(failed)?
            .live()
            .meta()
            .map_err(failed)?;
        let then = item.old.as_ref().map(|old| old.id());
        if now.map(|meta| meta.id()) != then {
            let text = format!(
                "{} was replaced since the plan was made",
                item.live.display()
            );
            let next = "stop the program that replaces it, then run it again";
            return Ok(Some(Because::new(code::LIVE_CHANGED, text, next)));
        }
    }
    Ok(None)
}

/// Returns the plan of a restore. If it is damaged, the error says where the content is.
fn plan_of(log: &restores::RestoreLog) -> Result<InPlacePlan, JobError> {
    InPlacePlan::of(log).map_err(|error| {
        let dir = log.dir.path().display();
        JobError::work(format!("the plan of the restore in {dir} cannot be used: {error}")).with_next(format!(
            "nothing was deleted: the old content is at the live paths, or in `pre-restore-...` beside them or in \
             `preserve_dir`. Compare them, put the right ones in place, then move {dir} away"
        ))
    })
}

/// How an open restore is continued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResumeRequest {
    /// Services are left to the system, which is booting; the data is made one state.
    pub(crate) is_boot: bool,
    /// The checks run.
    pub(crate) checks: bool,
    /// After a failure the service stays down.
    pub(crate) keeps_down: bool,
}

/// Finishes or undoes the open restore. `None`: there is none.
pub(crate) fn resume(
    config: &Config,
    request: ResumeRequest,
    front: &dyn FrontEnd,
) -> Result<Option<InPlaceReport>, JobError> {
    if restores::logs(&config.state)?.is_empty() {
        return Ok(None);
    }
    let (_state, restores) = lock(config, front)?;
    let Some(open) = restores::open_restore(&config.state)? else {
        return Ok(None);
    };
    let Some(log) = restores.open(&open.id)? else {
        return Ok(None);
    };
    let plan = plan_of(&log)?;
    let options = MachineOptions {
        starts: true,
        checks: request.checks,
        keeps_down: request.keeps_down,
        is_boot: request.is_boot,
    };
    Ok(Some(
        RestoreMachine::new(config, &restores, plan, log, options, front).resume(),
    ))
}

/// Which restore is undone, and how.
#[derive(Debug, Clone)]
pub(crate) struct RollbackRequest {
    /// The restore. `None`: the open one, else the newest that is in place.
    pub(crate) id: Option<String>,
    /// Changes of the data since the restore are given up.
    pub(crate) discards_changes: bool,
    /// The service is started.
    pub(crate) starts: bool,
    /// The checks run.
    pub(crate) checks: bool,
}

/// The restore that a [`RollbackRequest`] means.
pub(crate) struct RollbackPlan {
    pub(crate) plan: InPlacePlan,
    /// It was interrupted.
    pub(crate) is_open: bool,
}

/// Returns the restore that `request` means, and changes nothing.
pub(crate) fn rollback_plan(
    config: &Config,
    request: &RollbackRequest,
) -> Result<RollbackPlan, JobError> {
    let logs = restores::logs(&config.state)?;
    let is_meant = |log: &&restores::RestoreLog| request.id.as_ref().is_none_or(|id| log.id == *id);
    let open = logs.iter().find(|log| log.is_open());
    if let (Some(open), Some(id)) = (open, &request.id)
        && open.id != *id
    {
        return Err(StateError::RestoreOpen(open.summary()).into());
    }
    let in_place = |log: &&restores::RestoreLog| log.step() == Some(RestoreStep::Committed);
    let found = open.or_else(|| logs.iter().rev().filter(is_meant).find(in_place));
    let Some(log) = found else {
        let text = match &request.id {
            Some(id) => format!("there is no restore {id} that is in place"),
            None => "no restore is in place that could be rolled back".to_owned(),
        };
        return Err(JobError::work(text).with_next("`sealift rollback --list` shows all restores"));
    };
    Ok(RollbackPlan {
        plan: plan_of(log)?,
        is_open: log.is_open(),
    })
}

/// Brings the old content back.
pub(crate) fn rollback(
    config: &Config,
    request: &RollbackRequest,
    front: &dyn FrontEnd,
) -> Result<InPlaceReport, JobError> {
    let (_state, restores) = lock(config, front)?;
    let found = rollback_plan(config, request)?;
    let Some(log) = restores.open(&found.plan.id)? else {
        return Err(JobError::work("the restore is gone"));
    };
    let options = MachineOptions {
        starts: request.starts,
        checks: request.checks,
        keeps_down: !request.starts,
        is_boot: false,
    };
    let is_swapped = log.has(RestoreStep::Swapped, None, RecordPhase::Done);
    let machine = RestoreMachine::new(config, &restores, found.plan, log, options, front);
    if found.is_open {
        // Before that, to resume is to undo; and a rollback that began goes on.
        return Ok(match is_swapped {
            true => machine.roll_back_open(),
            false => machine.undo_open(),
        });
    }
    if let Err(because) = machine.require_whole_copies() {
        return Ok(machine.refuse(because));
    }
    match machine.later_changes() {
        Ok(Some(because)) if !request.discards_changes => Ok(machine.refuse(because)),
        Ok(changed) => {
            let discards = changed.is_some();
            Ok(machine.roll_back_by_hand(discards))
        }
        Err(because) => Ok(machine.refuse(because)),
    }
}
