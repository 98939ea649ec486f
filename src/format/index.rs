//! The sealed list of a snapshot's entries: JSON Lines, canonical, sorted by raw path bytes.
//!
//! Line 1 is the header, then one line per data archive, then one line per entry
//! (docs/format.md, 4). An unchanged entry gives the identical line from snapshot to snapshot, so
//! the index deduplicates like any file. [`IndexReader`] trusts nothing: every path, size and
//! extent is checked before anyone acts on it. (That a hard link names an earlier file is the plan's
//! to check: the reader forgets what it has passed.)

mod batches;
mod entries;
mod line;

pub use crate::base::skipped::Skipped;
pub use entries::{EntryList, EntryRef};

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::base::ids::{ArchiveId, Hash, HostName, Stamp};

/// No line of an index is longer (an entry with 40 million extents would be).
const MAX_LINE_BYTES: u64 = 2 << 30;
/// No archive's tar stream is longer (`archive_size` is 4 GiB at the most).
pub const MAX_TAR_BYTES: u64 = 8 << 30;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("cannot read the index")]
    Read(#[source] std::io::Error),
    #[error("line {line} of the index is malformed: {what}")]
    Malformed { line: u64, what: String },
}

/// `length` bytes at `offset` of an archive's uncompressed tar stream, or of a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "line::ExtentTuple", into = "line::ExtentTuple")]
pub struct Extent {
    /// `None` is a hole: zeros that no archive stores.
    pub archive: Option<ArchiveId>,
    pub offset: u64,
    pub length: u64,
}

/// Appends `extent`, merging it into the last one where they touch.
pub fn push_extent(extents: &mut Vec<Extent>, extent: Extent) {
    if let Some(last) = extents.last_mut()
        && last.archive == extent.archive
        && (extent.archive.is_none() || last.offset + last.length == extent.offset)
    {
        last.length += extent.length;
        return;
    }
    extents.push(extent);
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexHeader {
    pub format: u32,
    pub host: HostName,
    pub stamp: Stamp,
    /// 32 random bytes in hex: makes the index's hash in the manifest say nothing.
    pub salt: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub sources: Vec<SourceRecord>,
    pub validation: ValidationRecord,
    pub databases: Vec<DatabaseRecord>,
    pub skipped: Vec<Skipped>,
    pub archives: u64,
    pub entries: u64,
}

/// Where one part of the snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    pub kind: String,
    /// The absolute path on the host, or the command line; lossy where not UTF-8.
    pub path: String,
    pub to: String,
    pub stage: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationRecord {
    pub valid: bool,
    pub checked_at: chrono::DateTime<chrono::Utc>,
    /// Error codes, as the AtoCore procedure names them.
    pub errors: Vec<String>,
}

/// What a restored database must show again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRecord {
    /// As the entry's path; lossy where not UTF-8.
    pub path: String,
    pub page_size: u32,
    /// Rows of each table that holds rows itself (no virtual tables).
    pub tables: BTreeMap<String, u64>,
    /// `ok`, or what `integrity_check` said first.
    pub integrity: String,
}

/// The identity of one archive's tar stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveStream {
    pub archive: ArchiveId,
    pub tar_bytes: u64,
    pub tar_blake3: Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryType {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
    Chardev,
    Blockdev,
}

/// One file, directory or other thing of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Raw bytes, relative, `/` between components.
    pub path: Vec<u8>,
    pub kind: EntryType,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<String>,
    pub group: Option<String>,
    /// Nanoseconds since 1970; the seconds fit 64 bits.
    pub mtime_ns: i128,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes; files only.
    pub size: u64,
    /// Of the whole content; files only.
    pub blake3: Option<Hash>,
    pub extents: Vec<Extent>,
    /// A symlink's text or a hard link's first name.
    pub target: Option<Vec<u8>>,
    /// Device major and minor.
    pub rdev: Option<(u32, u32)>,
    pub torn: bool,
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        check_path(&self.path)?;
        if self.mode > 0o7777 {
            return Err(format!("mode {:o}", self.mode));
        }
        if i64::try_from(self.mtime_ns.div_euclid(1_000_000_000)).is_err() {
            return Err(format!("the time {}", self.mtime_ns));
        }
        let is_file = self.kind == EntryType::File;
        let has_target = matches!(self.kind, EntryType::Symlink | EntryType::Hardlink);
        let is_device = matches!(self.kind, EntryType::Chardev | EntryType::Blockdev);
        if is_file != self.blake3.is_some()
            || has_target != self.target.is_some()
            || is_device != self.rdev.is_some()
            || (!is_file && !self.extents.is_empty())
        {
            return Err(format!("the keys of a {:?} are wrong", self.kind));
        }
        if let (EntryType::Hardlink, Some(target)) = (self.kind, &self.target) {
            check_path(target)?;
        }
        let covered = self
            .extents
            .iter()
            .try_fold(0u64, |sum, extent| sum.checked_add(extent.length));
        if covered != Some(self.size) {
            return Err(format!("its extents do not add up to {} bytes", self.size));
        }
        Ok(())
    }

    pub fn path_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }
}

