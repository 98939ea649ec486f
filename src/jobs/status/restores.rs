//! What `status` says about restores in place.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::config::Config;
use crate::jobs::restore_in_place;
use crate::state::restores::{self, RestoreStep};

/// A restore in place that has begun and not ended: the data may be between two states.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreOpenFinding {
    /// The restore's id. Empty: it cannot be read.
    pub(crate) id: String,
    /// The step that it is at. `None`: it cannot be read.
    pub(crate) step: Option<RestoreStep>,
    /// A sentence without its final period.
    pub(crate) text: String,
    pub(crate) next: String,
}

/// A safety copy that is older than `keep_preserved`.
#[derive(Debug, Serialize)]
pub(crate) struct SafetyCopyReminder {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Since when it may be deleted.
    pub(crate) deletable_from: DateTime<Utc>,
}

/// Returns the restore in place that has begun and not ended.
pub(super) fn open_restore(config: &Config) -> Option<RestoreOpenFinding> {
    let is_running = restores::is_running(&config.state);
    match restores::open_restore(&config.state) {
        Ok(None) => None,
        Ok(Some(open)) => Some(RestoreOpenFinding {
            text: match is_running {
                true => "a restore in place is running".to_owned(),
                false => open.to_string(),
            },
            id: open.id,
            step: Some(open.step),
            next: match is_running {
                true => "wait for it to end".to_owned(),
                false => "sealift restore --resume".to_owned(),
            },
        }),
        Err(error) => Some(RestoreOpenFinding {
            id: String::new(),
            step: None,
            text: format!("it cannot be seen whether a restore in place is open: {error}"),
            next: format!(
                "look at {}",
                config.state.join(restores::RESTORES).display()
            ),
        }),
    }
}

/// Returns the safety copies that may be deleted.
pub(super) fn safety_copies(config: &Config) -> Vec<SafetyCopyReminder> {
    let old = restore_in_place::list(config)
        .map(|found| found.restores)
        .unwrap_or_default()
        .into_iter();
    let old = old.filter(|one| one.is_deletable).filter_map(|one| {
        Some(SafetyCopyReminder {
            path: one.safety_copy.or(one.failed_copy)?,
            bytes: one.kept_bytes,
            deletable_from: one.deletable_from?,
        })
    });
    old.collect()
}
