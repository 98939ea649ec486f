//! Queries for some of the archives and their placements, whose cost does not grow with the number
//! of all archives.

use std::collections::HashSet;
use std::ops::Range;

use rusqlite::params;

use super::archives::place;
use super::{Catalog, CatalogArchive, CatalogError, known};
use crate::base::ids::Hash;

/// The part of an archive's row that a look at a target compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveSize {
    /// The catalog's own number.
    pub n: i64,
    /// BLAKE3 of the sealed archive, which is its name.
    pub blake3: Hash,
    /// Size of the sealed archive.
    pub bytes: u64,
}

impl From<&CatalogArchive> for ArchiveSize {
    fn from(archive: &CatalogArchive) -> Self {
        Self {
            n: archive.n,
            blake3: archive.row.blake3,
            bytes: archive.row.bytes,
        }
    }
}

impl Catalog {
    /// Returns the archive `n`; `None` if it is unknown or its row has a wrong checksum.
    pub fn archive(&self, n: i64) -> Result<Option<CatalogArchive>, CatalogError> {
        let found = self.read_archives_where("n=?1", [n])?;
        Ok(found.into_iter().flatten().next())
    }

    /// Returns the archives whose hashes begin with a byte of `shards`, and whether `target`
    /// confirmed each. Only an index is read, because the rows are scattered over as many pages of
    /// the file.
    pub fn archives_in(
        &self,
        shards: &Range<u16>,
        target: &str,
    ) -> Result<Vec<(ArchiveSize, bool)>, CatalogError> {
        // A bound of 33 bytes is greater than every hash.
        let bound = |shard: u16| u8::try_from(shard).map_or(vec![u8::MAX; 33], |byte| vec![byte]);
        let sql = "SELECT n, blake3, bytes,
               EXISTS(SELECT 1 FROM placements p WHERE p.target=?3 AND p.archive=archives.n)
             FROM archives INDEXED BY archive_sizes WHERE blake3>=?1 AND blake3<?2";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let values = params![bound(shards.start), bound(shards.end), target];
        let rows = query.query_map(values, |row| {
            known(|| {
                let size = ArchiveSize {
                    n: row.get(0)?,
                    blake3: Hash(row.get(1)?),
                    bytes: row.get::<_, i64>(2)? as u64,
                };
                Ok(Some((size, row.get(3)?)))
            })
        });
        let rows = rows.map_err(self.fail())?;
        let found: Vec<Option<_>> = rows.collect::<Result<_, _>>().map_err(self.fail())?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Returns those archives of `hashes` that are known.
    pub fn archives_named(
        &self,
        hashes: impl IntoIterator<Item = Hash>,
    ) -> Result<Vec<CatalogArchive>, CatalogError> {
        let _transaction = self.db.unchecked_transaction().map_err(self.fail())?;
        let mut found = Vec::new();
        for hash in hashes {
            found.extend(self.read_archives_where("blake3=?1", [&hash.0[..]])?);
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Returns how many archives `target` confirmed.
    pub fn count_placed(&self, target: &str) -> Result<usize, CatalogError> {
        let sql = "SELECT count(*) FROM placements WHERE target=?1";
        let count: i64 = self
            .db
            .query_row(sql, [target], |row| row.get(0))
            .map_err(self.fail())?;
        Ok(count as usize)
    }

    /// Returns those of `numbers` whose archives `target` confirmed.
    pub fn placed_among(
        &self,
        target: &str,
        numbers: impl IntoIterator<Item = i64>,
    ) -> Result<HashSet<i64>, CatalogError> {
        // Without a transaction each query would take and free the locks of the file.
        let _transaction = self.db.unchecked_transaction().map_err(self.fail())?;
        let mut placed = HashSet::new();
        for n in numbers {
            if self.is_placed(target, n)? {
                placed.insert(n);
            }
        }
        Ok(placed)
    }

    /// Forgets that `target` had `archives`.
    pub fn remove_placements(
        &mut self,
        target: &str,
        archives: impl IntoIterator<Item = i64>,
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        for n in archives {
            let sql = "DELETE FROM placements WHERE target=?1 AND archive=?2";
            tx.execute(sql, params![target, n]).map_err(&fail)?;
        }
        tx.commit().map_err(&fail)
    }

    /// Returns the key, in the `meta` table, of the shard at which the next look at `target`
    /// begins.
    pub fn next_shard_key(target: &str) -> String {
        format!("next look:{target}")
    }

    /// Does the same as [`Self::add_placements`] at the end of a push, and records in the same
    /// transaction that the next look at `target` begins at `shard`.
    pub fn add_placements_and_look(
        &mut self,
        target: &str,
        archives: impl IntoIterator<Item = i64>,
        shard: u16,
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        place(&tx, target, archives).map_err(&fail)?;
        tx.execute(
            "INSERT OR REPLACE INTO meta VALUES(?1,?2)",
            [Self::next_shard_key(target), shard.to_string()],
        )
        .map_err(&fail)?;
        tx.commit().map_err(&fail)
    }
}
