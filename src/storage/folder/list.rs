//! Lists the objects of a folder.

use std::collections::HashMap;
use std::io;

use super::steps::{self, FolderEntry};
use crate::base::openat::{Dir, Kind};
use crate::storage::contract::Listed;
use crate::storage::key::is_key_in;

/// Returns all objects below `folder`, in no order.
pub(super) fn list(root: &Dir, folder: &str) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let dir = match root.sub(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for (name, entry) in steps::read_dir(&dir)? {
            if !is_key_in(&folder, &name) {
                continue;
            }
            let key = match folder.as_str() {
                "" => name,
                folder => [folder, "/", &name].concat(),
            };
            match entry {
                FolderEntry::Folder => folders.push(key),
                FolderEntry::File { bytes, modified } => found.push(Listed {
                    key,
                    bytes,
                    modified,
                }),
            }
        }
    }
    Ok(found)
}

/// Returns those of the keys that [`list`] returns that are not before `from`, without looking up
/// each file.
pub(super) fn list_keys(root: &Dir, folder: &str, from: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let dir = match root.sub(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        // The first name of this folder that counts, if `from` is in it.
        let first = from
            .strip_prefix(&folder)
            .and_then(|rest| rest.strip_prefix('/'));
        dir.for_each_entry(|name, kind, _| {
            let Some(name) = name.to_str() else {
                return Ok(());
            };
            let is_before = kind == Kind::File && first.is_some_and(|first| name < first);
            if is_before || !is_key_in(&folder, name) {
                return Ok(());
            }
            let key = match folder.as_str() {
                "" => name.to_owned(),
                folder => [folder, "/", name].concat(),
            };
            match kind {
                Kind::Dir => folders.push(key),
                Kind::File if key.as_str() >= from => found.push(key),
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Returns the sizes of those of `keys` that [`list`] would return.
pub(super) fn sizes(root: &Dir, keys: &[String]) -> io::Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    for key in keys {
        let (folder, name) = steps::split(key);
        let looked = root.sub(folder).and_then(|dir| dir.try_meta(name));
        match looked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(Some(meta)) if meta.is_file() => drop(found.insert(key.clone(), meta.len())),
            Ok(_) => {}
        }
    }
    Ok(found)
}