/// Whether `mtime_ns` is before 1677 or after 2262: beyond 64 bits.
pub fn is_wide_time(mtime_ns: i128) -> bool {
    i64::try_from(mtime_ns).is_err()
}

/// [`is_wide_time`] of the entry whose canonical line this is.
pub fn has_wide_time(line: &[u8]) -> bool {
    // In a path or an attribute's name there is a backslash before such quotes.
    const KEY: &[u8] = b"\"mtime\":";
    let at = line.windows(KEY.len()).position(|bytes| bytes == KEY);
    let Some(at) = at else { return false };
    let number = line[at + KEY.len()..].split(|byte| *byte == b',' || *byte == b'}');
    let number = number.into_iter().next().unwrap_or_default();
    // Only a long one is looked at.
    let text = std::str::from_utf8(number).unwrap_or_default();
    text.len() >= 19 && text.parse().is_ok_and(is_wide_time)
}

/// Refuses whatever could leave the directory that is restored into.
fn check_path(path: &[u8]) -> Result<(), String> {
    let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    if path.split(|byte| *byte == b'/').any(bad) {
        return Err(format!("unsafe path {:?}", String::from_utf8_lossy(path)));
    }
    Ok(())
}

/// The parent's path, or `None` at the top.
pub fn parent_path(path: &[u8]) -> Option<&[u8]> {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map(|cut| &path[..cut])
}

/// The directories that paths in raw byte order may still lie in: each begins with the one before it.
#[derive(Debug, Default)]
pub struct OpenDirs(Vec<Vec<u8>>);

impl OpenDirs {
    /// Notes that a directory stands at `path`. No later path may sort before it.
    pub fn open(&mut self, path: Vec<u8>) {
        self.leave(&path);
        self.0.push(path);
    }

    /// Raw byte order puts `a-b` between `a` and `a/b`: a directory stays open until the paths are past
    /// everything that can begin with it and a slash.
    fn leave(&mut self, path: &[u8]) {
        let is_past = |dir: &Vec<u8>| {
            let beyond = path.get(dir.len()).is_some_and(|byte| *byte > b'/');
            !path.starts_with(dir) || beyond
        };
        while self.0.pop_if(|dir| is_past(dir)).is_some() {}
    }

    /// Whether `parent`, that of `path`, is a directory. No later path may sort before `path`.
    pub fn hold(&mut self, path: &[u8], parent: &[u8]) -> bool {
        self.leave(path);
        // Each is longer than the one before: however deep the tree, this is quick.
        let found = self.0.binary_search_by_key(&parent.len(), Vec::len);
        found.is_ok_and(|at| self.0[at] == parent)
    }
}

/// Reads an index line by line; iterates over its entries.
pub struct IndexReader<R> {
    input: R,
    line: u64,
    pub header: IndexHeader,
    pub archives: HashMap<ArchiveId, ArchiveStream>,
    entries_read: u64,
    /// Of the last line, without its newline.
    text: Vec<u8>,
    last_path: Vec<u8>,
    /// Directories on the way to `last_path`, for the rule that parents come first.
    open_dirs: OpenDirs,
}

