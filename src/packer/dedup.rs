//! Which chunks are known, and where they are.
//!
//! A chunk counts as known if an archive has it that may be used: one sealed to at least today's
//! recipients and on every target or in the spool (the caller decides), or one that this run made.
//! Chunks go into the catalog only when their archive is sealed and durable.

use std::collections::{HashMap, HashSet};

use super::bloom::BloomFilter;
use super::catalog_writer::{CatalogWriter, CommittedBatch};
use super::chunk_hash::Chunk;
use super::error::PackError;
use super::rest::RestOfArchives;
use super::usage::UsableArchive;
use crate::base::ids::{ArchiveId, Hash};
use crate::format::archive_table::{ArchiveKind, ArchiveRow};
use crate::format::extent::Extent;
use crate::state::catalog::{Catalog, ChunkHash, ChunkPlace, ChunkTable, NewArchive};

/// After this many lookups the chunk table is loaded into memory.
const MANY_LOOKUPS: usize = 8192;
/// Largest chunk table to load (about 22 MB).
const MOST_IN_TABLE: usize = 450_000;

/// Offset and length of each chunk of an archive, in its tar stream.
pub(super) type ArchiveChunks = HashMap<ChunkHash, (u64, u64), foldhash::fast::RandomState>;

/// The archives of earlier runs that this run may use.
pub(super) struct ReusableArchives<'a> {
    /// Those that the caller looked at.
    pub(super) usable: Vec<UsableArchive>,
    /// The others.
    pub(super) rest: RestOfArchives<'a>,
}

/// The chunks of all archives that are sealed.
pub(super) struct Dedup<'a> {
    catalog: &'a mut Catalog,
    /// Ids of usable archives, by the catalog's number.
    by_number: HashMap<i64, ArchiveId>,
    usable: HashMap<ArchiveId, UsableArchive>,
    rest: RestOfArchives<'a>,
    /// If the catalog was empty when this run began: the chunks added since. A first push so avoids
    /// almost all lookups.
    pub(super) added: Option<BloomFilter>,
    /// Number of lookups in the catalog so far.
    lookups: usize,
    /// All chunks of the catalog, after [`MANY_LOOKUPS`].
    table: Option<ChunkTable>,
    pub(super) writer: CatalogWriter,
}

impl<'a> Dedup<'a> {
    /// `reusable` are the archives of earlier runs that may be used.
    pub(super) fn new(
        catalog: &'a mut Catalog,
        reusable: ReusableArchives<'a>,
    ) -> Result<Self, PackError> {
        let ReusableArchives { usable, rest } = reusable;
        let added = (!catalog.has_chunks()?).then(BloomFilter::new);
        let writer = CatalogWriter::new(catalog)?;
        Ok(Self {
            catalog,
            by_number: usable
                .iter()
                .filter_map(|u| Some((u.number?, u.row.id)))
                .collect(),
            usable: usable.into_iter().map(|u| (u.row.id, u)).collect(),
            rest,
            added,
            lookups: 0,
            table: None,
            writer,
        })
    }

    /// Returns where a chunk is, if a usable archive of `kind` has it.
    pub(super) fn find(
        &mut self,
        chunk: &Chunk,
        kind: ArchiveKind,
    ) -> Result<Option<Extent>, PackError> {
        if let Some((found, extent)) = self.writer.find(&chunk.hash) {
            return Ok((found == kind).then_some(extent));
        }
        if self
            .added
            .as_ref()
            .is_some_and(|added| !added.may_hold(&chunk.hash))
        {
            return Ok(None);
        }
        let Some(place) = self.look_up(&chunk.hash)? else {
            return Ok(None);
        };
        if !self.by_number.contains_key(&place.archive) {
            self.look_at_rest(place.archive)?;
        }
        let Some(id) = self.by_number.get(&place.archive) else {
            return Ok(None);
        };
        let fits = self.usable.get(id).is_some_and(|u| u.row.kind == kind);
        let same = place.length == chunk.length as u64;
        Ok((fits && same).then_some(Extent {
            archive: Some(*id),
            offset: place.offset,
            length: place.length,
        }))
    }

    /// Called for the archive `n` of a known chunk, which is not among those that may be used so
    /// far.
    fn look_at_rest(&mut self, n: i64) -> Result<(), PackError> {
        for more in self.rest.look(n, self.catalog)? {
            self.by_number
                .extend(more.number.map(|number| (number, more.row.id)));
            self.usable.entry(more.row.id).or_insert(more);
        }
        Ok(())
    }

    /// Returns the catalog's numbers of the archives of the rest that are to be packed again.
    pub(super) fn retired_of_rest(&self) -> impl Iterator<Item = i64> {
        self.rest.retired()
    }

    fn look_up(&mut self, hash: &ChunkHash) -> Result<Option<ChunkPlace>, PackError> {
        self.lookups += 1;
        if self.lookups == MANY_LOOKUPS && self.added.is_none() {
            self.table = self.catalog.chunk_table(MOST_IN_TABLE)?;
        }
        match &self.table {
            Some(table) => Ok(table.get(hash)),
            None => {
                if !self.writer.is_committing() {
                    self.catalog.begin_lookups()?;
                }
                Ok(self.catalog.find_chunk(hash)?)
            }
        }
    }

    /// Adds an archive that is durable in the spool. Commits to the catalog if enough are new.
    pub(super) fn add(
        &mut self,
        row: ArchiveRow,
        (tar_bytes, tar_blake3): (u64, Hash),
        chunks: ArchiveChunks,
    ) -> Result<(), PackError> {
        if let Some(added) = &mut self.added {
            chunks.keys().for_each(|hash| added.add(hash));
        }
        let archive = NewArchive {
            row: row.clone(),
            tar_bytes,
            tar_blake3,
        };
        self.writer.add(archive, chunks);
        let usable = UsableArchive {
            number: None,
            row,
            tar_bytes,
            tar_blake3,
        };
        self.usable.insert(usable.row.id, usable);
        if self.writer.has_finished() {
            self.wait()?;
        }
        match self.writer.is_due() {
            true => self.commit(),
            false => Ok(()),
        }
    }

    /// Waits for the pending commit and begins the next.
    pub(super) fn commit(&mut self) -> Result<(), PackError> {
        self.wait()?;
        self.writer.commit(self.catalog)
    }

    /// Waits for the pending commit.
    pub(super) fn wait(&mut self) -> Result<(), PackError> {
        let Some(committed) = self.writer.wait(self.catalog)? else {
            return Ok(());
        };
        let CommittedBatch { batch, numbers } = committed;
        if let Some(table) = &mut self.table {
            for chunk in batch.chunks() {
                let place = ChunkPlace {
                    archive: numbers[chunk.archive as usize],
                    offset: chunk.offset,
                    length: chunk.length,
                };
                table.insert(chunk.hash, &place);
            }
        }
        for (number, archive) in numbers.into_iter().zip(&batch.archives) {
            self.by_number.insert(number, archive.row.id);
            if let Some(usable) = self.usable.get_mut(&archive.row.id) {
                usable.number = Some(number);
            }
        }
        Ok(())
    }

    /// Returns the ids of all archives that may be used.
    pub(super) fn usable_ids(&self) -> HashSet<ArchiveId> {
        self.usable.keys().copied().collect()
    }

    /// Returns an archive if it may be used.
    pub(super) fn usable(&self, id: &ArchiveId) -> Option<&UsableArchive> {
        self.usable.get(id)
    }
}
