//! Finds the directory that AtoCore's answer names, if it may be adopted.
//!
//! The answer is a text of another program. So the directory must be directly below one that the
//! configuration names, which is compared by device and inode; it is opened below that without
//! following a link; and its name must be a stamp of the time of the request.

use std::io;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Duration, SubsecRound as _, Utc};

use super::super::atocore_error::{AtoCoreError, UnadoptedSnapshot};
use super::ask::printable;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, Dir, Kind, Meta};
use crate::config::{AtoCoreSource, Config};

/// Seconds that a stamp may be after the answer: AtoCore may take the next free one.
const MOST_AHEAD: i64 = 60;
/// Seconds that a stamp may be before the request: AtoCore's clock may be another one.
const MOST_BEHIND: i64 = 5;

/// A snapshot directory that AtoCore made.
pub(super) struct FoundSnapshot {
    pub(super) stamp: Stamp,
    /// The directory that it is in.
    pub(super) parent: Dir,
    pub(super) chosen: Chosen,
    /// It is directly in this host's snapshots directory.
    pub(super) is_local: bool,
}

/// Opens the directory `root`, as AtoCore names it; it asked for at the time `asked`.
pub(super) fn find(
    config: &Config,
    source: &AtoCoreSource,
    root: &str,
    asked: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<FoundSnapshot, AtoCoreError> {
    let wrong = |what: String| AtoCoreError::NotASnapshot {
        root: printable(root),
        what,
    };
    let here = plain(source, root).ok_or_else(|| wrong("is not an absolute path".to_owned()))?;
    let not_here = || AtoCoreError::NotHere {
        root: printable(root),
        here: here.clone(),
    };
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => not_here(),
        _ => AtoCoreError::Io {
            what: "read AtoCore's snapshot",
            path: here.clone(),
            source: error,
        },
    };
    let (parent, name) = match (here.parent(), here.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => return Err(not_here()),
    };
    let parent = Dir::open(parent).map_err(cannot)?;
    let is_local = is_same(&parent, &config.snapshots_dir);
    let is_allowed = |dir: &PathBuf| is_same(&parent, dir);
    if !is_local && !source.allow_root.as_ref().is_some_and(is_allowed) {
        let dirs = [Some(&config.snapshots_dir), source.allow_root.as_ref()];
        let dirs = dirs.into_iter().flatten();
        return Err(AtoCoreError::Elsewhere {
            root: printable(root),
            allowed: dirs.map(|dir| dir.display().to_string()).collect(),
        });
    }
    let stamp: Stamp = match name.to_str().and_then(|name| name.parse().ok()) {
        Some(stamp) => stamp,
        None => return Err(wrong("does not end with a stamp".to_owned())),
    };
    let meta = parent.meta(name).map_err(cannot)?;
    if !meta.is_dir() {
        return Err(wrong("is not a directory".to_owned()));
    }
    let dir = parent.sub(name).map_err(cannot)?;
    let found = FoundSnapshot {
        stamp,
        parent,
        chosen: Chosen::of_dir(dir).map_err(cannot)?,
        is_local,
    };
    if stamp.time() < asked.trunc_subsecs(0) - Duration::seconds(MOST_BEHIND) {
        return Err(found.unadopted(wrong(format!(
            "is older than the request, which was at {}",
            asked.format("%H:%M:%S")
        ))));
    }
    if stamp.time() > now + Duration::seconds(MOST_AHEAD) {
        return Err(found.unadopted(wrong("is of the future".to_owned())));
    }
    Ok(found)
}

impl FoundSnapshot {
    /// Returns the error with how to delete this snapshot, which AtoCore made and this host does
    /// not adopt: nothing else deletes it.
    pub(super) fn unadopted(&self, error: AtoCoreError) -> AtoCoreError {
        let path = self.chosen.path();
        let command = match self.is_local {
            true => format!("sealift prune --local --forget {} --yes", self.stamp),
            false => format!("rm -r {}", shell_word(path)),
        };
        AtoCoreError::Unadopted(UnadoptedSnapshot {
            error: Box::new(error),
            path: path.to_owned(),
            bytes: bytes_below(self.chosen.dir(), 0),
            command,
        })
    }
}

/// Returns a path as a shell takes it: in quotes if it needs them.
fn shell_word(path: &Path) -> String {
    let text = printable(&path.to_string_lossy());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    match text.bytes().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Deepest directory whose files are counted.
const MOST_DEEP: usize = 64;

/// Returns the bytes of the files below `dir`, as far as they can be read.
fn bytes_below(dir: &Dir, depth: usize) -> u64 {
    let entries = dir.entries().unwrap_or_default().into_iter();
    let bytes = entries.map(|entry| match entry.kind {
        Kind::Dir if depth < MOST_DEEP => {
            let sub = dir.sub(&entry.name);
            sub.map_or(0, |sub| bytes_below(&sub, depth + 1))
        }
        Kind::File => dir.meta_of_entry(&entry.name).map_or(0, |meta| meta.size()),
        _ => 0,
    });
    bytes.sum()
}

/// Returns `root` as this host names it. `None`: it is not absolute, or has `..` in it.
fn plain(source: &AtoCoreSource, root: &str) -> Option<PathBuf> {
    let path = Path::new(root);
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let is_good = path.is_absolute() && path.components().all(is_plain) && !root.contains('\0');
    is_good.then(|| source.on_this_host(path))
}

/// Whether `path` is the open directory `dir`.
fn is_same(dir: &Dir, path: &Path) -> bool {
    let id = |dir: &Dir| Meta::of_fd(dir).map(|meta| meta.id());
    let other = Dir::open(path).and_then(|other| id(&other));
    matches!((id(dir), other), (Ok(one), Ok(other)) if one == other)
}
