//! The restores in place of this host: `restores/<ULID>/` in the state directory, each with its
//! plan and its journal.
//!
//! A restore is open from its journal's first record to its last: one of a [final
//! step](RestoreStep::is_final). While one is open, the data may be between two states, so no other
//! job may use the state directory: [`State::open`](super::State::open) refuses. One restore at a
//! time is open: its process holds the lock of the state directory and that of `restores/lock`,
//! which shows other processes that it is running.

mod step;

use std::io::{self, Read as _};
use std::path::Path;

use chrono::{DateTime, SubsecRound as _, Utc};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::journal::Journal;
use crate::base::openat::{Dir, Kind};

pub use step::RestoreStep;

/// The directory in the state directory.
pub const RESTORES: &str = "restores";
/// The journal of one restore.
const JOURNAL: &str = "journal.jsonl";
/// The plan of one restore.
pub const PLAN: &str = "plan.json";
const LOCK: &str = "lock";
/// Room for the journal of a restore of some dozens of items.
const RESERVED_BYTES: u64 = 64 << 10;
/// Digits of an id, a ULID.
const ID_DIGITS: usize = 26;

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordPhase {
    /// It is about to be taken.
    Intend,
    /// It is done.
    Done,
    /// It failed.
    Failed,
}

/// One record of a restore's journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRecord {
    /// The step.
    pub step: RestoreStep,
    /// The item that it is about. `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// How far it is.
    pub phase: RecordPhase,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// What a later process must know; null: nothing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// The journal of one restore, with its records.
#[derive(Debug)]
pub struct RestoreLog {
    /// Its directory.
    pub dir: Dir,
    /// Its id, a ULID.
    pub id: String,
    /// The records that are on disk.
    pub records: Vec<RestoreRecord>,
    /// `None`: it was opened for reading only.
    journal: Option<Journal<RestoreRecord>>,
}

impl RestoreLog {
    /// Returns the step that the restore is at. A final step counts once it is done; until then it
    /// is the one before.
    pub fn step(&self) -> Option<RestoreStep> {
        let last = self.records.last()?;
        Some(match (last.step, last.phase) {
            (step, RecordPhase::Done) => step,
            (RestoreStep::Committed, _) => RestoreStep::Checking,
            (RestoreStep::Undone, _) => RestoreStep::Swapping,
            (RestoreStep::RolledBack, _) => RestoreStep::RollbackChecked,
            (step, _) => step,
        })
    }

    /// Returns whether the restore has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.step().is_some_and(|step| !step.is_final())
    }

    /// Returns whether a record of this step, item and phase is on disk.
    pub fn has(&self, step: RestoreStep, item: Option<&str>, phase: RecordPhase) -> bool {
        self.find(step, item, phase).is_some()
    }

    /// Returns the last record of this step, item and phase.
    pub fn find(
        &self,
        step: RestoreStep,
        item: Option<&str>,
        phase: RecordPhase,
    ) -> Option<&RestoreRecord> {
        self.records.iter().rev().find(|record| {
            record.step == step && record.item.as_deref() == item && record.phase == phase
        })
    }

    /// Appends a record, which is on disk when this returns.
    pub fn append(
        &mut self,
        step: RestoreStep,
        item: Option<&str>,
        phase: RecordPhase,
        detail: Value,
    ) -> io::Result<()> {
        let record = RestoreRecord {
            step,
            item: item.map(str::to_owned),
            phase,
            at: clock::now().trunc_subsecs(3),
            detail,
        };
        let Some(journal) = &mut self.journal else {
            return Err(io::Error::other("the journal is open for reading only"));
        };
        journal.append(&record)?;
        self.records.push(record);
        Ok(())
    }

    /// Returns the newest value of a detail of this step, item and phase.
    pub fn detail(
        &self,
        step: RestoreStep,
        item: Option<&str>,
        phase: RecordPhase,
        key: &str,
    ) -> Option<&Value> {
        let mut records = self.records.iter().rev().filter(|record| {
            record.step == step && record.item.as_deref() == item && record.phase == phase
        });
        records.find_map(|record| record.detail.get(key))
    }

    /// Returns what this restore was doing, for messages.
    pub fn summary(&self) -> OpenRestore {
        let last = self.records.last();
        let stamp = self.records.first().and_then(|record| {
            let text = record.detail.get("stamp")?.as_str()?;
            text.parse::<Stamp>().ok()
        });
        let item = last.and_then(|last| last.item.as_deref());
        let step = self.step().unwrap_or(RestoreStep::Planned);
        OpenRestore {
            id: self.id.clone(),
            stamp,
            step,
            clause: step.clause(item.unwrap_or("its content")),
        }
    }
}

/// A restore that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRestore {
    /// Its id.
    pub id: String,
    /// The snapshot's stamp. `None`: the first record does not show it.
    pub stamp: Option<Stamp>,
    /// The step that it was at.
    pub step: RestoreStep,
    /// What it was doing, such as `it put db in place`.
    clause: String,
}

