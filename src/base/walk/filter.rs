//! Which part of a tree a walk yields.

use super::error::WalkError;
use super::exclude::Excludes;

/// Which things of a tree a walk yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Lines as in a `.gitignore` in the root: a later line wins, `!` takes a path back in.
    pub excludes: Vec<String>,
    /// Yields a mount point as a directory, but nothing inside it.
    pub one_file_system: bool,
    /// Size in bytes above which regular files are left out; `None`: no limit.
    pub max_file_bytes: Option<u64>,
    /// Of a directory with a valid `CACHEDIR.TAG` only the tag is yielded.
    pub cachedir_tag: bool,
    /// Of a directory with a `.nobackup` only that marker is yielded.
    pub nobackup: bool,
    /// Directories that are yielded as empty ones, by device and inode: our own state and
    /// snapshots, if the tree holds them.
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
    /// Whether the operator leaves something of the tree out by a pattern, a size or a mount.
    pub fn leaves_out(&self) -> bool {
        !self.excludes.is_empty() || self.one_file_system || self.max_file_bytes.is_some()
    }

    /// Returns the filter that lets everything through, markers or not: for directories of our own.
    pub fn everything() -> Self {
        Self {
            cachedir_tag: false,
            nobackup: false,
            ..Self::default()
        }
    }

    /// Fails if a pattern is malformed, so that a wrong configuration is found early.
    pub fn check(&self) -> Result<(), WalkError> {
        self.compile().map(drop)
    }

    /// Returns whether a regular file of this path and size is left out by a pattern or its size.
    /// Markers are not looked for.
    pub fn leaves_out_file(&self, rel: &[u8], bytes: u64) -> bool {
        let is_too_large = self.max_file_bytes.is_some_and(|max| bytes > max);
        let excludes = self.compile().unwrap_or_default();
        is_too_large || excludes.is_excluded(rel, false)
    }

    pub(super) fn compile(&self) -> Result<Excludes, WalkError> {
        let lines = self.excludes.iter().map(String::as_str);
        Excludes::compile(lines).map_err(|(pattern, source)| WalkError::Pattern {
            pattern: pattern.to_owned(),
            source,
        })
    }
}
