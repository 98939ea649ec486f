//! What is there before a push: manifests in the spool, archives on the targets; and what stays
//! in the spool after it.

use std::collections::{HashMap, HashSet};

use super::copy_sources::{CopySource, archives_on};
use super::error::PushError;
use super::inspect_targets::Survey;
use super::request::Target;
use crate::base::ids::{ARCHIVES, Hash, MANIFESTS, ObjectKey, TABLES};
use crate::format::known::Directory;
use crate::format::manifest::{Manifest, ManifestName, TablePage};
use crate::repository::parse_known;
use crate::state::State;
use crate::state::catalog::CatalogArchive;
use crate::state::spool::Spool;

/// A manifest that a killed run put into the spool but not into the catalog is a snapshot all the same.
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
) -> Result<(), PushError> {
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

/// Updates the placements by what was seen; gives the archives that a new snapshot may lean on: sealed to at
/// least today's recipients, and for every target that answered there, in the spool, or on another one to
/// copy from. A target that does not answer is not waited for: what it lacks is seen to when it returns.
/// The `marked` ones are unknown from now on, whatever else has them: the next manifest lists
/// their marks, and no later one that is published beside it may name them.
pub(super) fn take_stock(
    state: &mut State,
    surveys: &[Survey],
    copy_sources: &[CopySource],
    recipients: &[String],
    marked: &HashSet<Hash>,
    warnings: &mut Vec<String>,
) -> Result<Vec<CatalogArchive>, PushError> {
    let known = state.catalog.archives()?;
    let (to_forget, archives): (Vec<&CatalogArchive>, Vec<_>) = known
        .iter()
        .partition(|archive| marked.contains(&archive.row.blake3));
    let to_forget = to_forget.iter().map(|archive| archive.n).collect();
    state.catalog.forget_archives(&to_forget)?;
    let mut on_all: Option<HashSet<i64>> = None;
    let mut anywhere: HashSet<i64> = HashSet::new();
    for survey in surveys {
        let placed: HashSet<i64> = match &survey.seen {
            Ok(seen) => {
                let complete =
                    |a: &&&CatalogArchive| seen.archives.get(&a.row.blake3) == Some(&a.row.bytes);
                let placed: HashSet<i64> = archives.iter().filter(complete).map(|a| a.n).collect();
                let before = state.catalog.placed_on(&survey.name)?;
                let gone = before.difference(&placed).count();
                if gone > 0 {
                    warnings.push(format!(
                        "{} lost {gone} of the archives it had (deleted, or cut short): what today's snapshot \
                         needs is stored again; older ones cannot be restored in full from there",
                        survey.folder.target.label()
                    ));
                }
                if placed != before {
                    state
                        .catalog
                        .set_placements(&survey.name, placed.iter().copied())?;
                }
                placed
            }
            Err(_) => {
                anywhere.extend(state.catalog.placed_on(&survey.name)?);
                continue;
            }
        };
        anywhere.extend(&placed);
        on_all = Some(match on_all {
            Some(all) => all.intersection(&placed).copied().collect(),
            None => placed,
        });
    }
    // Where nobody answers, memory must do.
    let on_all = on_all.unwrap_or_else(|| anywhere.clone());
    let to_copy = archives_on(surveys, copy_sources);
    let damaged = state.catalog.damaged_copies()?;
    let unusable = state.catalog.unusable()?;
    let spooled: HashMap<String, u64> = state.spool.list(ARCHIVES)?.into_iter().collect();
    let in_spool = |a: &CatalogArchive| spooled.get(a.row.key().as_str()) == Some(&a.row.bytes);
    let sets = state.catalog.recipient_sets()?;
    let sealed_to_all = |a: &CatalogArchive| {
        let members = sets.get(&a.row.recipient_set);
        members.is_some_and(|members| recipients.iter().all(|r| members.contains(r)))
    };
    let mut usable = Vec::new();
    let mut lost = HashSet::new();
    for archive in archives {
        let spooled = in_spool(archive);
        if !spooled && !anywhere.contains(&archive.n) {
            lost.insert(archive.n);
            continue;
        }
        let (hash, bytes) = (archive.row.blake3, archive.row.bytes);
        if unusable.contains(&hash) {
            continue;
        }
        let copied = || to_copy.contains(&(hash, bytes)) && !damaged.contains(&hash);
        if (spooled || on_all.contains(&archive.n) || copied()) && sealed_to_all(archive) {
            usable.push(archive.clone());
        }
    }
    if surveys.iter().all(|survey| survey.seen.is_ok()) {
        state.catalog.forget_archives(&lost)?;
    }
    Ok(usable)
}

pub(super) fn record_shipped(
    state: &mut State,
    target: &str,
    shipped: &[(ObjectKey, u64)],
) -> Result<(), PushError> {
    let hashes = shipped.iter().map(|(key, _)| key.as_str());
    let hashes = hashes.filter_map(ObjectKey::archive_hash);
    let numbers = state.catalog.archive_numbers(hashes)?;
    let number = |(key, _): &(ObjectKey, u64)| {
        let hash = ObjectKey::archive_hash(key.as_str());
        hash.and_then(|hash| numbers.get(&hash).copied())
    };
    let placed = shipped.iter().filter_map(number);
    Ok(state.catalog.add_placements(target, placed)?)
}

/// Removes from the spool what every target has, and what no snapshot will ever name.
pub(super) fn tidy_spool(state: &mut State, targets: &[Target]) -> Result<(), PushError> {
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

fn is_placed_on_all(state: &State, targets: &[Target], n: i64) -> Result<bool, PushError> {
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
fn drop_settled_manifests(state: &State, targets: &[Target]) -> Result<Unsettled, PushError> {
    let mut unsettled = Unsettled::default();
    let spooled: HashSet<String> = state
        .spool
        .list(MANIFESTS)?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    for row in state.catalog.snapshots()?.iter() {
        let key = row.name.key();
        if !spooled.contains(key.as_str()) {
            continue;
        }
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
fn remove_stray_signatures(state: &State) -> Result<(), PushError> {
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
