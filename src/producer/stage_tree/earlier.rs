//! What the walk before saw and copied, for one that goes along it.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use super::seen::{EntryStamp, SeenCursor};
use super::{SIDECARS, Staged};
use crate::base::openat::{Meta, PrivateDir};

/// What the walk before saw and copied.
pub(super) struct Earlier<'a> {
    pub staged: &'a Staged,
    pub cursor: SeenCursor<'a>,
    /// What was to be told of entries, by the path that messages call them.
    pub reasons: HashMap<&'a str, Vec<&'a str>>,
    /// Paths, as messages call them, that this walk could not read.
    unread: HashSet<String>,
    pub may_copy: bool,
    /// Where new copies are made.
    pub aside: &'a OnceCell<PrivateDir>,
    /// What is not in the tree any more, and whether it is a directory.
    pub gone: Vec<(Vec<u8>, bool)>,
}

impl<'a> Earlier<'a> {
    pub fn new(staged: &'a Staged, may_copy: bool, aside: &'a OnceCell<PrivateDir>) -> Self {
        let mut reasons: HashMap<&str, Vec<&str>> = HashMap::new();
        for one in &staged.skipped {
            reasons.entry(&one.path).or_default().push(&one.reason);
        }
        Self {
            staged,
            cursor: staged.seen.cursor(),
            reasons,
            unread: HashSet::new(),
            may_copy,
            aside,
            gone: Vec::new(),
        }
    }

    /// `path`: relative to the tree, as messages call it.
    pub fn note_unread(&mut self, path: &str) {
        self.unread.insert(path.to_owned());
    }

    pub fn is_unread(&self, rel: &[u8]) -> bool {
        if self.unread.is_empty() {
            return false;
        }
        let text = String::from_utf8_lossy(rel);
        let cuts = text.match_indices('/').map(|(at, _)| at);
        let mut above = cuts.chain([0, text.len()]);
        above.any(|end| self.unread.contains(&text[..end]))
    }

    /// Whether it is content. Reading a database may make its sidecars, and a program that ends removes them;
    /// an empty log is none, and its index is made from it.
    pub fn counts(&self, rel: &[u8], state: &EntryStamp) -> bool {
        !(self.is_sidecar(rel, b"-shm") || self.is_journal(rel) && state.is_empty())
    }

    pub fn is_journal(&self, rel: &[u8]) -> bool {
        let journals = SIDECARS.iter().filter(|ending| **ending != b"-shm");
        journals.into_iter().any(|one| self.is_sidecar(rel, one))
    }

    fn is_sidecar(&self, rel: &[u8], ending: &[u8]) -> bool {
        let base = rel.strip_suffix(ending);
        base.is_some_and(|base| self.staged.known.contains_key(base))
    }

    /// The directory `rel` of the copy, as the walk before saw it.
    pub fn directory(&self, rel: &[u8]) -> Option<Meta> {
        let all = &self.staged.directories;
        let at = all.binary_search_by(|(one, _)| one.as_slice().cmp(rel));
        at.ok().map(|at| all[at].1)
    }
}
