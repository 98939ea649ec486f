//! What a lost catalog knew, learned again from an index and the content that it describes.
//!
//! An index says where the bytes of a file lie; the catalog must know it of every chunk. So the content is cut as
//! packing cuts it, and each chunk that lies in one piece gets its place. Believed is only a file whose content
//! has the very hash that the index gives: then its extents hold these bytes, wherever the content came from.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::PackError;
use super::chunk_hash::Chunk;
use super::chunker::Chunker;
use super::file_content::read_ahead::{self, Stretch};
use super::file_content::{ContentError, cut, hash_zeros, is_sparse};
use crate::base::ids::{ArchiveId, Hash};
use crate::base::openat::{Chosen, Dir, Meta};
use crate::base::sqlite;
use crate::format::index::{EntryList, EntryRef, EntryType, Extent};
use crate::state::catalog::{Catalog, ChunkHash, ChunkPlace, NewArchive};

/// So many chunks are told the catalog at once.
const BATCH_CHUNKS: usize = 100_000;
/// Up to here a file is read whole.
const SMALL_BYTES: u64 = 8 << 20;

/// A directory (or one file) where content of the snapshot may still be.
#[derive(Debug)]
pub struct Root {
    /// The snapshot's paths that it holds: all below this one; empty: all.
    prefix: Vec<u8>,
    /// `None`: it cannot be opened.
    at: Option<Chosen>,
}

impl Root {
    pub fn new(prefix: Vec<u8>, path: &Path) -> Self {
        let at = Chosen::open(path).ok();
        Self { prefix, at }
    }

    /// The directory from which `path` is opened, and its place below that.
    fn locate<'a>(&'a self, path: &'a [u8]) -> Option<(&'a Dir, &'a OsStr)> {
        let at = self.at.as_ref()?;
        let rest = path.strip_prefix(self.prefix.as_slice())?;
        if rest.is_empty() {
            return Some((at.dir(), at.name()));
        }
        let rest = match self.prefix.is_empty() {
            true => rest,
            false => rest.strip_prefix(b"/")?,
        };
        at.is_dir().then(|| (at.dir(), OsStr::from_bytes(rest)))
    }
}

/// What was learned.
#[derive(Debug, Default)]
pub struct Relearned {
    pub files: u64,
    pub bytes: u64,
    pub chunks: u64,
    /// Paths of files whose content was not found.
    pub missing: Vec<Vec<u8>>,
}

/// Tells `catalog` of a snapshot's `archives` and of every chunk of its `entries` whose content lies in one of
/// `roots`; of `paths` only, where there are any.
pub fn relearn(
    catalog: &mut Catalog,
    archives: &[NewArchive],
    entries: &EntryList,
    roots: &[Root],
    paths: Option<&HashSet<Vec<u8>>>,
) -> Result<Relearned, PackError> {
    let mut learner = Learner {
        numbers: catalog.learn_archives(archives)?,
        catalog,
        chunks: Vec::new(),
        buffer: Vec::new(),
        done: Relearned::default(),
    };
    for entry in entries.iter() {
        let is_wanted = paths.is_none_or(|paths| paths.contains(entry.path));
        if entry.kind == EntryType::File && entry.size > 0 && is_wanted {
            learner.file(&entry, roots)?;
        }
    }
    learner.commit()?;
    Ok(learner.done)
}

struct Learner<'a> {
    catalog: &'a mut Catalog,
    numbers: HashMap<ArchiveId, i64>,
    chunks: Vec<(ChunkHash, ChunkPlace)>,
    buffer: Vec<u8>,
    done: Relearned,
}

impl Learner<'_> {
    fn file(&mut self, entry: &EntryRef<'_>, roots: &[Root]) -> Result<(), PackError> {
        let before = self.chunks.len();
        for root in roots {
            let Some(at) = root.locate(entry.path) else {
                continue;
            };
            match self.read(entry, at) {
                Ok(true) => {
                    self.done.files += 1;
                    self.done.bytes += entry.size;
                    self.done.chunks += (self.chunks.len() - before) as u64;
                    if self.chunks.len() >= BATCH_CHUNKS {
                        self.commit()?;
                    }
                    return Ok(());
                }
                // It is another content by now, or not there.
                Ok(false) | Err(ContentError::Read(_)) => self.chunks.truncate(before),
                Err(ContentError::Pack(error)) => return Err(error),
            }
        }
        self.done.missing.push(entry.path.to_vec());
        Ok(())
    }

    /// Takes the chunks of the file `at`; false where it is not what the entry says.
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
        let mut places = Places::new(entry, &self.numbers);
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

/// Gives the file's hash; `take` sees its parts.
fn read_large(
    file: &mut File,
    meta: &Meta,
    chunker: Chunker,
    mut take: impl FnMut(&Stretch<'_>),
) -> Result<Hash, ContentError> {
    let mut whole = blake3::Hasher::new();
    let plan = read_ahead::Plan {
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
    // What changes in place shows when it does so again.
    Ok(Chunker::choose(&head, size, name, false))
}

/// Where the bytes of a file lie, chunk after chunk.
struct Places<'a> {
    numbers: &'a HashMap<ArchiveId, i64>,
    extents: Vec<Extent>,
    /// The extent that holds the next byte, and how much of it is behind.
    at: usize,
    into: u64,
}

impl<'a> Places<'a> {
    fn new(entry: &EntryRef<'_>, numbers: &'a HashMap<ArchiveId, i64>) -> Self {
        Self {
            numbers,
            extents: entry.extents().collect(),
            at: 0,
            into: 0,
        }
    }

    /// The place of the next chunk, if it lies in one piece.
    fn next(&mut self, chunk: &Chunk) -> Option<(ChunkHash, ChunkPlace)> {
        let length = chunk.length as u64;
        let (extent, into) = (self.extents.get(self.at).copied(), self.into);
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
        while let Some(extent) = self.extents.get(self.at)
            && self.into >= extent.length
        {
            self.into -= extent.length;
            self.at += 1;
        }
    }
}
