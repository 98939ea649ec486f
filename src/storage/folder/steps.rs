//! Operations of a folder target on files and folders, on top of [`Dir`].

use std::fs::File;
use std::io;

use chrono::{DateTime, Utc};

use crate::base::openat::{Dir, Kind, Meta, not_a_file};

/// Splits a key into its folder (`""`: the root) and its file's name.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

/// Opens `folder`, creating what is missing of it. Returns every directory on the way, `root` first
/// and `folder` last.
pub(super) fn make_dirs(root: &Dir, folder: &str) -> io::Result<Vec<Dir>> {
    let mut chain = vec![root.clone()];
    let mut dir = root.clone();
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        dir = dir.make_dirs(part, 0o777)?;
        chain.push(dir.clone());
    }
    Ok(chain)
}

/// Creates a new file; an existing one is an error.
pub(super) fn create_file(dir: &Dir, name: &str) -> io::Result<File> {
    dir.create_file(name, 0o666)
}

/// Whether a regular file has this name; anything else there is an error.
pub(super) fn is_file(dir: &Dir, name: &str) -> io::Result<bool> {
    match dir.try_meta(name)? {
        Some(meta) if meta.is_file() => Ok(true),
        Some(_) => Err(not_a_file()),
        None => Ok(false),
    }
}

/// Renames unless the new name is taken: `false`. If the file system cannot do that in one step
/// (NFS, some FUSE), looks up the name first: two writers of one name then race, with the same
/// content.
pub(super) fn rename_new(from: (&Dir, &str), to: (&Dir, &str)) -> io::Result<bool> {
    match from.0.rename_new(from.1, to.0, to.1) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            if is_file(to.0, to.1)? {
                return Ok(false);
            }
            from.0.rename(from.1, to.0, to.1).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// Removes a file; an absent file is no error.
pub(super) fn remove(dir: &Dir, name: &str) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderEntry {
    Folder,
    File {
        bytes: u64,
        /// Time of the last change. `None`: out of range.
        modified: Option<DateTime<Utc>>,
    },
}

/// Returns the regular files and directories in `dir` whose names are UTF-8.
pub(super) fn read_dir(dir: &Dir) -> io::Result<Vec<(String, FolderEntry)>> {
    let mut found = Vec::new();
    for entry in dir.entries()? {
        let found_entry = match entry.kind {
            Kind::Dir => FolderEntry::Folder,
            Kind::File => match dir.meta_of_entry(&entry.name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                looked => match entry_of(&looked?) {
                    Some(entry) => entry,
                    None => continue,
                },
            },
            _ => continue,
        };
        if let Ok(name) = entry.name.into_string() {
            found.push((name, found_entry));
        }
    }
    Ok(found)
}

fn entry_of(meta: &Meta) -> Option<FolderEntry> {
    match meta.kind() {
        Kind::Dir => Some(FolderEntry::Folder),
        Kind::File => Some(FolderEntry::File {
            bytes: meta.len(),
            modified: DateTime::from_timestamp(meta.mtime(), 0),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renaming_keeps_an_existing_file() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        std::fs::write(temp.path().join("there"), "first").unwrap();
        std::fs::write(temp.path().join("new"), "second").unwrap();
        assert!(!rename_new((&root, "new"), (&root, "there")).unwrap());
        assert_eq!(std::fs::read(temp.path().join("there")).unwrap(), b"first");
        assert!(temp.path().join("new").exists());
        assert!(rename_new((&root, "new"), (&root, "elsewhere")).unwrap());
        assert!(!temp.path().join("new").exists());
    }
}
