//! Selects the entries that a list of paths means.

use std::collections::{BTreeSet, HashMap};

use crate::base::similar::edit_distance;
use crate::format::index::{Entry, EntryList, EntryType, parent_path};
use crate::restore::plan::error::PlanError;

/// Similar paths that an error names.
const MOST_NEAR_MISSES: usize = 3;

/// Returns the entries at or below `paths`, and the directories above them. Without paths, returns
/// all entries.
pub(super) fn select(entries: EntryList, paths: &[Vec<u8>]) -> Result<EntryList, PlanError> {
    // There can be as many as entries.
    let wanted: BTreeSet<&[u8]> = paths.iter().map(|path| trim(path)).collect();
    if wanted.is_empty() || wanted.contains(&b""[..]) {
        return Ok(entries);
    }
    let mut leading = BTreeSet::new();
    for path in &wanted {
        if entries.find(path).is_none() {
            return Err(PlanError::NoSuchPath {
                path: String::from_utf8_lossy(path).into_owned(),
                near: near_misses(&entries, path),
            });
        }
        let mut above = parent_path(path);
        while let Some(dir) = above {
            leading.insert(dir.to_vec());
            above = parent_path(dir);
        }
    }
    let is_wanted = |path: &[u8]| {
        let mut at_or_above = std::iter::successors(Some(path), |path| parent_path(path));
        leading.contains(path) || at_or_above.any(|path| wanted.contains(path))
    };
    let mut firsts = left_out_firsts(&entries, is_wanted);
    let mut selected = EntryList::default();
    for entry in entries.iter().filter(|entry| is_wanted(entry.path)) {
        let mut entry = entry.to_entry();
        adopt_content(&mut entry, &mut firsts);
        selected.push(&entry);
    }
    Ok(selected)
}

/// Normalizes a path: `./a/b/` and `/a/b` mean `a/b`.
fn trim(path: &[u8]) -> &[u8] {
    let mut path = path;
    loop {
        path = match path {
            [b'.', b'/', rest @ ..] | [b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            b"." => b"",
            _ => return path,
        };
    }
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

/// Returns up to three similar paths: the same name elsewhere, or a similar name.
fn near_misses(entries: &EntryList, path: &[u8]) -> Vec<String> {
    let name = |path: &[u8]| {
        let cut = path.iter().rposition(|byte| *byte == b'/');
        String::from_utf8_lossy(&path[cut.map_or(0, |cut| cut + 1)..]).to_lowercase()
    };
    let wanted = name(path);
    let farthest = wanted.chars().count() / 3 + 1;
    let mut near: Vec<(usize, &[u8])> = entries
        .iter()
        .map(|entry| {
            (
                edit_distance(&name(entry.path), &wanted, farthest),
                entry.path,
            )
        })
        .filter(|(distance, _)| *distance <= farthest)
        .collect();
    // Among equally similar names, those in the same directory come first.
    near.sort_by_key(|(distance, found)| (*distance, parent_path(found) != parent_path(path)));
    let texts = near
        .iter()
        .map(|(_, found)| format!("{:?}", String::from_utf8_lossy(found)));
    texts.take(MOST_NEAR_MISSES).collect()
}
