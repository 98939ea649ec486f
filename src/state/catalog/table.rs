//! All chunks of a catalog in memory, for a run with many look-ups: one in the database takes
//! twenty times as long.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Catalog;
use super::CatalogError;
use super::ChunkHash;
use super::ChunkPlace;
use super::row_checksum;

/// The place of each chunk.
#[derive(Debug, Default)]
pub struct ChunkTable {
    places: HashMap<ChunkHash, PackedPlace, RandomState>,
}

/// A [`ChunkPlace`] in fewer bytes, since there may be millions.
#[derive(Debug, Clone, Copy)]
struct PackedPlace {
    archive: u32,
    length: u32,
    offset: u64,
}

impl ChunkTable {
    /// Returns the place of a chunk; `None` if it is not in the table.
    pub fn get(&self, hash: &ChunkHash) -> Option<ChunkPlace> {
        self.places.get(hash).map(|place| ChunkPlace {
            archive: place.archive.into(),
            offset: place.offset,
            length: place.length.into(),
        })
    }

    /// Adds a chunk. One whose place does not fit is left out, so it will be stored again.
    pub fn insert(&mut self, hash: ChunkHash, place: &ChunkPlace) {
        let (Ok(archive), Ok(length)) = (place.archive.try_into(), place.length.try_into()) else {
            return;
        };
        let offset = place.offset;
        let place = PackedPlace {
            archive,
            length,
            offset,
        };
        self.places.insert(hash, place);
    }
}

impl Catalog {
    /// Returns every chunk; `None` if there are more than `most`.
    pub fn chunk_table(&self, most: usize) -> Result<Option<ChunkTable>, CatalogError> {
        let count: i64 = self
            .db
            .query_row("SELECT count(*) FROM chunks", [], |row| row.get(0))
            .map_err(self.fail())?;
        if count as usize > most {
            return Ok(None);
        }
        let mut query = self
            .db
            .prepare("SELECT hash, archive, offset, length FROM chunks")
            .map_err(self.fail())?;
        let mut rows = query.query([]).map_err(self.fail())?;
        let mut table = ChunkTable::default();
        table.places.reserve(count as usize);
        while let Some(row) = rows.next().map_err(self.fail())? {
            let mut read = || -> rusqlite::Result<()> {
                let (length, checked) = row_checksum::unpack(row.get(3)?);
                let hash: ChunkHash = row.get(0)?;
                let place = ChunkPlace {
                    archive: row.get(1)?,
                    offset: row.get::<_, i64>(2)? as u64,
                    length,
                };
                // As in a single look-up, a row with a wrong checksum is unknown.
                if checked == row_checksum::of_chunk(&hash, &place) {
                    table.insert(hash, &place);
                }
                Ok(())
            };
            // A row with values of other types is unknown, too.
            let _ = read();
        }
        Ok(Some(table))
    }
}
