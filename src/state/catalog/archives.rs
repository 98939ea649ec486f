//! The catalog's rows of archives, of the chunks in them, and of their placements on targets.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Params, Row, TransactionBehavior, params};

use super::Catalog;
use super::CatalogError;
use super::ChunkHash;
use super::ChunkPlace;
use super::connect;
use super::failing;
use super::known;
use super::numbers::note_highest;
use super::row_checksum;
use crate::base::ids::{ArchiveId, Hash, WriterId};
use crate::format::manifest::{ArchiveKind, ArchiveRow};

/// An archive as the catalog knows it.
#[derive(Debug, Clone)]
pub struct CatalogArchive {
    /// The catalog's own number.
    pub n: i64,
    /// The row of the archive table.
    pub row: ArchiveRow,
    /// Length of the tar stream in bytes.
    pub tar_bytes: u64,
    /// BLAKE3 of the tar stream.
    pub tar_blake3: Hash,
    /// Bytes of the tar stream that a snapshot used: the last one that used any, or of an index
    /// archive the last one. `None` before the first.
    pub live_bytes: Option<u64>,
}

/// A sealed archive that the catalog does not know yet.
#[derive(Debug, Clone)]
pub struct NewArchive {
    /// The row of the archive table.
    pub row: ArchiveRow,
    /// Length of the tar stream in bytes.
    pub tar_bytes: u64,
    /// BLAKE3 of the tar stream.
    pub tar_blake3: Hash,
}

/// A chunk in a new archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewChunk {
    /// The chunk's hash.
    pub hash: ChunkHash,
    /// The index of its archive in the list of new archives.
    pub archive: u32,
    /// Offset in the tar stream in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Catalog {
    /// Opens a connection for a thread that records archives while this one is used for look-ups.
    pub fn recorder(&self) -> Result<Recorder, CatalogError> {
        Ok(Recorder {
            db: connect(&self.path).map_err(self.fail())?,
            path: self.path.clone(),
        })
    }

    /// Notes that a [`Recorder`] committed through its own connection, which writes no snapshots
    /// and no publications.
    pub fn note_recorded(&self) -> Result<(), CatalogError> {
        let version = self.version()?;
        self.cached_archives.forget();
        self.cached_snapshots.keep_for(version);
        self.cached_publications.keep_for(version);
        Ok(())
    }

    /// Does the same as [`Recorder::commit_archives`].
    pub fn commit_archives(
        &mut self,
        archives: &[NewArchive],
        chunks: &[NewChunk],
    ) -> Result<Vec<i64>, CatalogError> {
        self.cached_archives.forget();
        let fail = self.fail();
        let numbers = commit_archives(&mut self.db, fail, archives, chunks)?;
        self.end_lookups()?;
        Ok(numbers)
    }

    /// Records archives that an earlier or another catalog knew, unless they are known, and returns
    /// their numbers.
    pub fn learn_archives(
        &mut self,
        archives: &[NewArchive],
    ) -> Result<HashMap<ArchiveId, i64>, CatalogError> {
        self.cached_archives.forget();
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

    /// Records the places of chunks, in one transaction.
    pub fn learn_chunks(&mut self, chunks: &[(ChunkHash, ChunkPlace)]) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        for (hash, place) in chunks {
            insert_chunk(&tx, hash, place).map_err(&fail)?;
        }
        tx.commit().map_err(&fail)?;
        self.end_lookups()
    }

    /// Returns every archive whose row has the right checksum.
    pub fn archives(&self) -> Result<Arc<Vec<CatalogArchive>>, CatalogError> {
        self.cached_archives.get(self.version()?, || {
            let rows = self.read_archives()?.into_iter().flatten();
            Ok(Arc::new(rows.collect()))
        })
    }

    /// Returns the numbers of those archives of `hashes` that are known.
    pub fn archive_numbers(
        &self,
        hashes: impl IntoIterator<Item = Hash>,
    ) -> Result<HashMap<Hash, i64>, CatalogError> {
        let mut query = self
            .db
            .prepare_cached("SELECT n FROM archives WHERE blake3=?1")
            .map_err(self.fail())?;
        let mut numbers = HashMap::new();
        for hash in hashes {
            let n = query.query_row([&hash.0[..]], |row| row.get(0)).optional();
            if let Some(n) = n.map_err(self.fail())? {
                numbers.insert(hash, n);
            }
        }
        Ok(numbers)
    }

    /// Returns whether `target` confirmed the archive `n`.
    pub fn is_placed(&self, target: &str, n: i64) -> Result<bool, CatalogError> {
        let mut query = self
            .db
            .prepare_cached("SELECT 1 FROM placements WHERE target=?1 AND archive=?2")
            .map_err(self.fail())?;
        query.exists(params![target, n]).map_err(self.fail())
    }

    /// Reads all rows. `None`: the row's checksum is wrong.
    pub(super) fn read_archives(&self) -> Result<Vec<Option<CatalogArchive>>, CatalogError> {
        self.read_archives_where("1 ORDER BY n", [])
    }

    /// Reads the rows that meet an SQL condition, as [`Self::read_archives`] does.
    pub(super) fn read_archives_where(
        &self,
        condition: &str,
        values: impl Params,
    ) -> Result<Vec<Option<CatalogArchive>>, CatalogError> {
        let sql = format!(
            "SELECT n,writer,counter,kind,blake3,sha256,bytes,recipient_set,head_sha256,tar_bytes,tar_blake3,live_bytes
             FROM archives WHERE {condition}"
        );
        let mut query = self.db.prepare_cached(&sql).map_err(self.fail())?;
        let rows = query
            .query_map(values, |row| known(|| read_archive(row)))
            .map_err(self.fail())?;
        let mut archives: Vec<Option<CatalogArchive>> =
            rows.collect::<Result<_, _>>().map_err(self.fail())?;
        // A damaged index can let two archives have one id: which one is meant is unknown.
        let mut seen: HashMap<ArchiveId, u32> = HashMap::new();
        for archive in archives.iter().flatten() {
            *seen.entry(archive.row.id).or_default() += 1;
        }
        for archive in &mut archives {
            archive.take_if(|archive| seen[&archive.row.id] > 1);
        }
        Ok(archives)
    }

    /// Returns the numbers of the archives that `target` confirmed.
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

    /// Replaces the placements on `target` by those that a listing has just shown.
    pub fn set_placements(
        &mut self,
        target: &str,
        archives: impl IntoIterator<Item = i64>,
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        tx.execute("DELETE FROM placements WHERE target=?1", [target])
            .map_err(&fail)?;
        place(&tx, target, archives).map_err(&fail)?;
        tx.commit().map_err(&fail)
    }

    /// Records that `target` confirmed `archives`, in one transaction: each transaction flushes the
    /// disk.
    pub fn add_placements(
        &mut self,
        target: &str,
        archives: impl IntoIterator<Item = i64>,
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        place(&tx, target, archives).map_err(&fail)?;
        tx.commit().map_err(&fail)
    }

    /// Forgets archives that no longer exist anywhere, and their chunks.
    pub fn forget_archives(&mut self, lost: &HashSet<i64>) -> Result<(), CatalogError> {
        if lost.is_empty() {
            return Ok(());
        }
        self.cached_archives.forget();
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
             DELETE FROM in_use WHERE archive IN (SELECT n FROM lost);
             DELETE FROM archives WHERE n IN (SELECT n FROM lost)
               AND (writer, counter) NOT IN (SELECT writer, MAX(counter) FROM archives GROUP BY writer);
             DROP TABLE lost;",
        )
        .map_err(&fail)?;
        tx.commit().map_err(&fail)?;
        self.end_lookups()
    }
}

