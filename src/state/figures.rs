//! What each source of a snapshot holds, in figures, and the alarm if one of them shrinks.
//!
//! An unmounted disk, a database that was made again and files that malware encrypted all look like an ordinary
//! change: every byte of them is backed up as it is. So each run's figures are compared with those of the
//! snapshot before ([`shrunk`]). What shrank is named until the operator acknowledges it or it grows back, and
//! until then retention keeps the last snapshot from before ([`Memory::before_shrink`]).
//!
//! The figures are in `<state>/figures.json`, beside the pins and not in the catalog: the catalog is disposable,
//! an alarm and what it keeps are not. Where the file is missing, the metadata of the newest local snapshot
//! stands in for it ([`of_metadata`]); a host without either has nothing to compare with, and raises no alarm.

mod compare;
mod grain;
mod memory;
mod metadata;
mod tally;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use compare::{Measure, Shrunk, shrunk};
pub use grain::{Grain, Looks};
pub use memory::{
    Acknowledged, Kept, Memory, MemoryError, Noted, OpenAlarm, Settings, SnapshotTaken,
    SourceTaken, load, save,
};
pub use metadata::of_metadata;
pub use tally::{FileSeen, Tally};

/// What one source holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// As the configuration names it: `tree`, `sqlite`, `json` or `command`.
    pub kind: String,
    /// All things that are no directory.
    pub files: u64,
    /// Of regular files.
    pub bytes: u64,
    /// Files that look like random bytes and begin like no known format.
    pub noise: Amount,
    /// Files that compressed well, or had a known format, in the snapshot before and changed since.
    pub changed: Amount,
    /// Of these, files that now look like random bytes.
    pub turned: Amount,
    /// By path within the snapshot.
    pub databases: BTreeMap<String, Database>,
}

/// A number of files, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amount {
    pub files: u64,
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// A SQLite database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    pub bytes: u64,
    /// Rows by table. `None`: it was not checked to the end, so nobody counted them.
    pub tables: Option<BTreeMap<String, u64>>,
}
