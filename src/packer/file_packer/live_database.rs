//! Packs a SQLite database of a live tree: never torn, never with a journal that does not match.
//!
//! If it has a live WAL or rollback journal, the backup API copies it (in one step) into a scratch
//! file, which is packed under the database's name. Otherwise its own bytes are read under a read
//! transaction. In both cases its `-wal`, `-shm` and `-journal` stay out of the snapshot: their
//! content is in the copy, and they would corrupt it when restored.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::file_content::ContentError;
use super::super::origin::Origin;
use super::FilePacker;
use super::read::{OpenFile, ReadAttempt, refresh};
use crate::base::database_names::Journals;
use crate::base::error_chain::with_causes;
use crate::base::openat::Meta;
use crate::base::sqlite::{self, Budget, Inspection, Place, SqliteError};
use crate::base::walk::Found;
use crate::format::index::{DatabaseRecord, Entry};

/// Longest wait for one writer's lock.
const BUSY: Duration = Duration::from_secs(30);
/// Longest wait for the locks of all writers in one run.
const ALL_BUSY: Duration = Duration::from_secs(60);

/// The time that all databases of a run share.
pub(super) struct LockBudget {
    /// Time that is left for waiting for locks.
    busy: Duration,
    /// Time for checks.
    checks: Arc<Budget>,
}

impl LockBudget {
    pub(super) fn new() -> Self {
        Self {
            busy: ALL_BUSY,
            checks: Arc::new(Budget::of_run()),
        }
    }

    /// Returns how long to wait for the next database.
    fn busy(&self) -> Duration {
        self.busy.min(BUSY)
    }

    fn waited(&mut self, waited: Duration) {
        self.busy = self.busy.saturating_sub(waited);
    }
}

/// Checks a database on another thread while this one reads it. Returns both results.
fn beside<T, C: Send>(
    check: impl FnOnce() -> C + Send,
    read: impl FnOnce() -> T,
) -> Result<(T, C), ContentError> {
    std::thread::scope(|scope| {
        let named = std::thread::Builder::new().name("check".to_owned());
        let checking = named.spawn_scoped(scope, check)?;
        let read = read();
        let stopped = |_| io::Error::other("the thread that checks the database ended early");
        Ok((read, checking.join().map_err(stopped)?))
    })
}

impl FilePacker<'_, '_> {
    /// Returns whether all of the database is in its file: no journal, no name that was not seen.
    pub(super) fn is_in_file_alone(&mut self, found: &Found) -> bool {
        let names = &mut self.database_names;
        let home = names.home(&found.root, found.rel(), &found.meta);
        home.is_ok_and(|home| !home.has_live_journal && home.unseen == 0)
    }

    /// Reads a database, whose first bytes are `head`.
    pub(super) fn read_database(
        &mut self,
        entry: &mut Entry,
        found: &Found,
        mut file: File,
        before: &Meta,
        head: &[u8],
    ) -> Result<ReadAttempt, ContentError> {
        let names = &mut self.database_names;
        let home = names.home(&found.root, found.rel(), before)?;
        self.taken.insert(entry.path.clone(), home.journals);
        if let Some(rel) = home.rel(&found.root)
            && let Some(prefix) = entry.path.strip_suffix(found.rel.as_slice())
        {
            let path = [prefix, rel.as_bytes()].concat();
            self.taken.insert(path, home.journals);
        }
        if let Some(doubt) = home.doubt() {
            self.skip(&entry.path, doubt);
        }
        let place = home.place;
        if home.has_live_journal {
            return self.read_copy(entry, &place, file, before, head);
        }
        match self.read_locked(entry, &place, &mut file, head)? {
            Ok(reading) => Ok(ReadAttempt {
                uncacheable: reading.uncacheable || home.unseen > 0,
                ..reading
            }),
            // The backup API would find it locked or uncheckable, too.
            Err(error) if error.is_busy() || error.unchecked().is_some() => {
                self.read_unchecked(entry, &mut file, before, head, &error)
            }
            // A writer died meanwhile and left a journal, which the backup API applies.
            Err(_) => self.read_copy(entry, &place, file, before, head),
        }
    }

