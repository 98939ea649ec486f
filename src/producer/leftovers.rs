//! What else is in the snapshots directory: copies that failed their check, and snapshots that were
//! not finished.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::backup_metadata::Metadata;
use super::error::{ProduceError, failed};
use super::snapshot_dir::{INVALID, PARTIAL};
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
            let is_in_use = meta.is_ok_and(|meta| is_locked(&meta));
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

/// Returns whether a process holds a lock on the directory, as the kernel lists locks. To try the
/// lock could disturb the process that is about to take it.
fn is_locked(meta: &Meta) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| is_flock_on(line, meta.ino()))
}

/// Reads a line such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:131078 0 EOF`. Some file systems have
/// other device numbers there than elsewhere, so only the inode is compared.
fn is_flock_on(line: &str, inode: u64) -> bool {
    let mut words = line.split_whitespace();
    let kind = words.nth(1);
    let file = words.nth(3).and_then(|file| file.rsplit(':').next());
    kind == Some("FLOCK") && file.is_some_and(|number| number.parse() == Ok(inode))
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

    #[test]
    fn only_this_kind_of_lock_on_this_file_counts() {
        let line = "1: FLOCK  ADVISORY  WRITE 4711 08:01:131078 0 EOF";
        assert!(is_flock_on(line, 131_078) && !is_flock_on(line, 1_078));
        assert!(!is_flock_on(&line.replace("FLOCK", "POSIX"), 131_078));
        assert!(!is_flock_on("", 0) && !is_flock_on("1: -> FLOCK  ADVISORY", 7));
    }
}
