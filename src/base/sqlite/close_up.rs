//! Closes up a database that no process uses: afterwards its one file is the whole database.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::check::occupied;
use super::error::SqliteError;
use super::message::{ChildAnswer, ChildWork, Step, milliseconds};
use super::place::Place;
use super::process::{self, ChildProcess, ChildTask};
use super::refusal::{io_error, refused, silent};

/// The slowest check-point that is waited for, after [`CLOSE_START`].
const BYTES_PER_SECOND: u64 = 1_000_000;
/// The time that every database has, whatever its size.
const CLOSE_START: Duration = Duration::from_secs(60);
/// The bytes of a database's file that SQLite locks: pending, reserved and shared.
const LOCK_START: i64 = 0x4000_0000;
const LOCK_BYTES: i64 = 512;

/// Moves the content of the log of the database at `place`, which the caller has opened as `file`,
/// into its file, or plays its journal back; no log and no live journal is left. Waits up to `busy`
/// for other processes, and fails with [`SqliteError::Busy`] if one still uses the database.
pub fn close_up(place: &Place, file: &File, busy: Duration) -> Result<(), SqliteError> {
    let failed = io_error(Step::CloseUp.text(), place.path());
    let meta = file.metadata().map_err(&failed)?;
    let journal_bytes = place.journal_bytes();
    let bytes = occupied(&meta).saturating_add(journal_bytes);
    let allowed = CLOSE_START + Duration::from_secs(bytes / BYTES_PER_SECOND);
    let started = Instant::now();
    let child = ChildProcess::start(ChildTask {
        place,
        identity: process::identity(file).map_err(&failed)?,
        cpu: allowed,
        file_bytes: (meta.len().saturating_add(journal_bytes)).saturating_mul(2) + (16 << 20),
        work: ChildWork::CloseUp {
            busy_ms: milliseconds(busy),
        },
        copy_dir: None,
    });
    let mut child = child.map_err(|silence| silent(silence, Step::CloseUp, place))?;
    match child.answer(started + allowed + busy, allowed + busy) {
        Ok(ChildAnswer::ClosedUp) => Ok(()),
        Ok(other) => Err(refused(other, Step::CloseUp, place, busy)),
        Err(silence) => Err(silent(silence, Step::CloseUp, place)),
    }
}

/// A lock that keeps every process that uses SQLite from reading or writing a database, until this
/// is dropped.
#[derive(Debug)]
pub struct Shut {
    _file: File,
}

impl Shut {
    /// Locks the database that the caller has opened for writing as `file`. `Ok(None)`: a process
    /// uses it. Fails if the file system has no such locks.
    pub fn take(file: File) -> std::io::Result<Option<Self>> {
        match lock_bytes(&file) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Takes an open file description lock: one that other descriptors of this process do not drop
/// when they are closed.
#[allow(unsafe_code, reason = "rustix locks whole files only")]
fn lock_bytes(file: &File) -> std::io::Result<()> {
    // SAFETY: all bytes of this plain structure may be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = LOCK_START as _;
    lock.l_len = LOCK_BYTES as _;
    // SAFETY: the descriptor is open, and the kernel only reads the structure.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sqlite::open_for_test;

    fn open(dir: &std::path::Path) -> (Place, File) {
        let place = Place::of(&dir.join("a.db")).unwrap();
        let file = place.open().unwrap();
        (place, file)
    }

    #[test]
    fn the_log_of_a_killed_writer_is_in_the_file_afterwards() {
        let temp = tempfile::tempdir().unwrap();
        let (kept, copy) = (temp.path().join("kept"), temp.path().join("copy"));
        std::fs::create_dir(&kept).unwrap();
        std::fs::create_dir(&copy).unwrap();
        let conn = open_for_test(&kept.join("a.db"));
        conn.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x); INSERT INTO t VALUES(7)",
        )
        .unwrap();
        // As a killed process leaves them: the log is not in the file.
        for name in ["a.db", "a.db-wal"] {
            std::fs::copy(kept.join(name), copy.join(name)).unwrap();
        }
        let (place, file) = open(&copy);
        assert!(place.has_live_journal());
        close_up(&place, &file, Duration::ZERO).unwrap();
        assert!(!place.has_live_journal() && !place.has_wal());
        let alone = temp.path().join("alone.db");
        std::fs::copy(copy.join("a.db"), &alone).unwrap();
        let found = open_for_test(&alone).query_row("SELECT x FROM t", [], |row| row.get(0));
        assert_eq!(found, Ok(7));
        // The original is in use. The copying above closed descriptors of it, which dropped the
        // locks that this process had on it.
        drop(conn);
        let (place, file) = open(&kept);
        let user = open_for_test(&kept.join("a.db"));
        let begun = user.execute_batch("BEGIN; SELECT x FROM t");
        begun.unwrap();
        let refused = close_up(&place, &file, Duration::from_millis(50)).unwrap_err();
        assert!(refused.is_busy(), "{refused}");
    }

    #[test]
    fn no_process_opens_a_database_that_is_shut_and_none_that_is_in_use_is_shut() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.db");
        let conn = open_for_test(&path);
        conn.execute_batch("CREATE TABLE t(x)").unwrap();
        let dir = crate::base::openat::Dir::open(temp.path()).unwrap();
        let take = || Shut::take(dir.open_to_write("a.db").unwrap()).unwrap();
        let shut = take().unwrap();
        let read = || open_for_test(&path).query_row("SELECT count(*) FROM t", [], |_| Ok(()));
        assert!(read().is_err());
        drop(shut);
        read().unwrap();
        conn.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        assert!(take().is_none());
    }
}
