//! All chunks of a catalog in memory, for a run that looks up many: a look-up in the database takes twenty
//! times as long as one here.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Catalog;
use super::CatalogError;
use super::ChunkHash;
use super::ChunkPlace;
use super::row_checksum;

/// Where each chunk lies.
#[derive(Debug, Default)]
pub struct ChunkTable {
    places: HashMap<ChunkHash, PackedPlace, RandomState>,
}

/// Some bytes less than a [`ChunkPlace`], a million times.
#[derive(Debug, Clone, Copy)]
struct PackedPlace {
    archive: u32,
    length: u32,
    offset: u64,
}

impl ChunkTable {
    pub fn get(&self, hash: &ChunkHash) -> Option<ChunkPlace> {
        self.places.get(hash).map(|place| ChunkPlace {
            archive: place.archive.into(),
            offset: place.offset,
            length: place.length.into(),
        })
    }

    /// A place that does not fit is left out: the chunk is stored again.
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
    /// Every chunk, if there are no more than `most`.
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
                // As in a single look-up: what fails its check is unknown.
                if checked == row_checksum::of_chunk(&hash, &place) {
                    table.insert(hash, &place);
                }
                Ok(())
            };
            // So does a row that is none.
            let _ = read();
        }
        Ok(Some(table))
    }
}
