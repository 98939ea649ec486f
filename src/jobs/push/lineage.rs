//! Determines the next snapshot's place in the chain, by comparing the catalog with the targets.
//!
//! Apart from the usual case, three things can have happened since the last run:
//!
//! - The target has snapshots of this machine that the catalog does not know: the state directory
//!   was lost (the catalog is empty) or set back (a restored VM). A new writer begins, on top of
//!   the target's head.
//! - The target has snapshots of another machine: two machines push under one name. This one stops,
//!   unless `adopt` said that it takes over.
//! - The target has fewer snapshots: it was emptied or set back. The catalog forgets what the
//!   target lost, so the next snapshot stores it again.

use std::collections::BTreeMap;

use super::error::PushError;
use super::inspect_targets::{InspectedTarget, NameSet, inspect_targets};
use super::introduction;
use super::looks::LookPlan;
use super::request::Target;
use crate::base::ids::{Hash, HostName};
use crate::base::runtime::runtime;
use crate::format::chain::{Finding, VerifiedSnapshot};
use crate::format::manifest::{Known, MAX_SEQUENCE};
use crate::format::signature::Trust;
use crate::packer::Lineage;
use crate::state::State;
use crate::state::catalog::{PublicationState, SnapshotOrigin};
use crate::state::machine::machine_id;

/// Catalog entry: the highest sequence that this catalog ever knew.
pub(super) const HIGHEST: &str = "highest sequence";
/// Catalog entry: the sequence that `adopt --after` gave, for a host whose snapshots no target
/// shows.
pub(super) const BEGINS_AFTER: &str = "begins after";

/// The lineage of the next snapshot, and what the operator should know.
#[derive(Debug)]
pub struct Reconciled {
    /// The snapshot's place in the chain. Its marks are not decided yet.
    pub lineage: Lineage,
    /// Notes, which change no exit code.
    pub notes: Vec<String>,
    /// Warnings: the run exits with code 3.
    pub warnings: Vec<String>,
}

