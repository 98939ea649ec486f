//! What is there before a push: manifests in the spool, archives on the targets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::copy_sources::{CopySource, archives_on};
use super::error::PushError;
use super::inspect_targets::{InspectedTarget, TargetInventory};
use super::looks::{LookPlan, PartOfTarget};
use crate::base::ids::{ARCHIVES, Hash, MANIFESTS, ObjectKey};
use crate::format::manifest::{Manifest, ManifestName};
use crate::state::State;
use crate::state::catalog::{ArchiveSize, Catalog, CatalogArchive, SnapshotOrigin};
use crate::state::spool::Spool;

/// A manifest that a killed run put into the spool but not into the catalog is a snapshot all the
/// same.
pub(super) fn adopt_spooled_manifests(state: &mut State) -> Result<(), PushError> {
    let spooled = state.spool.list(MANIFESTS)?;
    if spooled.is_empty() {
        return Ok(());
    }
    let rows = state.catalog.snapshots()?;
    let known: HashSet<&ManifestName> = rows.iter().map(|row| &row.name).collect();
    for (key, _) in spooled {
        let Some(name) = ManifestName::from_key(&key) else {
            continue;
        };
        if known.contains(&name) {
            continue;
        }
        let parsed = Manifest::parse_named(&name, &state.spool.read(&name.key())?);
        match parsed {
            Ok(manifest) if state.spool.contains(&name.signature_key()) => {
                state
                    .catalog
                    .add_snapshot(&manifest, SnapshotOrigin::MadeHere)?;
            }
            _ => state.spool.remove(&key)?,
        }
    }
    Ok(())
}

/// Removes from the spool what is not what its name says and is about to be shipped: a disk
/// forgets, too. What it held is stored again, or comes from a target that has it.
pub(super) fn drop_damaged(
    state: &State,
    inspected_targets: &[InspectedTarget],
    warnings: &mut Vec<String>,
) -> Result<(), PushError> {
    let lacks = |key: &str, bytes: u64| {
        let hash = ObjectKey::archive_hash(key);
        let seen = inspected_targets
            .iter()
            .filter_map(|inspected| inspected.seen.as_ref().ok());
        hash.is_some_and(|hash| {
            let mut answers = seen.map(|seen| seen.archives.get(&hash));
            answers.any(|there| there != Some(&bytes))
        })
    };
    for (key, bytes) in state.spool.list(ARCHIVES)? {
        if lacks(&key, bytes) && !state.spool.is_whole(&key)? {
            state.spool.remove(&key)?;
            warnings.push(format!(
                "the spool held {key}, damaged (is its disk failing?): it was removed, and what it held is stored \
                 again or copied from a target that has it"
            ));
        }
    }
    Ok(())
}

/// Returns the archives that were looked at and may matter for the new snapshot: those that it may
/// reuse, and all archives of each target that was looked at whole. Returns all archives of the
/// catalog if every target that answered was looked at whole.
pub(super) fn looked_at(
    state: &State,
    inspected_targets: &[InspectedTarget],
    looks: &LookPlan,
) -> Result<Arc<Vec<CatalogArchive>>, PushError> {
    if is_all_looked_at(inspected_targets) {
        return Ok(state.catalog.archives()?);
    }
    let mut archives = looks.named.clone();
    let mut numbers: HashSet<i64> = archives.iter().map(|archive| archive.n).collect();
    for (inspected, part) in inspected_targets.iter().zip(&looks.parts) {
        if let (Ok(seen), None) = (&inspected.seen, part) {
            let all = state.catalog.archives()?;
            let more = all
                .iter()
                .filter(|archive| seen.archives.contains_key(&archive.row.blake3))
                .filter(|archive| numbers.insert(archive.n));
            archives.extend(more.cloned());
        }
    }
    Ok(Arc::new(archives))
}

/// Returns whether every target that answered was looked at whole.
fn is_all_looked_at(inspected_targets: &[InspectedTarget]) -> bool {
    let mut seen = inspected_targets
        .iter()
        .filter_map(|one| one.seen.as_ref().ok());
    seen.all(|seen| seen.scope.is_whole())
}

/// What the targets were found to hold, for the new snapshot.
pub(super) struct PushInventory {
    /// The archives that it may reuse.
    pub reusable: Vec<CatalogArchive>,
    /// The catalog's numbers of the archives from which `reusable` was chosen. `None`: it was
    /// chosen from all.
    pub chosen_from: Option<HashSet<i64>>,
    /// For the report.
    pub warnings: Vec<String>,
}

/// The outcome of the look at every target.
pub(super) struct LookedAt<'a> {
    /// The answers, in the targets' order.
    pub inspected_targets: &'a [InspectedTarget],
    /// How much was looked at.
    pub looks: &'a LookPlan,
    /// The archives that [`looked_at`] returned.
    pub archives: &'a [CatalogArchive],
    /// Whether the others can copy from each target.
    pub copy_sources: &'a [CopySource],
}

