//! Rebuilds the chunk rows of a lost catalog from an index and the content that it describes.
//!
//! An index has the extents of each file; the catalog needs the place of each chunk. So the content
//! is cut as packing cuts it, and each chunk that is within one extent gets its place. A file is
//! used only if its BLAKE3 matches the index entry: then its extents hold these bytes, no matter
//! where the content came from.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::chunk_hash::Chunk;
use super::chunker::Chunker;
use super::error::PackError;
use super::file_content::read_ahead::{self, Stretch};
use super::file_content::{ContentError, cut, hash_zeros, is_sparse};
use crate::base::ids::{ArchiveId, Hash};
use crate::base::openat::{Chosen, Dir, Meta};
use crate::base::sqlite;
use crate::format::index::{EntryList, EntryRef, EntryType, Extent};
use crate::state::catalog::{Catalog, ChunkHash, ChunkPlace, NewArchive};

/// Chunks after which they are committed to the catalog.
const BATCH_CHUNKS: usize = 100_000;
/// Largest file that is read completely before it is cut, in bytes.
const SMALL_BYTES: u64 = 8 << 20;

/// A directory (or one file) in which content of the snapshot may still be.
#[derive(Debug)]
pub struct Root {
    /// Path within the snapshot to which it corresponds; empty for the whole snapshot.
    prefix: Vec<u8>,
    /// `None` if it cannot be opened.
    opened: Option<Chosen>,
}

impl Root {
    /// Opens the directory or file at `path`, which corresponds to `prefix` in the snapshot. If it
    /// cannot be opened, it holds nothing.
    pub fn new(prefix: Vec<u8>, path: &Path) -> Self {
        let opened = Chosen::open(path).ok();
        Self { prefix, opened }
    }

    /// Returns the directory from which `path` is opened, and the path below it.
    fn locate<'a>(&'a self, path: &'a [u8]) -> Option<(&'a Dir, &'a OsStr)> {
        let opened = self.opened.as_ref()?;
        let rest = path.strip_prefix(self.prefix.as_slice())?;
        if rest.is_empty() {
            return Some((opened.dir(), opened.name()));
        }
        let rest = match self.prefix.is_empty() {
            true => rest,
            false => rest.strip_prefix(b"/")?,
        };
        opened
            .is_dir()
            .then(|| (opened.dir(), OsStr::from_bytes(rest)))
    }
}

/// The outcome of reindexing a snapshot.
#[derive(Debug, Default)]
pub struct Reindexed {
    /// Number of files whose content was found.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Number of their chunks that got a row.
    pub chunks: u64,
    /// Paths of files whose content was not found.
    pub missing: Vec<Vec<u8>>,
}

/// Adds a snapshot's `archives` to `catalog`, and every chunk of its `entries` whose content is in
/// one of `roots`. If `paths` is given, only the entries at these paths are considered.
pub fn reindex(
    catalog: &mut Catalog,
    archives: &[NewArchive],
    entries: &EntryList,
    roots: &[Root],
    paths: Option<&HashSet<Vec<u8>>>,
) -> Result<Reindexed, PackError> {
    let mut reindexer = Reindexer {
        numbers: catalog.learn_archives(archives)?,
        catalog,
        chunks: Vec::new(),
        buffer: Vec::new(),
        done: Reindexed::default(),
    };
    for entry in entries.iter() {
        let is_wanted = paths.is_none_or(|paths| paths.contains(entry.path));
        if entry.kind == EntryType::File && entry.size > 0 && is_wanted {
            reindexer.file(&entry, roots)?;
        }
    }
    reindexer.commit()?;
    Ok(reindexer.done)
}

struct Reindexer<'a> {
    catalog: &'a mut Catalog,
    numbers: HashMap<ArchiveId, i64>,
    chunks: Vec<(ChunkHash, ChunkPlace)>,
    buffer: Vec<u8>,
    done: Reindexed,
}

