//! Commits sealed archives to the catalog in batches, on a background thread while the next
//! archives are packed.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::error::PackError;
use crate::format::archive_table::ArchiveKind;
use crate::format::extent::Extent;
use crate::state::catalog::{Catalog, CatalogError, ChunkHash, NewArchive, NewChunk};

/// Commit after this many archives, about a gigabyte: a run that is killed loses those that are not
/// committed.
const MOST_NEW_ARCHIVES: usize = 16;
/// Commit after this time: if archives are made slowly, each is expensive to lose.
const LONGEST_UNCOMMITTED: Duration = Duration::from_secs(30);

/// Returns the number of new chunks that are worth a commit to a catalog of `catalog_chunks`.
///
/// New hashes are as good as random among the old, so even a small commit rewrites almost all pages
/// of the catalog. Hence a third of its size, between the pages of four archives and what fits in
/// some 40 MB of memory.
fn commit_at(catalog_chunks: usize) -> usize {
    const FEWEST_NEW_CHUNKS: usize = 65_536;
    const MOST_NEW_CHUNKS: usize = 300_000;
    (catalog_chunks / 3).clamp(FEWEST_NEW_CHUNKS, MOST_NEW_CHUNKS)
}

/// Archives that are sealed and durable, and their chunks.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) archives: Vec<NewArchive>,
    /// By hash: position in `archives`, offset and length.
    chunks: HashMap<ChunkHash, (u32, u64, u64), RandomState>,
}

impl Batch {
    /// Adds an archive with its `chunks`: their offsets and lengths.
    fn add(
        &mut self,
        archive: NewArchive,
        chunks: impl IntoIterator<Item = (ChunkHash, (u64, u64))>,
    ) {
        let position = self.archives.len() as u32;
        self.archives.push(archive);
        for (hash, (offset, length)) in chunks {
            let first = self.chunks.entry(hash);
            first.or_insert((position, offset, length));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.archives.is_empty()
    }

    /// Returns where a chunk is and in what kind of archive, if one of these archives has it.
    fn find(&self, hash: &ChunkHash) -> Option<(ArchiveKind, Extent)> {
        let (position, offset, length) = self.chunks.get(hash)?;
        let row = &self.archives[*position as usize].row;
        let extent = Extent {
            archive: Some(row.id),
            offset: *offset,
            length: *length,
        };
        Some((row.kind, extent))
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = NewChunk> + '_ {
        let chunk = |(hash, (archive, offset, length)): (&ChunkHash, &(u32, u64, u64))| NewChunk {
            hash: *hash,
            archive: *archive,
            offset: *offset,
            length: *length,
        };
        self.chunks.iter().map(chunk)
    }
}

/// A batch that is committed.
pub(super) struct CommittedBatch {
    pub(super) batch: Arc<Batch>,
    /// The catalog's numbers of its archives, in their order.
    pub(super) numbers: Vec<i64>,
}

/// A batch that is being committed.
struct PendingCommit {
    batch: Arc<Batch>,
    thread: JoinHandle<Result<Vec<i64>, CatalogError>>,
}

impl PendingCommit {
    fn start(catalog: &Catalog, batch: Batch) -> Result<Self, PackError> {
        let mut recorder = catalog.recorder()?;
        let batch = Arc::new(batch);
        let committed = Arc::clone(&batch);
        let named = thread::Builder::new().name("commit".to_owned());
        let thread = named.spawn(move || {
            // In key order they go into neighbouring pages.
            let mut chunks: Vec<NewChunk> = committed.chunks().collect();
            chunks.sort_unstable();
            recorder.commit_archives(&committed.archives, &chunks)
        });
        let thread = thread.map_err(|source| PackError::Thread { source })?;
        Ok(Self { batch, thread })
    }
}

/// Gathers archives, and commits them when there are enough.
pub(super) struct CatalogWriter {
    /// Sealed archives that are not being committed yet.
    pub(super) new: Batch,
    pending: Option<PendingCommit>,
    /// Number of new chunks that are worth a commit.
    commit_at: usize,
    last_commit: Instant,
}

impl CatalogWriter {
    pub(super) fn new(catalog: &Catalog) -> Result<Self, PackError> {
        Ok(Self {
            new: Batch::default(),
            pending: None,
            commit_at: commit_at(catalog.about_chunks()?),
            last_commit: Instant::now(),
        })
    }

    pub(super) fn add(
        &mut self,
        archive: NewArchive,
        chunks: impl IntoIterator<Item = (ChunkHash, (u64, u64))>,
    ) {
        self.new.add(archive, chunks);
    }

    /// Returns where a chunk is and in what kind of archive, if an archive has it that is not
    /// committed yet.
    pub(super) fn find(&self, hash: &ChunkHash) -> Option<(ArchiveKind, Extent)> {
        let pending = self.pending.as_ref();
        let new = self.new.find(hash);
        new.or_else(|| pending?.batch.find(hash))
    }

    pub(super) fn is_committing(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns whether a commit has ended, and [`Self::wait`] returns at once.
    pub(super) fn has_finished(&self) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.thread.is_finished())
    }

    /// Returns whether the next commit should begin.
    pub(super) fn is_due(&self) -> bool {
        self.new.chunks.len() >= self.commit_at
            || self.new.archives.len() >= MOST_NEW_ARCHIVES
            || self.last_commit.elapsed() >= LONGEST_UNCOMMITTED
    }

    /// Begins to commit the new archives. The caller must have [waited](Self::wait) for the commit
    /// before. If the process dies during the commit, the next run stores these chunks again.
    pub(super) fn commit(&mut self, catalog: &Catalog) -> Result<(), PackError> {
        self.last_commit = Instant::now();
        let batch = std::mem::take(&mut self.new);
        if !batch.is_empty() {
            // An open lookup would keep the catalog's log from being reset.
            catalog.end_lookups()?;
            self.pending = Some(PendingCommit::start(catalog, batch)?);
        }
        Ok(())
    }

    /// Waits for the pending commit. Returns `None` if there is none.
    pub(super) fn wait(&mut self, catalog: &Catalog) -> Result<Option<CommittedBatch>, PackError> {
        let Some(PendingCommit { batch, thread }) = self.pending.take() else {
            return Ok(None);
        };
        let numbers = thread.join().map_err(|_| PackError::ThreadEnded)??;
        catalog.note_recorded()?;
        self.commit_at = commit_at(catalog.about_chunks()?);
        Ok(Some(CommittedBatch { batch, numbers }))
    }
}
