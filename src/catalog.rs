//! The host's own memory, in SQLite: which chunk lies in which archive, which archive on which
//! target, which snapshots were made. Disposable: losing it costs one full push.
//!
//! Crash argument: a row for an archive is committed (`synchronous = FULL`) only after the sealed
//! object is durable in the spool, together with the rows of its chunks; a placement only after
//! the target confirmed it. So whatever the catalog says is true, and what it forgot is stored
//! again. A catalog that SQLite finds damaged is moved aside and a new one begun. SQLite does not see
//! a flipped bit within a row, and a wrong offset would go into every index from then on; so rows that
//! go there carry a check of their own ([`check`]), and one that fails it counts as unknown.

mod archives;
mod cached;
mod check;
mod checks;
mod chosen;
mod snapshots;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::ids::{ArchiveId, WriterId};
use crate::manifest::recipient_set_name;

use cached::Cached;

pub use archives::{CatalogArchive, NewArchive, NewChunk, Recorder};
pub use checks::Check;
pub use chosen::ArchiveSize;
pub use snapshots::{KnownGroup, Publications, SnapshotRow};
pub use table::ChunkTable;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog {path} failed (is the disk full, read-only or damaged?)")]
    Sqlite {
        path: String,
        #[source]
        source: rusqlite::Error,
    },
    #[error(
        "the catalog {path} is damaged; run again: it is put aside then and a new one begun, which costs one full push"
    )]
    Damaged {
        path: String,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot move the damaged catalog {path} aside")]
    MoveAside {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    #[error(
        "the catalog {path} is of version {found}; this sealift knows {CATALOG_VERSION}: use a newer one"
    )]
    Version { path: String, found: i64 },
}

/// 2: the check of an archive's row is of its columns; one of before, of the row as JSON, still counts.
const CATALOG_VERSION: i64 = 2;

/// A catalog of no more archives than this is read in full when it is opened.
const READ_IN_FULL: i64 = 512;

/// The writer of the newest archives, and the highest counter that it gave: of a row that is not as it was written
/// nobody knows the number, and none must be given twice.
const HIGHEST_ARCHIVE: &str = "highest archive";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
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

/// The first 24 bytes of a chunk's BLAKE3: 2^96 work to make two alike.
pub type ChunkHash = [u8; 24];

/// Where a chunk lies: `archive` is the catalog's own number of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    pub archive: i64,
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug)]
pub struct Catalog {
    /// For [`Self::find_chunk`]: its read transaction may stay open from look-up to look-up, which spares
    /// each of them the taking of locks. Closed before `db`, which tidies up the log.
    lookups: Connection,
    db: Connection,
    path: PathBuf,
    writer: WriterId,
    cached_archives: Cached<Arc<Vec<CatalogArchive>>>,
    cached_snapshots: Cached<Arc<Vec<SnapshotRow>>>,
    cached_publications: Cached<BTreeMap<String, Publications>>,
    /// Set when a damaged catalog was moved aside.
    pub replaced: Option<PathBuf>,
}

