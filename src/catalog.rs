//! The host's own memory, in SQLite: which chunk lies in which archive, which archive on which
//! target, which snapshots were made. Disposable: losing it costs one full push.
//!
//! Crash argument: a row for an archive is committed (`synchronous = FULL`) only after the sealed
//! object is durable in the spool, together with the rows of its chunks; a placement only after
//! the target confirmed it. So whatever the catalog says is true, and what it forgot is stored
//! again. A catalog that SQLite finds damaged is moved aside and a new one begun. SQLite does not see
//! a flipped bit within a row, and a wrong offset would go into every index from then on; so rows that
//! go there carry a check of their own ([`check`]), and one that fails it counts as unknown.

mod check;
mod checks;
mod snapshots;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use crate::ids::{ArchiveId, Hash, WriterId};
use crate::manifest::{ArchiveKind, ArchiveRow, recipient_set_name};

pub use checks::Check;
pub use snapshots::SnapshotRow;
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

const CATALOG_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recipient_sets(name TEXT PRIMARY KEY, members TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives(
  n INTEGER PRIMARY KEY, writer BLOB NOT NULL, counter INTEGER NOT NULL, kind TEXT NOT NULL,
  blake3 BLOB NOT NULL UNIQUE, sha256 BLOB NOT NULL, bytes INTEGER NOT NULL,
  recipient_set TEXT NOT NULL, head_sha256 BLOB NOT NULL,
  tar_bytes INTEGER NOT NULL, tar_blake3 BLOB NOT NULL, live_bytes INTEGER,
  UNIQUE(writer, counter));
CREATE TABLE IF NOT EXISTS chunks(
  hash BLOB PRIMARY KEY, archive INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL
  ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS placements(
  archive INTEGER NOT NULL, target TEXT NOT NULL, PRIMARY KEY(target, archive)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots(
  core BLOB PRIMARY KEY, sequence INTEGER NOT NULL, stamp TEXT NOT NULL, name TEXT NOT NULL,
  bytes INTEGER NOT NULL, new_bytes INTEGER NOT NULL, foreign_writer INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS publications(
  target TEXT NOT NULL, core BLOB NOT NULL, published_at TEXT NOT NULL, state TEXT NOT NULL,
  PRIMARY KEY(target, core)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checks(
  target TEXT NOT NULL, blake3 BLOB NOT NULL, checked_at TEXT NOT NULL, ok INTEGER DEFAULT 1,
  PRIMARY KEY(target, blake3)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs(
  id INTEGER PRIMARY KEY, started_at TEXT NOT NULL, ended_at TEXT, stamp TEXT, outcome TEXT, message TEXT);
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

/// An archive as the catalog knows it.
#[derive(Debug, Clone)]
pub struct CatalogArchive {
    /// The catalog's own number.
    pub n: i64,
    pub row: ArchiveRow,
    pub tar_bytes: u64,
    pub tar_blake3: Hash,
    /// Bytes of the tar stream that a snapshot used: the last one that used any, or of an index
    /// archive the last one. `None` before the first.
    pub live_bytes: Option<u64>,
}

/// A sealed archive that the catalog does not know yet.
#[derive(Debug, Clone)]
pub struct NewArchive {
    pub row: ArchiveRow,
    pub tar_bytes: u64,
    pub tar_blake3: Hash,
}

/// A chunk in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewChunk {
    pub hash: ChunkHash,
    /// Its place in the list of new archives.
    pub archive: u32,
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug)]
pub struct Catalog {
    /// For [`Self::find_chunk`]: its read transaction stays open from look-up to look-up, which spares
    /// each of them the taking of locks. Closed before `db`, which tidies up the log.
    lookups: Connection,
    db: Connection,
    path: PathBuf,
    writer: WriterId,
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
        let db = Connection::open(path).map_err(fail)?;
        db.busy_timeout(Duration::from_secs(10)).map_err(fail)?;
        db.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-8000; PRAGMA temp_store=MEMORY;",
        )
        .map_err(fail)?;
        let found: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fail)?;
        if found > CATALOG_VERSION {
            return Err(CatalogError::Version {
                path: path.display().to_string(),
                found,
            });
        }
        db.execute_batch(SCHEMA).map_err(fail)?;
        checks::complete_table(&db).map_err(fail)?;
        db.pragma_update(None, "user_version", CATALOG_VERSION)
            .map_err(fail)?;
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
            replaced: None,
        };
        catalog.writer = match catalog.meta("writer")?.and_then(|text| text.parse().ok()) {
            Some(writer) => writer,
            None => catalog.renew_writer()?,
        };
        // Of a row that is not as it was written nobody knows the number, and none must be given twice.
        if catalog.read_archives()?.iter().any(Option::is_none) {
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
        let path = self.path.clone();
        move |source| {
            let error = failed(&path, source);
            if let CatalogError::Damaged { .. } = error {
                // Where this cannot be written the next run meets the damage again, and says so.
                let _ = std::fs::write(damage_mark(&path), b"");
            }
            error
        }
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

    /// The id that the next archive gets; it is used up when [`Self::commit_archives`] says so. By the rows
    /// themselves: a damaged index may have forgotten some of them.
    pub fn next_archive_id(&self) -> Result<ArchiveId, CatalogError> {
        let last: Option<i64> = self
            .db
            .query_row(
                // The rows themselves: an index can be damaged by itself.
                "SELECT MAX(counter) FROM archives NOT INDEXED WHERE writer=?1",
                [&self.writer.0[..]],
                |row| row.get(0),
            )
            .map_err(self.fail())?;
        let last = last.unwrap_or(0);
        let next = last.checked_add(1).filter(|next| *next > 0);
        let counter = next.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, last));
        Ok(ArchiveId {
            writer: self.writer,
            counter: counter.map_err(self.fail())? as u64,
        })
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

    /// Records sealed archives and the chunks in them, in one transaction; gives the archives' numbers. In key
    /// order, the chunks go into neighbouring pages.
    pub fn commit_archives(
        &mut self,
        archives: &[NewArchive],
        chunks: &[NewChunk],
    ) -> Result<Vec<i64>, CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        let mut numbers = Vec::new();
        for archive in archives {
            let n = unused_number(&tx, &fail)?;
            insert_archive(&tx, n, archive).map_err(&fail)?;
            numbers.push(n);
        }
        for chunk in chunks {
            let place = ChunkPlace {
                archive: numbers[chunk.archive as usize],
                offset: chunk.offset,
                length: chunk.length,
            };
            insert_chunk(&tx, &chunk.hash, &place).map_err(&fail)?;
        }
        tx.commit().map_err(&fail)?;
        self.end_lookups()?;
        Ok(numbers)
    }

    /// Records archives that it knew once or another catalog does, unless it knows them; gives their numbers.
    pub fn learn_archives(
        &mut self,
        archives: &[NewArchive],
    ) -> Result<HashMap<ArchiveId, i64>, CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        let mut numbers = HashMap::new();
        for archive in archives {
            let known = tx
                .query_row(
                    "SELECT n FROM archives WHERE blake3=?1",
                    [&archive.row.blake3.0[..]],
                    |row| row.get(0),
                )
                .optional()
                .map_err(&fail)?;
            let n = match known {
                Some(n) => n,
                None => {
                    let n = unused_number(&tx, &fail)?;
                    insert_archive(&tx, n, archive).map_err(&fail)?;
                    n
                }
            };
            numbers.insert(archive.row.id, n);
        }
        tx.commit().map_err(&fail)?;
        Ok(numbers)
    }

    /// Records where chunks lie, in one transaction.
    pub fn learn_chunks(&mut self, chunks: &[(ChunkHash, ChunkPlace)]) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        for (hash, place) in chunks {
            insert_chunk(&tx, hash, place).map_err(&fail)?;
        }
        tx.commit().map_err(&fail)?;
        self.end_lookups()
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
    /// many and is through calls it: the log cannot be tidied up meanwhile.
    pub fn end_lookups(&self) -> Result<(), CatalogError> {
        match self.lookups.is_autocommit() {
            true => Ok(()),
            false => self.lookups.execute_batch("COMMIT").map_err(self.fail()),
        }
    }

    pub fn find_chunk(&self, hash: &ChunkHash) -> Result<Option<ChunkPlace>, CatalogError> {
        if self.lookups.is_autocommit() {
            self.lookups.execute_batch("BEGIN").map_err(self.fail())?;
        }
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

    pub fn archives(&self) -> Result<Vec<CatalogArchive>, CatalogError> {
        Ok(self.read_archives()?.into_iter().flatten().collect())
    }

    /// `None` for each row that is not as it was written.
    fn read_archives(&self) -> Result<Vec<Option<CatalogArchive>>, CatalogError> {
        let mut query = self
            .db
            .prepare(
                "SELECT n,writer,counter,kind,blake3,sha256,bytes,recipient_set,head_sha256,tar_bytes,tar_blake3,live_bytes
                 FROM archives ORDER BY n",
            )
            .map_err(self.fail())?;
        let rows = query
            .query_map([], |row| known(|| read_archive(row)))
            .map_err(self.fail())?;
        let mut archives: Vec<Option<CatalogArchive>> =
            rows.collect::<Result<_, _>>().map_err(self.fail())?;
        // Which of two is meant by an id that a damaged index let both have nobody knows.
        let mut seen: HashMap<ArchiveId, u32> = HashMap::new();
        for archive in archives.iter().flatten() {
            *seen.entry(archive.row.id).or_default() += 1;
        }
        for archive in &mut archives {
            archive.take_if(|archive| seen[&archive.row.id] > 1);
        }
        Ok(archives)
    }

    /// Archives confirmed on `target`, by number.
    pub fn placed_on(&self, target: &str) -> Result<HashSet<i64>, CatalogError> {
        let mut query = self
            .db
            .prepare("SELECT archive FROM placements WHERE target=?1")
            .map_err(self.fail())?;
        let rows = query
            .query_map([target], |row| row.get(0))
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Replaces what is believed of `target` by what a listing just showed.
    pub fn set_placements(
        &mut self,
        target: &str,
        archives: impl IntoIterator<Item = i64>,
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        tx.execute("DELETE FROM placements WHERE target=?1", [target])
            .map_err(&fail)?;
        for n in archives {
            tx.execute("INSERT INTO placements VALUES(?1,?2)", params![n, target])
                .map_err(&fail)?;
        }
        tx.commit().map_err(&fail)
    }

    /// Notes that `target` confirmed `archives`, in one transaction: each is a flush of the disk.
    pub fn add_placements(
        &mut self,
        target: &str,
        archives: impl IntoIterator<Item = i64>,
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        for n in archives {
            let sql = "INSERT OR IGNORE INTO placements VALUES(?1,?2)";
            tx.execute(sql, params![n, target]).map_err(&fail)?;
        }
        tx.commit().map_err(&fail)
    }

    /// Forgets archives that are nowhere any more, and their chunks.
    pub fn forget_archives(&mut self, lost: &HashSet<i64>) -> Result<(), CatalogError> {
        if lost.is_empty() {
            return Ok(());
        }
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        tx.execute_batch("CREATE TEMP TABLE lost(n INTEGER PRIMARY KEY)")
            .map_err(&fail)?;
        for n in lost {
            tx.execute("INSERT INTO lost VALUES(?1)", [n])
                .map_err(&fail)?;
        }
        tx.execute_batch(
            "DELETE FROM chunks WHERE archive IN (SELECT n FROM lost);
             DELETE FROM placements WHERE archive IN (SELECT n FROM lost);
             DELETE FROM archives WHERE n IN (SELECT n FROM lost)
               AND (writer, counter) NOT IN (SELECT writer, MAX(counter) FROM archives GROUP BY writer);
             DROP TABLE lost;",
        )
        .map_err(&fail)?;
        tx.commit().map_err(&fail)?;
        self.end_lookups()
    }

    /// Records how much of each archive the newest snapshot uses. Of the others' data nothing is
    /// learned: a source that is taken now and then would else be stored anew each time.
    pub fn set_live_bytes(&mut self, live: &HashMap<i64, u64>) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        tx.execute(
            "UPDATE archives SET live_bytes=0 WHERE kind=?1 AND (live_bytes<>0 OR live_bytes IS NULL)",
            [kind_text(ArchiveKind::Index)],
        )
        .map_err(&fail)?;
        for (n, bytes) in live {
            tx.execute(
                "UPDATE archives SET live_bytes=?2 WHERE n=?1",
                params![n, *bytes as i64],
            )
            .map_err(&fail)?;
        }
        tx.commit().map_err(&fail)
    }
}

