//! What the parts of the agent share: the scheduler's state, and the commands that it takes.
//!
//! The scheduler alone starts and ends runs. HTTP asks it through an [`AgentHandle`], reads its
//! newest state, and follows its events.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::config::Config;
use crate::jobs::run_report::Trigger;

/// What the agent runs as a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunKind {
    /// `backup`.
    Backup,
    /// A push of the newest snapshot to targets that are behind.
    CatchUp,
    /// `verify`.
    Verify,
    /// `prune`.
    Prune,
    /// `drill`.
    Drill,
    /// A look at targets: `status`.
    Probe,
}

impl RunKind {
    /// Returns the text that the history and the API use.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::CatchUp => "catch_up",
            Self::Verify => "verify",
            Self::Prune => "prune",
            Self::Drill => "drill",
            Self::Probe => "probe",
        }
    }

    /// Returns the kind with this text; `None`: there is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Backup,
            Self::CatchUp,
            Self::Verify,
            Self::Prune,
            Self::Drill,
            Self::Probe,
        ];
        all.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A run to start.
#[derive(Debug, Clone)]
pub(crate) struct RunRequest {
    pub(crate) kind: RunKind,
    pub(crate) trigger: Trigger,
    /// Sources that are taken on request only.
    pub(crate) include: Vec<String>,
    /// The only target to deal with; `None`: all.
    pub(crate) target: Option<String>,
    /// What the caller said about it.
    pub(crate) note: Option<String>,
}

/// Why a run was not started or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandRefused {
    /// Another run holds the state directory.
    #[error("a {kind} is under way since {} (run {id})", since.format("%H:%M:%S"))]
    Busy {
        id: String,
        kind: String,
        since: DateTime<Utc>,
    },
    /// No such run is under way.
    #[error("run {0} is not under way")]
    NotRunning(String),
    /// The agent is about to end.
    #[error("the agent is stopping")]
    Stopping,
    /// The run cannot be started, or the configuration cannot be read.
    #[error("{text}")]
    Failed { text: String, next: Option<String> },
}

/// A command to the scheduler, with the channel of its answer.
#[derive(Debug)]
pub(crate) enum AgentCommand {
    /// Start a run; the answer is its id.
    Start(RunRequest, oneshot::Sender<Result<String, CommandRefused>>),
    /// End the run with this id.
    Cancel(String, oneshot::Sender<Result<(), CommandRefused>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), CommandRefused>>),
    /// Look at the marks of the history again: a pause or an acknowledgement has changed.
    Refresh,
}

/// A run that is under way.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunningRun {
    pub(crate) id: String,
    pub(crate) kind: RunKind,
    pub(crate) trigger: Trigger,
    pub(crate) started_at: DateTime<Utc>,
    /// The last stage that it reported, such as `packing`; `None`: none yet.
    pub(crate) stage: Option<String>,
    /// The source or target of that stage.
    pub(crate) subject: Option<String>,
    /// Its last progress event, as docs/events.md has it.
    pub(crate) progress: Option<serde_json::Value>,
    /// `backup-metadata.json` of the snapshot that it made, once that is validated.
    pub(crate) snapshot: Option<serde_json::Value>,
}

/// A job of the schedule.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ScheduledJob {
    /// Such as `backup`.
    pub(crate) job: String,
    pub(crate) cron: String,
    /// The time zone of the cron line.
    pub(crate) zone: String,
    pub(crate) next: Option<DateTime<Utc>>,
    /// When its newest run began.
    pub(crate) last: Option<DateTime<Utc>>,
}

/// The scheduler's newest state.
#[derive(Debug, Clone)]
pub(crate) struct AgentState {
    pub(crate) config: Arc<Config>,
    pub(crate) running: Option<RunningRun>,
    pub(crate) schedule: Vec<ScheduledJob>,
    pub(crate) paused_until: Option<DateTime<Utc>>,
    /// When the scheduler's loop last went round.
    pub(crate) beat: Instant,
    /// Why the configuration could not be read again; `None`: the newest one is in use.
    pub(crate) reload_error: Option<String>,
}

/// Something that happened, for those who follow.
#[derive(Debug, Clone)]
pub(crate) enum AgentEvent {
    /// The verdict may have changed.
    Verdict,
    /// The run with this id began or ended.
    Run { id: String },
    /// The run that is under way has a new stage or progress.
    Progress(RunningRun),
}

/// Asks the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct AgentHandle {
    pub(crate) commands: mpsc::Sender<AgentCommand>,
    pub(crate) state: watch::Receiver<AgentState>,
    pub(crate) events: broadcast::Sender<AgentEvent>,
}

impl AgentHandle {
    /// Starts a run, and returns its id.
    pub(crate) async fn start(&self, request: RunRequest) -> Result<String, CommandRefused> {
        self.ask(|answer| AgentCommand::Start(request, answer))
            .await
    }

    /// Ends the run `id`.
    pub(crate) async fn cancel(&self, id: &str) -> Result<(), CommandRefused> {
        self.ask(|answer| AgentCommand::Cancel(id.to_owned(), answer))
            .await
    }

    /// Reads the configuration again.
    pub(crate) async fn reload(&self) -> Result<(), CommandRefused> {
        self.ask(AgentCommand::Reload).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, CommandRefused>>) -> AgentCommand,
    ) -> Result<T, CommandRefused> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(command(answer)).await;
        sent.map_err(|_| CommandRefused::Stopping)?;
        answered.await.map_err(|_| CommandRefused::Stopping)?
    }
}