/// Updates the placements by what was seen, and chooses the archives that a new snapshot may reuse:
/// sealed to at least today's recipients, and, for every target that answered, there, in the spool,
/// or on another target to copy from. A push does not wait for a target that does not answer: it
/// gets its missing archives when it is back.
///
/// The `marked` archives are unknown from now on, whatever else has them: the next manifest lists
/// their marks, and no later one that is published beside it may name them.
pub(super) fn reusable_archives(
    state: &mut State,
    found: &LookedAt<'_>,
    recipients: &[String],
    marked: &HashSet<Hash>,
) -> Result<PushInventory, PushError> {
    let inspected_targets = found.inspected_targets;
    let to_forget = state.catalog.archive_numbers(marked.iter().copied())?;
    let to_forget = to_forget.into_values().collect();
    state.catalog.forget_archives(&to_forget)?;
    let is_marked = |archive: &&CatalogArchive| marked.contains(&archive.row.blake3);
    let archives = found.archives.iter().filter(|archive| !is_marked(archive));
    let archives: Vec<CatalogArchive> = archives.cloned().collect();
    let placements = update_placements(state, found, &archives, marked)?;
    let on_copy_sources = archives_on(inspected_targets, found.copy_sources);
    let condition =
        ReuseCondition::read(&state.catalog, &state.spool, on_copy_sources, recipients)?;
    // A target that was not asked for an archive may have it.
    let is_covered = |archive: &CatalogArchive| {
        let mut answered = inspected_targets.iter().filter(|one| !one.write_only);
        let hash = &archive.row.blake3;
        answered.all(|one| {
            one.seen
                .as_ref()
                .map_or(true, |seen| seen.scope.covers(hash))
        })
    };
    let lost = archives.iter().filter(|archive| {
        !placements.anywhere.contains(&archive.n)
            && !condition.is_spooled(archive)
            && is_covered(archive)
    });
    let lost: HashSet<i64> = lost.map(|archive| archive.n).collect();
    // The share of the other archives is looked at only to find losses: it is a different one in
    // each push.
    let chosen_from: Option<HashSet<i64>> = match is_all_looked_at(inspected_targets) {
        true => None,
        false => Some(found.looks.named.iter().map(|archive| archive.n).collect()),
    };
    let is_chosen = |archive: &&CatalogArchive| {
        let numbers = chosen_from.as_ref();
        let may_be_chosen = numbers.is_none_or(|numbers| numbers.contains(&archive.n));
        let is_on_all = placements.on_all.contains(&archive.n);
        may_be_chosen && !lost.contains(&archive.n) && condition.is_met(archive, is_on_all)
    };
    let reusable = archives.iter().filter(is_chosen).cloned().collect();
    if inspected_targets
        .iter()
        .all(|inspected| inspected.seen.is_ok())
    {
        state.catalog.forget_archives(&lost)?;
    }
    Ok(PushInventory {
        reusable,
        chosen_from,
        warnings: placements.warnings,
    })
}

/// Which archives are where, by the catalog's numbers.
struct Placements {
    /// On every target that answered.
    on_all: HashSet<i64>,
    /// On any target, as far as this host knows.
    anywhere: HashSet<i64>,
    /// Archives that targets lost.
    warnings: Vec<String>,
}

/// Records which of `archives` each target that answered holds.
fn update_placements(
    state: &mut State,
    found: &LookedAt<'_>,
    archives: &[CatalogArchive],
    marked: &HashSet<Hash>,
) -> Result<Placements, PushError> {
    let mut warnings = Vec::new();
    let mut on_all: Option<HashSet<i64>> = None;
    let mut anywhere: HashSet<i64> = HashSet::new();
    for (at, inspected) in found.inspected_targets.iter().enumerate() {
        let Ok(seen) = &inspected.seen else {
            anywhere.extend(state.catalog.placed_on(&inspected.name)?);
            continue;
        };
        let (placed, gone) = match found.looks.known_part(at) {
            None => note_all(state, inspected, seen, archives)?,
            Some((mut known, part)) => {
                known.retain(|archive| !marked.contains(&archive.blake3));
                let noted = note_part(state, inspected, seen, &known, part)?;
                let numbers = archives.iter().map(|archive| archive.n);
                anywhere.extend(state.catalog.placed_among(&inspected.name, numbers)?);
                noted
            }
        };
        if gone > 0 {
            warnings.push(format!(
                "{} lost {gone} of the archives it had (deleted, or cut short): what today's snapshot \
                 needs is stored again; older ones cannot be restored in full from there",
                inspected.folder.target.label()
            ));
        }
        anywhere.extend(&placed);
        on_all = Some(match on_all {
            Some(all) => all.intersection(&placed).copied().collect(),
            None => placed,
        });
    }
    Ok(Placements {
        // If no target answers, memory must do.
        on_all: on_all.unwrap_or_else(|| anywhere.clone()),
        anywhere,
        warnings,
    })
}