impl<R: BufRead> IndexReader<R> {
    pub fn new(mut input: R) -> Result<Self, IndexError> {
        let mut line = 0;
        let malformed = |line, what: String| IndexError::Malformed { line, what };
        let mut text = Vec::new();
        if !next_line(&mut input, &mut line, &mut text)? {
            return Err(malformed(1, "it is empty".to_owned()));
        }
        let header: IndexHeader =
            serde_json::from_slice(&text).map_err(|e| malformed(1, e.to_string()))?;
        if header.format != crate::format::manifest::FORMAT {
            return Err(malformed(1, format!("format {}", header.format)));
        }
        let mut archives = HashMap::new();
        for _ in 0..header.archives {
            if !next_line(&mut input, &mut line, &mut text)? {
                return Err(malformed(line, "it ends among the archives".to_owned()));
            }
            let stream: ArchiveStream =
                serde_json::from_slice(&text).map_err(|e| malformed(line, e.to_string()))?;
            if stream.tar_bytes > MAX_TAR_BYTES {
                let what = format!("{} with {} bytes", stream.archive, stream.tar_bytes);
                return Err(malformed(line, what));
            }
            if archives.insert(stream.archive, stream).is_some() {
                return Err(malformed(line, format!("{} twice", stream.archive)));
            }
        }
        Ok(Self {
            input,
            line,
            header,
            archives,
            entries_read: 0,
            text,
            last_path: Vec::new(),
            open_dirs: OpenDirs::default(),
        })
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, IndexError> {
        let is_there = next_line(&mut self.input, &mut self.line, &mut self.text)?;
        let line = self.line;
        let malformed = |what: String| IndexError::Malformed { line, what };
        if !is_there {
            return self.check_end().map(|()| None);
        }
        let entry = Entry::from_line(&self.text).map_err(malformed)?;
        self.accept(&entry).map_err(malformed)?;
        Ok(Some(entry))
    }

    /// Whether the next entry may be `entry`.
    fn accept(&mut self, entry: &Entry) -> Result<(), String> {
        self.check_order(entry)?;
        self.check_extents(entry)?;
        self.entries_read += 1;
        Ok(())
    }

    /// Whether there may be no more.
    fn check_end(&self) -> Result<(), IndexError> {
        let (found, promised) = (self.entries_read, self.header.entries);
        match found == promised {
            true => Ok(()),
            false => Err(IndexError::Malformed {
                line: self.line,
                what: format!("{found} entries, promised {promised}"),
            }),
        }
    }

    fn check_order(&mut self, entry: &Entry) -> Result<(), String> {
        let name = || entry.path_lossy().into_owned();
        // No path is empty.
        if self.last_path >= entry.path {
            return Err(format!("{:?} is out of order", name()));
        }
        if let Some(parent) = parent_path(&entry.path)
            && !self.open_dirs.hold(&entry.path, parent)
        {
            return Err(format!("{:?} has no parent directory", name()));
        }
        if entry.kind == EntryType::Dir {
            self.open_dirs.open(entry.path.clone());
        }
        self.last_path.clone_from(&entry.path);
        Ok(())
    }

    fn check_extents(&self, entry: &Entry) -> Result<(), String> {
        for extent in &entry.extents {
            let Some(id) = extent.archive else { continue };
            let stream = self
                .archives
                .get(&id)
                .ok_or_else(|| format!("an extent in {id}, which the index does not list"))?;
            if extent.offset + extent.length > stream.tar_bytes {
                return Err(format!("an extent beyond the end of {id}"));
            }
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for IndexReader<R> {
    type Item = Result<Entry, IndexError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.read_entry().transpose()
    }
}

/// Reads the next line into `text`, without its newline; false at the end. A last line without newline is
/// an error.
fn next_line(
    input: &mut impl BufRead,
    line: &mut u64,
    text: &mut Vec<u8>,
) -> Result<bool, IndexError> {
    use std::io::Read as _;
    text.clear();
    let mut limited = input.take(MAX_LINE_BYTES);
    limited.read_until(b'\n', text).map_err(IndexError::Read)?;
    let Some(last) = text.pop() else {
        return Ok(false);
    };
    *line += 1;
    match last {
        b'\n' => Ok(true),
        _ => Err(IndexError::Malformed {
            line: *line,
            what: "it ends within the line (truncated?)".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever names there are, a parent is found if it was opened, and no other.
        #[test]
        fn open_dirs_hold_what_was_opened(
            paths in proptest::collection::btree_map("[ab!0]{1,3}(/[ab!0]{1,3}){0,3}", any::<bool>(), 0..40)
        ) {
            let mut dirs = OpenDirs::default();
            let mut opened: BTreeSet<Vec<u8>> = BTreeSet::new();
            for (path, is_dir) in paths {
                let path = path.into_bytes();
                if let Some(parent) = parent_path(&path) {
                    prop_assert_eq!(dirs.hold(&path, parent), opened.contains(parent));
                }
                if is_dir {
                    dirs.open(path.clone());
                    opened.insert(path);
                }
            }
        }
    }
}
