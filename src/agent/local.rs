//! Retention of this host's own snapshot directories.
//!
//! Only what is on the targets already may go: a snapshot that some target still waits for, that was never
//! pushed, or that a target lost stays, whatever the policy says. So does what is younger than a day, for a
//! policy of days would else leave of today's snapshots one, and the newest that is known to be valid.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{AgentError, State};
use crate::ids::Stamp;
use crate::producer::{self, LocalSnapshot};
use crate::retention::{Candidate, Guard, Policy, decide};

/// The newest local snapshot at the last time.
const RETAINED: &str = "local retention";
const YOUNGEST: Duration = Duration::from_secs(86_400);

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

impl LocalRetention<'_> {
    /// Deletes what the policy lets go; gives its stamps.
    pub fn apply(&self, state: &State) -> Result<Vec<Stamp>, AgentError> {
        let mut there = producer::list(self.dir)?;
        there.retain(|snapshot| snapshot.valid != Some(false));
        let candidates = self.candidates(state, &there)?;
        let policy = Policy {
            within: Some(self.policy.within.unwrap_or_default().max(YOUNGEST)),
            ..self.policy
        };
        let decided = decide(&candidates, &policy, self.now);
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
        if let (Some(newest), false) = (there.last(), self.dry_run) {
            state
                .catalog
                .set_meta(RETAINED, &newest.stamp.to_string())?;
        }
        Ok(forgotten)
    }

    /// In the order of their stamps, which is that of their making.
    fn candidates(
        &self,
        state: &State,
        there: &[LocalSnapshot],
    ) -> Result<Vec<Candidate>, AgentError> {
        let newest_valid = there.iter().rev().find(|one| one.valid == Some(true));
        let newest_valid = newest_valid.map(|one| one.stamp);
        let delivered = self.delivered(state)?;
        let candidate = |(one, sequence): (&LocalSnapshot, u64)| Candidate {
            sequence,
            stamp: one.stamp,
            pinned: self.pins.contains(&one.stamp)
                || Some(one.stamp) == newest_valid
                || !delivered.contains(&one.stamp),
            proven: false,
        };
        Ok(there.iter().zip(1..).map(candidate).collect())
    }

    /// What every target has or had, as far as it ever will.
    fn delivered(&self, state: &State) -> Result<BTreeSet<Stamp>, AgentError> {
        let mut delivered: BTreeSet<Stamp> = state.catalog.completed_stamps()?;
        for row in state.catalog.snapshots()? {
            let mut states = Vec::new();
            for target in self.targets {
                states.push(state.catalog.publication(target, &row.known.core)?);
            }
            let arrived =
                |state: &Option<String>| matches!(state.as_deref(), Some("published" | "pruned"));
            let settled =
                |state: &Option<String>| arrived(state) || state.as_deref() == Some("given up");
            match states.iter().any(arrived) && states.iter().all(settled) {
                true => delivered.insert(row.known.stamp),
                // Lost meanwhile, or a new target waits for it.
                false => delivered.remove(&row.known.stamp),
            };
        }
        Ok(delivered)
    }
}