    /// Reads the file itself, under a lock if the file system has locks.
    fn read_locked(
        &mut self,
        entry: &mut Entry,
        place: &Place,
        file: &mut File,
        head: &[u8],
    ) -> Result<Result<ReadAttempt, SqliteError>, ContentError> {
        let (busy, checks) = (
            self.lock_budget.busy(),
            Arc::clone(&self.lock_budget.checks),
        );
        let depth = self.check;
        let check = Some((depth, &*checks));
        let lock = match sqlite::lock_for_read(place, file, busy, check) {
            Ok(lock) => lock,
            Err(error) => {
                if error.is_busy() {
                    self.lock_budget.waited(busy);
                }
                return Ok(Err(error));
            }
        };
        if let Some(lock) = &lock {
            self.lock_budget.waited(lock.waited());
        }
        // A writer may have committed since the caller's stat. Under the lock none can: it may
        // prepare its journal while we read, but the file does not change.
        let before = &Meta::of_fd(&*file)?;
        let is_locked = lock.is_some();
        let same = file.try_clone()?;
        let check = || match lock {
            // The lock is returned, so it is held until both are done.
            Some(mut lock) => (lock.inspect(place), Some(lock)),
            None => {
                let inspected = sqlite::inspect_at(place, &same, depth, &checks);
                (inspected, None)
            }
        };
        let (reading, (inspected, lock)) = beside(check, || {
            let open = OpenFile { file, before, head };
            self.read_open(entry, open, Origin::Live, None)
        })?;
        drop(lock);
        let mut reading = reading?;
        if !is_locked {
            let mtime = |meta: &Meta| (meta.mtime(), meta.mtime_nsec());
            let changed = mtime(&Meta::of_fd(&*file)?) != mtime(before);
            reading.torn |= changed || place.has_live_journal();
        }
        refresh(entry, before);
        if !reading.torn {
            reading.uncacheable |= !self.note_inspection(entry, inspected);
        }
        Ok(Ok(reading))
    }

    /// Copies the database by the backup API, and reads the copy.
    fn read_copy(
        &mut self,
        entry: &mut Entry,
        place: &Place,
        mut file: File,
        before: &Meta,
        head: &[u8],
    ) -> Result<ReadAttempt, ContentError> {
        let copy = self.scratch.path("database");
        match std::fs::remove_file(&copy) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let copy_place = Place::of(&copy)?;
        let wait = self.lock_budget.busy();
        let started = Instant::now();
        if let Err(error) = sqlite::backup_at(place, &file, &copy_place, wait) {
            if error.is_busy() {
                self.lock_budget.waited(started.elapsed());
            }
            return self.read_unchecked(entry, &mut file, before, head, &error);
        }
        let mut file = File::open(&copy)?;
        let meta = Meta::of_fd(&file)?;
        let (same, checks) = (file.try_clone()?, Arc::clone(&self.lock_budget.checks));
        let depth = self.check;
        let (reading, inspected) = beside(
            || sqlite::inspect_at(&copy_place, &same, depth, &checks),
            || {
                let open = OpenFile {
                    file: &mut file,
                    before: &meta,
                    head,
                };
                self.read_open(entry, open, Origin::Live, None)
            },
        )?;
        let mut reading = reading?;
        // A change may be in the WAL alone, so the next run must read it again.
        reading.uncacheable = true;
        refresh(entry, before);
        self.note_inspection(entry, inspected);
        std::fs::remove_file(&copy)?;
        Ok(reading)
    }

    /// Stores the bytes of a file that begins like a database but cannot be opened or checked as
    /// one.
    fn read_unchecked(
        &mut self,
        entry: &mut Entry,
        file: &mut File,
        before: &Meta,
        head: &[u8],
        error: &SqliteError,
    ) -> Result<ReadAttempt, ContentError> {
        // Its journals are then packed like any other file, under all of its names.
        if let Some(journals) = self.taken.remove(&entry.path)
            && journals != Journals::default()
        {
            self.taken.retain(|_, other| *other != journals);
        }
        let open = OpenFile { file, before, head };
        let reading = self.read_open(entry, open, Origin::Live, None)?;
        refresh(entry, before);
        if !reading.torn {
            let reason = match error.unchecked() {
                Some(why) => format!("stored, not checked: {why}"),
                None => {
                    let why = with_causes(error);
                    format!("stored as bytes; SQLite cannot check it: {why}")
                }
            };
            self.skip(&entry.path, reason);
        }
        Ok(ReadAttempt {
            uncacheable: true,
            ..reading
        })
    }

    /// Records the result of a check. Returns whether the database is sound; if not, every run must
    /// check and report it again.
    fn note_inspection(
        &mut self,
        entry: &Entry,
        inspected: Result<Inspection, SqliteError>,
    ) -> bool {
        let path = entry.path_lossy().into_owned();
        let inspection = match inspected {
            Ok(inspection) => inspection,
            Err(error) => {
                let why = error.unchecked().map(str::to_owned);
                let why = why.unwrap_or_else(|| with_causes(&error));
                self.skip(&entry.path, format_args!("stored, not checked: {why}"));
                return false;
            }
        };
        let is_sound = inspection.is_ok();
        if !is_sound {
            self.skip(
                &entry.path,
                format_args!(
                    "stored, but it fails SQLite's {}: {}",
                    self.check.pragma(),
                    inspection.integrity
                ),
            );
        }
        let record = DatabaseRecord {
            path: path.clone(),
            page_size: inspection.page_size,
            tables: inspection.tables,
            schema: inspection.schema,
            integrity: inspection.integrity,
        };
        self.databases.insert(path, record);
        is_sound
    }
}
