//! Compares two snapshots, or a snapshot with a directory. Pure, but for the hashes of files in
//! directories, which the caller provides on request.
//!
//! A further name of a file counts as a file with the same content. The times of directories are
//! not compared: they change with whatever is made or removed there.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use super::versions::VersionKind;
use crate::base::ids::Hash;
use crate::format::index::{EntryList, EntryRef, EntryType};

/// An entry of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedEntry {
    /// Raw bytes, relative to the top.
    pub path: Vec<u8>,
    /// Never a hard link: that is a file.
    pub kind: VersionKind,
    /// Permission bits.
    pub mode: u32,
    /// Numbers of owner and group.
    pub owner: (u32, u32),
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Bytes of content; 0 if it is not a file.
    pub size: u64,
    /// BLAKE3 of a file's content; `None`: it must be read, or it is not a file.
    pub blake3: Option<Hash>,
    /// Text of a symlink.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Extended attributes. `None`: they are not known.
    pub xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// The content of a file, the text of a link or the number of a device differs.
    Content,
    /// It is of another kind.
    Type,
    /// Only metadata differs.
    Metadata,
}

/// A part of an entry's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataPart {
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Time of the last change.
    Time,
    /// Extended attributes.
    Attributes,
}

/// An entry that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryChange {
    /// What happened.
    pub kind: ChangeKind,
    /// The entry of the first side. `None`: it was added.
    pub before: Option<ComparedEntry>,
    /// The entry of the second side. `None`: it was removed.
    pub after: Option<ComparedEntry>,
    /// The metadata that differs, of an entry of the same kind on both sides.
    pub metadata: Vec<MetadataPart>,
}

impl EntryChange {
    /// Returns the path of the entry.
    pub fn path(&self) -> &[u8] {
        let entry = self.after.as_ref().or(self.before.as_ref());
        entry.map_or(&[], |entry| &entry.path)
    }
}

/// How much differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DifferenceTotals {
    /// Entries that only the second side has.
    pub added: u64,
    /// Entries that only the first side has.
    pub removed: u64,
    /// Entries with another content.
    pub content: u64,
    /// Entries of another kind.
    pub r#type: u64,
    /// Entries that differ in metadata only.
    pub metadata: u64,
    /// Entries that are the same.
    pub unchanged: u64,
    /// Bytes of all files of the first side.
    pub bytes_before: u64,
    /// Bytes of all files of the second side.
    pub bytes_after: u64,
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparedSide {
    /// The first.
    Before,
    /// The second.
    After,
}

/// The differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The entries that differ, by path.
    pub changes: Vec<EntryChange>,
    /// Their numbers.
    pub totals: DifferenceTotals,
}

/// Compares two sides, whose entries are by raw path bytes. `hash` returns the BLAKE3 of a file
/// that has none; `None`: it cannot be read, and counts as unchanged (the caller reports it).
pub fn compare(
    before: impl Iterator<Item = ComparedEntry>,
    after: impl Iterator<Item = ComparedEntry>,
    mut hash: impl FnMut(ComparedSide, &ComparedEntry) -> Option<Hash>,
) -> Differences {
    let mut found = Differences::default();
    let (mut before, mut after) = (before.peekable(), after.peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.path.cmp(&other.path),
        };
        let one = before.next_if(|_| order.is_le());
        let other = after.next_if(|_| order.is_ge());
        found.totals.bytes_before += one.as_ref().map_or(0, |one| one.size);
        found.totals.bytes_after += other.as_ref().map_or(0, |other| other.size);
        let metadata = match (&one, &other) {
            (Some(one), Some(other)) if one.kind == other.kind => metadata_changes(one, other),
            _ => Vec::new(),
        };
        let kind = match (&one, &other) {
            (None, _) => Some(ChangeKind::Added),
            (_, None) => Some(ChangeKind::Removed),
            (Some(one), Some(other)) if one.kind != other.kind => Some(ChangeKind::Type),
            (Some(one), Some(other)) if has_other_content(one, other, &mut hash) => {
                Some(ChangeKind::Content)
            }
            _ if !metadata.is_empty() => Some(ChangeKind::Metadata),
            _ => None,
        };
        let totals = &mut found.totals;
        let Some(kind) = kind else {
            totals.unchanged += 1;
            continue;
        };
        *match kind {
            ChangeKind::Added => &mut totals.added,
            ChangeKind::Removed => &mut totals.removed,
            ChangeKind::Content => &mut totals.content,
            ChangeKind::Type => &mut totals.r#type,
            ChangeKind::Metadata => &mut totals.metadata,
        } += 1;
        found.changes.push(EntryChange {
            kind,
            before: one,
            after: other,
            metadata,
        });
    }
}