fn kind_text(kind: ArchiveKind) -> &'static str {
    match kind {
        ArchiveKind::Data => "data",
        ArchiveKind::Index => "index",
    }
}

/// A row with a check of its own: if it holds values of types that were never written it is unknown as well.
fn known<T>(read: impl FnOnce() -> rusqlite::Result<Option<T>>) -> rusqlite::Result<Option<T>> {
    match read() {
        Err(error) if is_strange(&error) => Ok(None),
        other => other,
    }
}

/// `None`: the row is not as it was written.
fn read_archive(row: &Row<'_>) -> rusqlite::Result<Option<CatalogArchive>> {
    let hash = |column| -> rusqlite::Result<Hash> { Ok(Hash(row.get(column)?)) };
    let kind: String = row.get(3)?;
    let (tar_bytes, checked) = check::unpack(row.get(9)?);
    let archive = CatalogArchive {
        n: row.get(0)?,
        row: ArchiveRow {
            id: ArchiveId {
                writer: WriterId(row.get(1)?),
                counter: row.get::<_, i64>(2)? as u64,
            },
            kind: match kind.as_str() {
                "index" => ArchiveKind::Index,
                _ => ArchiveKind::Data,
            },
            blake3: hash(4)?,
            sha256: hash(5)?,
            bytes: row.get::<_, i64>(6)? as u64,
            recipient_set: row.get(7)?,
            head_sha256: hash(8)?,
        },
        tar_bytes,
        tar_blake3: hash(10)?,
        live_bytes: row.get::<_, Option<i64>>(11)?.map(|bytes| bytes as u64),
    };
    let expected = check::of_archive(archive.n, &archive.row, tar_bytes, &archive.tar_blake3);
    Ok((checked == expected).then_some(archive))
}

