//! What the credentials of targets may do, as `init`, `target add` and `target test` find out by
//! trial. The history keeps it for the API.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::context::FrontEnd;
use super::error::JobError;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::config::Config;
use crate::state::history::{CredentialTrial, History, HistoryError};

/// What the credentials of a target may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundCredentials {
    pub(crate) writes: bool,
    pub(crate) lists: bool,
    /// Manifests, tables, marks and receipts.
    pub(crate) reads: bool,
    pub(crate) reads_archives: bool,
    pub(crate) deletes: bool,
    /// A second put of one key replaces the first.
    pub(crate) overwrites: bool,
}

/// The same, and when this host found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct TriedCredentials {
    pub(crate) tried_at: DateTime<Utc>,
    #[serde(flatten)]
    pub(crate) found: FoundCredentials,
}

/// Keeps what was found of targets, by their names, if the state directory exists. If the history
/// cannot be written, that is a warning: the trial itself is done.
pub(crate) fn remember(config: &Config, found: &[(&str, FoundCredentials)], front: &dyn FrontEnd) {
    if found.is_empty() || !config.state.is_dir() {
        return;
    }
    if let Err(error) = record(config, found) {
        let text = "what the targets allow cannot be remembered";
        front.warn(&format!("{text}: {}", with_causes(&error)));
    }
}

fn record(config: &Config, found: &[(&str, FoundCredentials)]) -> Result<(), HistoryError> {
    let history = History::open(&config.state)?;
    for (name, found) in found {
        let trial = CredentialTrial {
            tried_at: clock::now(),
            // Such values always have a JSON form.
            found: serde_json::to_string(found).unwrap_or_default(),
        };
        history.record_credentials(name, &trial)?;
    }
    Ok(())
}

/// Returns what the credentials of `target` may do. `None`: this host has not tried them, or
/// another version recorded it in another form.
pub(crate) fn of_target(
    history: &History,
    target: &str,
) -> Result<Option<TriedCredentials>, JobError> {
    let Some(trial) = history.credentials(target)? else {
        return Ok(None);
    };
    Ok(serde_json::from_str(&trial.found)
        .ok()
        .map(|found| TriedCredentials {
            tried_at: trial.tried_at,
            found,
        }))
}
