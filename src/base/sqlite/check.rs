//! Checks a database, or locks it for reading, through a child and within a budget.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::budget::{Budget, Grant};
use super::error::SqliteError;
use super::header::{HEAD_BYTES, is_wal_mode, page_size};
use super::inspection::{Depth, Inspection};
use super::message::milliseconds;
use super::message::{ChildAnswer, ChildWork, Step};
use super::place::Place;
use super::process::{self, ChildProcess, ChildTask, START};
use super::refusal::{io_error, refused, shown, silent, unchecked};

const SPENT: &str = "other databases of this run took all the time that checks may take";

/// Returns the bytes that a file occupies on the disk, at most its size: reading a hole takes no
/// time.
pub(super) fn occupied(meta: &Metadata) -> u64 {
    meta.len().min(meta.blocks().saturating_mul(512))
}

/// Checks the database `path`, a copy that no process writes to. Creates and reads nothing beside
/// it.
///
/// Damage is not an error; [`Inspection::integrity`] reports it.
pub fn inspect(path: &Path, depth: Depth, budget: &Budget) -> Result<Inspection, SqliteError> {
    let opened = Place::of(path).and_then(|place| Ok((place.open()?, place)));
    let (file, place) = opened.map_err(io_error(Step::Check.text(), path))?;
    inspect_at(&place, &file, depth, budget)
}

/// Does the same as [`inspect`] for a database that the caller has opened as `file`.
pub fn inspect_at(
    place: &Place,
    file: &File,
    depth: Depth,
    budget: &Budget,
) -> Result<Inspection, SqliteError> {
    let started = Instant::now();
    let failed = io_error(Step::Check.text(), place.path());
    let meta = file.metadata().map_err(&failed)?;
    let grant = grant(place, &meta, depth, budget)?;
    let child = ChildProcess::start(ChildTask {
        place,
        identity: process::identity(file).map_err(&failed)?,
        cpu: grant.deadline(),
        file_bytes: 0,
        work: ChildWork::Check { depth },
        copy_dir: None,
    });
    let checked = child
        .map_err(|silence| silent(silence, Step::Check, place))
        .and_then(|mut child| receive_check(&mut child, place, started, grant));
    settle(budget, grant, started, &checked);
    Ok(checked?.0)
}

/// Takes the time for a check of `place` from the budget; fails if the reserve is spent.
fn grant(
    place: &Place,
    meta: &Metadata,
    depth: Depth,
    budget: &Budget,
) -> Result<Grant, SqliteError> {
    budget
        .take(occupied(meta), depth)
        .ok_or_else(|| unchecked(Step::Check, place, SPENT))
}

/// Waits for the outcome of a check, and returns it with the processor time that it took.
fn receive_check(
    child: &mut ChildProcess,
    place: &Place,
    started: Instant,
    grant: Grant,
) -> Result<(Inspection, Duration), SqliteError> {
    let allowed = grant.deadline();
    match child.answer(started + allowed, allowed) {
        Ok(ChildAnswer::Checked {
            mut inspection,
            cpu_ms,
        }) => {
            inspection.integrity = shown(&inspection.integrity);
            inspection.unchecked = inspection.unchecked.as_deref().map(shown);
            Ok((inspection, Duration::from_millis(cpu_ms)))
        }
        Ok(other) => Err(refused(other, Step::Check, place, Duration::ZERO)),
        Err(silence) => Err(silent(silence, Step::Check, place)),
    }
}

/// Settles the budget after a check.
fn settle(
    budget: &Budget,
    grant: Grant,
    started: Instant,
    checked: &Result<(Inspection, Duration), SqliteError>,
) {
    let elapsed = started.elapsed();
    let used = match checked {
        // On a busy machine a check also waits for the processor, which is not to the database's
        // charge.
        Ok((_, cpu)) => elapsed.min(*cpu),
        Err(_) => elapsed,
    };
    budget.settle(grant, used);
}