fn insert_chunk(tx: &Connection, hash: &ChunkHash, place: &ChunkPlace) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO chunks VALUES(?1,?2,?3,?4)")?;
    let length = check::pack(place.length, check::of_chunk(hash, place));
    let row = params![&hash[..], place.archive, place.offset as i64, length];
    insert.execute(row).map(drop)
}

/// Drawn, not counted: what a damaged catalog still says of the chunks of an archive that it forgot must not be
/// believed of another one that got the same number.
fn unused_number(
    tx: &Connection,
    fail: impl Fn(rusqlite::Error) -> CatalogError,
) -> Result<i64, CatalogError> {
    loop {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_err(CatalogError::Random)?;
        let n = i64::from(u32::from_le_bytes(bytes) >> 1);
        let is_used = "SELECT EXISTS(SELECT 1 FROM archives WHERE n=?1)";
        let is_used: bool = tx
            .query_row(is_used, [n], |row| row.get(0))
            .map_err(&fail)?;
        if !is_used {
            return Ok(n);
        }
    }
}

fn insert_archive(tx: &Connection, n: i64, archive: &NewArchive) -> rusqlite::Result<()> {
    let NewArchive {
        row,
        tar_bytes,
        tar_blake3,
    } = archive;
    tx.execute(
        "INSERT INTO archives(n,writer,counter,kind,blake3,sha256,bytes,recipient_set,head_sha256,tar_bytes,tar_blake3)
         VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
        params![
            n,
            &row.id.writer.0[..],
            row.id.counter as i64,
            kind_text(row.kind),
            &row.blake3.0[..],
            &row.sha256.0[..],
            row.bytes as i64,
            row.recipient_set,
            &row.head_sha256.0[..],
            check::pack(*tar_bytes, check::of_archive(n, row, *tar_bytes, tar_blake3)),
            &tar_blake3.0[..]
        ],
    )?;
    Ok(())
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
    let code = match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        other => other.sqlite_error_code(),
    };
    // Unknown is SQLite's complaint about a statement. Ours are right: the tables are not what was made.
    let is_damaged = matches!(
        code,
        Some(ConstraintViolation | DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown)
    );
    is_damaged || is_strange(error) || matches!(error, rusqlite::Error::QueryReturnedNoRows)
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