impl std::fmt::Display for OpenRestore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a restore")?;
        if let Some(stamp) = self.stamp {
            write!(f, " of {}", stamp.time().format("%Y-%m-%d"))?;
        }
        write!(
            f,
            " was interrupted while {}; finish or undo it first: sealift restore --resume",
            self.clause
        )
    }
}

/// Returns the directory of the restores in the state directory `state`; `None`: there is none yet.
fn open_dir(state: &Path) -> io::Result<Option<Dir>> {
    match Dir::open(&state.join(RESTORES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Returns the logs of all restores, oldest first, for reading. A directory without a journal
/// belongs to a restore that had not begun, and is left out.
pub fn logs(state: &Path) -> io::Result<Vec<RestoreLog>> {
    let Some(dir) = open_dir(state)? else {
        return Ok(Vec::new());
    };
    let mut ids: Vec<String> = Vec::new();
    for entry in dir.entries()? {
        let id = entry.name.to_str().filter(|name| name.len() == ID_DIGITS);
        if let Some(id) = id.filter(|_| entry.kind == Kind::Dir) {
            ids.push(id.to_owned());
        }
    }
    ids.sort_unstable();
    let mut found = Vec::new();
    for id in ids {
        let own = dir.sub(&id)?;
        if let Some((records, _)) = Journal::read(&own, JOURNAL)? {
            found.push(RestoreLog {
                dir: own,
                id,
                records,
                journal: None,
            });
        }
    }
    Ok(found)
}

/// Returns the open restore in the state directory `state`, if there is one.
pub fn open_restore(state: &Path) -> io::Result<Option<OpenRestore>> {
    let open = logs(state)?.into_iter().find(RestoreLog::is_open);
    Ok(open.map(|log| log.summary()))
}

/// Returns whether the process of a restore is running.
pub fn is_running(state: &Path) -> bool {
    let lock = open_dir(state).ok().flatten();
    let lock = lock.and_then(|dir| Some(dir.open_file(LOCK).ok()?.0));
    lock.is_some_and(|lock| {
        let probed = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared);
        matches!(probed, Err(rustix::io::Errno::WOULDBLOCK))
    })
}

/// The directory of the restores, locked for one process.
#[derive(Debug)]
pub struct Restores {
    dir: Dir,
    _lock: std::fs::File,
}

impl Restores {
    /// Opens the directory in the state directory `state`, and makes it if it is missing. Fails
    /// with `WouldBlock` if the process of another restore is running.
    pub fn lock(state: &Path) -> io::Result<Self> {
        let state = Dir::open(state)?;
        let dir = state.make_dirs(RESTORES, 0o700)?;
        let lock = match dir.open_to_write(LOCK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = dir.create_file(LOCK, 0o600)?;
                state.sync()?;
                made
            }
            other => other?,
        };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { dir, _lock: lock })
    }

    /// Makes the directory of a new restore with its plan, and begins its journal; `first` is the
    /// detail of its first record. All of it is on disk when this returns.
    pub fn begin(&self, id: &str, plan: &[u8], first: Value) -> io::Result<RestoreLog> {
        let dir = self.dir.make_dir(id, 0o700)?;
        let mut file = dir.create_file(PLAN, 0o600)?;
        io::Write::write_all(&mut file, plan)?;
        file.sync_all()?;
        dir.sync()?;
        self.dir.sync()?;
        let journal = Journal::create(&dir, JOURNAL)?;
        journal.reserve(RESERVED_BYTES);
        let mut log = RestoreLog {
            journal: Some(journal),
            dir,
            id: id.to_owned(),
            records: Vec::new(),
        };
        log.append(RestoreStep::Planned, None, RecordPhase::Done, first)?;
        Ok(log)
    }

    /// Opens the log of the restore `id` for appending. `None`: there is no such restore.
    pub fn open(&self, id: &str) -> io::Result<Option<RestoreLog>> {
        let dir = match self.dir.sub(id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let Some((journal, records)) = Journal::open(&dir, JOURNAL)? else {
            return Ok(None);
        };
        Ok(Some(RestoreLog {
            dir,
            id: id.to_owned(),
            records,
            journal: Some(journal),
        }))
    }

    /// Returns the restores that had not begun, with their plans: they have no journal, or an empty
    /// one. Nothing but their own directory was made, if the journal was not removed since.
    pub fn unbegun(&self) -> io::Result<Vec<(String, Option<Vec<u8>>)>> {
        let mut found = Vec::new();
        for entry in self.dir.entries()? {
            let id = entry.name.to_str().filter(|name| name.len() == ID_DIGITS);
            let Some(id) = id.filter(|_| entry.kind == Kind::Dir) else {
                continue;
            };
            let dir = self.dir.sub(id)?;
            let records = Journal::<RestoreRecord>::read(&dir, JOURNAL)?;
            if records.is_none_or(|(records, _)| records.is_empty()) {
                let mut plan = Vec::new();
                let read = dir
                    .open_file(PLAN)
                    .and_then(|(mut file, _)| file.read_to_end(&mut plan));
                found.push((id.to_owned(), read.is_ok().then_some(plan)));
            }
        }
        Ok(found)
    }

    /// Removes the directory of the restore `id`.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        self.dir.remove_tree(id)?;
        self.dir.sync()
    }
}
