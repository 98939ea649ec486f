//! SQLite files as files: telling them, copying them whole, reading them untorn, checking copies.
//!
//! A database that is in use is more than its file: pages may wait in a `-wal`, or a `-journal` may be
//! about to take some back. So a database with a live sidecar is copied by [`backup`] only, and one
//! without is read as the bytes it is under [`lock_for_read`]. Both leave page order alone, which is
//! what makes the next push small.
//!
//! POSIX locks have a trap: a process loses *all* its locks on a file when it closes *any* descriptor of
//! that file, SQLite's included. Whoever reads under a lock must therefore not open and close the file
//! besides; [`LockedFile`] carries the one descriptor to read from, and closes it after SQLite's.

mod inspect;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use inspect::{Depth, Inspection, inspect};
use inspect::{immutable_uri, inspect_open};

/// The first bytes of every database.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// So much of a file's head is enough for [`is_sqlite`], [`page_size`] and the journal mode.
pub const HEAD_BYTES: usize = 100;

/// How long SQLite waits on its own before we look at the deadline.
const BUSY_SLICE: Duration = Duration::from_millis(100);
const RETRY_PAUSE: Duration = Duration::from_millis(7);
/// A file written less than this ago could change again without a new mtime.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("{} stayed locked for {} s: is a long transaction running?", path.display(), waited.as_secs())]
    Busy { path: PathBuf, waited: Duration },
    #[error("cannot {what} {}", path.display())]
    Sqlite {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl SqliteError {
    /// The file has the magic, but SQLite does not take it for a sound database.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if is_damage(source))
    }

    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Busy { .. } => false,
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
        }
    }
}

pub fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Bytes per page of the database that begins with `head`; `None` if it is no database.
pub fn page_size(head: &[u8]) -> Option<u32> {
    let field = head.get(16..18).filter(|_| is_sqlite(head))?;
    match u32::from(u16::from_be_bytes([field[0], field[1]])) {
        1 => Some(65536),
        size if size >= 512 && size.is_power_of_two() => Some(size),
        _ => None,
    }
}

/// Whether the header says write-ahead log.
fn is_wal_mode(head: &[u8]) -> bool {
    head.get(18..20)
        .is_some_and(|versions| versions.contains(&2))
}

/// The files that may stand beside a database: `-wal`, `-shm`, `-journal`.
pub fn sidecars(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

/// Whether a sidecar holds content that belongs to the database: then its file alone is not the database.
pub fn has_live_journal(path: &Path) -> bool {
    let [wal, _, journal] = sidecars(path);
    if fs::symlink_metadata(wal).is_ok_and(|meta| meta.is_file() && meta.len() > 0) {
        return true;
    }
    // A journal kept for reuse has its header zeroed (journal_mode=PERSIST) or is empty (TRUNCATE).
    let is_file = fs::symlink_metadata(&journal).is_ok_and(|meta| meta.is_file());
    is_file && read_head(&journal, 8).is_ok_and(|head| head.iter().any(|byte| *byte != 0))
}

fn read_head(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(bytes).read_to_end(&mut head)?;
    Ok(head)
}

/// Copies the database `src` to the new file `dst` (0600, durable, no sidecars), as of one moment, while
/// others go on writing. A lock is waited for until `busy` is over. A failure leaves no `dst`.
///
/// One step: stepping in pages starts over whenever someone writes, and never ends under writers.
pub fn backup(src: &Path, dst: &Path, busy: Duration) -> Result<(), SqliteError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| SqliteError::Io { what, path, source }
    };
    // SQLite would make a database of a missing name, and block on a FIFO's.
    let meta = fs::metadata(src).map_err(io("read the database", src))?;
    if !meta.is_file() {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(io("read as a database", src)(source));
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dst)
        .map_err(io("create", dst))?;
    let copied = copy_to(src, dst, busy).and_then(|()| {
        let synced = File::open(dst).and_then(|file| file.sync_all());
        let synced = synced.and_then(|()| crate::fs::sync_parent(dst));
        synced.map_err(io("flush", dst))
    });
    if copied.is_err() {
        let _ = fs::remove_file(dst);
        for sidecar in sidecars(dst) {
            let _ = fs::remove_file(sidecar);
        }
    }
    copied
}

