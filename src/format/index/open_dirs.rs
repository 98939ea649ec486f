//! The rule that every entry's parent is an earlier entry, checked in little memory.

/// The directories that later paths may still be in, given paths in raw byte order. Each begins
/// with the one before it.
#[derive(Debug, Default)]
pub struct OpenDirs(Vec<Vec<u8>>);

impl OpenDirs {
    /// Records a directory at `path`. No later path may sort before it.
    pub fn open(&mut self, path: Vec<u8>) {
        self.leave(&path);
        self.0.push(path);
    }

    /// Closes the directories that `path` and its successors cannot be in. Raw byte order puts
    /// `a-b` between `a` and `a/b`, so a directory stays open until the paths are past everything
    /// that can begin with it and a slash.
    fn leave(&mut self, path: &[u8]) {
        let is_past = |dir: &Vec<u8>| {
            let beyond = path.get(dir.len()).is_some_and(|byte| *byte > b'/');
            !path.starts_with(dir) || beyond
        };
        while self.0.pop_if(|dir| is_past(dir)).is_some() {}
    }

    /// Returns whether `parent`, the parent of `path`, is a directory. No later path may sort
    /// before `path`.
    pub fn hold(&mut self, path: &[u8], parent: &[u8]) -> bool {
        self.leave(path);
        // Each is longer than the one before, so the search is fast in a deep tree, too.
        let found = self.0.binary_search_by_key(&parent.len(), Vec::len);
        found.is_ok_and(|index| self.0[index] == parent)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::entry::parent_path;
    use super::*;

    proptest! {
        /// For any names, a parent is found if and only if it was opened.
        #[test]
        fn open_dirs_hold_exactly_the_opened_directories(
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
