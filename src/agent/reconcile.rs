//! Where the next snapshot stands: what the catalog remembers held against what the targets show.
//!
//! Four things can have happened since the last run, and each is told apart. The target knows more
//! than we do and it came from this machine: the state directory was lost (the catalog is empty) or
//! set back (a restored VM); a new writer begins, on top of the target's head. It came from another
//! machine: two machines push under one name, and this one stops unless `adopt` said that it takes
//! over. The target knows less: it was emptied or set back; what it lost is forgotten, so the next
//! snapshot stores it again.

use std::collections::{BTreeMap, HashSet};

use super::looks::Looks;
use super::survey::{Names, Survey, survey};
use super::{AgentError, NamedTarget, State, machine_id};
use crate::ids::{Hash, HostName};
use crate::manifest::chain::{Finding, Snapshot};
use crate::manifest::signature::Trust;
use crate::manifest::{Known, MAX_SEQUENCE};
use crate::packer::Lineage;

/// Core hashes of heads of other machines that `adopt` accepted, separated by spaces.
const ADOPTED: &str = "adopted";
const HIGHEST: &str = "highest sequence";
/// Set once somebody said after which sequence a host goes on that no target shows.
const BEGINS_AFTER: &str = "begins after";

/// What no target shows, and a catalog that is made anew should know.
pub(super) fn carried_over(state: &State) -> Result<Vec<(&'static str, String)>, AgentError> {
    let mut carried = Vec::new();
    for key in [ADOPTED, HIGHEST, BEGINS_AFTER] {
        if let Some(value) = state.catalog.meta(key)? {
            carried.push((key, value));
        }
    }
    Ok(carried)
}

/// The lineage of the next snapshot, and what its owner should hear.
#[derive(Debug)]
pub struct Reconciled {
    pub lineage: Lineage,
    pub notes: Vec<String>,
    /// Notes that the run must not pass over as a success.
    pub warnings: Vec<String>,
}

pub fn reconcile(
    state: &mut State,
    host: &HostName,
    surveys: &[Survey],
) -> Result<Reconciled, AgentError> {
    let machine = machine_id(host, &state.dir).map_err(AgentError::Machine)?;
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
    require_past(state, remembered, surveys)?;
    forget_what_targets_lost(state, surveys, &mut result)?;
    take_in_foreign(state, host, &machine, surveys, &mut result)?;
    report_findings(surveys, &mut result);
    let rows = state.catalog.snapshots()?;
    let mut known: Vec<Known> = rows.iter().map(|row| row.known).collect();
    known.sort();
    let head = known.last().map_or(0, |known| known.sequence);
    let highest = head.max(remembered);
    if highest >= MAX_SEQUENCE {
        return Err(AgentError::LastSequence(highest));
    }
    result.lineage.sequence = highest + 1;
    let heads = known.iter().filter(|known| known.sequence == head);
    result.lineage.parents = heads.map(|known| known.core).collect();
    result.lineage.known = known;
    result.lineage.before_is_everywhere = is_everywhere(state, surveys, highest)?;
    Ok(result)
}

/// Whether each target shows all snapshots of this `sequence` that the catalog knows.
fn is_everywhere(state: &State, surveys: &[Survey], sequence: u64) -> Result<bool, AgentError> {
    let rows = state.catalog.snapshots()?;
    let last = rows.iter().filter(|row| row.known.sequence == sequence);
    let last: Vec<_> = last.collect();
    let shows = |survey: &Survey| {
        let seen = survey.seen.as_ref().ok();
        seen.is_some_and(|seen| last.iter().all(|row| seen.manifests.contains(&row.name)))
    };
    Ok(!last.is_empty() && surveys.iter().all(shows))
}