/// Records which archives a target holds that was looked at whole. Returns their numbers, and how
/// many are gone.
fn note_all(
    state: &mut State,
    inspected: &InspectedTarget,
    seen: &TargetInventory,
    archives: &[CatalogArchive],
) -> Result<(HashSet<i64>, usize), PushError> {
    let complete = |a: &&CatalogArchive| seen.archives.get(&a.row.blake3) == Some(&a.row.bytes);
    let placed: HashSet<i64> = archives.iter().filter(complete).map(|a| a.n).collect();
    let before = state.catalog.placed_on(&inspected.name)?;
    let gone = before.difference(&placed).count();
    if placed != before {
        state
            .catalog
            .set_placements(&inspected.name, placed.iter().copied())?;
    }
    Ok((placed, gone))
}

/// Does the same for a target that was looked at in part; `known` are the archives that were looked
/// at.
fn note_part(
    state: &mut State,
    inspected: &InspectedTarget,
    seen: &TargetInventory,
    known: &[ArchiveSize],
    part: &PartOfTarget,
) -> Result<(HashSet<i64>, usize), PushError> {
    let is_complete = |a: &ArchiveSize| seen.archives.get(&a.blake3) == Some(&a.bytes);
    let (there, absent): (Vec<ArchiveSize>, Vec<_>) = known.iter().partition(|a| is_complete(a));
    let placed: HashSet<i64> = there.iter().map(|a| a.n).collect();
    let absent = absent.iter().map(|a| a.n);
    let gone: Vec<i64> = absent.filter(|n| part.placed.contains(n)).collect();
    let count = gone.len();
    if count > 0 {
        state.catalog.remove_placements(&inspected.name, gone)?;
    }
    let more: Vec<i64> = placed.difference(&part.placed).copied().collect();
    if !more.is_empty() {
        state.catalog.add_placements(&inspected.name, more)?;
    }
    Ok((placed, count))
}

/// What an archive must be so that a new snapshot may reuse it.
pub(super) struct ReuseCondition<'a> {
    recipients: &'a [String],
    /// Recipients who must open nothing new.
    closed: BTreeSet<String>,
    /// Archives in the spool: sizes by key.
    spooled: HashMap<String, u64>,
    /// Recipients of each recipient set.
    sets: BTreeMap<String, Vec<String>>,
    /// Archives, with their sizes, on targets that others can copy from.
    on_copy_sources: HashSet<(Hash, u64)>,
    /// Archives that were damaged on a copy source.
    damaged: HashSet<Hash>,
    /// Archives that must not be used.
    unusable: HashSet<Hash>,
}

impl<'a> ReuseCondition<'a> {
    /// Reads the condition from the catalog and the spool.
    pub(super) fn read(
        catalog: &Catalog,
        spool: &Spool,
        on_copy_sources: HashSet<(Hash, u64)>,
        recipients: &'a [String],
    ) -> Result<Self, PushError> {
        Ok(Self {
            recipients,
            closed: catalog.closed_recipients(recipients)?,
            spooled: spool.list(ARCHIVES)?.into_iter().collect(),
            sets: catalog.recipient_sets()?,
            on_copy_sources,
            damaged: catalog.damaged_copies()?,
            unusable: catalog.unusable()?,
        })
    }

    fn is_spooled(&self, archive: &CatalogArchive) -> bool {
        self.spooled.get(archive.row.key().as_str()) == Some(&archive.row.bytes)
    }

    /// Returns whether a new snapshot may reuse `archive`. `is_on_all`: every target that answered
    /// has it in full.
    pub(super) fn is_met(&self, archive: &CatalogArchive, is_on_all: bool) -> bool {
        let (hash, bytes) = (archive.row.blake3, archive.row.bytes);
        let can_be_copied =
            || self.on_copy_sources.contains(&(hash, bytes)) && !self.damaged.contains(&hash);
        let is_there = || is_on_all || self.is_spooled(archive) || can_be_copied();
        let members = self.sets.get(&archive.row.recipient_set);
        let is_sealed_right = members.is_some_and(|members| {
            let has_all = self.recipients.iter().all(|one| members.contains(one));
            has_all && !members.iter().any(|one| self.closed.contains(one))
        });
        is_sealed_right && !self.unusable.contains(&hash) && is_there()
    }
}

/// Records the archives that were put on the target, and the shard at which the next look at it
/// begins. `None`: it begins where this one began.
pub(super) fn record_shipped(
    state: &mut State,
    target: &str,
    shipped: &[(ObjectKey, u64)],
    next_shard: Option<u16>,
) -> Result<(), PushError> {
    let hashes = shipped.iter().map(|(key, _)| key.as_str());
    let hashes = hashes.filter_map(ObjectKey::archive_hash);
    let numbers = state.catalog.archive_numbers(hashes)?;
    let number = |(key, _): &(ObjectKey, u64)| {
        let hash = ObjectKey::archive_hash(key.as_str());
        hash.and_then(|hash| numbers.get(&hash).copied())
    };
    let placed = shipped.iter().filter_map(number);
    match next_shard {
        Some(shard) => state
            .catalog
            .add_placements_and_look(target, placed, shard)?,
        None => state.catalog.add_placements(target, placed)?,
    }
    Ok(())
}
