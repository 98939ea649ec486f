//! Retention of this host's own snapshot directories.
//!
//! Only snapshots that are on the targets may be deleted. Whatever the policy says, a snapshot
//! stays if some target still waits for it, if it was never pushed, or if a target lost it.
//! Snapshots younger than a day stay too, since a policy of days would keep one of today's, and so
//! does the newest snapshot that is known to be valid.
//!
//! A run that ended before it packed its snapshot leaves a directory that no target ever gets. The
//! caller holds the lock of the state directory, so that run is over; the directory goes, whatever
//! the policy, once a later backup was complete.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use foldhash::fast::RandomState;
use serde::Serialize;

use super::error::JobError;
use super::mode::Mode;
use super::push::upload_order::{OrderedSnapshot, in_order};
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::config::Config;
use crate::producer::{self, LocalSnapshot, ProduceError};
use crate::retention::{
    Candidate, Guard, NamedError, Pins, Policy, Reason, Reasons, Refusal, decide,
};
use crate::state::catalog::{CatalogError, PublicationState};
use crate::state::{State, figures, pins};

/// The sequence of the newest local snapshot that the last run settled (see [`settled_until`]).
const RETAINED: &str = "local retention sequence";
/// The same as a stamp, as earlier versions stored it.
const RETAINED_STAMP: &str = "local retention";

/// Why retention, or a deletion by name, was not applied to this host's snapshots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalRetentionError {
    /// A snapshot directory cannot be listed or deleted.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The decision looks wrong, or was not confirmed.
    #[error(transparent)]
    Retention(#[from] Refusal),
    /// A name is ambiguous, or its snapshot must stay.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// A name is no snapshot's.
    #[error("no snapshot {text} is in {}; `sealift list` shows what there is", dir.display())]
    NotHere {
        /// The name as the caller gave it.
        text: String,
        /// The directory of this host's snapshots.
        dir: PathBuf,
    },
    /// A named snapshot may have no other copy.
    #[error(
        "not every target is known to have snapshot {0}, so it may be here only; to delete it in any case, say --yes"
    )]
    OnlyHere(Stamp),
}

/// Which of the directories in `dir` stay.
struct LocalRetention<'a> {
    dir: &'a Path,
    /// `None`: only what interrupted runs left is deleted.
    policy: Option<Policy>,
    pins: &'a Pins,
    /// Names of all targets.
    targets: &'a [&'a str],
    now: DateTime<Utc>,
    mode: Mode,
    /// The snapshot of this process's own run, if that run is complete.
    completed_now: Option<Stamp>,
}

/// The local snapshots that were deleted, or would be.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LocalPruneReport {
    /// Their stamps, oldest first.
    pub(crate) forgotten: Vec<Stamp>,
    /// Those of them that interrupted runs left.
    pub(crate) leftovers: Vec<Stamp>,
    /// Number of snapshots that were here before.
    pub(crate) snapshots: u64,
    /// Bytes of files that only the deleted snapshots have.
    pub(crate) freed_bytes: u64,
    /// Why the same run without `--dry-run` would be refused, and how it can be confirmed. `None`
    /// if it would not, and of a run that deletes.
    pub(crate) refusal: Option<String>,
    /// Whether a policy decided. Without one, only what interrupted runs left is deleted.
    pub(crate) has_policy: bool,
}

/// Returns why a run would be refused, and how to confirm it if that is possible.
pub(crate) fn refusal_text(refusal: &Refusal) -> String {
    match refusal.may_be_confirmed() {
        true => format!("{refusal} (--yes confirms it)"),
        false => refusal.to_string(),
    }
}

/// Snapshots by whether the targets have them.
pub(crate) struct Deliveries {
    /// Stamps of snapshots that every target has or had, except those it never gets.
    pub(crate) done: BTreeSet<Stamp>,
    waiting: BTreeSet<Stamp>,
}

