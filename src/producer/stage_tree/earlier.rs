//! The results of the previous walk, as a later walk of the same tree needs them.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use super::seen::{EntryStamp, SeenCursor};
use super::{SIDECARS, Staged, WalkKind};
use crate::base::openat::{Meta, PrivateDir};

/// The previous walk, and the position in it.
pub(super) struct Earlier<'a> {
    /// The results.
    pub staged: &'a Staged,
    /// The next entry.
    pub cursor: SeenCursor<'a>,
    /// Reports on entries, by the path in messages.
    pub reasons: HashMap<&'a str, Vec<&'a str>>,
    /// Paths, as in messages, that the current walk could not read.
    unread: HashSet<String>,
    /// Whether the current walk copies.
    pub may_copy: bool,
    /// The private directory in which new copies are made, once there is one.
    pub aside: &'a OnceCell<PrivateDir>,
    /// Paths that are no longer in the tree, and whether they were directories.
    pub gone: Vec<(Vec<u8>, bool)>,
}

impl<'a> Earlier<'a> {
    /// Returns the walk before the one of this kind. `None`: it is the first.
    pub(super) fn of(kind: WalkKind<'a>, aside: &'a OnceCell<PrivateDir>) -> Option<Self> {
        let (staged, may_copy) = match kind {
            WalkKind::First => return None,
            WalkKind::CopyChanged(staged) => (staged, true),
            WalkKind::FindChanged(staged) => (staged, false),
        };
        let mut reasons: HashMap<&str, Vec<&str>> = HashMap::new();
        for one in &staged.skipped {
            reasons.entry(&one.path).or_default().push(&one.reason);
        }
        Some(Self {
            staged,
            cursor: staged.seen.cursor(),
            reasons,
            unread: HashSet::new(),
            may_copy,
            aside,
            gone: Vec::new(),
        })
    }

    /// Notes that the walk could not read `path`, which is relative to the tree.
    pub(crate) fn note_unread(&mut self, path: &str) {
        self.unread.insert(path.to_owned());
    }

    /// Whether the walk could not read `rel` or a directory above it.
    pub(crate) fn is_unread(&self, rel: &[u8]) -> bool {
        if self.unread.is_empty() {
            return false;
        }
        let text = String::from_utf8_lossy(rel);
        let cuts = text.match_indices('/').map(|(at, _)| at);
        let mut above = cuts.chain([0, text.len()]);
        above.any(|end| self.unread.contains(&text[..end]))
    }

    /// Whether a change of the entry counts. Reading a database may make its sidecars, and a
    /// program that ends removes them: an empty log has no content, and its index is made from the
    /// log.
    pub(crate) fn counts(&self, rel: &[u8], state: &EntryStamp) -> bool {
        !(self.is_sidecar(rel, b"-shm") || self.is_journal(rel) && state.is_empty())
    }

    /// Whether the entry is a log or journal of a copied database.
    pub(crate) fn is_journal(&self, rel: &[u8]) -> bool {
        let journals = SIDECARS.iter().filter(|ending| **ending != b"-shm");
        journals.into_iter().any(|one| self.is_sidecar(rel, one))
    }

    fn is_sidecar(&self, rel: &[u8], ending: &[u8]) -> bool {
        let base = rel.strip_suffix(ending);
        base.is_some_and(|base| self.staged.known.contains_key(base))
    }

    /// Returns the metadata of the directory `rel`, as the previous walk saw it.
    pub(crate) fn directory(&self, rel: &[u8]) -> Option<Meta> {
        let all = &self.staged.directories;
        let at = all.binary_search_by(|(one, _)| one.as_slice().cmp(rel));
        at.ok().map(|at| all[at].1)
    }
}
