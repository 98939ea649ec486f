//! What the API and the pages show, read from history, catalog and disk.

pub(super) mod runs;
pub(super) mod snapshots;
pub(super) mod status;
pub(super) mod targets;

use super::problem::HttpProblem;
use crate::config::Config;
use crate::state::history::History;

/// Opens the history. `None`: no run was ever recorded.
pub(super) fn history(config: &Config) -> Result<Option<History>, HttpProblem> {
    Ok(History::open_existing(&config.state)?)
}
