//! Retention of this host's own snapshot directories.
//!
//! Only what is on the targets already may go: a snapshot that some target still waits for, that was never
//! pushed, or that a target lost stays, whatever the policy says. So does what is younger than a day, for a
//! policy of days would else leave of today's snapshots one, and the newest that is known to be valid.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use foldhash::fast::RandomState;

use super::order::{OrderedSnapshot, in_order};
use super::{AgentError, State};
use crate::ids::Stamp;
use crate::producer;
use crate::retention::{Candidate, Guard, Pins, Policy, Reason, Reasons, Refusal, decide};

/// The sequence of the newest local snapshot that the last time settled (see [`settled_until`]).
const RETAINED: &str = "local retention sequence";
/// The same as a stamp, as versions before it remembered it.
const RETAINED_STAMP: &str = "local retention";

/// What stays of the directories in `dir`.
pub struct LocalRetention<'a> {
    pub dir: &'a Path,
    pub policy: Policy,
    pub pins: &'a Pins,
    /// Names of all targets.
    pub targets: &'a [&'a str],
    pub now: DateTime<Utc>,
    pub confirmed: bool,
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Default)]
pub struct LocalPruned {
    pub forgotten: Vec<Stamp>,
    /// Why it would not be done without `--yes`, or at all; of a dry run only.
    pub refusal: Option<Refusal>,
}

/// Snapshots by whether the targets have them.
pub(super) struct Deliveries {
    /// What every target has or had, as far as it ever will.
    pub done: BTreeSet<Stamp>,
    waiting: BTreeSet<Stamp>,
}

impl LocalRetention<'_> {
    /// Deletes the snapshots that the policy does not keep.
    pub fn apply(&self, state: &State) -> Result<LocalPruned, AgentError> {
        let there = valid_in_order(self.dir, state, self.now)?;
        let deliveries = Deliveries::of(state, self.targets, &there)?;
        let candidates = self.candidates(&deliveries.done, &there);
        let decided = decide(&candidates, &self.policy.and_young(), self.now);
        let guard = Guard {
            now: self.now,
            pruned_at: retained(state)?.map(|at| count_until(&there, at)),
            confirmed: self.confirmed,
        };
        let refusal = guard.check(&candidates, &decided).err();
        if let (Some(refusal), false) = (&refusal, self.dry_run) {
            return Err(refusal.clone().into());
        }
        let mut forgotten = Vec::new();
        for (one, reasons) in there.iter().zip(&decided) {
            if reasons.is_empty() {
                if !self.dry_run {
                    producer::forget(&one.snapshot)?;
                }
                forgotten.push(one.snapshot.stamp);
            }
        }
        if !self.dry_run {
            let settled = settled_until(&there, &decided, &deliveries);
            let settled = settled.or(retained(state)?).unwrap_or(0);
            state.catalog.set_meta(RETAINED, &settled.to_string())?;
        }
        Ok(LocalPruned { forgotten, refusal })
    }

    /// Numbered in the order of their making.
    fn candidates(&self, delivered: &BTreeSet<Stamp>, there: &[OrderedSnapshot]) -> Vec<Candidate> {
        let newest_valid = newest_valid(there);
        let candidate = |(one, sequence): (&OrderedSnapshot, u64)| {
            let stamp = one.snapshot.stamp;
            Candidate {
                sequence,
                stamp,
                pinned: self.pins.holds(&stamp)
                    || Some(stamp) == newest_valid
                    || !delivered.contains(&stamp),
                proven: false,
                late: false,
                whole: true,
            }
        };
        there.iter().zip(1..).map(candidate).collect()
    }
}

/// The snapshots in `dir` that are not known to be invalid, oldest first.
pub(super) fn valid_in_order(
    dir: &Path,
    state: &State,
    now: DateTime<Utc>,
) -> Result<Vec<OrderedSnapshot>, AgentError> {
    let mut there = producer::list(dir)?;
    there.retain(|snapshot| snapshot.valid != Some(false));
    Ok(in_order(there, Some(&state.catalog), now)?)
}

pub(super) fn newest_valid(there: &[OrderedSnapshot]) -> Option<Stamp> {
    let mut newest_first = there.iter().rev();
    let valid = newest_first.find(|one| one.snapshot.valid == Some(true));
    valid.map(|one| one.snapshot.stamp)
}

/// The sequence up to which the last time settled. `None`: there was no last time.
fn retained(state: &State) -> Result<Option<u64>, AgentError> {
    if let Some(text) = state.catalog.meta(RETAINED)? {
        return Ok(text.parse().ok());
    }
    let Some(stamp) = state.catalog.meta(RETAINED_STAMP)? else {
        return Ok(None);
    };
    let rows = state.catalog.snapshots()?;
    let known = rows
        .iter()
        .filter(|row| row.known.stamp.to_string() == stamp);
    Ok(known.map(|row| row.known.sequence).max())
}

/// How many of `there` were made until the snapshot of that sequence.
fn count_until(there: &[OrderedSnapshot], sequence: u64) -> u64 {
    let last = there
        .iter()
        .rposition(|one| one.sequence.is_some_and(|n| n <= sequence));
    last.map_or(0, |at| at as u64 + 1)
}

/// The highest sequence before the first snapshot that a later time may let go for no fault of the policy:
/// a target waits for it, and what arrives there at last may go together; or it stayed only because it is
/// younger than a day.
fn settled_until(
    there: &[OrderedSnapshot],
    decided: &[Reasons],
    deliveries: &Deliveries,
) -> Option<u64> {
    let only_young = Reasons::from([Reason::Within]);
    let settled = there.iter().zip(decided).take_while(|(one, reasons)| {
        !deliveries.waiting.contains(&one.snapshot.stamp) && **reasons != only_young
    });
    let sequences = settled.filter_map(|(one, _)| one.sequence);
    sequences.max()
}

impl Deliveries {
    /// Of the snapshots that are `there`.
    pub fn of(
        state: &State,
        targets: &[&str],
        there: &[OrderedSnapshot],
    ) -> Result<Self, AgentError> {
        let stamps = there.iter().map(|one| one.snapshot.stamp);
        let stamps: HashSet<Stamp, RandomState> = stamps.collect();
        let mut done = state.catalog.completed(stamps.iter().copied())?;
        let mut waiting = BTreeSet::new();
        let publications = targets.iter().map(|name| state.catalog.publications(name));
        let publications: Vec<_> = publications.collect::<Result<_, _>>()?;
        let rows = state.catalog.snapshots()?;
        for row in rows.iter().filter(|row| stamps.contains(&row.known.stamp)) {
            let states = publications.iter().map(|all| all.get(&row.known.core));
            let states: Vec<Option<&str>> = states.map(|one| one.map(String::as_str)).collect();
            let arrived = |state: &Option<&str>| matches!(state, Some("published" | "pruned"));
            let settled = |state: &Option<&str>| arrived(state) || *state == Some("given up");
            let stamp = row.known.stamp;
            if states.iter().any(arrived) && states.iter().all(settled) {
                done.insert(stamp);
            } else {
                // Lost meanwhile, or a target waits for it.
                waiting.insert(stamp);
            }
        }
        // Two snapshots may have one stamp: a target that waits for either has the directory stay.
        done.retain(|stamp| !waiting.contains(stamp));
        Ok(Self { done, waiting })
    }
}