impl Reindexer<'_> {
    /// Reindexes a file from the first root that has its content.
    fn file(&mut self, entry: &EntryRef<'_>, roots: &[Root]) -> Result<(), PackError> {
        let before = self.chunks.len();
        for root in roots {
            let Some(located) = root.locate(entry.path) else {
                continue;
            };
            match self.read(entry, located) {
                Ok(true) => {
                    self.done.files += 1;
                    self.done.bytes += entry.size;
                    self.done.chunks += (self.chunks.len() - before) as u64;
                    if self.chunks.len() >= BATCH_CHUNKS {
                        self.commit()?;
                    }
                    return Ok(());
                }
                // The file has another content by now, or does not exist.
                Ok(false) | Err(ContentError::Read(_)) => self.chunks.truncate(before),
                Err(ContentError::Pack(error)) => return Err(error),
            }
        }
        self.done.missing.push(entry.path.to_vec());
        Ok(())
    }

    /// Gathers the chunks of a file. Returns false if its content is not that of the entry.
    fn read(
        &mut self,
        entry: &EntryRef<'_>,
        (dir, rel): (&Dir, &OsStr),
    ) -> Result<bool, ContentError> {
        let (mut file, meta) = dir.open_file(rel)?;
        if meta.len() != entry.size {
            return Ok(false);
        }
        let name = rel.as_bytes().rsplit(|byte| *byte == b'/').next();
        let chunker = choose(&mut file, entry.size, name.unwrap_or_default())?;
        let mut places = ChunkPlaces::new(entry, &self.numbers);
        let found = match entry.size <= SMALL_BYTES && !is_sparse(&meta) {
            true => {
                self.buffer.clear();
                (&mut file)
                    .take(entry.size + 1)
                    .read_to_end(&mut self.buffer)?;
                let cut = cut(&self.buffer, chunker);
                self.chunks
                    .extend(cut.chunks.iter().filter_map(|c| places.next(c)));
                cut.blake3
            }
            false => read_large(&mut file, &meta, chunker, |stretch| match stretch {
                Stretch::Hole(length) => places.skip(*length),
                Stretch::Data { chunks, .. } => {
                    self.chunks
                        .extend(chunks.iter().filter_map(|c| places.next(c)));
                }
            })?,
        };
        Ok(Some(found) == entry.blake3)
    }

    fn commit(&mut self) -> Result<(), PackError> {
        let chunks = std::mem::take(&mut self.chunks);
        Ok(self.catalog.learn_chunks(&chunks)?)
    }
}

/// Reads a large file, passes its stretches to `take`, and returns its hash.
fn read_large(
    file: &mut File,
    meta: &Meta,
    chunker: Chunker,
    mut take: impl FnMut(&Stretch<'_>),
) -> Result<Hash, ContentError> {
    let mut whole = blake3::Hasher::new();
    let plan = read_ahead::ReadPlan {
        size: meta.len(),
        sparse: is_sparse(meta),
        chunker,
        cold: false,
    };
    read_ahead::read(file, plan, |stretch| {
        match &stretch {
            Stretch::Hole(length) => hash_zeros(&mut whole, *length),
            Stretch::Data { bytes, .. } => drop(whole.update(bytes)),
        }
        take(&stretch);
        Ok(())
    })?;
    Ok(Hash(*whole.finalize().as_bytes()))
}

fn choose(file: &mut File, size: u64, name: &[u8]) -> io::Result<Chunker> {
    let mut head = Vec::new();
    (&mut *file)
        .take(sqlite::HEAD_BYTES as u64)
        .read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    // Whether it is rewritten in place is recognized when that happens again.
    Ok(Chunker::choose(&head, size, name, false))
}

/// Finds the place of each chunk of a file, one after the other.
struct ChunkPlaces<'a> {
    numbers: &'a HashMap<ArchiveId, i64>,
    extents: Vec<Extent>,
    /// Position in `extents` of the one that holds the next byte.
    current: usize,
    /// Bytes of that extent that were passed.
    into: u64,
}

impl<'a> ChunkPlaces<'a> {
    fn new(entry: &EntryRef<'_>, numbers: &'a HashMap<ArchiveId, i64>) -> Self {
        Self {
            numbers,
            extents: entry.extents().collect(),
            current: 0,
            into: 0,
        }
    }

    /// Returns the place of the next chunk, if it is within one extent.
    fn next(&mut self, chunk: &Chunk) -> Option<(ChunkHash, ChunkPlace)> {
        let length = chunk.length as u64;
        let (extent, into) = (self.extents.get(self.current).copied(), self.into);
        self.skip(length);
        let extent = extent.filter(|extent| into + length <= extent.length)?;
        let place = ChunkPlace {
            archive: *self.numbers.get(&extent.archive?)?,
            offset: extent.offset + into,
            length,
        };
        Some((chunk.hash, place))
    }

    fn skip(&mut self, length: u64) {
        self.into += length;
        while let Some(extent) = self.extents.get(self.current)
            && self.into >= extent.length
        {
            self.into -= extent.length;
            self.current += 1;
        }
    }
}
