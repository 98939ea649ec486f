//! The one queue through which everything reaches the scheduler.

use std::process::ExitStatus;

use serde_json::Value;
use tokio::sync::mpsc;

use super::handle::AgentCommand;

/// What the scheduler is woken for.
#[derive(Debug)]
pub(super) enum Wake {
    /// Its timer expired.
    Tick,
    /// The operator or a time service set the machine's clock.
    ClockSet,
    /// The system asks the agent to end.
    Stop,
    /// The system asks the agent to read its configuration again.
    Reload,
    /// A front end asks for something.
    Command(AgentCommand),
    /// The child of the run with this id reports.
    Event(String, ChildEvent),
    /// A child ended.
    Ended(EndedChild),
}

/// What a child reports while it runs; docs/events.md has the events.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ChildEvent {
    /// It is at its next stage.
    Stage {
        stage: String,
        /// The source, target or host of the stage.
        subject: Option<String>,
    },
    /// Its figures.
    Progress(Value),
    /// `backup-metadata.json` of its snapshot, which is validated.
    Snapshot(Value),
    /// What came of the run.
    Report(Value),
}

/// A child that ended.
#[derive(Debug)]
pub(super) struct EndedChild {
    /// The id of its run.
    pub(super) id: String,
    /// `None`: another agent started it, so its exit code is not known.
    pub(super) status: Option<ExitStatus>,
    /// Its last event. `None`: it ended without one.
    pub(super) report: Option<Value>,
}

/// Wakes the scheduler.
pub(super) type Waker = mpsc::Sender<Wake>;
