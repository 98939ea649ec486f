//! The catalog, a SQLite database: which chunk is in which archive, which archive is on which
//! target, which snapshots were made. It is disposable: losing it costs one full push.
//!
//! Crash argument: the row of an archive is committed (`synchronous = FULL`), together with the
//! rows of its chunks, only after the sealed object is durable in the spool; a placement only after
//! the target confirmed it. So everything that the catalog says is true, and content that it forgot
//! is stored again.
//!
//! Damage: a catalog that SQLite finds damaged is moved aside, and a new one is begun. SQLite does
//! not notice a flipped bit within a row, and a wrong offset would be copied into every index from
//! then on. So the rows that indexes are made from carry a checksum ([`row_checksum`]), and a row
//! with a wrong one counts as unknown.

mod about;
mod archives;
mod cached;
mod chosen;
mod closed_recipients;
mod hash_sets;
mod in_use;
mod lookups;
mod numbers;
mod per_target;
mod publication_state;
mod receipt_keys;
mod row_checksum;
mod scrub_history;
mod snapshots;
mod table;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::base::ids::WriterId;
use crate::base::sqlite::may_lack_room;
use crate::format::manifest::recipient_set_name;

use cached::Cached;

pub use about::SnapshotAbout;
pub use archives::{CatalogArchive, NewArchive, NewChunk, Recorder};
pub use chosen::ArchiveSize;
pub use per_target::{NewestPublication, ReadingSummary, StoredOnTarget};
pub use publication_state::PublicationState;
pub use scrub_history::ArchiveCheck;
pub use snapshots::{KnownGroup, Publications, RunRecord, SnapshotOrigin, SnapshotRow};
pub use table::ChunkTable;
pub use view::PlacedArchives;

/// Why the catalog cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// SQLite failed for a reason outside of the file.
    #[error("the catalog {path} failed (is the disk full, read-only or damaged?)")]
    Sqlite {
        /// The catalog.
        path: String,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is damaged. The next run moves it aside.
    #[error(
        "the catalog {path} is damaged; run again: it is put aside then and a new one begun, which costs one full push"
    )]
    Damaged {
        /// The catalog.
        path: String,
        /// How SQLite noticed it.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk is full.
    #[error("the disk at {disk} is full: the catalog {path} cannot be written")]
    DiskFull {
        /// The disk's mount point.
        disk: String,
        /// The catalog.
        path: String,
    },
    /// The damaged file cannot be renamed.
    #[error("cannot move the damaged catalog {path} aside")]
    MoveAside {
        /// The catalog.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    /// A newer version of this program wrote the catalog.
    #[error(
        "the catalog {path} is of version {found}; this sealift knows {CATALOG_VERSION}: use a newer one"
    )]
    Version {
        /// The catalog.
        path: String,
        /// Its version.
        found: i64,
    },
}

