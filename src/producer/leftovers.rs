//! What else is in the snapshots directory: copies that failed their check, and snapshots that were
//! not finished.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::backup_metadata::Metadata;
use super::error::{ProduceError, failed};
use super::snapshot_dir::{INVALID, PARTIAL};
use crate::base::held_locks;
use crate::base::ids::Stamp;
use crate::base::openat::{Dir, Kind, Meta};

/// A directory beside the snapshots that is no snapshot.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// Its path.
    pub path: PathBuf,
    /// The stamp in its name. `None`: there is none.
    pub stamp: Option<Stamp>,
    /// What it is.
    pub kind: LeftoverKind,
}

/// What a directory is that is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftoverKind {
    /// Copies that failed their check, with the places of their sources. They are kept for the
    /// operator to look at.
    Invalid(Vec<String>),
    /// A snapshot that is being made or deleted. False: its process ended before.
    Unfinished {
        /// Whether a process holds it.
        is_in_use: bool,
    },
}

/// Returns the leftovers in the snapshots directory `dir`, by name. A missing `dir` has none.
pub fn leftovers(dir: &Path) -> Result<Vec<Leftover>, ProduceError> {
    let opened = match Dir::open(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read the snapshots directory", dir))?,
    };
    let entries = opened.entries();
    let entries = entries.map_err(failed("read the snapshots directory", dir))?;
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Dir) {
        let name = entry.name.as_bytes();
        let (kind, rest) = if let Some(rest) = name.strip_prefix(PARTIAL.as_bytes()) {
            let rest = rest.strip_prefix(INVALID.as_bytes()).unwrap_or(rest);
            let meta = opened.sub(&entry.name).and_then(|dir| Meta::of_fd(&dir));
            let is_in_use = meta.is_ok_and(|meta| held_locks::is_held(meta.ino()));
            (LeftoverKind::Unfinished { is_in_use }, rest)
        } else if let Some(rest) = name.strip_prefix(INVALID.as_bytes()) {
            let metadata = opened.sub(&entry.name).map(|dir| Metadata::read(&dir));
            let places = match metadata {
                Ok(Ok(Some(metadata))) => metadata.places().into_iter().collect(),
                _ => Vec::new(),
            };
            (LeftoverKind::Invalid(places), rest)
        } else {
            continue;
        };
        let stamp = std::str::from_utf8(rest).ok();
        found.push(Leftover {
            path: opened.path_of(&entry.name),
            stamp: stamp.and_then(|text| text.parse().ok()),
            kind,
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_leftover_is_known_by_its_name_and_its_lock() {
        let snapshots = tempfile::tempdir().unwrap();
        let path = |name: &str| snapshots.path().join(name);
        for name in [
            "20260407T060000Z",
            "invalid-20260408T060000Z",
            ".partial-20260409T060000Z",
            ".partial-invalid-20260410T060000Z",
            "other",
        ] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let held = std::fs::File::open(path(".partial-20260409T060000Z")).unwrap();
        held.lock().unwrap();
        let found = leftovers(snapshots.path()).unwrap();
        let kinds: Vec<_> = found.iter().map(|one| one.kind.clone()).collect();
        let unfinished = |is_in_use| LeftoverKind::Unfinished { is_in_use };
        let expected = [
            unfinished(true),
            unfinished(false),
            LeftoverKind::Invalid(Vec::new()),
        ];
        assert_eq!(kinds, expected);
        let days = found.iter().map(|one| one.stamp.unwrap().to_string());
        let days: Vec<String> = days.map(|stamp| stamp[6..8].to_owned()).collect();
        assert_eq!(days, ["09", "10", "08"]);
        assert_eq!(leftovers(&path("missing")).unwrap().len(), 0);
    }
}
