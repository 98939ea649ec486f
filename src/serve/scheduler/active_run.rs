//! The run that is under way.

use std::time::{Duration, Instant};

use crate::serve::child::RunProcess;
use crate::serve::handle::{RunKind, RunningRun};
use crate::serve::wake::ChildEvent;
use crate::state::history::NewRun;

/// Time that a run has to end after it was asked to.
const GRACE: Duration = Duration::from_secs(600);

/// Why the agent asked a run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// The operator did.
    Cancelled,
    /// The agent ends.
    Stopping,
    /// It took longer than `max_run`.
    TooLong,
    /// A backup is due.
    Preempted,
}

impl EndReason {
    /// Returns why, as the history has it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Cancelled => "it was cancelled",
            Self::Stopping => "the agent was stopped",
            Self::TooLong => "it took longer than max_run in [schedule] allows",
            Self::Preempted => "it gave way to a backup that was due",
        }
    }
}

/// The run that is under way.
#[derive(Debug)]
pub(super) struct ActiveRun {
    /// As the history has it.
    pub(super) row: NewRun,
    /// As others see it.
    pub(super) shown: RunningRun,
    pub(super) process: RunProcess,
    /// Another agent started it.
    pub(super) is_adopted: bool,
    /// The jobs of the schedule that it is for.
    pub(super) jobs: Vec<String>,
    since: Instant,
    /// When and why it was asked to end.
    asked: Option<(Instant, EndReason)>,
    is_killed: bool,
}

impl ActiveRun {
    pub(super) fn new(row: NewRun, shown: RunningRun, process: RunProcess) -> Self {
        Self {
            row,
            shown,
            process,
            is_adopted: false,
            jobs: Vec::new(),
            since: Instant::now(),
            asked: None,
            is_killed: false,
        }
    }

    /// Returns why it was asked to end.
    pub(super) fn end_reason(&self) -> Option<EndReason> {
        self.asked.map(|(_, reason)| reason)
    }

    /// Whether it ends for a backup that is due: nothing is lost, since the next one goes on where
    /// it broke off, or the backup does its work.
    pub(super) fn gives_way(&self) -> bool {
        matches!(
            self.shown.kind,
            RunKind::Verify | RunKind::CatchUp | RunKind::Probe
        )
    }

    /// Asks it to end, if it was not asked before.
    pub(super) fn ask_to_end(&mut self, reason: EndReason) {
        if self.asked.is_none() {
            self.asked = Some((Instant::now(), reason));
            self.process.ask_to_end();
        }
    }

    /// Ends it now.
    pub(super) fn kill(&mut self) {
        if !self.is_killed {
            self.is_killed = true;
            self.process.kill();
        }
    }

    /// Asks it to end if it took longer than `most`, and ends one that was asked and goes on.
    /// Returns whether it was asked just now.
    pub(super) fn limit(&mut self, most: Option<Duration>) -> bool {
        match self.asked {
            Some((at, _)) if at.elapsed() >= GRACE => self.kill(),
            None if most.is_some_and(|most| self.since.elapsed() >= most) => {
                self.ask_to_end(EndReason::TooLong);
                return true;
            }
            _ => {}
        }
        false
    }

    /// Takes in what it reports.
    pub(super) fn report(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Stage { stage, subject } => {
                (self.shown.stage, self.shown.subject) = (Some(stage), subject);
            }
            ChildEvent::Progress(figures) => self.shown.progress = Some(figures),
            ChildEvent::Snapshot(metadata) => self.shown.snapshot = Some(metadata),
            ChildEvent::Report(_) => {}
        }
    }
}
