//! A check of the single value that a query of a restored database returns.

use std::path::PathBuf;
use std::time::Duration;

use super::Attempt;
use super::expect::Outcome;
use crate::base::error_chain::with_causes;
use crate::base::sqlite;
use crate::config::SqlCheck;

/// Runs the query once, and compares its value.
pub(super) fn attempt(
    check: &SqlCheck,
    find: &(dyn Fn(&str) -> Option<PathBuf> + Sync),
    timeout: Duration,
) -> Attempt {
    let Some(path) = find(&check.database) else {
        return Attempt::failed(format!(
            "there is no database {:?}: name a source, or a path in the snapshot",
            check.database
        ));
    };
    match sqlite::query(&path, &check.query, timeout) {
        Ok(value) => {
            let mut outcome = Outcome::default();
            outcome.add("the value", &check.expect, Some(&value));
            outcome.finish()
        }
        Err(error) => Attempt::failed(with_causes(&error)),
    }
}
