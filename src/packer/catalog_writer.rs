//! Telling the catalog of sealed archives, on a thread of its own while the next ones are packed.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use foldhash::fast::RandomState;

use super::PackError;
use crate::format::index::Extent;
use crate::format::manifest::ArchiveKind;
use crate::state::catalog::{Catalog, CatalogError, ChunkHash, NewArchive, NewChunk};

/// Archives that are sealed and durable, and what is in them.
#[derive(Default)]
pub struct Batch {
    pub archives: Vec<NewArchive>,
    /// By place in that list; offset and length.
    chunks: HashMap<ChunkHash, (u32, u64, u64), RandomState>,
}

impl Batch {
    /// Adds an archive with `chunks` in it: their offsets and lengths.
    pub fn add(
        &mut self,
        archive: NewArchive,
        chunks: impl IntoIterator<Item = (ChunkHash, (u64, u64))>,
    ) {
        let place = self.archives.len() as u32;
        self.archives.push(archive);
        for (hash, (offset, length)) in chunks {
            let first = self.chunks.entry(hash);
            first.or_insert((place, offset, length));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.archives.is_empty()
    }

    pub fn len_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Where a chunk lies and in what kind of archive, if in one of these.
    pub fn find(&self, hash: &ChunkHash) -> Option<(ArchiveKind, Extent)> {
        let (place, offset, length) = self.chunks.get(hash)?;
        let row = &self.archives[*place as usize].row;
        let extent = Extent {
            archive: Some(row.id),
            offset: *offset,
            length: *length,
        };
        Some((row.kind, extent))
    }

    pub fn chunks(&self) -> impl Iterator<Item = NewChunk> + '_ {
        let chunk = |(hash, (archive, offset, length)): (&ChunkHash, &(u32, u64, u64))| NewChunk {
            hash: *hash,
            archive: *archive,
            offset: *offset,
            length: *length,
        };
        self.chunks.iter().map(chunk)
    }
}

/// A catalog that is being told.
pub struct Telling {
    pub batch: Arc<Batch>,
    thread: JoinHandle<Result<Vec<i64>, CatalogError>>,
}

impl Telling {
    pub fn start(catalog: &Catalog, batch: Batch) -> Result<Self, PackError> {
        let mut recorder = catalog.recorder()?;
        let batch = Arc::new(batch);
        let told = Arc::clone(&batch);
        let named = thread::Builder::new().name("tell".to_owned());
        let thread = named.spawn(move || {
            // In key order they go into neighbouring pages.
            let mut chunks: Vec<NewChunk> = told.chunks().collect();
            chunks.sort_unstable();
            recorder.commit_archives(&told.archives, &chunks)
        });
        let thread = thread.map_err(|source| PackError::Thread { source })?;
        Ok(Self { batch, thread })
    }

    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// The catalog's numbers of the archives.
    pub fn wait(self) -> Result<(Arc<Batch>, Vec<i64>), PackError> {
        let numbers = self.thread.join().map_err(|_| PackError::ThreadEnded)??;
        Ok((self.batch, numbers))
    }
}
