//! The versions of a file, and which snapshots have each.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::base::ids::Hash;
use crate::format::index::{Entry, EntryRef, EntryType};

/// A file as some snapshots have it. Owner and mode do not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileVersion {
    /// Raw bytes, relative to the top of the snapshot.
    pub path: Vec<u8>,
    /// The kind of the entry.
    pub kind: VersionKind,
    /// Bytes of content; 0 if it is not a file.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// BLAKE3 of the content; `None` if it is not a file.
    pub blake3: Option<Hash>,
    /// Text of a symlink, or path of the file that a hard link names; else `None`.
    pub target: Option<Vec<u8>>,
}

/// The kind of an entry, in an order: files first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A further name of an earlier file.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    Chardev,
    /// A block device.
    Blockdev,
}

impl From<EntryType> for VersionKind {
    fn from(kind: EntryType) -> Self {
        match kind {
            EntryType::File => Self::File,
            EntryType::Dir => Self::Dir,
            EntryType::Symlink => Self::Symlink,
            EntryType::Hardlink => Self::Hardlink,
            EntryType::Fifo => Self::Fifo,
            EntryType::Chardev => Self::Chardev,
            EntryType::Blockdev => Self::Blockdev,
        }
    }
}

impl From<Entry> for FileVersion {
    fn from(entry: Entry) -> Self {
        Self {
            path: entry.path,
            kind: entry.kind.into(),
            size: entry.size,
            mtime_ns: entry.mtime_ns,
            blake3: entry.blake3,
            target: entry.target,
        }
    }
}

impl From<&EntryRef<'_>> for FileVersion {
    fn from(entry: &EntryRef<'_>) -> Self {
        Self {
            path: entry.path.to_vec(),
            kind: entry.kind.into(),
            size: entry.size,
            mtime_ns: entry.mtime_ns,
            blake3: entry.blake3,
            target: entry.target.map(<[u8]>::to_vec),
        }
    }
}

/// A version, and the snapshots that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSpan {
    /// The version.
    pub version: FileVersion,
    /// Position of the first snapshot that has it, among those that were searched.
    pub first: u32,
    /// Position of the last one.
    pub last: u32,
    /// Number of snapshots that have it.
    pub count: u32,
}

/// Versions by number, each stored once, while snapshots are counted in order.
#[derive(Debug, Default)]
pub(super) struct VersionTable {
    numbers: HashMap<FileVersion, u32, RandomState>,
    /// First snapshot, last snapshot and count of each. Count 0: none was counted yet.
    spans: Vec<(u32, u32, u32)>,
}

impl VersionTable {
    /// Returns the number of `version`, adding it if it is new.
    pub(super) fn number(&mut self, version: FileVersion) -> u32 {
        let next = self.spans.len() as u32;
        let number = *self.numbers.entry(version).or_insert(next);
        if number == next {
            self.spans.push((0, 0, 0));
        }
        number
    }

    /// Counts snapshot `position`, which has the versions `numbers`. Positions must not descend.
    pub(super) fn count(&mut self, position: u32, numbers: &[u32]) {
        for number in numbers {
            let (first, last, count) = &mut self.spans[*number as usize];
            if *count == 0 {
                *first = position;
            } else if *last == position {
                continue;
            }
            *last = position;
            *count += 1;
        }
    }

    /// Returns the versions that a snapshot has, by path, then by age.
    pub(super) fn into_spans(self) -> Vec<VersionSpan> {
        let spans = self.spans;
        let span = |(version, number): (FileVersion, u32)| {
            let (first, last, count) = spans[number as usize];
            (count > 0).then_some(VersionSpan {
                version,
                first,
                last,
                count,
            })
        };
        let mut all: Vec<VersionSpan> = self.numbers.into_iter().filter_map(span).collect();
        all.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        all
    }
}

fn order(span: &VersionSpan) -> (&[u8], u32, u32, &FileVersion) {
    (&span.version.path, span.first, span.last, &span.version)
}

/// Keeps the newest version of each path: that of the last snapshot. `spans` are by path.
pub fn newest_only(spans: Vec<VersionSpan>) -> Vec<VersionSpan> {
    let mut newest: Vec<VersionSpan> = Vec::new();
    for span in spans {
        match newest.last_mut() {
            Some(last) if last.version.path == span.version.path => {
                if span.last >= last.last {
                    *last = span;
                }
            }
            _ => newest.push(span),
        }
    }
    newest
}

/// Joins versions of a path that have the same content, whatever their times: the time is that of
/// the last snapshot. `spans` are by path.
pub fn by_content(spans: Vec<VersionSpan>) -> Vec<VersionSpan> {
    let mut joined: Vec<VersionSpan> = Vec::new();
    let mut path_begins = 0;
    for span in spans {
        if joined
            .last()
            .is_some_and(|last| last.version.path != span.version.path)
        {
            path_begins = joined.len();
        }
        let is_same = |one: &&mut VersionSpan| {
            let (one, other) = (&one.version, &span.version);
            (one.kind, one.size, one.blake3, &one.target)
                == (other.kind, other.size, other.blake3, &other.target)
        };
        match joined[path_begins..].iter_mut().find(is_same) {
            Some(same) => {
                // A snapshot has a path once, so no snapshot is counted twice.
                same.count += span.count;
                same.first = same.first.min(span.first);
                if span.last >= same.last {
                    (same.last, same.version.mtime_ns) = (span.last, span.version.mtime_ns);
                }
            }
            None => joined.push(span),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(path: &str, content: u8, mtime_ns: i128, at: (u32, u32, u32)) -> VersionSpan {
        VersionSpan {
            version: FileVersion {
                path: path.into(),
                kind: VersionKind::File,
                size: 1,
                mtime_ns,
                blake3: Some(Hash([content; 32])),
                target: None,
            },
            first: at.0,
            last: at.1,
            count: at.2,
        }
    }

    #[test]
    fn versions_of_equal_content_are_joined_and_the_newest_is_that_of_the_last_snapshot() {
        let spans = vec![
            span("a", 1, 10, (0, 3, 2)),
            span("a", 2, 11, (1, 2, 2)),
            span("a", 1, 12, (4, 4, 1)),
            span("b", 1, 10, (0, 9, 5)),
        ];
        let joined = by_content(spans.clone());
        assert_eq!(
            joined,
            [
                span("a", 1, 12, (0, 4, 3)),
                span("a", 2, 11, (1, 2, 2)),
                span("b", 1, 10, (0, 9, 5)),
            ]
        );
        assert_eq!(
            newest_only(spans),
            [span("a", 1, 12, (4, 4, 1)), span("b", 1, 10, (0, 9, 5))]
        );
    }

    #[test]
    fn snapshots_are_counted_once() {
        let mut table = VersionTable::default();
        let one = table.number(span("a", 1, 1, (0, 0, 0)).version);
        assert_eq!(table.number(span("a", 1, 1, (0, 0, 0)).version), one);
        let unused = table.number(span("b", 1, 1, (0, 0, 0)).version);
        assert_ne!(one, unused);
        table.count(2, &[one, one]);
        table.count(5, &[one]);
        assert_eq!(table.into_spans(), [span("a", 1, 1, (2, 5, 2))]);
    }
}
