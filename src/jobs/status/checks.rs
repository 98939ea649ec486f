//! The checks of one host's folder that both kinds of status share.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::base::ids::Hash;
use crate::base::units::count;
use crate::repository::ArchiveTable;

/// First word of the problem that a snapshot is overdue.
pub(crate) const STALE: &str = "STALE";

/// Returns the problem that the next snapshot was `due` before `now`, if it was.
pub(super) fn stale(due: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<String> {
    let due = due.filter(|due| *due < now)?;
    let due = due.format("%Y-%m-%d %H:%M");
    Some(format!("{STALE}: the next snapshot was due by {due} UTC"))
}

/// Returns the problem that archives of `table` are not `present` in full, if some are not.
pub(super) fn incomplete(table: &ArchiveTable, present: &HashMap<Hash, u64>) -> Option<String> {
    let rows = table.rows.values();
    let missing = rows.filter(|row| present.get(&row.blake3) != Some(&row.bytes));
    match missing.count() as u64 {
        0 => None,
        n => Some(format!(
            "{} of the newest snapshot missing or cut short",
            count(n, "archive")
        )),
    }
}
