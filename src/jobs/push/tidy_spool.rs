//! What stays in the spool after a push.

use std::collections::HashSet;

use super::error::PushError;
use super::request::Target;
use crate::base::ids::{ARCHIVES, Hash, MANIFESTS, ObjectKey, TABLES};
use crate::format::known::Directory;
use crate::format::manifest::{Manifest, ManifestName, TablePage};
use crate::repository::parse_known;
use crate::state::State;
use crate::state::spool::Spool;

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

/// Returns the pages of earlier snapshots that `manifest` names, and the directories of such pages,
/// as the spool has them. `None`: a directory is gone or damaged.
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