fn has_other_content(
    one: &ComparedEntry,
    other: &ComparedEntry,
    hash: &mut impl FnMut(ComparedSide, &ComparedEntry) -> Option<Hash>,
) -> bool {
    if one.kind != VersionKind::File {
        return one.target != other.target || one.rdev != other.rdev;
    }
    if one.size != other.size {
        return true;
    }
    let first = one.blake3.or_else(|| hash(ComparedSide::Before, one));
    let second = other.blake3.or_else(|| hash(ComparedSide::After, other));
    matches!((first, second), (Some(first), Some(second)) if first != second)
}

fn metadata_changes(one: &ComparedEntry, other: &ComparedEntry) -> Vec<MetadataPart> {
    let is_dir = one.kind == VersionKind::Dir;
    // The mode of a link is that of the system that made it.
    let has_mode = one.kind != VersionKind::Symlink;
    let xattrs_differ =
        matches!((&one.xattrs, &other.xattrs), (Some(one), Some(other)) if one != other);
    let parts = [
        (has_mode && one.mode != other.mode, MetadataPart::Mode),
        (one.owner != other.owner, MetadataPart::Owner),
        (
            !is_dir && one.mtime_ns != other.mtime_ns,
            MetadataPart::Time,
        ),
        (xattrs_differ, MetadataPart::Attributes),
    ];
    let differing = parts.into_iter().filter(|(differs, _)| *differs);
    differing.map(|(_, part)| part).collect()
}

/// Returns the entries of an index for a comparison.
pub fn entries_of(list: &EntryList) -> impl Iterator<Item = ComparedEntry> {
    list.iter().map(|entry| {
        let file = match (entry.kind, entry.target) {
            (EntryType::Hardlink, Some(target)) => list.find(target).unwrap_or(entry),
            _ => entry,
        };
        compared(&entry, &file)
    })
}

/// Returns `entry`, whose content is that of `file`.
fn compared(entry: &EntryRef<'_>, file: &EntryRef<'_>) -> ComparedEntry {
    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    let kind = VersionKind::from(file.kind);
    ComparedEntry {
        path: entry.path.to_vec(),
        kind,
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        mtime_ns: entry.mtime_ns,
        size: file.size,
        blake3: file.blake3,
        target: entry
            .target
            .filter(|_| kind == VersionKind::Symlink)
            .map(<[u8]>::to_vec),
        rdev: entry.rdev,
        xattrs: Some(file.xattrs().map(owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: Option<u8>) -> ComparedEntry {
        ComparedEntry {
            path: path.into(),
            kind: VersionKind::File,
            mode: 0o644,
            owner: (0, 0),
            mtime_ns: 0,
            size: 1,
            blake3: content.map(|byte| Hash([byte; 32])),
            target: None,
            rdev: None,
            xattrs: None,
        }
    }

    fn dir(path: &str, mtime_ns: i128) -> ComparedEntry {
        ComparedEntry {
            kind: VersionKind::Dir,
            blake3: None,
            size: 0,
            mtime_ns,
            ..file(path, None)
        }
    }

    #[test]
    fn each_kind_of_change_has_its_letter() {
        let before = vec![
            dir("a", 1),
            file("a-removed", Some(1)),
            file("content", Some(1)),
            file("kind", Some(1)),
            file("meta", Some(1)),
            file("same", Some(1)),
        ];
        let longer = ComparedEntry {
            size: 2,
            ..file("longer", None)
        };
        let other_mode = ComparedEntry {
            mode: 0o600,
            mtime_ns: 5,
            ..file("meta", Some(1))
        };
        let after = vec![
            dir("a", 2),
            file("content", Some(2)),
            dir("kind", 0),
            longer,
            other_mode,
            file("same", None),
        ];
        let found = compare(before.into_iter(), after.into_iter(), |side, entry| {
            assert_eq!((side, &entry.path[..]), (ComparedSide::After, &b"same"[..]));
            Some(Hash([1; 32]))
        });
        let kinds: Vec<_> = found
            .changes
            .iter()
            .map(|one| (one.path(), one.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (&b"a-removed"[..], ChangeKind::Removed),
                (b"content", ChangeKind::Content),
                (b"kind", ChangeKind::Type),
                (b"longer", ChangeKind::Added),
                (b"meta", ChangeKind::Metadata),
            ]
        );
        assert_eq!(
            found.changes[4].metadata,
            [MetadataPart::Mode, MetadataPart::Time]
        );
        let totals = &found.totals;
        assert_eq!(
            (totals.unchanged, totals.bytes_before, totals.bytes_after),
            (2, 5, 5)
        );
    }
}
