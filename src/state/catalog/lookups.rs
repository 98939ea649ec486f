//! Looks up chunks one by one, in a read transaction that lasts from look-up to look-up.

use rusqlite::OptionalExtension as _;

use super::{Catalog, CatalogError, ChunkHash, ChunkPlace, known, row_checksum};

impl Catalog {
    /// Estimates the number of chunks from the size of the file.
    pub fn about_chunks(&self) -> Result<usize, CatalogError> {
        const CHUNKS_IN_A_PAGE: usize = 60;
        let pages: i64 = self
            .db
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .map_err(self.fail())?;
        Ok(pages as usize * CHUNKS_IN_A_PAGE)
    }

    /// Ends the read transaction of the look-ups, so that later ones see new rows and the log can
    /// be checkpointed. Call it after a batch of look-ups and before any write.
    pub fn end_lookups(&self) -> Result<(), CatalogError> {
        match self.lookups.is_autocommit() {
            true => Ok(()),
            false => self.lookups.execute_batch("COMMIT").map_err(self.fail()),
        }
    }

    /// Begins a batch of look-ups, which see the catalog as it is now until [`Self::end_lookups`].
    pub fn begin_lookups(&self) -> Result<(), CatalogError> {
        match self.lookups.is_autocommit() {
            true => self.lookups.execute_batch("BEGIN").map_err(self.fail()),
            false => Ok(()),
        }
    }

    /// Returns the place of a chunk; `None` if it is unknown, or its row fails its checksum.
    pub fn find_chunk(&self, hash: &ChunkHash) -> Result<Option<ChunkPlace>, CatalogError> {
        let mut query = self
            .lookups
            .prepare_cached("SELECT archive, offset, length FROM chunks WHERE hash=?1")
            .map_err(self.fail())?;
        let found = query
            .query_row([&hash[..]], |row| {
                known(|| {
                    let (length, checked) = row_checksum::unpack(row.get(2)?);
                    let place = ChunkPlace {
                        archive: row.get(0)?,
                        offset: row.get::<_, i64>(1)? as u64,
                        length,
                    };
                    Ok((checked == row_checksum::of_chunk(hash, &place)).then_some(place))
                })
            })
            .optional()
            .map_err(self.fail())?;
        Ok(found.flatten())
    }

    /// Returns whether any chunk is known.
    pub fn has_chunks(&self) -> Result<bool, CatalogError> {
        self.db
            .query_row("SELECT EXISTS(SELECT 1 FROM chunks)", [], |row| row.get(0))
            .map_err(self.fail())
    }
}
