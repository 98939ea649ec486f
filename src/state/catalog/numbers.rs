//! Numbers of new archives. None may be used twice, not even by a catalog that is damaged.

use std::sync::Arc;

use rusqlite::Connection;

use super::{Catalog, CatalogError, NewArchive, known};
use crate::base::ids::ArchiveId;

/// A catalog of at most this many archives is read in full when it is opened.
const READ_IN_FULL: i64 = 512;

/// Catalog entry: the writer of the newest archives and its highest counter. A row with a wrong
/// checksum does not show its number, and no number may be used twice.
const HIGHEST_ARCHIVE: &str = "highest archive";

impl Catalog {
    /// Returns whether the number of the next archive was certainly given to none before.
    ///
    /// All rows are read of a small catalog, so its damage is noticed early, and of one whose index
    /// does not have the noted highest number. In any other catalog each row is checked when it is
    /// read.
    pub(super) fn has_sound_numbers(&self) -> Result<bool, CatalogError> {
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

    /// Returns the highest counter of this writer that was noted beside the rows.
    fn noted_highest(&self) -> Result<Option<i64>, CatalogError> {
        let noted = self.meta(HIGHEST_ARCHIVE)?.unwrap_or_default();
        let counter = noted
            .split_once(' ')
            .filter(|(writer, _)| *writer == self.writer.to_string());
        Ok(counter.and_then(|(_, counter)| counter.parse().ok()))
    }

    /// Returns whether a number is noted and is the highest counter of this writer by the index.
    fn is_by_index(&self, noted: Option<i64>) -> Result<bool, CatalogError> {
        if noted.is_none() {
            return Ok(false);
        }
        let sql = "SELECT MAX(counter) FROM archives WHERE writer=?1";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let highest = query.query_row([&self.writer.0[..]], |row| {
            known(|| Ok(Some(row.get::<_, Option<i64>>(0)?)))
        });
        Ok(highest.map_err(self.fail())? == Some(noted))
    }

    /// Returns the id of the next archive, which [`Self::commit_archives`] uses up. If the index
    /// and the noted number do not agree, the rows themselves decide: an index can be damaged by
    /// itself.
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
}

/// Notes the highest counter of the newest archives' writer.
pub(super) fn note_highest(tx: &Connection, archives: &[NewArchive]) -> rusqlite::Result<()> {
    let Some(highest) = archives
        .iter()
        .map(|one| one.row.id)
        .max_by_key(|id| id.counter)
    else {
        return Ok(());
    };
    let value = format!("{} {}", highest.writer, highest.counter);
    tx.execute(
        "INSERT OR REPLACE INTO meta VALUES(?1,?2)",
        [HIGHEST_ARCHIVE, &value],
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Hash;
    use crate::format::archive_table::{ArchiveKind, ArchiveRow};

    /// Kind: the index of the numbers shows nothing, whatever is noted beside the rows.
    #[test]
    fn no_number_is_given_twice_if_the_index_has_lost_its_rows() {
        for also in ["", "DELETE FROM meta WHERE key='highest archive';"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("catalog.db");
            let mut catalog = Catalog::open(&path).unwrap();
            let writer = catalog.writer();
            let id = ArchiveId { writer, counter: 7 };
            let row = ArchiveRow {
                id,
                kind: ArchiveKind::Data,
                blake3: Hash([1; 32]),
                sha256: Hash([2; 32]),
                bytes: 1000,
                recipient_set: "0123456789abcdef".to_owned(),
                head_sha256: Hash([3; 32]),
            };
            let archive = NewArchive {
                row,
                tar_bytes: 4096,
                tar_blake3: Hash([4; 32]),
            };
            catalog.commit_archives(&[archive], &[]).unwrap();
            let emptied = format!(
                "{also} CREATE TABLE spare(writer, counter); CREATE INDEX spare_index ON spare(writer, counter);
                 PRAGMA writable_schema=ON;
                 UPDATE sqlite_schema SET rootpage=(SELECT rootpage FROM sqlite_schema WHERE name='spare_index')
                 WHERE name='sqlite_autoindex_archives_2';"
            );
            catalog.db.execute_batch(&emptied).unwrap();
            drop(catalog);
            let catalog = Catalog::open(&path).unwrap();
            let next = catalog.next_archive_id().unwrap();
            assert!(
                next.writer != writer || next.counter == 8,
                "{also}: {next:?}"
            );
        }
    }
}