/// Brings the catalog up to date with what the targets show, and determines the next snapshot's
/// lineage.
pub fn reconcile(
    state: &mut State,
    host: &HostName,
    inspected_targets: &[InspectedTarget],
) -> Result<Reconciled, PushError> {
    let machine = machine_id(host, &state.dir).map_err(PushError::Machine)?;
    let mut result = Reconciled {
        lineage: Lineage {
            sequence: 1,
            parents: Vec::new(),
            known: Vec::new(),
            marks_seen: Vec::new(),
            before_is_everywhere: false,
        },
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    let remembered = remember_highest(state)?;
    require_past(state, remembered, inspected_targets)?;
    forget_what_targets_lost(state, inspected_targets, &mut result)?;
    take_in_foreign(state, host, &machine, inspected_targets, &mut result)?;
    report_findings(inspected_targets, &mut result);
    let rows = state.catalog.snapshots()?;
    let mut known: Vec<Known> = rows.iter().map(|row| row.known).collect();
    known.sort();
    let head = known.last().map_or(0, |known| known.sequence);
    let highest = head.max(remembered);
    if highest >= MAX_SEQUENCE {
        return Err(PushError::LastSequence(highest));
    }
    result.lineage.sequence = highest + 1;
    let heads = known.iter().filter(|known| known.sequence == head);
    result.lineage.parents = heads.map(|known| known.core).collect();
    result.lineage.known = known;
    result.lineage.before_is_everywhere = is_everywhere(state, inspected_targets, highest)?;
    Ok(result)
}

/// Returns whether each target shows all snapshots of this `sequence` that the catalog knows.
fn is_everywhere(
    state: &State,
    inspected_targets: &[InspectedTarget],
    sequence: u64,
) -> Result<bool, PushError> {
    let rows = state.catalog.snapshots()?;
    let last = rows.iter().filter(|row| row.known.sequence == sequence);
    let last: Vec<_> = last.collect();
    let shows = |inspected: &InspectedTarget| {
        let seen = inspected.seen.as_ref().ok();
        seen.is_some_and(|seen| last.iter().all(|row| seen.manifests.contains(&row.name)))
    };
    Ok(!last.is_empty() && inspected_targets.iter().all(shows))
}

/// Fails if the state directory is new and no target shows its past, while one is write-only. Then
/// the operator must give the last sequence: a sequence that is used twice would hide the new
/// snapshots behind old ones.
fn require_past(
    state: &State,
    remembered: u64,
    inspected_targets: &[InspectedTarget],
) -> Result<(), PushError> {
    let blind = inspected_targets
        .iter()
        .find(|inspected| inspected.write_only);
    let is_new = remembered == 0 && state.catalog.meta(BEGINS_AFTER)?.is_none();
    let shows = |inspected: &InspectedTarget| {
        inspected
            .seen
            .as_ref()
            .is_ok_and(|seen| !seen.foreign.is_empty())
    };
    match blind {
        Some(inspected) if is_new && !inspected_targets.iter().any(shows) => {
            Err(PushError::Unseen {
                target: inspected.folder.target.label().to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Makes a host whose snapshots no target shows continue after `sequence`.
pub fn begin_after(state: &State, sequence: u64) -> Result<(), PushError> {
    state
        .catalog
        .set_meta(BEGINS_AFTER, &sequence.to_string())?;
    let highest = remember_highest(state)?.max(sequence);
    Ok(state.catalog.set_meta(HIGHEST, &highest.to_string())?)
}

/// Updates and returns the highest sequence that this catalog ever knew. It is not used again even
/// if every target was emptied, because a reader may remember it.
fn remember_highest(state: &State) -> Result<u64, PushError> {
    let text = state.catalog.meta(HIGHEST)?;
    let remembered: u64 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
    let known = state.catalog.snapshots()?;
    let highest = known
        .iter()
        .map(|row| row.known.sequence)
        .max()
        .unwrap_or(0);
    if highest > remembered {
        state.catalog.set_meta(HIGHEST, &highest.to_string())?;
    }
    Ok(highest.max(remembered))
}

/// Returns the verified snapshots that the catalog does not know, by sequence and core hash, with a
/// target's label.
fn foreign(
    inspected_targets: &[InspectedTarget],
) -> BTreeMap<(u64, Hash), (&VerifiedSnapshot, String)> {
    let seen = inspected_targets
        .iter()
        .filter_map(|s| Some((s, s.seen.as_ref().ok()?)));
    seen.flat_map(|(inspected, seen)| {
        seen.foreign.iter().map(|snapshot| {
            let key = (snapshot.sequence(), snapshot.manifest.core_hash);
            (key, (snapshot, inspected.folder.target.label().to_owned()))
        })
    })
    .collect()
}

/// Adds the snapshots of other writers to the catalog. Fails if another machine's snapshot is the
/// newest.
fn take_in_foreign(
    state: &mut State,
    host: &HostName,
    machine: &str,
    inspected_targets: &[InspectedTarget],
    result: &mut Reconciled,
) -> Result<(), PushError> {
    let foreign = foreign(inspected_targets);
    let Some(((newest, _), _)) = foreign.last_key_value() else {
        return Ok(());
    };
    let newest = *newest;
    let own = state.catalog.snapshots()?;
    let own_head = own.last().map_or(0, |row| row.known.sequence);
    let adopted = state.catalog.adopted_heads()?;
    // Snapshots at or above our own head decide whose chain it is; those below are history.
    for ((sequence, core), (snapshot, target)) in &foreign {
        let same_machine = snapshot.manifest.core.machine == machine;
        if *sequence >= own_head && *sequence == newest && !same_machine && !adopted.contains(core)
        {
            return Err(PushError::AnotherMachine {
                host: host.clone(),
                stamp: snapshot.stamp(),
                sequence: *sequence,
                target: target.clone(),
            });
        }
    }
    if newest >= own_head {
        // Our own unpublished snapshots would fork the chain: they are dropped, and their content
        // stays.
        for row in own
            .iter()
            .filter(|row| row.known.sequence + 1 > foreign_base(&foreign))
        {
            if !is_published_anywhere(state, inspected_targets, &row.known.core)? {
                state.catalog.forget_snapshot(&row.known.core)?;
                state.spool.remove(row.name.key().as_str())?;
                state.spool.remove(row.name.signature_key().as_str())?;
            }
        }
        state.catalog.renew_writer()?;
        match own.is_empty() {
            true => result.notes.push(format!(
                "the state directory is new, but the target knows this host up to sequence {newest}: \
                 continuing from there; this push stores everything once more"
            )),
            // Two clones that push in turn see this every time, so it is a warning.
            false => result.warnings.push(format!(
                "the target is ahead of this state directory (sequence {newest}, here {own_head}): was this \
                 machine restored from an image, or cloned? Continuing from the target's newest snapshot"
            )),
        }
    }
    for (snapshot, _) in foreign.values() {
        state
            .catalog
            .add_snapshot(&snapshot.manifest, SnapshotOrigin::FoundOnTarget)?;
    }
    if newest >= own_head {
        let snapshots = foreign.values().map(|(snapshot, _)| *snapshot);
        introduction::learn(&state.catalog, snapshots)?;
    }
    Ok(())
}

fn foreign_base(foreign: &BTreeMap<(u64, Hash), (&VerifiedSnapshot, String)>) -> u64 {
    foreign
        .first_key_value()
        .map_or(0, |((sequence, _), _)| *sequence)
}

fn is_published_anywhere(
    state: &State,
    inspected_targets: &[InspectedTarget],
    core: &Hash,
) -> Result<bool, PushError> {
    for inspected in inspected_targets {
        let publication = state.catalog.publication(&inspected.name, core)?;
        if publication == Some(PublicationState::Published) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records the snapshots that targets no longer show: those with a tombstone were pruned, the
/// others are lost.
fn forget_what_targets_lost(
    state: &mut State,
    inspected_targets: &[InspectedTarget],
    result: &mut Reconciled,
) -> Result<(), PushError> {
    let rows = state.catalog.snapshots()?;
    let mut is_any_whole = false;
    let mut shown_by_any: Vec<NameSet<'_>> = Vec::new();
    for inspected in inspected_targets {
        let Ok(seen) = &inspected.seen else { continue };
        if seen.manifests.iter().eq(rows.iter().map(|row| &row.name)) {
            // Nothing is lost, and nothing is nowhere.
            is_any_whole = true;
            continue;
        }
        shown_by_any.push(seen.manifests.iter().collect());
        let Some(shown) = shown_by_any.last() else {
            continue;
        };
        let publications = state.catalog.publications(&inspected.name)?;
        let mut lost = Vec::new();
        for row in rows.iter().filter(|row| !shown.contains(&row.name)) {
            let publication = publications.get(&row.known.core);
            if publication != Some(&PublicationState::Published) {
                continue;
            }
            match seen.pruned.contains(&row.known.core) {
                true => {
                    let (name, core, now) =
                        (&inspected.name, &row.known.core, crate::base::clock::now());
                    state
                        .catalog
                        .set_publication(name, core, PublicationState::Pruned, now)?;
                }
                false => lost.push(row),
            }
        }
        if lost.is_empty() {
            continue;
        }
        if inspected.write_only {
            continue;
        }
        for row in &lost {
            let (name, core) = (&inspected.name, &row.known.core);
            let now = crate::base::clock::now();
            state
                .catalog
                .set_publication(name, core, PublicationState::Lost, now)?;
        }
        result.warnings.push(format!(
            "{} no longer has {} of the snapshots that were published there (such as {}): was it emptied, \
             pruned by hand or set back?",
            inspected.folder.target.label(),
            lost.len(),
            lost[0].known.stamp
        ));
    }
    match is_any_whole {
        true => Ok(()),
        false => forget_snapshots_that_are_nowhere(state, inspected_targets, &shown_by_any),
    }
}

fn forget_snapshots_that_are_nowhere(
    state: &mut State,
    inspected_targets: &[InspectedTarget],
    shown: &[NameSet<'_>],
) -> Result<(), PushError> {
    if inspected_targets
        .iter()
        .any(|inspected| inspected.seen.is_err())
    {
        return Ok(());
    }
    for row in state.catalog.snapshots()?.iter() {
        let on_target = shown.iter().any(|names| names.contains(&row.name));
        if !on_target && !state.spool.contains(&row.name.key()) {
            let core = &row.known.core;
            for inspected in inspected_targets {
                // Then the directory on this host may be the last copy.
                if state.catalog.publication(&inspected.name, core)? == Some(PublicationState::Lost)
                {
                    state.catalog.note_lost(row.known.stamp)?;
                }
            }
            state.catalog.forget_snapshot(core)?;
        }
    }
    Ok(())
}

/// Most findings of one kind that are reported one by one: thousands may have been planted.
const MOST_REPORTED: usize = 20;

fn report_findings(inspected_targets: &[InspectedTarget], result: &mut Reconciled) {
    for inspected in inspected_targets {
        let Ok(seen) = &inspected.seen else { continue };
        let label = inspected.folder.target.label();
        let (missing, other): (Vec<&Finding>, Vec<&Finding>) = seen
            .findings
            .iter()
            .partition(|finding| matches!(finding, Finding::Missing(_)));
        result.notes.extend(some_of(label, &missing));
        let (refused, other): (Vec<&Finding>, Vec<&Finding>) = other
            .into_iter()
            .partition(|finding| matches!(finding, Finding::Refused(..)));
        result.warnings.extend(some_of(label, &refused));
        result.warnings.extend(some_of(label, &other));
    }
}

/// Returns the first few findings as text, and the number of the others.
pub(super) fn some_of(label: &str, findings: &[impl std::fmt::Display]) -> Vec<String> {
    let first = findings.iter().take(MOST_REPORTED);
    let mut texts: Vec<String> = first.map(|finding| format!("{label}: {finding}")).collect();
    if let more @ 1.. = findings.len().saturating_sub(MOST_REPORTED) {
        texts.push(format!(
            "{label}: and {more} more like these; `sealift verify` names all"
        ));
    }
    texts
}

/// Accepts the heads that the targets show, whatever machine made them: this machine takes over the
/// host's name. Returns their names. The next push has them as parents.
pub fn adopt(
    state: &mut State,
    host: &HostName,
    targets: &[Target],
    trust: &Trust,
) -> Result<Vec<String>, PushError> {
    let runtime = runtime().map_err(PushError::Runtime)?;
    let looks = LookPlan::whole(targets);
    let inspected_targets = runtime.block_on(inspect_targets(
        state,
        host,
        targets,
        trust,
        &looks,
        &|_, _| {},
    ))?;
    let foreign = foreign(&inspected_targets);
    let newest = foreign
        .last_key_value()
        .map_or(0, |((sequence, _), _)| *sequence);
    let heads = foreign
        .iter()
        .filter(|((sequence, _), _)| *sequence == newest);
    let mut accepted = Vec::new();
    let mut names = Vec::new();
    for ((_, core), (snapshot, _)) in heads {
        accepted.push(*core);
        names.push(snapshot.manifest.name().to_string());
    }
    state.catalog.add_adopted_heads(accepted)?;
    Ok(names)
}