/// Returns the snapshots that stay on this host and its targets, as its state directory lists them.
pub(crate) fn pins_of(config: &Config) -> Result<Pins, JobError> {
    let memory = figures::load(&config.state)?.unwrap_or_default();
    Ok(Pins {
        by_hand: pins::read(&config.state)?,
        before_shrink: memory.before_shrink(),
        before_failure: memory.before_failure(),
    })
}

/// Deletes the snapshots of this host that `[retention]` does not keep, and those that interrupted
/// runs left. `completed_now`: the snapshot of the caller's own run, if that run is complete and is
/// not recorded yet.
pub(crate) fn retain_local(
    config: &Config,
    state: &State,
    mode: Mode,
    completed_now: Option<Stamp>,
) -> Result<LocalPruneReport, JobError> {
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let local = LocalRetention {
        dir: &config.snapshots_dir,
        policy: config.retention,
        pins: &pins_of(config)?,
        targets: &targets,
        now: clock::now(),
        mode,
        completed_now,
    };
    local.apply(state).map_err(|error| {
        let may_be_confirmed =
            matches!(&error, LocalRetentionError::Retention(refusal) if refusal.may_be_confirmed());
        match may_be_confirmed {
            true => JobError::from(error)
                .with_next("if these snapshots are to be deleted, confirm it with --yes"),
            false => error.into(),
        }
    })
}

impl LocalRetention<'_> {
    /// Deletes the snapshots that the policy does not keep.
    fn apply(&self, state: &State) -> Result<LocalPruneReport, LocalRetentionError> {
        let mut present = valid_in_order(self.dir, state, self.now)?;
        let mut report = LocalPruneReport {
            snapshots: present.len() as u64,
            has_policy: self.policy.is_some(),
            ..LocalPruneReport::default()
        };
        let leftovers = self.take_leftovers(state, &mut present)?;
        let going = self.apply_policy(state, &present, &mut report)?;
        let all = || leftovers.iter().chain(&going);
        report.freed_bytes = producer::freed_bytes(all());
        if !self.mode.is_dry_run() {
            all().try_for_each(producer::delete)?;
        }
        report.forgotten = all().map(|one| one.stamp).collect();
        report.forgotten.sort_unstable();
        report.leftovers = leftovers.iter().map(|one| one.stamp).collect();
        Ok(report)
    }

    /// Takes the snapshots out of `present` that interrupted runs left and a later complete backup
    /// made superfluous.
    fn take_leftovers(
        &self,
        state: &State,
        present: &mut Vec<OrderedSnapshot>,
    ) -> Result<Vec<LocalSnapshot>, LocalRetentionError> {
        let unfinished = state.catalog.unfinished_runs()?;
        let stamps = present.iter().map(|one| one.snapshot.stamp);
        let mut completed = state.catalog.completed(stamps)?;
        completed.extend(self.completed_now);
        let is_completed = |one: &OrderedSnapshot| completed.contains(&one.snapshot.stamp);
        let superseded = present.iter().rposition(is_completed).unwrap_or(0);
        let newest_valid = newest_valid(present);
        let mut leftovers = Vec::new();
        let mut index = 0;
        present.retain(|one| {
            let (stamp, is_earlier) = (one.snapshot.stamp, index < superseded);
            index += 1;
            let is_leftover = is_earlier
                && one.sequence.is_none()
                && unfinished.contains(&stamp)
                && Some(stamp) != newest_valid
                && !self.pins.holds(&stamp);
            if is_leftover {
                leftovers.push(one.snapshot.clone());
            }
            !is_leftover
        });
        Ok(leftovers)
    }

    /// Returns the snapshots that the policy does not keep, and notes what is settled.
    fn apply_policy(
        &self,
        state: &State,
        present: &[OrderedSnapshot],
        report: &mut LocalPruneReport,
    ) -> Result<Vec<LocalSnapshot>, LocalRetentionError> {
        let Some(policy) = self.policy else {
            return Ok(Vec::new());
        };
        let deliveries = Deliveries::of(state, self.targets, present)?;
        let candidates = self.candidates(&deliveries.done, present);
        let decided = decide(&candidates, &policy.and_young(), self.now);
        let guard = Guard {
            now: self.now,
            pruned_at: retained(state)?.map(|sequence| count_until(present, sequence)),
            confirmed: self.mode.is_confirmed(),
        };
        let refusal = guard.check(&candidates, &decided).err();
        if let (Some(refusal), false) = (&refusal, self.mode.is_dry_run()) {
            return Err(refusal.clone().into());
        }
        report.refusal = refusal.as_ref().map(refusal_text);
        if !self.mode.is_dry_run() {
            let settled = settled_until(present, &decided, &deliveries);
            let settled = settled.or(retained(state)?).unwrap_or(0);
            state.catalog.set_meta(RETAINED, &settled.to_string())?;
        }
        let going = present.iter().zip(&decided);
        let going = going.filter(|(_, reasons)| reasons.is_empty());
        Ok(going.map(|(one, _)| one.snapshot.clone()).collect())
    }

    /// Returns the snapshots as retention takes them, numbered in the order in which they were
    /// made.
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