impl Catalog {
    /// Opens or makes the catalog. A damaged one is moved aside (`replaced` says where to).
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
            db.pragma_update(None, "user_version", CATALOG_VERSION)
                .map_err(fail)?;
        }
        checks::complete_table(&db).map_err(fail)?;
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

    /// Writes all of it into its one file, durably.
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

    /// Changes when another connection changed the database.
    fn version(&self) -> Result<i64, CatalogError> {
        self.db
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut query| query.query_row([], |row| row.get(0)))
            .map_err(self.fail())
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>, CatalogError> {
        self.db
            .query_row("SELECT value FROM meta WHERE key=?1", [key], |r| r.get(0))
            .optional()
            .map_err(self.fail())
    }

    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), CatalogError> {
        self.db
            .execute("INSERT OR REPLACE INTO meta VALUES(?1,?2)", [key, value])
            .map(drop)
            .map_err(self.fail())
    }

    /// Who numbers new archives.
    pub fn writer(&self) -> WriterId {
        self.writer
    }

    /// Draws a new writer: after a rebuild, or when the target knows more than this catalog.
    pub fn renew_writer(&mut self) -> Result<WriterId, CatalogError> {
        self.writer = WriterId::random().map_err(CatalogError::Random)?;
        self.set_meta("writer", &self.writer.to_string())?;
        Ok(self.writer)
    }

    /// Whether the number that the next archive gets was surely given to none before.
    ///
    /// Every row is looked at in a small catalog, whose damage is noticed early, and in one whose rows are not those
    /// that were counted. Of another one each row is checked when it is read.
    fn has_sound_numbers(&self) -> Result<bool, CatalogError> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM archives LIMIT ?1)";
        let count: i64 = self
            .db
            .query_row(sql, [READ_IN_FULL + 1], |row| row.get(0))
            .map_err(self.fail())?;
        if count > READ_IN_FULL && self.is_by_index(self.noted_highest()?)? {
            return Ok(true);
        }
        let version = self.version()?;
        let archives = self.read_archives()?;
        let is_whole = archives.iter().all(Option::is_some);
        let archives = || Ok::<_, CatalogError>(Arc::new(archives.into_iter().flatten().collect()));
        self.cached_archives.get(version, archives)?;
        Ok(is_whole)
    }

    /// The highest counter of this writer's that was noted beside the rows.
    fn noted_highest(&self) -> Result<Option<i64>, CatalogError> {
        let noted = self.meta(HIGHEST_ARCHIVE)?.unwrap_or_default();
        let counter = noted
            .split_once(' ')
            .filter(|(writer, _)| *writer == self.writer.to_string());
        Ok(counter.and_then(|(_, counter)| counter.parse().ok()))
    }

    /// Whether the index has the counter that was noted for the highest of this writer's.
    fn is_by_index(&self, noted: Option<i64>) -> Result<bool, CatalogError> {
        let sql = "SELECT MAX(counter) FROM archives WHERE writer=?1";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let highest = query.query_row([&self.writer.0[..]], |row| {
            known(|| Ok(Some(row.get::<_, Option<i64>>(0)?)))
        });
        Ok(highest.map_err(self.fail())? == Some(noted))
    }

    /// The id that the next archive gets; it is used up when [`Self::commit_archives`] says so. If the index and
    /// what was noted do not agree, the rows themselves decide: an index can be damaged by itself.
    pub fn next_archive_id(&self) -> Result<ArchiveId, CatalogError> {
        let noted = self.noted_highest()?;
        let last = match self.is_by_index(noted)? {
            true => noted,
            false => self.highest_by_rows()?.max(noted),
        };
        let last = last.unwrap_or(0);
        let next = last.checked_add(1).filter(|next| *next > 0);
        let counter = next.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, last));
        Ok(ArchiveId {
            writer: self.writer,
            counter: counter.map_err(self.fail())? as u64,
        })
    }

    fn highest_by_rows(&self) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT MAX(counter) FROM archives NOT INDEXED WHERE writer=?1";
        self.db
            .query_row(sql, [&self.writer.0[..]], |row| row.get(0))
            .map_err(self.fail())
    }

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

    /// How many chunks it has, about.
    pub fn about_chunks(&self) -> Result<usize, CatalogError> {
        const CHUNKS_IN_A_PAGE: usize = 60;
        let pages: i64 = self
            .db
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .map_err(self.fail())?;
        Ok(pages as usize * CHUNKS_IN_A_PAGE)
    }

    /// Lets go of what [`Self::find_chunk`] sees; the next one sees what is there then. Whoever looked up
    /// many and is through calls it, or lets someone write: the log cannot be tidied up meanwhile.
    pub fn end_lookups(&self) -> Result<(), CatalogError> {
        match self.lookups.is_autocommit() {
            true => Ok(()),
            false => self.lookups.execute_batch("COMMIT").map_err(self.fail()),
        }
    }

    /// The first look-up of many, which see the catalog as it is now: until [`Self::end_lookups`].
    pub fn begin_lookups(&self) -> Result<(), CatalogError> {
        match self.lookups.is_autocommit() {
            true => self.lookups.execute_batch("BEGIN").map_err(self.fail()),
            false => Ok(()),
        }
    }

    pub fn find_chunk(&self, hash: &ChunkHash) -> Result<Option<ChunkPlace>, CatalogError> {
        let mut query = self
            .lookups
            .prepare_cached("SELECT archive, offset, length FROM chunks WHERE hash=?1")
            .map_err(self.fail())?;
        let found = query
            .query_row([&hash[..]], |row| {
                known(|| {
                    let (length, checked) = check::unpack(row.get(2)?);
                    let place = ChunkPlace {
                        archive: row.get(0)?,
                        offset: row.get::<_, i64>(1)? as u64,
                        length,
                    };
                    Ok((checked == check::of_chunk(hash, &place)).then_some(place))
                })
            })
            .optional()
            .map_err(self.fail())?;
        Ok(found.flatten())
    }

    pub fn has_chunks(&self) -> Result<bool, CatalogError> {
        self.db
            .query_row("SELECT EXISTS(SELECT 1 FROM chunks)", [], |row| row.get(0))
            .map_err(self.fail())
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite would make it with the umask's mode, and what is beside it with the file's own. Where
    // this fails SQLite says why.
    let _ = crate::fs::write_new(path, b"", 0o600);
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
            // Where this cannot be written the next run meets the damage again, and says so.
            let _ = crate::fs::create_private(&damage_mark(&path));
        }
        error
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> CatalogError {
    let is_damage = is_damage(&source);
    let path = path.display().to_string();
    match is_damage {
        true => CatalogError::Damaged { path, source },
        false => CatalogError::Sqlite { path, source },
    }
}

/// Tells the next run that the catalog, whose head is sound, is damaged further in.
fn damage_mark(path: &Path) -> PathBuf {
    path.with_extension("is-damaged")
}

/// All that does not come from the system around it: our own statements and types always fit a sound catalog.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        ConstraintViolation, DatabaseCorrupt, NotADatabase, TypeMismatch, Unknown,
    };
    let code = crate::sqlite::error_kind(error);
    // Unknown is SQLite's complaint about a statement. Ours are right: the tables are not what was made.
    let is_damaged = matches!(
        code,
        Some(ConstraintViolation | DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown)
    );
    is_damaged || is_strange(error) || matches!(error, rusqlite::Error::QueryReturnedNoRows)
}

/// A row with a check of its own: if it holds values of types that were never written it is unknown as well.
fn known<T>(read: impl FnOnce() -> rusqlite::Result<Option<T>>) -> rusqlite::Result<Option<T>> {
    match read() {
        Err(error) if is_strange(&error) => Ok(None),
        other => other,
    }
}

/// A value that no run of this program wrote.
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