/// A lock on a database, held by a child until this is dropped: no process can write to the
/// database.
pub struct Lock<'a> {
    child: ChildProcess,
    started: Instant,
    check: Option<(Grant, &'a Budget)>,
    waited: Duration,
}

impl std::fmt::Debug for Lock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

impl Lock<'_> {
    /// Returns how long the lock was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Waits for the outcome of the check that [`lock_for_read`] began. The lock stays. Fails if no
    /// check was requested, or the budget had no time for it.
    pub fn inspect(&mut self, place: &Place) -> Result<Inspection, SqliteError> {
        let Some((grant, budget)) = self.check.take() else {
            return Err(unchecked(Step::Check, place, SPENT));
        };
        let checked = receive_check(&mut self.child, place, self.started, grant);
        settle(budget, grant, self.started, &checked);
        Ok(checked?.0)
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if let Some((grant, budget)) = self.check.take() {
            budget.settle(grant, Duration::ZERO);
        }
    }
}

/// Locks a rollback-mode database, which the caller has opened as `file`, against writers, so that
/// the caller can read its bytes. A requested check runs meanwhile: see [`Lock::inspect`].
///
/// Returns `None` if the database cannot be locked without leaving traces: it is in WAL mode (if no
/// process has it open, locking it would create `-wal` and `-shm`), or SQLite does not accept the
/// file as a database in spite of its magic. The caller then reads it like any file, and afterwards
/// must find its `stat` unchanged and [`Place::has_live_journal`] still false; otherwise it uses
/// [`backup`] or tries again.
///
/// Call it when [`Place::has_live_journal`] is false; a journal that must be played back is an
/// error here.
pub fn lock_for_read<'a>(
    place: &Place,
    file: &File,
    busy: Duration,
    check: Option<(Depth, &'a Budget)>,
) -> Result<Option<Lock<'a>>, SqliteError> {
    let step = Step::Lock;
    let failed = io_error("read the database", place.path());
    let is_lockable = || {
        let mut head = [0; HEAD_BYTES];
        let read = file.read_at(&mut head, 0).map_err(&failed)?;
        Ok(page_size(&head[..read]).is_some() && !is_wal_mode(&head))
    };
    if !is_lockable()? {
        return Ok(None);
    }
    let bytes = occupied(&file.metadata().map_err(&failed)?);
    let granted = check.and_then(|(depth, budget)| {
        let grant = budget.take(bytes, depth)?;
        Some((depth, grant, budget))
    });
    let cpu = granted.map_or(Duration::ZERO, |(_, grant, _)| grant.deadline());
    let asked = Instant::now();
    let task = ChildTask {
        place,
        identity: process::identity(file).map_err(&failed)?,
        cpu: cpu + START,
        file_bytes: 0,
        work: ChildWork::Lock {
            busy_ms: milliseconds(busy),
            depth: granted.map(|(depth, ..)| depth),
        },
        copy_dir: None,
    };
    let allowed = busy + START;
    let held = ChildProcess::start(task).and_then(|mut child| {
        let answer = child.answer(asked + allowed, allowed)?;
        Ok((child, answer))
    });
    let not_held = match held {
        // The database was switched to WAL mode before it was locked, so the lock protects nothing.
        Ok((_, ChildAnswer::Held { .. })) if !is_lockable()? => Ok(None),
        Ok((child, ChildAnswer::Held { waited_ms })) => {
            return Ok(Some(Lock {
                child,
                started: Instant::now(),
                check: granted.map(|(_, grant, budget)| (grant, budget)),
                waited: Duration::from_millis(waited_ms).min(asked.elapsed()),
            }));
        }
        Ok((_, ChildAnswer::Unlocked)) => Ok(None),
        Ok((_, other)) => Err(refused(other, step, place, busy)),
        Err(silence) => Err(silent(silence, step, place)),
    };
    if let Some((_, grant, budget)) = granted {
        budget.settle(grant, Duration::ZERO);
    }
    not_held
}
