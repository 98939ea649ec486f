//! The file in which this host keeps its sources' figures and the open alarms.
//!
//! It is one file, replaced atomically. It names snapshots that retention must keep, so a file that
//! cannot be read is an error, as for pins: nothing is deleted until it is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Figures, Measure, Shrunk, shrunk};
use crate::base::fs;
use crate::base::ids::Stamp;

const FORMAT: u32 = 1;
/// How many acknowledgements are kept.
const MOST_ACKNOWLEDGED: usize = 100;

/// Why the figures cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read or written.
    #[error("cannot {what} the sources' figures in {}", path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error(
        "{} is damaged, so it is unknown which snapshots an alarm keeps, and nothing is deleted. Pin what you need \
         (`sealift pin STAMP`), then delete that file: the next backup begins a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A newer version wrote the file.
    #[error("{} has format {found}, but this sealift reads {FORMAT} only: use a newer one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// The snapshot from which a figure is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kept {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its sequence; `None`: the catalog did not know the snapshot.
    pub sequence: Option<u64>,
}

/// The settings of a source that decide what is taken of it: value by key of the configuration.
pub type Settings = BTreeMap<String, String>;

/// A source in the snapshot before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceSeen {
    in_snapshot: Kept,
    #[serde(default)]
    settings: Settings,
    figures: Figures,
}

/// An open alarm: a measure of a source that shrank, was not acknowledged and did not grow back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAlarm {
    /// The source's path in a snapshot.
    pub to: String,
    /// The source's name in the configuration.
    pub name: String,
    /// The measure and its values.
    pub shrunk: Shrunk,
    /// The last snapshot from before, which retention keeps.
    pub before: Kept,
    /// The first snapshot with the loss.
    pub since: Kept,
    /// The keys of settings that changed between the two.
    #[serde(default)]
    pub changed_settings: Vec<String>,
}

/// An alarm that the operator acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// When it was acknowledged.
    pub at: DateTime<Utc>,
    /// The operator's note; `None`: none.
    pub note: Option<String>,
    /// The alarm.
    pub open: OpenAlarm,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    format: u32,
    /// By the source's path in a snapshot.
    sources: BTreeMap<String, SourceSeen>,
    open: Vec<OpenAlarm>,
    /// The sources that failed and are missing from the newest snapshot, each with the last
    /// snapshot that is known to contain it, which retention keeps.
    #[serde(default)]
    lacking: BTreeMap<String, Kept>,
    #[serde(default)]
    acknowledged: Vec<Acknowledged>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            format: FORMAT,
            sources: BTreeMap::new(),
            open: Vec::new(),
            lacking: BTreeMap::new(),
            acknowledged: Vec::new(),
        }
    }
}

/// A snapshot that was just packed.
#[derive(Debug, Clone)]
pub struct SnapshotTaken {
    /// The snapshot.
    pub snapshot: Kept,
    /// Its sources by their path in the snapshot, without those that were left out.
    pub sources: BTreeMap<String, SourceTaken>,
    /// The paths of sources that were left out because they failed.
    pub left_out: BTreeSet<String>,
    /// The paths of all sources of the configuration that belong into each snapshot, or were
    /// requested.
    pub configured: BTreeSet<String>,
    /// The snapshot before this one; `None`: it is the first.
    pub previous: Option<Kept>,
}

/// A source of a snapshot that was just packed.
#[derive(Debug, Clone)]
pub struct SourceTaken {
    /// The source's name in the configuration.
    pub name: String,
    /// Whether it raises alarms at all.
    pub rings: bool,
    /// An empty source raises no alarm.
    pub may_be_empty: bool,
    /// The settings with which it was taken.
    pub settings: Settings,
    /// Its figures.
    pub figures: Figures,
}

/// The outcome of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// New alarms.
    pub opened: Vec<OpenAlarm>,
    /// Alarms that ended, since the source grew back.
    pub back: Vec<OpenAlarm>,
}

impl Memory {
    /// Takes in the figures of an earlier snapshot, without comparing them.
    pub fn learn(&mut self, snapshot: Kept, figures: BTreeMap<String, Figures>) {
        for (to, figures) in figures {
            let seen = SourceSeen {
                in_snapshot: snapshot,
                settings: Settings::new(),
                figures,
            };
            self.sources.insert(to, seen);
        }
    }

    /// Compares `taken` with the figures from before, and replaces them. Figures of sources that
    /// `taken` lacks stay.
    pub fn note(&mut self, taken: SnapshotTaken) -> Noted {
        let mut noted = Noted::default();
        // For a source that was removed from the configuration the policy decides alone.
        self.lacking
            .retain(|to, _| taken.configured.contains(to) && !taken.sources.contains_key(to));
        for to in taken.left_out {
            // If nothing is known of the source, the snapshot before may be the last one that
            // contains it.
            let last = self.sources.get(&to).map(|seen| seen.in_snapshot);
            let last = last.or(self.lacking.get(&to).copied());
            if let Some(last) = last.or(taken.previous) {
                self.lacking.insert(to, last);
            }
        }
        for (to, mut source) in taken.sources {
            if !source.rings {
                self.open.retain(|one| one.to != to);
            }
            noted.back.extend(self.look_again(&to, &source));
            if let Some(before) = self.sources.get(&to).filter(|_| source.rings) {
                let mut opened = self.newly_shrunk(&to, before, &source, taken.snapshot);
                opened.retain(|one| !source.may_be_empty || one.shrunk.now > 0);
                keep_uncounted(&before.figures, &mut source.figures);
                noted.opened.extend(opened);
            }
            let seen = SourceSeen {
                in_snapshot: taken.snapshot,
                settings: source.settings,
                figures: source.figures,
            };
            self.sources.insert(to, seen);
        }
        self.open.extend(noted.opened.iter().cloned());
        noted
    }

