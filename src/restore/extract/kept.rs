//! Counts the metadata that a destination did not keep: per kind a count and the first paths.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::format::index::EntryRef;

/// Paths per kind in a report.
const MOST_NAMED: usize = 5;

/// A part of an entry's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Owner or group.
    Owner,
    /// Set-user-ID or set-group-ID, which another owner or group must not get.
    SetId,
    /// Permission bits.
    Mode,
    /// A POSIX access list.
    AccessList,
    /// Other extended attributes.
    Attributes,
    /// Modification time.
    Time,
    /// Holes: a sparse file takes the space of its whole size.
    Holes,
}

impl Aspect {
    /// Returns its name in a sentence after "did not keep".
    fn name(self) -> &'static str {
        match self {
            Self::Owner => "their owner or group",
            Self::SetId => "set-user-ID or set-group-ID",
            Self::Mode => "their mode",
            Self::AccessList => "their access list (ACL)",
            Self::Attributes => "extended attributes",
            Self::Time => "their modification time",
            Self::Holes => "their holes",
        }
    }
}

/// The entries that did not keep one aspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotKept {
    /// The aspect.
    pub kind: Aspect,
    /// Number of entries.
    pub count: u64,
    /// The first five paths; lossy if a path is not UTF-8.
    pub paths: Vec<String>,
    /// The reason for the first of them.
    pub why: String,
    /// The loss was to be expected, and the restore counts as complete: only root can give files
    /// away, for one.
    pub expected: bool,
}

impl std::fmt::Display for NotKept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = match self.count {
            1 => "1 entry".to_owned(),
            count => format!("{count} entries"),
        };
        let (what, why) = (self.kind.name(), &self.why);
        write!(f, "{entries} did not keep {what} ({why}): ")?;
        f.write_str(&self.paths.join(", "))?;
        match self.count - self.paths.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The counts while entries are made.
#[derive(Debug, Default)]
pub(super) struct NotKeptTally {
    kinds: BTreeMap<(bool, Aspect), NotKept>,
}

impl NotKeptTally {
    /// Counts an entry that did not keep an aspect. Call it once per entry and aspect.
    pub(super) fn miss(&mut self, entry: &EntryRef<'_>, kind: Aspect, why: String) {
        self.add(entry, kind, why, false);
    }

    /// [`Self::miss`] for a loss that was to be expected.
    pub(super) fn miss_as_expected(&mut self, entry: &EntryRef<'_>, kind: Aspect, why: &str) {
        self.add(entry, kind, why.to_owned(), true);
    }

    fn add(&mut self, entry: &EntryRef<'_>, kind: Aspect, why: String, expected: bool) {
        self.merge(NotKept {
            kind,
            count: 1,
            paths: vec![entry.path_lossy().into_owned()],
            why,
            expected,
        });
    }

    fn merge(&mut self, more: NotKept) {
        let key = (more.expected, more.kind);
        let Some(known) = self.kinds.get_mut(&key) else {
            self.kinds.insert(key, more);
            return;
        };
        known.count += more.count;
        let room = MOST_NAMED.saturating_sub(known.paths.len());
        known.paths.extend(more.paths.into_iter().take(room));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        other.kinds.into_values().for_each(|more| self.merge(more));
    }

    /// Returns the counts, the unexpected losses first.
    pub(super) fn into_list(self) -> Vec<NotKept> {
        self.kinds.into_values().collect()
    }
}
