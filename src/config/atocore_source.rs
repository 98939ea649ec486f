//! The settings of a source of kind `atocore`.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running AtoCore that makes the snapshots.
#[derive(Debug, Clone)]
pub struct AtoCoreSource {
    /// The source's name.
    pub name: String,
    /// The URL of AtoCore, without a slash at its end.
    pub url: String,
    /// The file of the bearer token. `None`: none is sent.
    pub token_file: Option<PathBuf>,
    /// AtoCore is asked for the vector store with every snapshot.
    pub include_chroma: bool,
    /// How long the request may take, with all its repetitions.
    pub timeout: Duration,
    /// Directories as AtoCore names them, and as this host does.
    pub root_map: Vec<(PathBuf, PathBuf)>,
    /// What becomes of a run in which AtoCore makes no snapshot.
    pub fallback: Fallback,
    /// The token may be sent in clear text to another machine.
    pub insecure: bool,
    /// A further directory in which AtoCore's snapshots may be. `None`: there is none.
    pub allow_root: Option<PathBuf>,
}

/// What becomes of a run in which AtoCore makes no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This host copies the preset's sources itself, and the run counts as partial.
    Local,
    /// The run fails.
    Fail,
}

impl AtoCoreSource {
    /// Returns `path`, as AtoCore names it, as this host names it: the longest directory of
    /// `root_map` counts.
    pub fn on_this_host(&self, path: &Path) -> PathBuf {
        let within = |(from, to): &(PathBuf, PathBuf)| {
            let rest = path.strip_prefix(from).ok()?;
            Some((from.components().count(), to.join(rest)))
        };
        let mapped = self.root_map.iter().filter_map(within);
        let longest = mapped.max_by_key(|(length, _)| *length);
        longest.map_or_else(|| path.to_owned(), |(_, path)| path)
    }
}