/// A new state directory continues what the targets show. Where one shows nothing, and no other one does,
/// somebody must say what was there: a sequence used twice would hide the new snapshots behind old ones.
fn require_past(state: &State, remembered: u64, surveys: &[Survey]) -> Result<(), AgentError> {
    let blind = surveys.iter().find(|survey| survey.write_only);
    let is_new = remembered == 0 && state.catalog.meta(BEGINS_AFTER)?.is_none();
    let shows = |survey: &Survey| {
        survey
            .seen
            .as_ref()
            .is_ok_and(|seen| !seen.foreign.is_empty())
    };
    match blind {
        Some(survey) if is_new && !surveys.iter().any(shows) => Err(AgentError::Unseen {
            target: survey.folder.target.label().to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A host that no target shows goes on after `sequence`.
pub fn begin_after(state: &State, sequence: u64) -> Result<(), AgentError> {
    state
        .catalog
        .set_meta(BEGINS_AFTER, &sequence.to_string())?;
    let highest = remember_highest(state)?.max(sequence);
    Ok(state.catalog.set_meta(HIGHEST, &highest.to_string())?)
}

/// The highest sequence this catalog ever knew: it is not used again, even if every target was emptied, for
/// somebody may remember it.
fn remember_highest(state: &State) -> Result<u64, AgentError> {
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

/// Snapshots of others (or of a past that this catalog does not remember), by core hash.
fn foreign(surveys: &[Survey]) -> BTreeMap<(u64, Hash), (&Snapshot, String)> {
    let seen = surveys
        .iter()
        .filter_map(|s| Some((s, s.seen.as_ref().ok()?)));
    seen.flat_map(|(survey, seen)| {
        seen.foreign.iter().map(|snapshot| {
            let key = (snapshot.sequence(), snapshot.manifest.core_hash);
            (key, (snapshot, survey.folder.target.label().to_owned()))
        })
    })
    .collect()
}

fn take_in_foreign(
    state: &mut State,
    host: &HostName,
    machine: &str,
    surveys: &[Survey],
    result: &mut Reconciled,
) -> Result<(), AgentError> {
    let foreign = foreign(surveys);
    let Some(((newest, _), _)) = foreign.last_key_value() else {
        return Ok(());
    };
    let newest = *newest;
    let own = state.catalog.snapshots()?;
    let own_head = own.last().map_or(0, |row| row.known.sequence);
    let adopted = adopted(state)?;
    // What stands at or above our own head decides whose chain it is; below it lies history.
    for ((sequence, core), (snapshot, target)) in &foreign {
        let same_machine = snapshot.manifest.core.machine == machine;
        if *sequence >= own_head && *sequence == newest && !same_machine && !adopted.contains(core)
        {
            return Err(AgentError::AnotherMachine {
                host: host.clone(),
                stamp: snapshot.stamp(),
                sequence: *sequence,
                target: target.clone(),
            });
        }
    }
    if newest >= own_head {
        // Our own unpublished snapshots would fork the chain: their content stays, they do not.
        for row in own
            .iter()
            .filter(|row| row.known.sequence + 1 > foreign_base(&foreign))
        {
            if !is_published_anywhere(state, surveys, &row.known.core)? {
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
            // Two clones that push in turn see this every time: no success to pass over.
            false => result.warnings.push(format!(
                "the target is ahead of this state directory (sequence {newest}, here {own_head}): was this \
                 machine restored from an image, or cloned? Continuing from the target's newest snapshot"
            )),
        }
    }
    for (snapshot, _) in foreign.values() {
        state.catalog.add_snapshot(&snapshot.manifest, true)?;
    }
    Ok(())
}

fn foreign_base(foreign: &BTreeMap<(u64, Hash), (&Snapshot, String)>) -> u64 {
    foreign
        .first_key_value()
        .map_or(0, |((sequence, _), _)| *sequence)
}

fn is_published_anywhere(
    state: &State,
    surveys: &[Survey],
    core: &Hash,
) -> Result<bool, AgentError> {
    for survey in surveys {
        let publication = state.catalog.publication(&survey.name, core)?;
        if publication.as_deref() == Some("published") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A target that no longer shows what was published on it was emptied or set back.
fn forget_what_targets_lost(
    state: &mut State,
    surveys: &[Survey],
    result: &mut Reconciled,
) -> Result<(), AgentError> {
    let rows = state.catalog.snapshots()?;
    let mut is_any_whole = false;
    let mut shown_by_any: Vec<Names<'_>> = Vec::new();
    for survey in surveys {
        let Ok(seen) = &survey.seen else { continue };
        if seen.manifests.iter().eq(rows.iter().map(|row| &row.name)) {
            // Nothing is lost, and nothing is nowhere.
            is_any_whole = true;
            continue;
        }
        shown_by_any.push(seen.manifests.iter().collect());
        let Some(shown) = shown_by_any.last() else {
            continue;
        };
        let publications = state.catalog.publications(&survey.name)?;
        let mut lost = Vec::new();
        for row in rows.iter().filter(|row| !shown.contains(&row.name)) {
            let publication = publications.get(&row.known.core);
            if publication.is_none_or(|state| state != "published") {
                continue;
            }
            match seen.pruned.contains(&row.known.core) {
                true => {
                    let (name, core, now) = (&survey.name, &row.known.core, crate::clock::now());
                    state.catalog.set_publication(name, core, "pruned", now)?;
                }
                false => lost.push(row),
            }
        }
        if lost.is_empty() {
            continue;
        }
        if survey.write_only {
            continue;
        }
        for row in &lost {
            let (name, core) = (&survey.name, &row.known.core);
            let now = crate::clock::now();
            state.catalog.set_publication(name, core, "lost", now)?;
        }
        result.warnings.push(format!(
            "{} no longer has {} of the snapshots that were published there (such as {}): was it emptied, \
             pruned by hand or set back?",
            survey.folder.target.label(),
            lost.len(),
            lost[0].known.stamp
        ));
    }
    match is_any_whole {
        true => Ok(()),
        false => forget_snapshots_that_are_nowhere(state, surveys, &shown_by_any),
    }
}

fn forget_snapshots_that_are_nowhere(
    state: &mut State,
    surveys: &[Survey],
    shown: &[Names<'_>],
) -> Result<(), AgentError> {
    if surveys.iter().any(|survey| survey.seen.is_err()) {
        return Ok(());
    }
    for row in state.catalog.snapshots()?.iter() {
        let on_target = shown.iter().any(|names| names.contains(&row.name));
        if !on_target && !state.spool.contains(&row.name.key()) {
            state.catalog.forget_snapshot(&row.known.core)?;
        }
    }
    Ok(())
}

/// Findings of one kind that are reported one by one; there may be thousands that were planted.
const MOST_REPORTED: usize = 20;

fn report_findings(surveys: &[Survey], result: &mut Reconciled) {
    for survey in surveys {
        let Ok(seen) = &survey.seen else { continue };
        let label = survey.folder.target.label();
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

/// The first few as text, and how many more there are.
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

fn adopted(state: &State) -> Result<HashSet<Hash>, AgentError> {
    let text = state.catalog.meta(ADOPTED)?.unwrap_or_default();
    Ok(text
        .split(' ')
        .filter_map(|hash| hash.parse().ok())
        .collect())
}

/// Accepts the heads that the targets show, whatever machine made them: this one takes over the
/// host's name. Gives their names. The next push has them as parents.
pub fn adopt(
    state: &mut State,
    host: &HostName,
    targets: &[NamedTarget],
    trust: &Trust,
) -> Result<Vec<String>, AgentError> {
    let runtime = super::push::runtime()?;
    let surveys = runtime.block_on(survey(state, host, targets, trust, &Looks::whole(targets)))?;
    let foreign = foreign(&surveys);
    let newest = foreign
        .last_key_value()
        .map_or(0, |((sequence, _), _)| *sequence);
    let heads = foreign
        .iter()
        .filter(|((sequence, _), _)| *sequence == newest);
    let mut accepted = adopted(state)?;
    let mut names = Vec::new();
    for ((_, core), (snapshot, _)) in heads {
        accepted.insert(*core);
        names.push(snapshot.manifest.name().to_string());
    }
    let text: Vec<String> = accepted.iter().map(Hash::to_string).collect();
    state.catalog.set_meta(ADOPTED, &text.join(" "))?;
    Ok(names)
}