/// Version 2: the checksum of an archive's row is that of its columns. One of version 1, that of
/// the row as JSON, is still valid. Version 3: sets of hashes have a table of their own.
const CATALOG_VERSION: i64 = 3;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hash_sets(
  name TEXT NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(name, hash)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recipient_sets(name TEXT PRIMARY KEY, members TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives(
  n INTEGER PRIMARY KEY, writer BLOB NOT NULL, counter INTEGER NOT NULL, kind TEXT NOT NULL,
  blake3 BLOB NOT NULL UNIQUE, sha256 BLOB NOT NULL, bytes INTEGER NOT NULL,
  recipient_set TEXT NOT NULL, head_sha256 BLOB NOT NULL,
  tar_bytes INTEGER NOT NULL, tar_blake3 BLOB NOT NULL, live_bytes INTEGER,
  UNIQUE(writer, counter));
CREATE INDEX IF NOT EXISTS live_indexes ON archives(n)
  WHERE kind='index' AND (live_bytes<>0 OR live_bytes IS NULL);
CREATE INDEX IF NOT EXISTS unused_archives ON archives(n) WHERE live_bytes IS NULL;
CREATE INDEX IF NOT EXISTS archive_sizes ON archives(blake3, bytes);
CREATE TABLE IF NOT EXISTS in_use(archive INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS chunks(
  hash BLOB PRIMARY KEY, archive INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL
  ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS placements(
  archive INTEGER NOT NULL, target TEXT NOT NULL, PRIMARY KEY(target, archive)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots(
  core BLOB PRIMARY KEY, sequence INTEGER NOT NULL, stamp TEXT NOT NULL, name TEXT NOT NULL,
  bytes INTEGER NOT NULL, new_bytes INTEGER NOT NULL, foreign_writer INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS known_groups(
  number INTEGER PRIMARY KEY, rows BLOB NOT NULL, writer BLOB NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS publications(
  target TEXT NOT NULL, core BLOB NOT NULL, published_at TEXT NOT NULL, state TEXT NOT NULL,
  PRIMARY KEY(target, core)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checks(
  target TEXT NOT NULL, blake3 BLOB NOT NULL, checked_at TEXT NOT NULL, ok INTEGER DEFAULT 1,
  PRIMARY KEY(target, blake3)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs(
  id INTEGER PRIMARY KEY, started_at TEXT NOT NULL, ended_at TEXT, stamp TEXT, outcome TEXT, message TEXT);
CREATE INDEX IF NOT EXISTS complete_runs ON runs(stamp) WHERE outcome='complete';
";

/// The first 24 bytes of a chunk's BLAKE3. Finding two chunks with one value takes about 2^96
/// steps.
pub type ChunkHash = [u8; 24];

/// The place of a chunk in the tar stream of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// The catalog's own number of the archive.
    pub archive: i64,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The open catalog.
#[derive(Debug)]
pub struct Catalog {
    /// The connection of [`Self::find_chunk`]. Its read transaction may stay open from look-up to
    /// look-up, which saves taking locks for each. It is closed before `db`, whose closing
    /// checkpoints the log.
    lookups: Connection,
    db: Connection,
    path: PathBuf,
    writer: WriterId,
    cached_archives: Cached<Arc<Vec<CatalogArchive>>>,
    cached_snapshots: Cached<Arc<Vec<SnapshotRow>>>,
    cached_publications: Cached<BTreeMap<String, Publications>>,
    /// The path to which a damaged catalog was moved when this one was opened; `None`: it was
    /// sound.
    pub replaced: Option<PathBuf>,
}

impl Catalog {
    /// Opens or creates the catalog. A damaged one is moved aside, see [`Self::replaced`].
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        if damage_mark(path).exists() {
            return Self::begin_anew(path);
        }
        match Self::open_once(path) {
            Err(CatalogError::Damaged { .. }) => Self::begin_anew(path),
            other => other,
        }
    }

    fn begin_anew(path: &Path) -> Result<Self, CatalogError> {
        let aside = path.with_extension(format!("damaged-{}", std::process::id()));
        match std::fs::rename(path, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CatalogError::MoveAside {
                    path: path.display().to_string(),
                    source: error,
                });
            }
            _ => {}
        }
        for ending in ["-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            let _ = std::fs::remove_file(name);
        }
        let mut catalog = Self::open_once(path)?;
        catalog.replaced = Some(aside);
        let _ = std::fs::remove_file(damage_mark(path));
        Ok(catalog)
    }

    fn open_once(path: &Path) -> Result<Self, CatalogError> {
        let fail = |source| failed(path, source);
        let db = connect(path).map_err(fail)?;
        let found: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fail)?;
        if found > CATALOG_VERSION {
            return Err(CatalogError::Version {
                path: path.display().to_string(),
                found,
            });
        }
        if found < CATALOG_VERSION {
            db.execute_batch(SCHEMA).map_err(fail)?;
            hash_sets::take_over(&db).map_err(fail)?;
            db.pragma_update(None, "user_version", CATALOG_VERSION)
                .map_err(fail)?;
        }
        scrub_history::complete_table(&db).map_err(fail)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let lookups = Connection::open_with_flags(path, flags).map_err(fail)?;
        lookups
            .execute_batch("PRAGMA cache_size=-16000")
            .map_err(fail)?;
        let mut catalog = Self {
            lookups,
            db,
            path: path.to_path_buf(),
            writer: WriterId([0; 8]),
            cached_archives: Cached::default(),
            cached_snapshots: Cached::default(),
            cached_publications: Cached::default(),
            replaced: None,
        };
        catalog.writer = match catalog.meta("writer")?.and_then(|text| text.parse().ok()) {
            Some(writer) => writer,
            None => catalog.renew_writer()?,
        };
        if !catalog.has_sound_numbers()? {
            catalog.renew_writer()?;
        }
        Ok(catalog)
    }

    /// Closes the catalog after writing everything into its one file, durably.
    pub fn close(self) -> Result<(), CatalogError> {
        let fail = self.fail();
        self.end_lookups()?;
        let close = |connection: Connection| connection.close().map_err(|(_, error)| fail(error));
        close(self.lookups)?;
        self.db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(&fail)?;
        close(self.db)
    }

    fn fail(&self) -> impl Fn(rusqlite::Error) -> CatalogError + use<> {
        failing(&self.path)
    }

    /// Returns a number that changes when another connection changes the database.
    fn version(&self) -> Result<i64, CatalogError> {
        self.db
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .map_err(self.fail())
    }

    /// Returns the value of `key` in the `meta` table; `None` if it has none.
    pub fn meta(&self, key: &str) -> Result<Option<String>, CatalogError> {
        self.db
            .query_row("SELECT value FROM meta WHERE key=?1", [key], |r| r.get(0))
            .optional()
            .map_err(self.fail())
    }

    /// Sets the value of `key` in the `meta` table.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), CatalogError> {
        self.db
            .execute("INSERT OR REPLACE INTO meta VALUES(?1,?2)", [key, value])
            .map(drop)
            .map_err(self.fail())
    }

    /// Returns the writer id under which new archives are numbered.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Draws a new writer id: after a rebuild, or if a target knows more than this catalog.
    pub fn renew_writer(&mut self) -> Result<WriterId, CatalogError> {
        self.writer = WriterId::random().map_err(CatalogError::Random)?;
        self.set_meta("writer", &self.writer.to_string())?;
        Ok(self.writer)
    }

    /// Stores a set of recipients, unless it is known, and returns its name.
    pub fn remember_recipients(&self, recipients: &[String]) -> Result<String, CatalogError> {
        let name = recipient_set_name(recipients);
        let mut members = recipients.to_vec();
        members.sort();
        let members = serde_json::json!(members).to_string();
        self.db
            .execute(
                "INSERT OR IGNORE INTO recipient_sets VALUES(?1,?2)",
                [&name, &members],
            )
            .map_err(self.fail())?;
        Ok(name)
    }

    /// Returns all stored sets of recipients, by name.
    pub fn recipient_sets(&self) -> Result<BTreeMap<String, Vec<String>>, CatalogError> {
        let mut query = self
            .db
            .prepare("SELECT name, members FROM recipient_sets")
            .map_err(self.fail())?;
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
            .map_err(self.fail())?;
        let mut sets = BTreeMap::new();
        for row in rows {
            let (name, members) = row.map_err(self.fail())?;
            sets.insert(name, serde_json::from_str(&members).unwrap_or_default());
        }
        Ok(sets)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite would create the file with the umask's mode; the files beside it get the file's own.
    // If this fails, SQLite reports why.
    let _ = crate::base::fs::write_new(path, b"", 0o600);
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-8000; PRAGMA temp_store=MEMORY;",
    )?;
    Ok(db)
}

fn failing(path: &Path) -> impl Fn(rusqlite::Error) -> CatalogError + use<> {
    let path = path.to_path_buf();
    move |source| {
        let error = failed(&path, source);
        if let CatalogError::Damaged { .. } = error {
            // If this cannot be written, the next run finds the damage again and reports it.
            let _ = crate::base::fs::create_private(&damage_mark(&path));
        }
        error
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> CatalogError {
    let is_damage = is_damage(&source);
    if may_lack_room(&source)
        && let Some(disk) = crate::base::fs::full_disk(path)
    {
        return CatalogError::DiskFull {
            disk: disk.display().to_string(),
            path: path.display().to_string(),
        };
    }
    let path = path.display().to_string();
    match is_damage {
        true => CatalogError::Damaged { path, source },
        false => CatalogError::Sqlite { path, source },
    }
}

/// Returns the path of the file that shows the next run that the catalog is damaged: SQLite would
/// not notice it when it opens a file with a sound head.
fn damage_mark(path: &Path) -> PathBuf {
    path.with_extension("is-damaged")
}

/// Returns whether an error shows damage of the file and not a problem of the system around it: our
/// statements and types always fit a sound catalog.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        ConstraintViolation, DatabaseCorrupt, NotADatabase, TypeMismatch, Unknown,
    };
    let code = crate::base::sqlite::error_kind(error);
    // Unknown is SQLite's error for a wrong statement. Ours are right, so the tables are not those
    // that we created.
    let is_damaged = matches!(
        code,
        Some(ConstraintViolation | DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown)
    );
    is_damaged || is_strange(error) || matches!(error, rusqlite::Error::QueryReturnedNoRows)
}

/// Reads a row with a checksum: if its values have types that were never written, the row is
/// unknown, too.
fn known<T>(read: impl FnOnce() -> rusqlite::Result<Option<T>>) -> rusqlite::Result<Option<T>> {
    match read() {
        Err(error) if is_strange(&error) => Ok(None),
        other => other,
    }
}

/// Returns whether the error shows a value that no run of this program wrote.
fn is_strange(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    )
}
