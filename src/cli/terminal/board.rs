//! A board: the lines and figures of one job that is under way.

use std::time::Instant;

use serde_json::Value;

use crate::base::progress::ProgressEvent;

/// Turns the events of a job into lines.
pub(super) trait Board: Send + Sync {
    /// Takes an event into account. Called from several threads; must not wait.
    fn take(&self, _event: &ProgressEvent<'_>) {}
    /// Returns the lines to show, none wider than `columns`.
    fn lines(&self, now: Instant, columns: usize) -> Vec<String>;
    /// Returns the fields of a progress event. `None`: there are no figures.
    fn figures(&self) -> Option<Value>;
}
