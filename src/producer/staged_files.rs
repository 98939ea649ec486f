//! The record of a tree's last staging: the stamps of its files, in `<state>/stage/<source>.jsonl`.
//!
//! A file whose stamp is unchanged is not copied again but hard-linked to its copy in that
//! snapshot. That is safe only if every later change shows: a file whose times are so close to its
//! staging that another change could leave the same ones is not recorded. Losing the record costs
//! one full copy.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::snapshot_path::snapshot_path;
use crate::base::ids::Stamp;
use crate::base::openat::{Dir, Meta};

/// Coarser than the clock of any file system in use.
const RACY: Duration = Duration::from_secs(2);
const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

/// Identity, size and times of a file: any change of content or metadata changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileStamp {
    pub dev: u64,
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
    /// Nanoseconds since the epoch.
    pub ctime: i128,
}

impl FileStamp {
    pub(crate) fn of(meta: &Meta) -> Self {
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether a change after `staged` could leave the same times.
    pub(crate) fn is_racy(&self, staged: SystemTime) -> bool {
        let settled = staged.checked_sub(RACY).and_then(|time| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            i128::try_from(since.as_nanos()).ok()
        });
        settled.is_none_or(|settled| self.mtime.max(self.ctime) >= settled)
    }
}

/// The first line of a record.
#[derive(Serialize, Deserialize)]
struct StagedFilesHeader {
    format: u32,
    /// The snapshot that holds the copies.
    stamp: Stamp,
    /// The source's place in the snapshot.
    to: String,
    /// The tree's real path.
    root: PathBuf,
}

/// Each further line: one file.
#[derive(Serialize, Deserialize)]
struct StagedFileLine {
    path_b64: String,
    look: FileStamp,
}

/// The last staging of one source.
#[derive(Debug, Default)]
pub(super) struct StagedFiles {
    /// The copy of the tree in that snapshot. `None`: there is none to link to.
    copies: Option<Dir>,
    /// By path.
    file_stamps: HashMap<Vec<u8>, FileStamp>,
}

impl StagedFiles {
    /// Reads the record. A record that is missing, damaged or about another tree counts as empty.
    pub(crate) fn load(file: &Path, snapshots_dir: &Path, root: &Path) -> Self {
        Self::try_load(file, snapshots_dir, root).unwrap_or_default()
    }

    fn try_load(file: &Path, snapshots_dir: &Path, root: &Path) -> Option<Self> {
        let mut lines = io::BufReader::new(std::fs::File::open(file).ok()?).lines();
        let header: StagedFilesHeader = serde_json::from_str(&lines.next()?.ok()?).ok()?;
        if header.format != 1 || header.root != root {
            return None;
        }
        let snapshots = Dir::open(snapshots_dir).ok()?;
        let snapshot = snapshots.sub(header.stamp.to_string()).ok()?;
        if !is_ours(&snapshot) {
            return None;
        }
        let copies = snapshot.sub(snapshot_path(&header.to)).ok()?;
        let mut file_stamps = HashMap::new();
        for line in lines {
            let line: StagedFileLine = serde_json::from_str(&line.ok()?).ok()?;
            file_stamps.insert(BASE64.decode(line.path_b64).ok()?, line.look);
        }
        Some(Self {
            copies: Some(copies),
            file_stamps,
        })
    }

    /// Returns the directory with the earlier copy of the file `rel`, if neither file nor copy has
    /// changed since.
    pub(crate) fn copies_with(&self, rel: &[u8], meta: &Meta) -> Option<&Dir> {
        let now = FileStamp::of(meta);
        if self.file_stamps.get(rel) != Some(&now) {
            return None;
        }
        let copies = self.copies.as_ref()?;
        let copy = copies.meta(OsStr::from_bytes(rel)).ok();
        let look = copy
            .filter(Meta::is_file)
            .map(|meta| FileStamp::of(&meta))?;
        ((look.size, look.mtime) == (now.size, now.mtime)).then_some(copies)
    }
}

/// Whether only this user can have written to the snapshot: another user may be able to put a
/// directory in its place.
pub(super) fn is_ours(snapshot: &Dir) -> bool {
    Meta::of_fd(snapshot).is_ok_and(|meta| {
        let is_owner = meta.uid() == rustix::process::geteuid().as_raw();
        is_owner && meta.permissions() & 0o022 == 0
    })
}

/// Removes the record, so the next staging copies everything.
pub(super) fn remove(file: &Path) {
    let _ = std::fs::remove_file(file);
}

/// Writes the record of a staging after its snapshot was published.
pub(super) fn save(
    file: &Path,
    stamp: Stamp,
    to: &str,
    root: &Path,
    file_stamps: &[(Vec<u8>, FileStamp)],
) -> io::Result<()> {
    let mut text = Vec::new();
    let header = StagedFilesHeader {
        format: 1,
        stamp,
        to: to.to_owned(),
        root: root.to_owned(),
    };
    serde_json::to_writer(&mut text, &header)?;
    for (rel, look) in file_stamps {
        text.write_all(b"\n")?;
        let path_b64 = BASE64.encode(rel);
        serde_json::to_writer(
            &mut text,
            &StagedFileLine {
                path_b64,
                look: *look,
            },
        )?;
    }
    text.push(b'\n');
    if let Some(dir) = file.parent() {
        Dir::open_or_make(dir, 0o700)?;
        crate::base::fs::clear_abandoned(dir);
    }
    crate::base::fs::write_atomic(file, &text, 0o600)
}
