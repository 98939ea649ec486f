//! The verdict and the state of the agent.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::super::HttpParts;
use super::super::problem::HttpProblem;
use crate::base::clock;
use crate::base::ids::HostName;
use crate::jobs::run_report::Trigger;
use crate::jobs::status::proof::ProofFacts;
use crate::jobs::verdict::Verdict;
use crate::serve::handle::{RunKind, RunningRun, ScheduledJob};

/// The version of this program.
pub(in super::super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Verdict and agent.
#[derive(Debug, Serialize)]
pub(in super::super) struct AgentStatusView {
    #[serde(flatten)]
    pub(in super::super) verdict: Verdict,
    pub(in super::super) host: HostName,
    pub(in super::super) version: &'static str,
    pub(in super::super) config_path: String,
    /// Why the configuration could not be read again; `None`: the newest one is in use.
    pub(in super::super) reload_error: Option<String>,
    pub(in super::super) schedule: Vec<ScheduledJob>,
    /// `None`: nothing is under way.
    pub(in super::super) running: Option<RunningView>,
    /// `None`: scheduled jobs do not wait.
    pub(in super::super) paused_until: Option<DateTime<Utc>>,
}

/// The run that is under way, without the content of its snapshot.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct RunningView {
    pub(in super::super) id: String,
    pub(in super::super) kind: RunKind,
    pub(in super::super) trigger: Trigger,
    pub(in super::super) started_at: DateTime<Utc>,
    pub(in super::super) stage: Option<String>,
    pub(in super::super) subject: Option<String>,
    pub(in super::super) progress: Option<Value>,
}

impl RunningView {
    pub(in super::super) fn of(run: &RunningRun) -> Self {
        Self {
            id: run.id.clone(),
            kind: run.kind,
            trigger: run.trigger,
            started_at: run.started_at,
            stage: run.stage.clone(),
            subject: run.subject.clone(),
            progress: run.progress.clone(),
        }
    }
}

/// Returns the verdict by what this host remembers.
pub(in super::super) async fn verdict(http: &Arc<HttpParts>) -> Result<Verdict, HttpProblem> {
    let (facts, config) = (Arc::clone(&http.facts), http.state().config);
    let work = move || Ok(facts.verdict(&config, clock::now())?);
    http.disk.run(work).await
}

/// Returns what this host remembers of proofs and keys.
pub(in super::super) async fn proof(http: &Arc<HttpParts>) -> Result<ProofFacts, HttpProblem> {
    let (facts, config) = (Arc::clone(&http.facts), http.state().config);
    let work = move || Ok(facts.proof(&config)?);
    http.disk.run(work).await
}

/// Returns the verdict and the state of the agent.
pub(in super::super) async fn status(
    http: &Arc<HttpParts>,
) -> Result<AgentStatusView, HttpProblem> {
    let verdict = verdict(http).await?;
    let state = http.state();
    Ok(AgentStatusView {
        verdict,
        host: state.config.host.clone(),
        version: VERSION,
        config_path: state.config.file.display().to_string(),
        reload_error: state.reload_error,
        schedule: state.schedule,
        running: state.running.as_ref().map(RunningView::of),
        paused_until: state.paused_until,
    })
}
