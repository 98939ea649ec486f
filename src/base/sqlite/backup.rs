//! Copies a database as of one moment, through a child.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::check::occupied;
use super::code::wants_writing;
use super::error::SqliteError;
use super::header::{HEAD_BYTES, is_wal_mode};
use super::message::milliseconds;
use super::message::{ChildAnswer, ChildWork, NamedFile, Step, Way};
use super::place::Place;
use super::process::{self, ChildProcess, ChildTask};
use super::refusal::{io_error, refused, silent};
use crate::base::clock;

/// Age of the last change from which the next one surely gets another mtime.
const SETTLED: Duration = Duration::from_secs(2);
/// The slowest copy that is waited for, after [`COPY_START`].
const COPIED_BYTES_PER_SECOND: u64 = 1_000_000;
/// The time that every copy has, whatever its size.
const COPY_START: Duration = Duration::from_secs(60);

/// Copies the database `src` as of one moment to the new file `dst` (0600, durable, no sidecars),
/// while other processes go on writing. Waits up to `busy` for a lock. A failure leaves no `dst`.
///
/// The copy is one step of SQLite's backup: one in several steps starts over with each write, and
/// never ends while others keep writing.
pub fn backup(src: &Path, dst: &Path, busy: Duration) -> Result<(), SqliteError> {
    let opened = Place::of(src).and_then(|place| Ok((place.open()?, place)));
    let (file, from) = opened.map_err(io_error("read the database", src))?;
    let to = Place::of(dst).map_err(io_error("create", dst))?;
    backup_at(&from, &file, &to, busy)
}

/// Does the same as [`backup`] for a database that the caller has opened as `file`.
pub fn backup_at(from: &Place, file: &File, to: &Place, busy: Duration) -> Result<(), SqliteError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let created = rustix::fs::openat(to.dir(), to.name(), flags, mode);
    let copy = File::from(created.map_err(|e| io_error("create", to.path())(e.into()))?);
    let copied = copy_to(from, file, to, &copy, busy).and_then(|()| {
        let synced = copy.sync_all();
        let synced = synced.and_then(|()| Ok(rustix::fs::fsync(to.dir())?));
        synced.map_err(io_error("flush", to.path()))
    });
    if copied.is_err() {
        to.remove_with_sidecars();
    }
    copied
}

/// Tries the ways to open the database, beginning with the one that changes least.
fn copy_to(
    from: &Place,
    file: &File,
    to: &Place,
    copy: &File,
    busy: Duration,
) -> Result<(), SqliteError> {
    if let Some(before) = quiet_wal(from, file) {
        // No process has it open. SQLite would leave new -wal and -shm files beside it unless told
        // it is immutable.
        let copied = copy_by(Way::Immutable, from, file, (to, copy), busy);
        if copied.is_ok() && quiet_wal(from, file) == Some(before) {
            return copied;
        }
        copy.set_len(0).map_err(io_error("rewrite", to.path()))?;
    }
    match copy_by(Way::ReadOnly, from, file, (to, copy), busy) {
        // A crashed writer's journal must be played back, or a log's index created, which takes a
        // writable connection. The application itself would do that at its next start.
        Err(SqliteError::Sqlite { source, .. }) if wants_writing(&source) => {
            copy.set_len(0).map_err(io_error("rewrite", to.path()))?;
            let copied = copy_by(Way::Writable, from, file, (to, copy), busy);
            copied.map_err(|error| explain(error, from))
        }
        result => result,
    }
}

/// Replaces the error of a writable connection by one that names the log or journal and the
/// directory that cannot be written; returns any other error as it is.
fn explain(error: SqliteError, from: &Place) -> SqliteError {
    let wants_writing =
        matches!(&error, SqliteError::Sqlite { source, .. } if wants_writing(source));
    let sidecar = match (from.has_wal(), from.has_live_journal()) {
        (true, _) => "-wal",
        (false, true) => "-journal",
        (false, false) => return error,
    };
    let access = rustix::fs::Access::WRITE_OK;
    let why = match rustix::fs::accessat(from.dir(), ".", access, AtFlags::EACCESS) {
        Err(Errno::ROFS) => "which is mounted read-only",
        Err(Errno::ACCESS | Errno::PERM) => "where this user may not write",
        _ => return error,
    };
    match wants_writing {
        true => SqliteError::ReadOnlyPlace {
            path: from.path().to_owned(),
            sidecar,
            dir: from.path().parent().unwrap_or(Path::new("/")).to_owned(),
            why,
        },
        false => error,
    }
}

/// Copies the database through a child that opens it in this `way`.
fn copy_by(
    way: Way,
    from: &Place,
    file: &File,
    (to, copy): (&Place, &File),
    busy: Duration,
) -> Result<(), SqliteError> {
    let failed = io_error(Step::Copy.text(), from.path());
    let meta = file.metadata().map_err(&failed)?;
    let journal_bytes = from.journal_bytes();
    let bytes = occupied(&meta).saturating_add(journal_bytes);
    let allowed = COPY_START + Duration::from_secs(bytes / COPIED_BYTES_PER_SECOND);
    let copy_identity = process::identity(copy).map_err(io_error("create", to.path()))?;
    let started = Instant::now();
    let child = ChildProcess::start(ChildTask {
        place: from,
        identity: process::identity(file).map_err(&failed)?,
        cpu: allowed,
        // Each page in a log may be a new one, so the copy may be larger than the database.
        file_bytes: (meta.len().saturating_add(journal_bytes)).saturating_mul(2) + (16 << 20),
        work: ChildWork::Copy {
            busy_ms: milliseconds(busy),
            way,
            copy: NamedFile {
                name: to.name().to_owned(),
                identity: copy_identity,
            },
        },
        copy_dir: Some(to),
    });
    let mut child = child.map_err(|silence| silent(silence, Step::Copy, from))?;
    match child.answer(started + allowed + busy, allowed + busy) {
        Ok(ChildAnswer::Copied { .. }) => Ok(()),
        Ok(other) => Err(refused(other, Step::Copy, from, busy)),
        Err(silence) => Err(silent(silence, Step::Copy, from)),
    }
}

/// A file's state, which differs after every change if [`SETTLED`] has passed since the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    ino: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    /// Seconds and nanoseconds.
    ctime: (i64, i64),
}

/// Returns the state of a WAL database that no process has open (no `-wal` beside it). `None`: it
/// is not such a database, or it was changed so lately that another change might not show.
fn quiet_wal(place: &Place, file: &File) -> Option<FileState> {
    let mut head = [0; HEAD_BYTES];
    let read = file.read_at(&mut head, 0).ok()?;
    if !is_wal_mode(&head[..read]) || place.has_wal() {
        return None;
    }
    let meta = file.metadata().ok()?;
    let age = clock::of_files().duration_since(meta.modified().ok()?);
    (age.ok()? > SETTLED).then(|| FileState {
        ino: meta.ino(),
        bytes: meta.size(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
    })
}
