//! What a destination did not keep of the entries: one line per kind, with a count and the first names.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::format::index::EntryRef;

/// Paths that are named per kind.
const MOST_NAMED: usize = 5;

/// What of an entry was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    Owner,
    SetId,
    Mode,
    AccessList,
    Attributes,
    Time,
    /// A sparse file takes its whole size.
    Holes,
}

impl Aspect {
    /// After "did not keep".
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

/// How many entries did not keep one aspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotKept {
    pub kind: Aspect,
    /// Entries.
    pub count: u64,
    /// The first of them; lossy where a path is not UTF-8.
    pub paths: Vec<String>,
    /// Of the first.
    pub why: String,
    /// It was to be expected, so the restore is complete: only root can give files away, for one.
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

/// Counts while entries are made.
#[derive(Debug, Default)]
pub(super) struct NotKeptTally {
    kinds: BTreeMap<(bool, Aspect), NotKept>,
}

impl NotKeptTally {
    /// Something of an entry was not kept. Once per entry and kind.
    pub(super) fn miss(&mut self, entry: &EntryRef<'_>, kind: Aspect, why: String) {
        self.add(entry, kind, why, false);
    }

    /// [`Self::miss`] of what nobody could expect to be kept.
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

    /// What matters first.
    pub(super) fn into_list(self) -> Vec<NotKept> {
        self.kinds.into_values().collect()
    }
}
