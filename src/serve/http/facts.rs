//! What the HTTP part takes from the other parts of the agent.

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::status::proof::ProofFacts;
use crate::jobs::verdict::Verdict;
use crate::serve::handle::AgentState;
use crate::serve::metrics::MetricsFormat;

/// Answers of the other parts. All calls may read the disk, and none asks the network but
/// [`Self::test_notifications`].
pub(crate) trait HostFacts: Send + Sync {
    /// Returns the verdict by what this host remembers.
    fn verdict(&self, config: &Config, now: DateTime<Utc>) -> Result<Verdict, JobError>;

    /// Returns what is known of proofs and keys.
    fn proof(&self, config: &Config) -> Result<ProofFacts, JobError>;

    /// Returns the metrics.
    fn metrics(
        &self,
        state: &AgentState,
        verdict: &Verdict,
        format: MetricsFormat,
    ) -> Result<String, JobError>;

    /// Sends one real message to each channel, or to the one called `channel`. Returns what came
    /// back, as `notify test --json` prints it.
    fn test_notifications(
        &self,
        config: &Config,
        channel: Option<&str>,
    ) -> Result<serde_json::Value, JobError>;
}
