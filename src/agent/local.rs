//! Retention of this host's own snapshot directories.
//!
//! Only what is on the targets already may go: a snapshot that some target still waits for, that was never
//! pushed, or that a target lost stays, whatever the policy says. So does what is younger than a day, for a
//! policy of days would else leave of today's snapshots one, and the newest that is known to be valid.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::{AgentError, State};
use crate::ids::Stamp;
use crate::producer::{self, LocalSnapshot};
use crate::retention::{Candidate, Guard, Policy, decide};

/// The newest local snapshot of the last time; before the first that a target still waited for then, since what
/// arrives there at last may go together.
const RETAINED: &str = "local retention";

/// What stays of the directories in `dir`.
pub struct LocalRetention<'a> {
    pub dir: &'a Path,
    pub policy: Policy,
    pub pins: &'a BTreeSet<Stamp>,
    /// Names of all targets.
    pub targets: &'a [&'a str],
    pub now: DateTime<Utc>,
    pub confirmed: bool,
    pub dry_run: bool,
}

struct Deliveries {
    /// What every target has or had, as far as it ever will.
    done: BTreeSet<Stamp>,
    waiting: BTreeSet<Stamp>,
}

impl LocalRetention<'_> {
    /// Deletes what the policy lets go; gives its stamps.
    pub fn apply(&self, state: &State) -> Result<Vec<Stamp>, AgentError> {
        let mut there = producer::list(self.dir)?;
        there.retain(|snapshot| snapshot.valid != Some(false));
        let deliveries = self.deliveries(state)?;
        let candidates = self.candidates(&deliveries.done, &there);
        let decided = decide(&candidates, &self.policy.and_young(), self.now);
        let retained = state.catalog.meta(RETAINED)?;
        let retained = retained.and_then(|text| text.parse::<Stamp>().ok());
        let guard = Guard {
            now: self.now,
            pruned_at: retained.map(|at| there.iter().filter(|one| one.stamp <= at).count() as u64),
            confirmed: self.confirmed,
        };
        guard.check(&candidates, &decided)?;
        let mut forgotten = Vec::new();
        for (snapshot, reasons) in there.iter().zip(decided) {
            if reasons.is_empty() {
                if !self.dry_run {
                    producer::forget(snapshot)?;
                }
                forgotten.push(snapshot.stamp);
            }
        }
        let is_waited_for = |one: &&LocalSnapshot| deliveries.waiting.contains(&one.stamp);
        let settled = there.iter().take_while(|one| !is_waited_for(one));
        if let (Some(newest), false) = (settled.last(), self.dry_run) {
            let text = newest.stamp.to_string();
            state.catalog.set_meta(RETAINED, &text)?;
        }
        Ok(forgotten)
    }

    /// In the order of their stamps, which is that of their making.
    fn candidates(&self, delivered: &BTreeSet<Stamp>, there: &[LocalSnapshot]) -> Vec<Candidate> {
        let newest_valid = there.iter().rev().find(|one| one.valid == Some(true));
        let newest_valid = newest_valid.map(|one| one.stamp);
        let candidate = |(one, sequence): (&LocalSnapshot, u64)| Candidate {
            sequence,
            stamp: one.stamp,
            pinned: self.pins.contains(&one.stamp)
                || Some(one.stamp) == newest_valid
                || !delivered.contains(&one.stamp),
            proven: false,
            late: false,
            whole: true,
        };
        there.iter().zip(1..).map(candidate).collect()
    }

    fn deliveries(&self, state: &State) -> Result<Deliveries, AgentError> {
        let mut done: BTreeSet<Stamp> = state.catalog.completed_stamps()?;
        let mut waiting = BTreeSet::new();
        for row in state.catalog.snapshots()? {
            let mut states = Vec::new();
            for target in self.targets {
                states.push(state.catalog.publication(target, &row.known.core)?);
            }
            let arrived =
                |state: &Option<String>| matches!(state.as_deref(), Some("published" | "pruned"));
            let settled =
                |state: &Option<String>| arrived(state) || state.as_deref() == Some("given up");
            let stamp = row.known.stamp;
            if states.iter().any(arrived) && states.iter().all(settled) {
                done.insert(stamp);
            } else {
                // Lost meanwhile, or a target waits for it.
                done.remove(&stamp);
                waiting.insert(stamp);
            }
        }
        Ok(Deliveries { done, waiting })
    }
}
