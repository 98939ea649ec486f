//! A SQLite database in a live tree: never torn, never with a journal that no longer fits.
//!
//! With a live WAL or rollback journal it is taken through the backup API (one step) into a scratch
//! file, and that is packed under the database's name. Without one its own bytes are read under a
//! read transaction. Either way its `-wal`, `-shm` and `-journal` stay out of the snapshot: what they
//! hold is in the copy, and beside it they would spoil it.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ContentError, FilePacker, Reading, refresh};
use crate::base::database_names::Journals;
use crate::base::error_chain::with_causes;
use crate::base::openat::Meta;
use crate::base::sqlite::{self, Budget, Depth, Inspection, Place, SqliteError};
use crate::base::walk::Found;
use crate::format::index::{DatabaseRecord, Entry};

/// How long to wait for one writer to let go.
const BUSY: Duration = Duration::from_secs(30);
/// How long all waits of a run for writers may take.
const ALL_BUSY: Duration = Duration::from_secs(60);

/// What the databases of a run share.
pub(super) struct Patience {
    /// The time that is left for waiting for locks.
    busy: Duration,
    /// The time for checks.
    checks: Arc<Budget>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            busy: ALL_BUSY,
            checks: Arc::new(Budget::of_run()),
        }
    }

    /// How long the next database may be waited for.
    fn busy(&self) -> Duration {
        self.busy.min(BUSY)
    }

    fn waited(&mut self, waited: Duration) {
        self.busy = self.busy.saturating_sub(waited);
    }
}

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

impl FilePacker<'_, '_> {
    /// Whether all of the database is in its file, under whatever name.
    pub(super) fn is_in_file_alone(&mut self, found: &Found) -> bool {
        let names = &mut self.database_names;
        let home = names.home(&found.root, found.rel(), &found.meta);
        home.is_ok_and(|home| !home.has_live_journal && home.unseen == 0)
    }

    pub(super) fn read_database(
        &mut self,
        entry: &mut Entry,
        found: &Found,
        mut file: File,
        before: &Meta,
        head: &[u8],
    ) -> Result<Reading, ContentError> {
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
            Ok(reading) => Ok(Reading {
                uncacheable: reading.uncacheable || home.unseen > 0,
                ..reading
            }),
            // It would stay locked for the backup as well.
            Err(error) if error.is_busy() || error.unchecked().is_some() => {
                self.read_unchecked(entry, &mut file, before, head, &error)
            }
            // A writer died meanwhile, and left a journal: the backup knows what to do.
            Err(_) => self.read_copy(entry, &place, file, before, head),
        }
    }

    /// Reads the file itself, under a lock if there is one to be had.
    fn read_locked(
        &mut self,
        entry: &mut Entry,
        place: &Place,
        file: &mut File,
        head: &[u8],
    ) -> Result<Result<Reading, SqliteError>, ContentError> {
        let (busy, checks) = (self.patience.busy(), Arc::clone(&self.patience.checks));
        let check = Some((Depth::Structure, &*checks));
        let lock = match sqlite::lock_for_read(place, file, busy, check) {
            Ok(lock) => lock,
            Err(error) => {
                if error.is_busy() {
                    self.patience.waited(busy);
                }
                return Ok(Err(error));
            }
        };
        if let Some(lock) = &lock {
            self.patience.waited(lock.waited());
        }
        // Since the caller looked a writer may have committed; under the lock none can. One may prepare its
        // journal while we read, but the file stays.
        let before = &Meta::of_fd(&*file)?;
        let is_locked = lock.is_some();
        let same = file.try_clone()?;
        let check = || match lock {
            // The lock is handed back: it is held until both are done.
            Some(mut lock) => (lock.inspect(place), Some(lock)),
            None => {
                let inspected = sqlite::inspect_at(place, &same, Depth::Structure, &checks);
                (inspected, None)
            }
        };
        let (reading, (inspected, lock)) = beside(check, || {
            self.read_open(entry, file, before, head, None, false)
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

    fn read_copy(
        &mut self,
        entry: &mut Entry,
        place: &Place,
        mut file: File,
        before: &Meta,
        head: &[u8],
    ) -> Result<Reading, ContentError> {
        let copy = self.scratch.path("database");
        match std::fs::remove_file(&copy) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let copy_place = Place::of(&copy)?;
        let wait = self.patience.busy();
        let started = Instant::now();
        if let Err(error) = sqlite::backup_at(place, &file, &copy_place, wait) {
            if error.is_busy() {
                self.patience.waited(started.elapsed());
            }
            return self.read_unchecked(entry, &mut file, before, head, &error);
        }
        let mut file = File::open(&copy)?;
        let meta = Meta::of_fd(&file)?;
        let (same, checks) = (file.try_clone()?, Arc::clone(&self.patience.checks));
        let (reading, inspected) = beside(
            || sqlite::inspect_at(&copy_place, &same, Depth::Structure, &checks),
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
        // Its journals are files like any other, under whatever name.
        if let Some(journals) = self.taken.remove(&entry.path)
            && journals != Journals::default()
        {
            self.taken.retain(|_, other| *other != journals);
        }
        let reading = self.read_open(entry, file, before, head, None, false)?;
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
