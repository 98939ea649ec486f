//! Which of this host's own snapshot directories stay: the newest ones, as many as
//! `[snapshots] keep` says.
//!
//! They are plain copies, kept for a fast restore and for the next snapshot's hard links. The
//! policy of `[retention]` is for the targets. Whatever the number says, a snapshot stays if some
//! target still waits for it, if it was never pushed, if a target lost it, if it is pinned, or if
//! it has a tag that keeps it, and so does the newest one that is known to be valid. So only copies
//! that every target has are deleted. That loses nothing, and needs no guard against a wrong clock:
//! order comes from the sequences in the catalog.
//!
//! A run that ended before it packed its snapshot leaves a directory that no target ever gets. The
//! caller holds the lock of the state directory, so that run is over; the directory goes once a
//! later backup was complete.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use foldhash::fast::RandomState;
use serde::Serialize;

use super::error::JobError;
use super::kept_tags;
use super::mode::Mode;
use super::push::upload_order::{OrderedSnapshot, in_order};
use super::receipts::stored_proofs;
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::config::Config;
use crate::producer::{self, LocalSnapshot, ProduceError};
use crate::retention::{KeptTags, NamedError, Pins, TagMatch};
use crate::state::catalog::{CatalogError, PublicationState};
use crate::state::{State, figures, pins};

/// Why retention, or a deletion by name, was not applied to this host's snapshots.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalRetentionError {
    /// A snapshot directory cannot be listed or deleted.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
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
    /// Why the same deletion by name would be refused without `--dry-run`. `None` if it would not.
    pub(crate) refusal: Option<String>,
}

/// Snapshots by whether the targets have them.
pub(crate) struct Deliveries {
    /// Stamps of snapshots that every target has or had, except those it never gets.
    pub(crate) done: BTreeSet<Stamp>,
}

/// Returns the snapshots that stay on this host and its targets, as its state directory lists them.
pub(crate) fn pins_of(config: &Config) -> Result<Pins, JobError> {
    let memory = figures::load(&config.state)?.unwrap_or_default();
    Ok(Pins {
        by_hand: pins::read(&config.state)?,
        before_shrink: memory.before_shrink(),
        before_failure: memory.before_failure(),
        proven: stored_proofs(config),
    })
}

/// Deletes the older snapshots of this host: those beyond the newest `[snapshots] keep` that every
/// target has and that neither a pin nor a tag keeps, and those that interrupted runs left.
/// `keep_tags`: tags that keep their snapshots, as those of the configuration do. `completed_now`:
/// the snapshot of the caller's own run, if that run is complete and is not recorded yet.
pub(crate) fn retain_local(
    config: &Config,
    state: &State,
    mode: Mode,
    keep_tags: &[String],
    completed_now: Option<Stamp>,
) -> Result<LocalPruneReport, JobError> {
    let mut pins = pins_of(config)?;
    let tags = KeptTags::new(config.keep_tags.iter().chain(keep_tags).cloned());
    let mut present = valid_in_order(config, state)?;
    for one in &present {
        // What has such a tag, or may have one, stays like what is pinned.
        if kept_tags::of_local(&tags, &one.snapshot, &state.catalog)? != TagMatch::None {
            pins.by_hand.insert(one.snapshot.stamp);
        }
    }
    let mut report = LocalPruneReport {
        snapshots: present.len() as u64,
        ..LocalPruneReport::default()
    };
    let leftovers = take_leftovers(state, &pins, completed_now, &mut present)?;
    let older = match config.keep_local {
        Some(keep) => older(config, state, &pins, &present, keep as usize)?,
        None => Vec::new(),
    };
    let all = || leftovers.iter().chain(&older);
    report.freed_bytes = producer::freed_bytes(all());
    if !mode.is_dry_run() {
        all().try_for_each(producer::delete)?;
    }
    report.forgotten = all().map(|one| one.stamp).collect();
    report.forgotten.sort_unstable();
    report.leftovers = leftovers.iter().map(|one| one.stamp).collect();
    Ok(report)
}

/// Returns the snapshots beyond the newest `keep` that every target has and that no pin keeps.
fn older(
    config: &Config,
    state: &State,
    pins: &Pins,
    present: &[OrderedSnapshot],
    keep: usize,
) -> Result<Vec<LocalSnapshot>, LocalRetentionError> {
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let done = Deliveries::of(state, &targets, present)?.done;
    let newest_valid = newest_valid(present);
    let proven = newest_proven(pins, present);
    let may_go = |one: &&OrderedSnapshot| {
        let stamp = one.snapshot.stamp;
        let is_kept = [newest_valid, proven].contains(&Some(stamp));
        done.contains(&stamp) && !pins.holds(&stamp) && !is_kept
    };
    let older = &present[..present.len().saturating_sub(keep)];
    Ok(older
        .iter()
        .filter(may_go)
        .map(|one| one.snapshot.clone())
        .collect())
}

/// Returns the stamp of the newest snapshot that a drill restored.
pub(crate) fn newest_proven(pins: &Pins, there: &[OrderedSnapshot]) -> Option<Stamp> {
    let mut newest_first = there.iter().rev().map(|one| one.snapshot.stamp);
    newest_first.find(|stamp| pins.proven.contains(stamp))
}

/// Takes the snapshots out of `present` that interrupted runs left and a later complete backup made
/// superfluous.
fn take_leftovers(
    state: &State,
    pins: &Pins,
    completed_now: Option<Stamp>,
    present: &mut Vec<OrderedSnapshot>,
) -> Result<Vec<LocalSnapshot>, LocalRetentionError> {
    let unfinished = state.catalog.unfinished_runs()?;
    let stamps = present.iter().map(|one| one.snapshot.stamp);
    let mut completed = state.catalog.completed(stamps)?;
    completed.extend(completed_now);
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
            && !pins.holds(&stamp);
        if is_leftover {
            leftovers.push(one.snapshot.clone());
        }
        !is_leftover
    });
    Ok(leftovers)
}

/// Returns the snapshots of this host that are not known to be invalid, oldest first.
fn valid_in_order(
    config: &Config,
    state: &State,
) -> Result<Vec<OrderedSnapshot>, LocalRetentionError> {
    let mut there = producer::list(&config.snapshots_dir)?;
    there.retain(|snapshot| snapshot.valid != Some(false));
    Ok(in_order(there, Some(&state.catalog), clock::now())?)
}

/// Returns the stamp of the newest snapshot that is known to be valid.
pub(crate) fn newest_valid(there: &[OrderedSnapshot]) -> Option<Stamp> {
    let mut newest_first = there.iter().rev();
    let valid = newest_first.find(|one| one.snapshot.valid == Some(true));
    valid.map(|one| one.snapshot.stamp)
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
        Ok(Self { done })
    }
}
