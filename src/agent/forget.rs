//! Deletes named snapshot directories of this host, and no other.
//!
//! The newest valid one and pinned ones stay. What no target has for certain goes only if that is confirmed.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::local::{Deliveries, newest_valid};
use super::order::{OrderedSnapshot, in_order};
use super::{AgentError, State};
use crate::ids::Stamp;
use crate::producer;
use crate::retention::{Nameable, Pins, Reason, Reasons, find, may_go};

/// Which of the directories in `dir` go.
pub struct LocalForget<'a> {
    pub dir: &'a Path,
    /// Stamps, sequences, or the last 16 digits of manifests' names.
    pub named: &'a [String],
    pub pins: &'a Pins,
    /// Names of all targets.
    pub targets: &'a [&'a str],
    pub now: DateTime<Utc>,
    pub confirmed: bool,
    pub dry_run: bool,
}

impl LocalForget<'_> {
    /// Deletes them; returns their stamps. If one must stay, or is not there, none is deleted.
    pub fn apply(&self, state: &State) -> Result<Vec<Stamp>, AgentError> {
        let there = in_order(producer::list(self.dir)?, Some(&state.catalog), self.now)?;
        let nameable = nameable(&there, state)?;
        let done = Deliveries::of(state, self.targets, &there)?.done;
        let newest = newest_valid(&there);
        let mut going = BTreeSet::new();
        for text in self.named {
            let Some(at) = find(text, &nameable)? else {
                return Err(AgentError::NotHere {
                    text: text.clone(),
                    dir: self.dir.to_owned(),
                });
            };
            let stamp = there[at].snapshot.stamp;
            let mut reasons = Reasons::new();
            if Some(stamp) == newest {
                reasons.insert(Reason::Newest);
            }
            if self.pins.holds(&stamp) {
                reasons.insert(Reason::Pinned);
                self.pins.explain(&stamp, &mut reasons);
            }
            may_go(stamp, &reasons)?;
            if !done.contains(&stamp) && !self.confirmed && !self.dry_run {
                return Err(AgentError::OnlyHere(stamp));
            }
            going.insert(stamp);
        }
        let is_going = |one: &&OrderedSnapshot| going.contains(&one.snapshot.stamp);
        let mut forgotten = Vec::new();
        for one in there.iter().filter(is_going) {
            if !self.dry_run {
                producer::forget(&one.snapshot)?;
            }
            forgotten.push(one.snapshot.stamp);
        }
        Ok(forgotten)
    }
}

fn nameable(there: &[OrderedSnapshot], state: &State) -> Result<Vec<Nameable>, AgentError> {
    let rows = state.catalog.snapshots()?;
    let named = there.iter().map(|one| {
        let stamp = one.snapshot.stamp;
        let rows = rows.iter().filter(|row| row.known.stamp == stamp);
        Nameable {
            sequence: one.sequence,
            stamp,
            hashes: rows.map(|row| row.name.hash16.clone()).collect(),
        }
    });
    Ok(named.collect())
}
