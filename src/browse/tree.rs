//! The tree of a snapshot: children, look-ups and attributes of its entries, from its index alone.
//!
//! An index is sorted by the raw bytes of whole paths, so everything below a directory is one run
//! of entries, although entries with other names may be among the entries of a subdirectory's
//! sibling (`a`, `a-b`, `a/c`). A look-up and each step of a listing are binary searches; the tree
//! needs no memory beyond the entries and two small maps.

use std::collections::HashMap;

use crate::format::index::{EntryList, EntryRef, EntryType, parent_path};

/// Bytes of a block, in which the allocated size of a file is counted.
const BLOCK_BYTES: u64 = 4096;
/// Units of `st_blocks` in a block.
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;
/// The size that a directory shows.
const DIRECTORY_BYTES: u64 = 4096;
/// Bytes of memory per entry beyond its path: about what a list of entries takes.
const ENTRY_BYTES: usize = 160;

/// A node of a [`SnapshotTree`]: 0 is the directory that is the snapshot, `n` is entry `n - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeNode(pub u64);

impl TreeNode {
    /// The directory that is the snapshot.
    pub const ROOT: Self = Self(0);

    fn of_entry(number: usize) -> Self {
        Self(number as u64 + 1)
    }
}

/// Why an index is no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A hard link names no file that precedes it.
    #[error("the index has a hard link {link} to {target}, which is no earlier file")]
    HardLink {
        /// The path of the link.
        link: String,
        /// The path that it names.
        target: String,
    },
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeChild<'a> {
    /// The number of the entry, from which a listing is continued.
    pub position: u64,
    /// The name in the directory.
    pub name: &'a [u8],
    /// The node, which several names of one file share.
    pub node: TreeNode,
    /// The kind of the node, never a hard link.
    pub kind: EntryType,
}

/// What `stat` shows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeAttributes {
    /// The kind of the node, never a hard link.
    pub kind: EntryType,
    /// Permission bits.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Bytes of the content.
    pub size: u64,
    /// Units of 512 bytes that the content takes without its holes.
    pub sectors: u64,
    /// Number of names.
    pub links: u32,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
}

/// The entries of a snapshot as a tree.
#[derive(Debug)]
pub struct SnapshotTree {
    entries: EntryList,
    /// The number of further names of a file, by the number of its entry.
    further_names: HashMap<usize, u32>,
    /// The number of directories in a directory, by its node.
    subdirectories: HashMap<TreeNode, u32>,
    path_bytes: usize,
}

impl SnapshotTree {
    /// Returns the tree of `entries`, which an index reader has checked: they are sorted by path,
    /// and the directory of each precedes it.
    pub fn new(entries: EntryList) -> Result<Self, TreeError> {
        let mut tree = Self {
            entries,
            further_names: HashMap::new(),
            subdirectories: HashMap::new(),
            path_bytes: 0,
        };
        for number in 0..tree.entries.len() {
            let entry = tree.entries.get(number);
            tree.path_bytes += entry.path.len();
            match entry.kind {
                EntryType::Hardlink => {
                    let target = entry.target.unwrap_or_default();
                    let first = tree.entries.position(target);
                    let first = first.filter(|first| *first < number);
                    let first =
                        first.filter(|first| tree.entries.get(*first).kind == EntryType::File);
                    let first = first.ok_or_else(|| TreeError::HardLink {
                        link: entry.path_lossy().into_owned(),
                        target: String::from_utf8_lossy(target).into_owned(),
                    })?;
                    *tree.further_names.entry(first).or_default() += 1;
                }
                EntryType::Dir => {
                    let parent = tree.parent_of_path(entry.path);
                    *tree.subdirectories.entry(parent).or_default() += 1;
                }
                _ => {}
            }
        }
        Ok(tree)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the snapshot has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns about how many bytes of memory the tree takes.
    pub fn memory_bytes(&self) -> usize {
        self.path_bytes + self.entries.len() * ENTRY_BYTES
    }

    /// Returns the entry of a node; `None` for the root, and for a number that no node has.
    pub fn entry(&self, node: TreeNode) -> Option<EntryRef<'_>> {
        let number = usize::try_from(node.0.checked_sub(1)?).ok()?;
        (number < self.entries.len()).then(|| self.entries.get(number))
    }

    /// Returns the node of the file with this name in a directory.
    pub fn lookup(&self, directory: TreeNode, name: &[u8]) -> Option<TreeNode> {
        let mut path = self.prefix(directory)?;
        path.extend_from_slice(name);
        let number = self.entries.position(&path)?;
        Some(self.node_of(number))
    }