/// `None`: the row is not as it was written.
fn read_archive(row: &Row<'_>) -> rusqlite::Result<Option<CatalogArchive>> {
    let hash = |column| -> rusqlite::Result<Hash> { Ok(Hash(row.get(column)?)) };
    let kind: String = row.get(3)?;
    let (tar_bytes, checked) = row_checksum::unpack(row.get(9)?);
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
    let (n, row, tar_blake3) = (archive.n, &archive.row, &archive.tar_blake3);
    let is_whole = checked == row_checksum::of_archive(n, row, tar_bytes, tar_blake3)
        || checked == row_checksum::of_archive_1(n, row, tar_bytes, tar_blake3);
    Ok(is_whole.then_some(archive))
}

/// Records archives through a connection of its own.
pub struct Recorder {
    db: Connection,
    path: PathBuf,
}

impl Recorder {
    /// Records sealed archives and the chunks in them in one transaction, and returns the archives'
    /// numbers. Pass the chunks in key order: they go into neighbouring pages then.
    pub fn commit_archives(
        &mut self,
        archives: &[NewArchive],
        chunks: &[NewChunk],
    ) -> Result<Vec<i64>, CatalogError> {
        commit_archives(&mut self.db, failing(&self.path), archives, chunks)
    }
}

fn commit_archives(
    db: &mut Connection,
    fail: impl Fn(rusqlite::Error) -> CatalogError,
    archives: &[NewArchive],
    chunks: &[NewChunk],
) -> Result<Vec<i64>, CatalogError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(&fail)?;
    let mut numbers = Vec::new();
    for archive in archives {
        let n = unused_number(&tx, &fail)?;
        insert_archive(&tx, n, archive).map_err(&fail)?;
        numbers.push(n);
    }
    note_highest(&tx, archives).map_err(&fail)?;
    for chunk in chunks {
        let place = ChunkPlace {
            archive: numbers[chunk.archive as usize],
            offset: chunk.offset,
            length: chunk.length,
        };
        insert_chunk(&tx, &chunk.hash, &place).map_err(&fail)?;
    }
    tx.commit().map_err(&fail)?;
    Ok(numbers)
}

pub(super) fn place(
    tx: &Connection,
    target: &str,
    archives: impl IntoIterator<Item = i64>,
) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO placements VALUES(?1,?2)")?;
    let mut archives = archives.into_iter();
    archives.try_for_each(|n| insert.execute(params![n, target]).map(drop))
}

fn insert_chunk(tx: &Connection, hash: &ChunkHash, place: &ChunkPlace) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO chunks VALUES(?1,?2,?3,?4)")?;
    let length = row_checksum::pack(place.length, row_checksum::of_chunk(hash, place));
    let row = params![&hash[..], place.archive, place.offset as i64, length];
    insert.execute(row).map(drop)
}

/// Draws an unused number at random. With consecutive ones, the chunk rows that a damaged catalog
/// still has for a forgotten archive could be taken for those of a new archive with the same
/// number.
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
            row_checksum::kind_text(row.kind),
            &row.blake3.0[..],
            &row.sha256.0[..],
            row.bytes as i64,
            row.recipient_set,
            &row.head_sha256.0[..],
            row_checksum::pack(*tar_bytes, row_checksum::of_archive(n, row, *tar_bytes, tar_blake3)),
            &tar_blake3.0[..]
        ],
    )?;
    Ok(())
}
