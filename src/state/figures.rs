//! Figures of each source of a snapshot (files, bytes, rows), and the alarm if a source shrinks.
//!
//! An unmounted disk, a database that was created again and files that malware encrypted look like
//! ordinary changes, and are backed up as they are. So the figures of each run are compared with
//! those of the snapshot before ([`shrunk`]). An alarm stays open until the operator acknowledges
//! it or the source grows back; until then retention keeps the last snapshot from before
//! ([`Memory::before_shrink`]).
//!
//! The figures are in `<state>/figures.json`, beside the pins and not in the catalog: the catalog
//! is disposable, an alarm and the snapshot that it keeps are not. If the file is missing, the
//! metadata of the newest local snapshot replaces it ([`of_metadata`]); a host without either has
//! nothing to compare with, and raises no alarm.

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

/// The figures of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// As the configuration names it: `tree`, `sqlite`, `json` or `command`.
    pub kind: String,
    /// Number of all things that are not directories.
    pub files: u64,
    /// Size of all regular files.
    pub bytes: u64,
    /// Files that look like random bytes and begin like no known format.
    pub noise: Amount,
    /// Files that compressed well, or had a known format, in the snapshot before and changed since.
    pub changed: Amount,
    /// Of these, files that now look like random bytes.
    pub turned: Amount,
    /// The databases, by path within the snapshot.
    pub databases: BTreeMap<String, Database>,
}

/// A number of files and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amount {
    /// Number of files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// The figures of a SQLite database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    /// Size in bytes.
    pub bytes: u64,
    /// Number of rows by table. `None`: they were not counted, since its check did not finish.
    pub tables: Option<BTreeMap<String, u64>>,
}