    /// Returns the directory of a node; that of the root is the root.
    pub fn parent(&self, node: TreeNode) -> TreeNode {
        self.entry(node)
            .map_or(TreeNode::ROOT, |entry| self.parent_of_path(entry.path))
    }

    /// Iterates over the entries of a directory by name, from the entry with the number `from` on.
    /// Returns nothing for a node that is no directory.
    pub fn children(
        &self,
        directory: TreeNode,
        from: u64,
    ) -> impl Iterator<Item = TreeChild<'_>> + use<'_> {
        let prefix = self.prefix(directory);
        let mut next = match &prefix {
            Some(prefix) => {
                let first = self.first_not_before(prefix);
                first.max(usize::try_from(from).unwrap_or(usize::MAX))
            }
            None => self.entries.len(),
        };
        let prefix = prefix.unwrap_or_default();
        std::iter::from_fn(move || {
            while next < self.entries.len() {
                let path = self.entries.path(next);
                let name = path.strip_prefix(&prefix[..])?;
                if let Some(slash) = name.iter().position(|byte| *byte == b'/') {
                    // The first path that does not begin with the subdirectory and a slash.
                    let mut end = path[..prefix.len() + slash].to_vec();
                    end.push(b'/' + 1);
                    next = self.first_not_before(&end);
                    continue;
                }
                let position = next as u64;
                let node = self.node_of(next);
                next += 1;
                return Some(TreeChild {
                    position,
                    name,
                    node,
                    kind: self.entry(node)?.kind,
                });
            }
            None
        })
    }

    /// Returns the attributes of a node other than the root.
    pub fn attributes(&self, node: TreeNode) -> Option<TreeAttributes> {
        let entry = self.entry(node)?;
        let number = node.0 as usize - 1;
        let further = self.further_names.get(&number).copied().unwrap_or(0);
        let is_directory = entry.kind == EntryType::Dir;
        Some(TreeAttributes {
            kind: entry.kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime_ns: entry.mtime_ns,
            size: match entry.kind {
                EntryType::Dir => DIRECTORY_BYTES,
                EntryType::Symlink => entry.target.map_or(0, |text| text.len() as u64),
                _ => entry.size,
            },
            sectors: match is_directory {
                true => DIRECTORY_BYTES / 512,
                false => sectors(&entry),
            },
            links: match is_directory {
                true => self.directory_links(node),
                false => 1u32.saturating_add(further),
            },
            rdev: entry.rdev,
        })
    }

    /// Returns the number of links of a directory: its name, its `.`, and the `..` of each
    /// subdirectory.
    pub fn directory_links(&self, directory: TreeNode) -> u32 {
        let subdirectories = self.subdirectories.get(&directory).copied().unwrap_or(0);
        subdirectories.saturating_add(2)
    }

    /// Returns what the paths of a directory's entries begin with; `None` if it is none.
    fn prefix(&self, directory: TreeNode) -> Option<Vec<u8>> {
        if directory == TreeNode::ROOT {
            return Some(Vec::new());
        }
        let entry = self.entry(directory)?;
        let is_directory = entry.kind == EntryType::Dir;
        is_directory.then(|| [entry.path, b"/"].concat())
    }

    fn parent_of_path(&self, path: &[u8]) -> TreeNode {
        let number = parent_path(path).and_then(|parent| self.entries.position(parent));
        number.map_or(TreeNode::ROOT, TreeNode::of_entry)
    }

    /// Returns the node of entry `number`: for a hard link, that of the first name.
    fn node_of(&self, number: usize) -> TreeNode {
        let entry = self.entries.get(number);
        let first = match (entry.kind, entry.target) {
            (EntryType::Hardlink, Some(target)) => self.entries.position(target),
            _ => None,
        };
        TreeNode::of_entry(first.unwrap_or(number))
    }

    /// Returns the number of the first entry whose path is not before `path`.
    fn first_not_before(&self, path: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entries.path(middle) < path {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

/// Returns the units of 512 bytes that the blocks with content take.
fn sectors(entry: &EntryRef<'_>) -> u64 {
    let (mut blocks, mut start, mut counted) = (0, 0u64, 0);
    for extent in entry.extents() {
        let end = start.saturating_add(extent.length);
        if extent.archive.is_some() {
            let first = counted.max(start / BLOCK_BYTES);
            let last = end.div_ceil(BLOCK_BYTES);
            blocks += last.saturating_sub(first);
            counted = counted.max(last);
        }
        start = end;
    }
    blocks * SECTORS_PER_BLOCK
}

#[cfg(test)]
mod tests;