/// Tries the ways to open `src`, the one that touches least first.
fn copy_to(src: &Path, dst: &Path, busy: Duration) -> Result<(), SqliteError> {
    if let Some(before) = quiet_wal(src) {
        // Nobody has it open: SQLite would leave new -wal and -shm files beside it. Immutable does not.
        let uri = immutable_uri(src);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let copied = copy_from(Connection::open_with_flags(uri, flags), src, dst, busy);
        if copied.is_ok() && quiet_wal(src) == Some(before) {
            return copied;
        }
        let emptied = OpenOptions::new().write(true).truncate(true).open(dst);
        emptied.map_err(|source| SqliteError::Io {
            what: "rewrite",
            path: dst.to_owned(),
            source,
        })?;
    }
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match copy_from(Connection::open_with_flags(src, read_only), src, dst, busy) {
        // A crashed writer's journal must be played back, or a log's index be made, which takes a
        // writable connection: what the application itself would do at its next start.
        Err(SqliteError::Sqlite { source, .. }) if wants_writing(&source) => {
            let writable = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opened = Connection::open_with_flags(src, writable).and_then(|conn| {
                conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                Ok(conn)
            });
            copy_from(opened, src, dst, busy)
        }
        result => result,
    }
}

fn wants_writing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)
    )
}

/// What identifies the state of a WAL database that nobody has open (no `-wal` beside it), if it is one
/// and has been left alone long enough for its mtime to tell the next change.
fn quiet_wal(path: &Path) -> Option<(u64, u64, i64, i64, i64, i64)> {
    let head = read_head(path, HEAD_BYTES as u64).ok()?;
    let [wal, ..] = sidecars(path);
    if !is_wal_mode(&head) || fs::symlink_metadata(wal).is_ok() {
        return None;
    }
    let meta = fs::metadata(path).ok()?;
    let age = SystemTime::now().duration_since(meta.modified().ok()?);
    (age.ok()? > SETTLED).then(|| {
        let mtime = (meta.mtime(), meta.mtime_nsec());
        let ctime = (meta.ctime(), meta.ctime_nsec());
        (meta.ino(), meta.size(), mtime.0, mtime.1, ctime.0, ctime.1)
    })
}

fn copy_from(
    opened: rusqlite::Result<Connection>,
    src: &Path,
    dst: &Path,
    busy: Duration,
) -> Result<(), SqliteError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| SqliteError::Sqlite { what, path, source }
    };
    let source = opened.map_err(failed("open the database", src))?;
    source
        .busy_timeout(BUSY_SLICE.min(busy))
        .map_err(failed("open the database", src))?;
    let mut copy = Connection::open_with_flags(dst, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(failed("open the copy", dst))?;
    // The copy is worth nothing until it is whole, so it needs no journal; it is flushed at the end.
    copy.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
        .map_err(failed("open the copy", dst))?;
    {
        let backup = Backup::new(&source, &mut copy).map_err(failed("copy the database", src))?;
        until(busy, src, "copy the database", || backup.step(-1))?;
    }
    copy.close()
        .map_err(|(_, source)| failed("finish the copy", dst)(source))
}

