//! What is there before a push: manifests in the spool, archives on the targets; and what stays
//! in the spool after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::donors::{Donor, damaged, on_donors};
use super::looks::{Looks, Part};
use super::survey::{Seen, Survey};
use super::{AgentError, NamedTarget, State};
use crate::catalog::{ArchiveSize, Catalog, CatalogArchive};
use crate::ids::{ARCHIVES, Hash, MANIFESTS, ObjectKey, TABLES};
use crate::manifest::known::Directory;
use crate::manifest::{Manifest, ManifestName, TablePage};
use crate::repository::parse_known;
use crate::spool::Spool;

/// A manifest that a killed run put into the spool but not into the catalog is a snapshot all the same.
pub(super) fn adopt_spooled_manifests(state: &mut State) -> Result<(), AgentError> {
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
                state.catalog.add_snapshot(&manifest, false)?;
            }
            _ => state.spool.remove(&key)?,
        }
    }
    Ok(())
}

/// Removes from the spool what is not what its name says and is about to be shipped: a disk forgets, too. What it
/// held is stored again, or comes from a target that has it.
pub(super) fn drop_damaged(
    state: &State,
    surveys: &[Survey],
    warnings: &mut Vec<String>,
) -> Result<(), AgentError> {
    let lacks = |key: &str, bytes: u64| {
        let hash = ObjectKey::archive_hash(key);
        let seen = surveys
            .iter()
            .filter_map(|survey| survey.seen.as_ref().ok());
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

/// The archives that a new snapshot may lean on as far as they were looked at, and those of each target of which all
/// was; all that the catalog knows, if all of every target was looked at.
pub(super) fn looked_at(
    state: &State,
    surveys: &[Survey],
    looks: &Looks,
) -> Result<Arc<Vec<CatalogArchive>>, AgentError> {
    if is_all_looked_at(surveys) {
        return Ok(state.catalog.archives()?);
    }
    let mut archives = looks.named.clone();
    let mut numbers: HashSet<i64> = archives.iter().map(|archive| archive.n).collect();
    for (survey, part) in surveys.iter().zip(&looks.parts) {
        if let (Ok(seen), None) = (&survey.seen, part) {
            let more = state
                .catalog
                .archives_named(seen.archives.keys().copied())?;
            archives.extend(more.into_iter().filter(|archive| numbers.insert(archive.n)));
        }
    }
    Ok(Arc::new(archives))
}

fn is_all_looked_at(surveys: &[Survey]) -> bool {
    let mut seen = surveys.iter().filter_map(|one| one.seen.as_ref().ok());
    seen.all(|seen| seen.scope.is_whole())
}

/// What a new snapshot may lean on.
pub(super) struct Stock {
    pub usable: Vec<CatalogArchive>,
    /// The archives that `usable` was chosen from, by number. `None`: all that the catalog knows.
    pub chosen_from: Option<HashSet<i64>>,
    pub warnings: Vec<String>,
}

/// Updates the placements by what was seen of `archives`; returns those that a new snapshot may lean on: sealed to at
/// least today's recipients, and for every target that answered there, in the spool, or on another one to
/// copy from. A target that does not answer is not waited for: what it lacks is seen to when it returns.
/// The `marked` ones are unknown from now on, whatever else has them: the next manifest lists
/// their marks, and no later one that is published beside it may name them.
pub(super) fn take_stock(
    state: &mut State,
    surveys: &[Survey],
    asked: &[Donor],
    recipients: &[String],
    marked: &HashSet<Hash>,
    looks: &Looks,
    archives: &[CatalogArchive],
) -> Result<Stock, AgentError> {
    let to_forget = state.catalog.archive_numbers(marked.iter().copied())?;
    let to_forget = to_forget.into_values().collect();
    state.catalog.forget_archives(&to_forget)?;
    let is_marked = |archive: &&CatalogArchive| marked.contains(&archive.row.blake3);
    let archives = archives.iter().filter(|archive| !is_marked(archive));
    let archives: Vec<CatalogArchive> = archives.cloned().collect();
    let mut warnings = Vec::new();
    let mut on_all: Option<HashSet<i64>> = None;
    let mut anywhere: HashSet<i64> = HashSet::new();
    for (at, survey) in surveys.iter().enumerate() {
        let Ok(seen) = &survey.seen else {
            anywhere.extend(state.catalog.placed_on(&survey.name)?);
            continue;
        };
        let (placed, gone) = match looks.known_part(at) {
            None => note_all(state, survey, seen, &archives)?,
            Some((mut known, part)) => {
                known.retain(|archive| !marked.contains(&archive.blake3));
                let noted = note_part(state, survey, seen, &known, part)?;
                let others = archives.iter().map(|archive| archive.n);
                anywhere.extend(state.catalog.placed_among(&survey.name, others)?);
                noted
            }
        };
        if gone > 0 {
            warnings.push(format!(
                "{} lost {gone} of the archives it had (deleted, or cut short): what today's snapshot \
                 needs is stored again; older ones cannot be restored in full from there",
                survey.folder.target.label()
            ));
        }
        anywhere.extend(&placed);
        on_all = Some(match on_all {
            Some(all) => all.intersection(&placed).copied().collect(),
            None => placed,
        });
    }
    // Where nobody answers, memory must do.
    let on_all = on_all.unwrap_or_else(|| anywhere.clone());
    let needs = Needs::of(
        &state.catalog,
        &state.spool,
        on_donors(surveys, asked),
        recipients,
    )?;
    let lost = archives
        .iter()
        .filter(|archive| !anywhere.contains(&archive.n) && !needs.is_spooled(archive));
    let lost: HashSet<i64> = lost.map(|archive| archive.n).collect();
    // The share of the others is looked at for what was lost only: it is another one each time.
    let chosen_from: Option<HashSet<i64>> = match is_all_looked_at(surveys) {
        true => None,
        false => Some(looks.named.iter().map(|archive| archive.n).collect()),
    };
    let is_chosen = |archive: &&CatalogArchive| {
        let numbers = chosen_from.as_ref();
        let may_be_chosen = numbers.is_none_or(|numbers| numbers.contains(&archive.n));
        let is_lost = lost.contains(&archive.n);
        may_be_chosen && !is_lost && needs.are_met(archive, on_all.contains(&archive.n))
    };
    let usable = archives.iter().filter(is_chosen).cloned().collect();
    if surveys.iter().all(|survey| survey.seen.is_ok()) {
        state.catalog.forget_archives(&lost)?;
    }
    Ok(Stock {
        usable,
        chosen_from,
        warnings,
    })
}

/// Remembers which archives the target has, all of which were looked at. Returns their numbers, and how many are
/// gone.
fn note_all(
    state: &mut State,
    survey: &Survey,
    seen: &Seen,
    archives: &[CatalogArchive],
) -> Result<(HashSet<i64>, usize), AgentError> {
    let complete = |a: &&CatalogArchive| seen.archives.get(&a.row.blake3) == Some(&a.row.bytes);
    let placed: HashSet<i64> = archives.iter().filter(complete).map(|a| a.n).collect();
    let before = state.catalog.placed_on(&survey.name)?;
    let gone = before.difference(&placed).count();
    if placed != before {
        state
            .catalog
            .set_placements(&survey.name, placed.iter().copied())?;
    }
    Ok((placed, gone))
}

/// The same of a part of them.
fn note_part(
    state: &mut State,
    survey: &Survey,
    seen: &Seen,
    known: &[ArchiveSize],
    part: &Part,
) -> Result<(HashSet<i64>, usize), AgentError> {
    let is_complete = |a: &ArchiveSize| seen.archives.get(&a.blake3) == Some(&a.bytes);
    let (there, absent): (Vec<ArchiveSize>, Vec<_>) = known.iter().partition(|a| is_complete(a));
    let placed: HashSet<i64> = there.iter().map(|a| a.n).collect();
    let absent = absent.iter().map(|a| a.n);
    let gone: Vec<i64> = absent.filter(|n| part.placed.contains(n)).collect();
    let count = gone.len();
    if count > 0 {
        state.catalog.remove_placements(&survey.name, gone)?;
    }
    let more: Vec<i64> = placed.difference(&part.placed).copied().collect();
    if !more.is_empty() {
        state.catalog.add_placements(&survey.name, more)?;
    }
    Ok((placed, count))
}

/// What an archive must be for a new snapshot to lean on it.
pub(super) struct Needs<'a> {
    recipients: &'a [String],
    spooled: HashMap<String, u64>,
    sets: BTreeMap<String, Vec<String>>,
    /// On targets that can be read.
    on_donors: HashSet<(Hash, u64)>,
    damaged: HashSet<Hash>,
    unusable: HashSet<Hash>,
}

impl<'a> Needs<'a> {
    pub fn of(
        catalog: &Catalog,
        spool: &Spool,
        on_donors: HashSet<(Hash, u64)>,
        recipients: &'a [String],
    ) -> Result<Self, AgentError> {
        Ok(Self {
            recipients,
            spooled: spool.list(ARCHIVES)?.into_iter().collect(),
            sets: catalog.recipient_sets()?,
            on_donors,
            damaged: damaged(catalog)?,
            unusable: catalog.unusable()?,
        })
    }

    fn is_spooled(&self, archive: &CatalogArchive) -> bool {
        self.spooled.get(archive.row.key().as_str()) == Some(&archive.row.bytes)
    }

    /// `is_on_all`: every target that answered has it in full.
    pub fn are_met(&self, archive: &CatalogArchive, is_on_all: bool) -> bool {
        let (hash, bytes) = (archive.row.blake3, archive.row.bytes);
        let is_copied = || self.on_donors.contains(&(hash, bytes)) && !self.damaged.contains(&hash);
        let is_there = || is_on_all || self.is_spooled(archive) || is_copied();
        let members = self.sets.get(&archive.row.recipient_set);
        let is_sealed_to_all =
            members.is_some_and(|members| self.recipients.iter().all(|r| members.contains(r)));
        is_sealed_to_all && !self.unusable.contains(&hash) && is_there()
    }
}

/// Remembers what was put on the target, and where the next look at it begins.
pub(super) fn record_shipped(
    state: &mut State,
    target: &str,
    shipped: &[(ObjectKey, u64)],
    next_shard: Option<u16>,
) -> Result<(), AgentError> {
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

/// Removes from the spool what every target has, and what no snapshot will ever name.
pub(super) fn tidy_spool(state: &mut State, targets: &[NamedTarget]) -> Result<(), AgentError> {
    let unsettled = drop_settled_manifests(state, targets)?;
    let spooled = state.spool.list(ARCHIVES)?;
    let hashes = spooled.iter().map(|(key, _)| key.as_str());
    let numbers = state
        .catalog
        .archive_numbers(hashes.filter_map(ObjectKey::archive_hash))?;
    for (key, _) in spooled {
        let hash = ObjectKey::archive_hash(&key);
        let needed = match hash.and_then(|hash| numbers.get(&hash)) {
            Some(n) => !is_placed_on_all(state, targets, *n)?,
            // The catalog was lost, or a run died before it knew: then the manifests decide.
            None => hash.is_some_and(|hash| unsettled.archives.contains(&hash)),
        };
        if !needed {
            state.spool.remove(&key)?;
        }
    }
    for (key, _) in state.spool.list(TABLES)? {
        if !unsettled.pages.contains(&key) {
            state.spool.remove(&key)?;
        }
    }
    remove_stray_signatures(state)?;
    Ok(state.spool.remove_empty_folders(ARCHIVES)?)
}

fn is_placed_on_all(state: &State, targets: &[NamedTarget], n: i64) -> Result<bool, AgentError> {
    for target in targets {
        if !state.catalog.is_placed(&target.name, n)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the manifests that some target still waits for need.
#[derive(Default)]
struct Unsettled {
    /// Keys.
    pages: HashSet<String>,
    archives: HashSet<Hash>,
}

/// Removes from the spool the manifests that no target waits for any more.
fn drop_settled_manifests(state: &State, targets: &[NamedTarget]) -> Result<Unsettled, AgentError> {
    let mut unsettled = Unsettled::default();
    let spooled = state.spool.list(MANIFESTS)?;
    let spooled = spooled
        .iter()
        .filter_map(|(key, _)| ManifestName::from_key(key));
    let spooled: HashSet<ManifestName> = spooled.collect();
    if spooled.is_empty() {
        return Ok(unsettled);
    }
    for row in state.catalog.snapshots()?.iter() {
        if !spooled.contains(&row.name) {
            continue;
        }
        let key = row.name.key();
        let mut settled = true;
        for target in targets {
            settled &= state
                .catalog
                .publication(&target.name, &row.known.core)?
                .is_some();
        }
        if settled {
            state.spool.remove(key.as_str())?;
            state.spool.remove(row.name.signature_key().as_str())?;
        } else if let Ok(manifest) = Manifest::parse(&state.spool.read(&key)?) {
            for key in manifest.pages.iter().map(ObjectKey::table) {
                let page = state.spool.read(&key).ok();
                let page = page.and_then(|bytes| TablePage::parse(&bytes).ok());
                let rows = page.into_iter().flat_map(|page| page.rows);
                unsettled.archives.extend(rows.map(|row| row.blake3));
                unsettled.pages.insert(key.as_str().to_owned());
            }
            // Of a directory that is damaged the pages are of no more use than it is.
            let known = known_objects(&state.spool, &manifest).unwrap_or_default();
            let keys = known.iter().map(ObjectKey::table);
            unsettled
                .pages
                .extend(keys.map(|key| key.as_str().to_owned()));
        }
    }
    Ok(unsettled)
}

/// The pages of earlier snapshots that `manifest` names, and the directories of them, as the spool has them.
/// `None`: a directory is gone or damaged.
pub(super) fn known_objects(spool: &Spool, manifest: &Manifest) -> Option<Vec<Hash>> {
    let Some(named) = manifest.core.known.pages() else {
        return Some(Vec::new());
    };
    let mut objects = [&named.pages[..], &named.directories].concat();
    for name in &named.directories {
        let bytes = spool.read(&ObjectKey::table(name)).ok()?;
        objects.extend(parse_known(name, &bytes, Directory::parse).ok()?.directory);
    }
    Some(objects)
}

/// A signature whose manifest was never written belongs to a run that died between the two.
fn remove_stray_signatures(state: &State) -> Result<(), AgentError> {
    let listed = state.spool.list(MANIFESTS)?;
    let names: HashSet<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    for key in &names {
        if let Some(manifest) = key.strip_suffix(".sig")
            && !names.contains(manifest)
        {
            state.spool.remove(key)?;
        }
    }
    Ok(())
}