    /// Updates the open alarms of a source, and returns those that ended.
    fn look_again(&mut self, to: &str, source: &SourceTaken) -> Vec<OpenAlarm> {
        let mut back = Vec::new();
        self.open.retain_mut(|one| {
            if one.to != to {
                return true;
            }
            one.name.clone_from(&source.name);
            match one.shrunk.still(&source.figures) {
                Some(value) => {
                    one.shrunk.now = value;
                    true
                }
                None => {
                    back.push(one.clone());
                    false
                }
            }
        });
        back
    }

    /// Returns the new alarms of a source.
    fn newly_shrunk(
        &self,
        to: &str,
        before: &SourceSeen,
        source: &SourceTaken,
        now: Kept,
    ) -> Vec<OpenAlarm> {
        let is_open = |measure: &Measure| {
            let mut open = self.open.iter();
            open.any(|one| one.to == to && one.shrunk.measure == *measure)
        };
        let changed = changed_settings(&before.settings, &source.settings);
        let found = shrunk(&before.figures, &source.figures).into_iter();
        let new = found.filter(|one| !is_open(&one.measure));
        new.map(|shrunk| OpenAlarm {
            to: to.to_owned(),
            name: source.name.clone(),
            shrunk,
            before: before.in_snapshot,
            since: now,
            changed_settings: changed.clone(),
        })
        .collect()
    }

    /// Returns the open alarms.
    pub fn open(&self) -> &[OpenAlarm] {
        &self.open
    }

    /// Returns the acknowledged alarms, oldest first.
    pub fn acknowledged(&self) -> &[Acknowledged] {
        &self.acknowledged
    }

    /// Returns whether a source with this name or path is known.
    pub fn knows(&self, source: &str) -> bool {
        self.sources.contains_key(source) || self.open.iter().any(|one| one.is_of(source))
    }

    /// Removes from `taken` the sources whose figures are known from a later snapshot. Returns
    /// whether any is left.
    pub fn leave_out_known(&self, taken: &mut SnapshotTaken) -> bool {
        let is_later = |to: &String| {
            let seen = self.sources.get(to);
            seen.is_some_and(|seen| seen.in_snapshot.stamp > taken.snapshot.stamp)
        };
        taken.sources.retain(|to, _| !is_later(to));
        !taken.sources.is_empty()
    }

    /// Closes all open alarms, or those of one source: the present figures are right. Returns the
    /// closed ones.
    pub fn acknowledge(
        &mut self,
        source: Option<&str>,
        note: Option<&str>,
        at: DateTime<Utc>,
    ) -> Vec<OpenAlarm> {
        let is_meant = |one: &OpenAlarm| source.is_none_or(|source| one.is_of(source));
        let (closed, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(is_meant);
        let closed: Vec<OpenAlarm> = closed;
        self.open = open;
        let acknowledged = closed.iter().map(|one| Acknowledged {
            at,
            note: note.map(str::to_owned),
            open: one.clone(),
        });
        self.acknowledged.extend(acknowledged);
        let too_many = self.acknowledged.len().saturating_sub(MOST_ACKNOWLEDGED);
        self.acknowledged.drain(..too_many);
        closed
    }

    /// Returns the snapshots (stamp and sequence) that retention must keep because a source shrank
    /// after them.
    pub fn before_shrink(&self) -> BTreeMap<Stamp, Option<u64>> {
        let before = self.open.iter().map(|one| &one.before);
        before.map(|kept| (kept.stamp, kept.sequence)).collect()
    }

    /// Returns the snapshots (stamp and sequence) that retention must keep because a source failed
    /// after them and still fails.
    pub fn before_failure(&self) -> BTreeMap<Stamp, Option<u64>> {
        let before = self.lacking.values();
        before.map(|kept| (kept.stamp, kept.sequence)).collect()
    }
}

impl OpenAlarm {
    /// Returns whether the alarm is about the source with this name or path.
    pub fn is_of(&self, source: &str) -> bool {
        self.name == source || self.to == source
    }
}

/// Keeps the earlier row counts of databases that still exist and were not counted this time.
fn keep_uncounted(before: &Figures, now: &mut Figures) {
    for (path, database) in &mut now.databases {
        if database.tables.is_none()
            && let Some(earlier) = before.databases.get(path)
        {
            database.tables.clone_from(&earlier.tables);
        }
    }
}

/// Returns the keys that differ; none if the earlier settings are not known.
fn changed_settings(before: &Settings, now: &Settings) -> Vec<String> {
    if before.is_empty() {
        return Vec::new();
    }
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let changed = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key));
    changed.cloned().collect()
}

fn file(state: &Path) -> PathBuf {
    state.join("figures.json")
}

/// Reads the file; `None`: it does not exist.
pub fn load(state: &Path) -> Result<Option<Memory>, MemoryError> {
    let path = file(state);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let what = "read";
            return Err(MemoryError::Io { what, path, source });
        }
        Ok(text) => text,
    };
    let read = serde_json::from_slice(&text);
    let memory: Memory = read.map_err(|source| MemoryError::Damaged {
        path: path.clone(),
        source,
    })?;
    match memory.format {
        FORMAT => Ok(Some(memory)),
        found => Err(MemoryError::Format { path, found }),
    }
}

/// Replaces the file, atomically.
pub fn save(state: &Path, memory: &Memory) -> Result<(), MemoryError> {
    let path = file(state);
    let text = serde_json::to_vec(memory).map_err(io::Error::from);
    let written = text.and_then(|text| fs::write_atomic(&path, &text, 0o600));
    written.map_err(|source| {
        let what = "write";
        MemoryError::Io { what, path, source }
    })
}

#[cfg(test)]
mod tests;
