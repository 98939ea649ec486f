//! Selects the entries that a list of paths means.

use std::collections::{BTreeSet, HashMap};

use crate::base::path_choice::{PathChoice, near_globbed, near_names};
use crate::format::index::{Entry, EntryList, EntryType, parent_path};
use crate::restore::plan::error::PlanError;

/// Returns the entries at or below `paths`, which may be globs, and the directories above them.
/// Without paths, returns all entries.
pub(super) fn select(entries: EntryList, paths: &[Vec<u8>]) -> Result<EntryList, PlanError> {
    let exists = |path: &[u8]| entries.find(path).is_some();
    let choice = PathChoice::new(paths.iter().map(Vec::as_slice), exists);
    if let Some(path) = choice.missing() {
        return Err(PlanError::NoSuchPath {
            path: String::from_utf8_lossy(path).into_owned(),
            near: near_names(path, entries.iter().map(|entry| entry.path)),
        });
    }
    if choice.is_everything() {
        return Ok(entries);
    }
    let leading = leading(&entries, &choice);
    if let Some(glob) = choice.unmatched() {
        return Err(PlanError::NoMatch {
            glob: String::from_utf8_lossy(glob).into_owned(),
            near: near_globbed(glob, entries.iter().map(|entry| entry.path)),
        });
    }
    let is_wanted = |path: &[u8]| leading.contains(path) || choice.takes(path);
    let mut firsts = left_out_firsts(&entries, is_wanted);
    let mut selected = EntryList::default();
    for entry in entries.iter().filter(|entry| is_wanted(entry.path)) {
        let mut entry = entry.to_entry();
        adopt_content(&mut entry, &mut firsts);
        selected.push(&entry);
    }
    Ok(selected)
}

/// Returns the directories above the chosen paths.
fn leading(entries: &EntryList, choice: &PathChoice) -> BTreeSet<Vec<u8>> {
    let mut leading = BTreeSet::new();
    let mut add = |path: &[u8]| {
        let mut above = parent_path(path);
        while let Some(dir) = above.filter(|dir| !leading.contains(*dir)) {
            leading.insert(dir.to_vec());
            above = parent_path(dir);
        }
    };
    choice.literals().for_each(&mut add);
    if choice.has_globs() {
        // What is below a chosen directory adds nothing that is not chosen itself.
        let is_first = |path: &[u8]| parent_path(path).is_none_or(|dir| !choice.takes(dir));
        for entry in entries.iter().filter(|entry| choice.takes(entry.path)) {
            if is_first(entry.path) {
                add(entry.path);
            }
        }
    }
    leading
}

/// Returns the first names that are not wanted of hard links that are.
fn left_out_firsts(
    entries: &EntryList,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> HashMap<Vec<u8>, Entry> {
    let mut firsts = HashMap::new();
    for entry in entries.iter().filter(|entry| is_wanted(entry.path)) {
        if let (EntryType::Hardlink, Some(target)) = (entry.kind, entry.target)
            && !is_wanted(target)
            && let Some(first) = entries.find(target)
        {
            firsts.insert(target.to_vec(), first.to_entry());
        }
    }
    firsts
}

/// Turns the first link to a file that is left out into that file, and later links into links to
/// it.
fn adopt_content(entry: &mut Entry, firsts: &mut HashMap<Vec<u8>, Entry>) {
    let target = entry.target.as_deref().unwrap_or_default();
    if entry.kind != EntryType::Hardlink {
        return;
    }
    let Some(first) = firsts.get_mut(target) else {
        return;
    };
    if first.path.as_slice() == target {
        // This is the first link: it takes the place of the file.
        first.path.clone_from(&entry.path);
        entry.clone_from(first);
    } else {
        entry.target = Some(first.path.clone());
    }
}
