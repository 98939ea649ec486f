//! A SQLite database in a live tree: never torn, never with a journal that no longer fits.
//!
//! With a live WAL or rollback journal it is taken through the backup API (one step) into a scratch
//! file, and that is packed under the database's name. Without one its own bytes are read under a
//! read transaction. Either way its `-wal`, `-shm` and `-journal` stay out of the snapshot: what they
//! hold is in the copy, and beside it they would spoil it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{ContentError, FilePacker, Reading, read_reason, refresh};
use crate::index::{DatabaseRecord, Entry};
use crate::openat::Meta;
use crate::sqlite::{self, Depth, Inspection, SqliteError};
use crate::walk::Found;

/// How long to wait for a writer to let go.
const BUSY: Duration = Duration::from_secs(30);

/// Checks a database on one thread while this one reads it.
fn beside<T, C: Send>(
    check: impl FnOnce() -> C + Send,
    read: impl FnOnce() -> T,
) -> Result<(T, C), ContentError> {
    std::thread::scope(|scope| {
        let named = std::thread::Builder::new().name("check".to_owned());
        let checking = named.spawn_scoped(scope, check)?;
        let read = read();
        let stopped = |_| io::Error::other("the check of the database stopped");
        Ok((read, checking.join().map_err(stopped)?))
    })
}

/// Whether content of the database is in a file beside it.
pub(super) fn has_live_journal(found: &Found) -> bool {
    sqlite::has_live_journal(&found.root.path_of(found.rel()))
}

impl FilePacker<'_, '_> {
    pub(super) fn read_database(
        &mut self,
        entry: &mut Entry,
        found: &Found,
        mut file: File,
        before: &Meta,
        head: &[u8],
    ) -> Result<Reading, ContentError> {
        self.taken.insert(entry.path.clone());
        let abs = &found.root.path_of(found.rel());
        if sqlite::has_live_journal(abs) {
            return self.read_copy(entry, abs, before, head);
        }
        // `file` is older than the lock and outlives it: closing any descriptor of the database
        // would drop this process's locks on it.
        match sqlite::lock_for_read(abs, BUSY) {
            Ok(Some(lock)) => {
                // Since `before` a writer may have committed; from here on none can. One may prepare its
                // journal while we read, but the file stays.
                let same_file = lock.is_same_file(&file.metadata()?)?;
                let before = &Meta::of_fd(&file)?;
                // The check hands the lock back: it is held until both are done.
                let (reading, (lock, inspected)) = beside(
                    move || {
                        let inspected = lock.inspect(abs, Depth::Structure);
                        (lock, inspected)
                    },
                    || self.read_open(entry, &mut file, before, head, None, false),
                )?;
                drop(lock);
                let mut reading = reading?;
                reading.torn |= !same_file;
                refresh(entry, before);
                if !reading.torn {
                    reading.uncacheable |= !self.note_inspection(entry, inspected);
                }
                Ok(reading)
            }
            Ok(None) => {
                let (reading, inspected) = beside(
                    || sqlite::inspect(abs, Depth::Structure),
                    || self.read_open(entry, &mut file, before, head, None, false),
                )?;
                let mut reading = reading?;
                let mtime = |meta: &Meta| (meta.mtime(), meta.mtime_nsec());
                let changed = mtime(&Meta::of_fd(&file)?) != mtime(before);
                reading.torn |= changed || sqlite::has_live_journal(abs);
                refresh(entry, before);
                if !reading.torn {
                    reading.uncacheable |= !self.note_inspection(entry, inspected);
                }
                Ok(reading)
            }
            // A writer died meanwhile, and left a journal: the backup knows what to do.
            Err(_) => self.read_copy(entry, abs, before, head),
        }
    }

    fn read_copy(
        &mut self,
        entry: &mut Entry,
        abs: &Path,
        before: &Meta,
        head: &[u8],
    ) -> Result<Reading, ContentError> {
        let copy = self.scratch.path("database");
        match std::fs::remove_file(&copy) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        if let Err(error) = sqlite::backup(abs, &copy, BUSY) {
            let mut file = File::open(abs)?;
            return self.read_unchecked(entry, &mut file, before, head, &error);
        }
        let mut file = File::open(&copy)?;
        let meta = Meta::of_fd(&file)?;
        let (reading, inspected) = beside(
            || sqlite::inspect(&copy, Depth::Structure),
            || self.read_open(entry, &mut file, &meta, head, None, false),
        )?;
        let mut reading = reading?;
        // What changed may be in the WAL alone: the next run must look again.
        reading.uncacheable = true;
        refresh(entry, before);
        self.note_inspection(entry, inspected);
        std::fs::remove_file(&copy)?;
        Ok(reading)
    }

    /// What begins like a database but cannot be opened as one is kept as the bytes it is.
    fn read_unchecked(
        &mut self,
        entry: &mut Entry,
        file: &mut File,
        before: &Meta,
        head: &[u8],
        error: &SqliteError,
    ) -> Result<Reading, ContentError> {
        self.taken.remove(&entry.path);
        let reading = self.read_open(entry, file, before, head, None, false)?;
        refresh(entry, before);
        if !reading.torn {
            let cause =
                std::error::Error::source(error).map_or(String::new(), |s| format!(": {s}"));
            self.skip(
                &entry.path,
                format_args!("stored as bytes; SQLite cannot check it: {error}{cause}"),
            );
        }
        Ok(Reading {
            uncacheable: true,
            ..reading
        })
    }

    /// Whether the database is sound. One that is not must be looked at, and told of, every time.
    fn note_inspection(
        &mut self,
        entry: &Entry,
        inspected: Result<Inspection, SqliteError>,
    ) -> bool {
        let path = entry.path_lossy().into_owned();
        let inspection = match inspected {
            Ok(inspection) => inspection,
            Err(error) => {
                let reason = read_reason(&io::Error::other(error));
                self.skip(
                    &entry.path,
                    format_args!("stored, but not checked: {reason}"),
                );
                return false;
            }
        };
        let is_sound = inspection.is_ok();
        if !is_sound {
            self.skip(
                &entry.path,
                format_args!(
                    "stored, but it fails SQLite's quick_check: {}",
                    inspection.integrity
                ),
            );
        }
        let record = DatabaseRecord {
            path: path.clone(),
            page_size: inspection.page_size,
            tables: inspection.tables,
            integrity: inspection.integrity,
        };
        self.databases.insert(path, record);
        is_sound
    }
}
