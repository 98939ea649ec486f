//! What this host remembers of its sources' figures, and what shrank and nobody acknowledged.
//!
//! One file, replaced in one step. It holds what retention must not let go, so a file that cannot be read is an
//! error, as it is of pins: nothing is deleted until it is put right.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Figures, Measure, Shrunk, shrunk};
use crate::base::fs;
use crate::base::ids::Stamp;

const FORMAT: u32 = 1;
/// Acknowledgements that are remembered.
const MOST_ACKNOWLEDGED: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("cannot {what} the sources' figures in {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is damaged, so nobody knows which snapshots an alarm keeps, and nothing is deleted. Pin what you need \
         (`sealift pin STAMP`), then delete that file: the next backup begins a new one",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is of format {found}; this sealift knows {FORMAT}: use a newer one", path.display())]
    Format { path: PathBuf, found: u32 },
}

/// A snapshot by which a figure is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kept {
    pub stamp: Stamp,
    /// `None`: the catalog did not know the snapshot.
    pub sequence: Option<u64>,
}

/// The settings of a source that decide what it holds: key of the configuration → value.
pub type Settings = BTreeMap<String, String>;

/// A source in the snapshot before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceSeen {
    in_snapshot: Kept,
    #[serde(default)]
    settings: Settings,
    figures: Figures,
}

/// A measure of a source that shrank, and that is neither acknowledged nor back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAlarm {
    /// The source's place in a snapshot.
    pub to: String,
    /// What the configuration calls it.
    pub name: String,
    pub shrunk: Shrunk,
    /// The last snapshot before: retention keeps it.
    pub before: Kept,
    /// The first snapshot after.
    pub since: Kept,
    /// Settings of the source that changed between the two.
    #[serde(default)]
    pub changed_settings: Vec<String>,
}

/// Somebody looked at it, and it is as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub at: DateTime<Utc>,
    pub note: Option<String>,
    pub open: OpenAlarm,
}

/// All that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    format: u32,
    /// By place in a snapshot.
    sources: BTreeMap<String, SourceSeen>,
    open: Vec<OpenAlarm>,
    /// Sources that the newest snapshot lacks because they failed, each with the last snapshot that has it, as far as
    /// is known: retention keeps that one.
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
    pub snapshot: Kept,
    /// By place in the snapshot. A source that was left out is not among them.
    pub sources: BTreeMap<String, SourceTaken>,
    /// Places of sources that were left out because they failed.
    pub left_out: BTreeSet<String>,
    /// Places of all sources of the configuration that are to be in a snapshot, or were asked for.
    pub configured: BTreeSet<String>,
    /// The snapshot before this one.
    pub previous: Option<Kept>,
}

#[derive(Debug, Clone)]
pub struct SourceTaken {
    pub name: String,
    /// Whether it raises an alarm at all.
    pub rings: bool,
    /// That nothing is in it is no alarm.
    pub may_be_empty: bool,
    pub settings: Settings,
    pub figures: Figures,
}

/// What came of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// What shrank with this snapshot.
    pub opened: Vec<OpenAlarm>,
    /// What had shrunk and is back.
    pub back: Vec<OpenAlarm>,
}

impl Memory {
    /// Remembers `figures` without comparing them: they are of an earlier snapshot.
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

    /// Compares `taken` with what is remembered, and remembers it instead. Sources that it lacks stay as they are.
    pub fn note(&mut self, taken: SnapshotTaken) -> Noted {
        let mut noted = Noted::default();
        // Of a source that nobody wants any more the policy decides.
        self.lacking
            .retain(|to, _| taken.configured.contains(to) && !taken.sources.contains_key(to));
        for to in taken.left_out {
            // Of a source that no memory is left of, the snapshot before may be the last that has it.
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

    /// Updates what is open of the source; returns what is back.
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

    /// What shrank and nobody acknowledged.
    pub fn open(&self) -> &[OpenAlarm] {
        &self.open
    }

    /// What was acknowledged, oldest first.
    pub fn acknowledged(&self) -> &[Acknowledged] {
        &self.acknowledged
    }

    /// Whether a source of this name or place is known.
    pub fn knows(&self, source: &str) -> bool {
        self.sources.contains_key(source) || self.open.iter().any(|one| one.is_of(source))
    }

    /// Leaves out of `taken` the sources that are known by a snapshot with a later stamp. Returns whether any is left.
    pub fn leave_out_known(&self, taken: &mut SnapshotTaken) -> bool {
        let is_later = |to: &String| {
            let seen = self.sources.get(to);
            seen.is_some_and(|seen| seen.in_snapshot.stamp > taken.snapshot.stamp)
        };
        taken.sources.retain(|to, _| !is_later(to));
        !taken.sources.is_empty()
    }

    /// Closes what is open, of one source if it is named: the present figures are the right ones. Returns it.
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

    /// The snapshots that retention must keep for what shrank.
    pub fn before_shrink(&self) -> BTreeMap<Stamp, Option<u64>> {
        let before = self.open.iter().map(|one| &one.before);
        before.map(|kept| (kept.stamp, kept.sequence)).collect()
    }

    /// The snapshots that retention must keep because a source failed after them, and does still.
    pub fn before_failure(&self) -> BTreeMap<Stamp, Option<u64>> {
        let before = self.lacking.values();
        before.map(|kept| (kept.stamp, kept.sequence)).collect()
    }
}

impl OpenAlarm {
    /// Whether it is about the source of that name or place.
    pub fn is_of(&self, source: &str) -> bool {
        self.name == source || self.to == source
    }
}

/// Keeps the earlier rows of databases that are there and were not counted this time.
fn keep_uncounted(before: &Figures, now: &mut Figures) {
    for (path, database) in &mut now.databases {
        if database.tables.is_none()
            && let Some(earlier) = before.databases.get(path)
        {
            database.tables.clone_from(&earlier.tables);
        }
    }
}

/// Keys that differ; none if the earlier settings are not known.
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

/// Reads what is remembered; `None`: there is no such file.
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

/// Replaces what is remembered.
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