/// Returns the snapshots in `dir` that are not known to be invalid, oldest first.
fn valid_in_order(
    dir: &Path,
    state: &State,
    now: DateTime<Utc>,
) -> Result<Vec<OrderedSnapshot>, LocalRetentionError> {
    let mut there = producer::list(dir)?;
    there.retain(|snapshot| snapshot.valid != Some(false));
    Ok(in_order(there, Some(&state.catalog), now)?)
}

/// Returns the stamp of the newest snapshot that is known to be valid.
pub(crate) fn newest_valid(there: &[OrderedSnapshot]) -> Option<Stamp> {
    let mut newest_first = there.iter().rev();
    let valid = newest_first.find(|one| one.snapshot.valid == Some(true));
    valid.map(|one| one.snapshot.stamp)
}

/// Returns the sequence up to which the last run settled, `None` if there was no run.
fn retained(state: &State) -> Result<Option<u64>, LocalRetentionError> {
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

/// Returns how many of `there` were made up to the snapshot with this sequence.
fn count_until(there: &[OrderedSnapshot], sequence: u64) -> u64 {
    let last = there
        .iter()
        .rposition(|one| one.sequence.is_some_and(|n| n <= sequence));
    last.map_or(0, |at| at as u64 + 1)
}

/// Returns the highest sequence before the first snapshot that a later run may delete without a
/// change of the policy: because a target still waits for it (snapshots that arrive together may be
/// deleted together), or because it stayed only for being younger than a day.
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
    /// Reads from the catalog which of the snapshots that are `there` the targets named `targets`
    /// have.
    pub(crate) fn of(
        state: &State,
        targets: &[&str],
        there: &[OrderedSnapshot],
    ) -> Result<Self, LocalRetentionError> {
        let stamps = there.iter().map(|one| one.snapshot.stamp);
        let stamps: HashSet<Stamp, RandomState> = stamps.collect();
        let mut done = state.catalog.completed(stamps.iter().copied())?;
        let mut waiting = BTreeSet::new();
        let publications = targets.iter().map(|name| state.catalog.publications(name));
        let publications: Vec<_> = publications.collect::<Result<_, _>>()?;
        let rows = state.catalog.snapshots()?;
        for row in rows.iter().filter(|row| stamps.contains(&row.known.stamp)) {
            let states = publications.iter().map(|all| all.get(&row.known.core));
            let states: Vec<Option<&PublicationState>> = states.collect();
            let arrived = |state: &Option<&PublicationState>| {
                matches!(
                    state,
                    Some(PublicationState::Published | PublicationState::Pruned)
                )
            };
            let settled = |state: &Option<&PublicationState>| {
                arrived(state) || *state == Some(&PublicationState::GivenUp)
            };
            let stamp = row.known.stamp;
            if states.iter().any(arrived) && states.iter().all(settled) {
                done.insert(stamp);
            } else {
                // A target lost it, or waits for it.
                waiting.insert(stamp);
            }
        }
        // Two snapshots may have one stamp: the directory stays while a target waits for either.
        done.retain(|stamp| !waiting.contains(stamp));
        Ok(Self { done, waiting })
    }
}
