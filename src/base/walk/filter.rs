//! Which part of a tree a walk yields.

use super::error::WalkError;
use super::exclude::Excludes;

/// What of a tree is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Gitignore lines, relative to the root; a later line wins, `!` takes back.
    pub excludes: Vec<String>,
    /// Keeps a mount point as a directory, but nothing inside it.
    pub one_file_system: bool,
    /// Larger regular files are left out.
    pub max_file_bytes: Option<u64>,
    /// A directory with a valid `CACHEDIR.TAG` is kept with nothing but the tag.
    pub cachedir_tag: bool,
    /// A directory with a `.nobackup` is kept with nothing but that marker.
    pub nobackup: bool,
    /// Directories (device and inode) that are kept, but empty: our own state and snapshots, if the tree
    /// holds them.
    pub hollow: Vec<(u64, u64)>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            excludes: Vec::new(),
            one_file_system: false,
            max_file_bytes: None,
            cachedir_tag: true,
            nobackup: true,
            hollow: Vec::new(),
        }
    }
}

impl Filter {
    /// Everything there is, markers or not: for directories that are ours.
    pub fn everything() -> Self {
        Self {
            cachedir_tag: false,
            nobackup: false,
            ..Self::default()
        }
    }

    /// Checks the patterns, so that a configuration fails early.
    pub fn check(&self) -> Result<(), WalkError> {
        self.compile().map(drop)
    }

    pub(super) fn compile(&self) -> Result<Excludes, WalkError> {
        let lines = self.excludes.iter().map(String::as_str);
        Excludes::compile(lines).map_err(|(pattern, source)| WalkError::Pattern {
            pattern: pattern.to_owned(),
            source,
        })
    }
}