/// Repeats `step` until it is done; a lock is retried until `busy` is over.
fn until(
    busy: Duration,
    path: &Path,
    what: &'static str,
    mut step: impl FnMut() -> rusqlite::Result<StepResult>,
) -> Result<(), SqliteError> {
    let start = Instant::now();
    loop {
        match step() {
            Ok(StepResult::Done) => return Ok(()),
            Ok(_) => {}
            Err(e) if is_busy(&e) => {}
            Err(source) => {
                let path = path.to_owned();
                return Err(SqliteError::Sqlite { what, path, source });
            }
        }
        if start.elapsed() >= busy {
            return Err(SqliteError::Busy {
                path: path.to_owned(),
                waited: busy,
            });
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// A database file that nobody can write to while this lives.
///
/// Read from [`LockedFile::file`] and from nothing else: closing any other descriptor of this file
/// anywhere in this process silently ends the lock.
pub struct LockedFile {
    /// Holds SQLite's SHARED lock by an open read transaction. Dropped first, being declared first: our
    /// own descriptor must not be closed while the lock is wanted.
    conn: Connection,
    file: File,
}

impl LockedFile {
    /// The descriptor to read from, positioned at the start by [`lock_for_read`].
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// What [`inspect`] tells, without the descriptor of its own that would end the lock.
    pub fn inspect(&self, path: &Path, depth: Depth) -> Result<Inspection, SqliteError> {
        let failed = |source| SqliteError::Sqlite {
            what: "check the database",
            path: path.to_owned(),
            source,
        };
        let pages = "PRAGMA page_size";
        let page_size = self.conn.query_row(pages, [], |row| row.get(0));
        inspect_open(&self.conn, page_size.map_err(failed)?, depth).map_err(failed)
    }

    /// Whether `other` is a descriptor of the locked file.
    pub fn is_same_file(&self, other: &fs::Metadata) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        Ok((ours.dev(), ours.ino()) == (other.dev(), other.ino()))
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let _ = self.conn.execute_batch("ROLLBACK");
    }
}

/// Locks a rollback-mode database against writers, for reading its bytes.
///
/// `None` where there is no lock to be had without leaving traces: a WAL-mode database (nobody may
/// have it open, and locking it would create `-wal` and `-shm`), or a file with the magic that SQLite does
/// not take for a database. The caller then reads it like any file, and afterwards must find its
/// stat unchanged and [`has_live_journal`] still false; else it takes [`backup`] or tries again.
///
/// Call it when [`has_live_journal`] is false; a journal that needs playing back is an error here.
pub fn lock_for_read(path: &Path, busy: Duration) -> Result<Option<LockedFile>, SqliteError> {
    let io = |source| SqliteError::Io {
        what: "read the database",
        path: path.to_owned(),
        source,
    };
    // Opened before SQLite's descriptors and closed after them, see the module's head.
    let file = File::open(path).map_err(io)?;
    let mut head = [0; HEAD_BYTES];
    let read = std::os::unix::fs::FileExt::read_at(&file, &mut head, 0).map_err(io)?;
    if page_size(&head[..read]).is_none() || is_wal_mode(&head) {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |source| SqliteError::Sqlite {
        what: "lock the database",
        path: path.to_owned(),
        source,
    };
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(BUSY_SLICE.min(busy)).map_err(failed)?;
    conn.execute_batch("BEGIN").map_err(failed)?;
    let locked = until(busy, path, "lock the database", || {
        // The first read takes the lock, the transaction keeps it.
        conn.query_row("PRAGMA schema_version", [], |_| Ok(StepResult::Done))
    });
    match locked {
        Err(SqliteError::Sqlite { source, .. }) if is_damage(&source) => return Ok(None),
        other => other?,
    }
    let (ours, now) = (
        file.metadata().map_err(io)?,
        fs::metadata(path).map_err(io)?,
    );
    let mode = std::os::unix::fs::FileExt::read_at(&file, &mut head, 0).map_err(io)?;
    // Replaced or switched to WAL in between: not the file that is locked, or no lock at all.
    if (ours.dev(), ours.ino()) != (now.dev(), now.ino()) || is_wal_mode(&head[..mode]) {
        return Ok(None);
    }
    Ok(Some(LockedFile { conn, file }))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

#[cfg(test)]
#[path = "sqlite/tests.rs"]
mod tests;
