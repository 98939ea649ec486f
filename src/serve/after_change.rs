//! What follows from a change: a run ended, or a minute passed.

use chrono::{DateTime, Utc};
use tokio::sync::broadcast;

use super::handle::AgentEvent;
use crate::config::Config;
use crate::state::history::{History, RunRow};

/// A change, and what is known of this host.
#[allow(dead_code, reason = "the parts that use it come next")]
pub(super) struct Change<'a> {
    pub(super) config: &'a Config,
    /// `None`: it cannot be used now.
    pub(super) history: Option<&'a History>,
    /// The run that ended. `None`: a minute passed.
    pub(super) ended: Option<&'a RunRow>,
    pub(super) now: DateTime<Utc>,
    pub(super) events: &'a broadcast::Sender<AgentEvent>,
}

/// Passes the change on. It runs in the scheduler's loop, so it must not wait for a network.
pub(super) fn after_change(change: &Change<'_>) {
    // Without followers there is no receiver.
    let _ = change.events.send(AgentEvent::Verdict);
}
