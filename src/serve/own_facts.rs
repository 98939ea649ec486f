//! What the HTTP part takes from the rest of the agent.

use chrono::{DateTime, Utc};

use super::handle::AgentState;
use super::http::HostFacts;
use super::metrics::{self, MetricsFormat};
use crate::base::clock;
use crate::config::Config;
use crate::jobs::context::look_into_catalog;
use crate::jobs::error::JobError;
use crate::jobs::metric_facts::{
    AgentFigures, ConfiguredChannel, MetricFacts, MetricSources, gather,
};
use crate::jobs::notify::{self, channel_states};
use crate::jobs::status::proof::{ProofFacts, proof_facts};
use crate::jobs::status::remembered_verdict;
use crate::jobs::verdict::Verdict;
use crate::state::history::History;

/// The facts of this host, as its state directory has them.
pub(super) struct OwnFacts;

impl HostFacts for OwnFacts {
    fn verdict(&self, config: &Config, now: DateTime<Utc>) -> Result<Verdict, JobError> {
        remembered_verdict(config, now)
    }

    fn proof(&self, config: &Config) -> Result<ProofFacts, JobError> {
        let catalog = look_into_catalog(config)?;
        match History::open_existing(&config.state)? {
            Some(history) => proof_facts(config, &history, catalog.as_ref()),
            None => Ok(ProofFacts::default()),
        }
    }

    fn metrics(
        &self,
        state: &AgentState,
        verdict: &Verdict,
        format: MetricsFormat,
    ) -> Result<String, JobError> {
        let agent = metrics::agent_facts(state);
        let facts = metric_facts(&state.config, Some(agent), clock::now())?;
        Ok(metrics::render(&facts, verdict, format))
    }

    fn test_notifications(
        &self,
        config: &Config,
        channel: Option<&str>,
    ) -> Result<serde_json::Value, JobError> {
        let report = notify::send_tests(config, channel, clock::now())?;
        serde_json::to_value(report).map_err(JobError::from)
    }
}

/// Gathers the facts of the metrics.
pub(super) fn metric_facts(
    config: &Config,
    agent: Option<AgentFigures>,
    now: DateTime<Utc>,
) -> Result<MetricFacts, JobError> {
    let catalog = look_into_catalog(config)?;
    let history = History::open_existing(&config.state)?;
    let states = match &history {
        Some(history) => channel_states(history, config)?,
        None => Vec::new(),
    };
    let channels = config.channels.iter().map(|channel| {
        let state = states.iter().find(|state| state.name == channel.name);
        ConfiguredChannel {
            name: &channel.name,
            last_success: state.and_then(|state| state.succeeded_at),
        }
    });
    let channels: Vec<ConfiguredChannel<'_>> = channels.collect();
    let sources = MetricSources {
        config,
        history: history.as_ref(),
        catalog: catalog.as_ref(),
    };
    gather(sources, &channels, agent, now)
}
