//! The tags that keep their snapshots.

use std::collections::{BTreeSet, HashMap};

use crate::base::ids::Hash;

/// Whether a snapshot has a tag that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TagMatch {
    /// It has none.
    #[default]
    None,
    /// It has one.
    Kept,
    /// Its tags are not known, so it may have one.
    Unknown,
}

/// The tags that keep their snapshots, and what is known of the snapshots' tags. On a target they
/// are encrypted.
#[derive(Debug, Clone, Default)]
pub struct KeptTags {
    wanted: BTreeSet<String>,
    /// By the hash of the manifest's core.
    known: HashMap<Hash, Vec<String>>,
}

impl KeptTags {
    /// Returns the tags `wanted`, without knowledge of any snapshot's.
    pub fn new(wanted: impl IntoIterator<Item = String>) -> Self {
        Self {
            wanted: wanted.into_iter().collect(),
            known: HashMap::new(),
        }
    }

    /// Whether no tag keeps a snapshot.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Notes the tags of the snapshot `core`.
    pub fn learn(&mut self, core: Hash, tags: Vec<String>) {
        self.known.insert(core, tags);
    }

    /// Returns whether the snapshot `core` has a tag that keeps it.
    pub fn of(&self, core: &Hash) -> TagMatch {
        self.of_tags(self.known.get(core).map(Vec::as_slice))
    }

    /// Returns whether one of `tags` keeps its snapshot; `None`: they are not known.
    pub fn of_tags<T: AsRef<str>>(&self, tags: Option<&[T]>) -> TagMatch {
        let is_wanted = |tag: &T| self.wanted.contains(tag.as_ref());
        match tags {
            _ if self.wanted.is_empty() => TagMatch::None,
            None => TagMatch::Unknown,
            Some(tags) if tags.iter().any(is_wanted) => TagMatch::Kept,
            Some(_) => TagMatch::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_are_not_known_matter_only_if_some_tag_keeps() {
        let mut tags = KeptTags::new(["release".to_owned(), "tax".to_owned()]);
        let hashes = [1, 2, 3].map(|byte| Hash([byte; 32]));
        tags.learn(hashes[0], vec!["daily".to_owned(), "tax".to_owned()]);
        tags.learn(hashes[1], vec!["taxes".to_owned()]);
        let found = hashes.map(|hash| tags.of(&hash));
        let expected = [TagMatch::Kept, TagMatch::None, TagMatch::Unknown];
        assert_eq!(found, expected);
        let none = KeptTags::default();
        assert!(none.is_empty() && hashes.iter().all(|hash| none.of(hash) == TagMatch::None));
    }
}
