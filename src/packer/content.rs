//! One file's content: read, cut, hash, look up, append what is new.
//!
//! A small file is in memory before any of it is stored, so what is stored of it is one state of
//! it. A large one streams; if it changed meanwhile, the caller reads it again (what was appended
//! stays as unused content, and serves the next attempt as known chunks).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use super::PackError;
use super::chunker::{CDC_MAX, Chunker};
use super::member::Member;
use super::store::{Chunk, Store, chunk_hash};
use crate::catalog::ChunkHash;
use crate::ids::Hash;
use crate::index::{Extent, push_extent};
use crate::manifest::ArchiveKind;

/// Up to here a file is read whole before it is stored, and a run of new bytes is one member.
pub const RUN_BYTES: usize = 8 << 20;

/// What storing a file's content gave.
#[derive(Debug)]
pub struct Stored {
    pub extents: Vec<Extent>,
    pub blake3: Hash,
    /// Bytes read.
    pub size: u64,
    /// Of them, new.
    pub new_bytes: u64,
}

/// Why content could not be stored: the file's fault (try again, or skip it) or ours (stop).
#[derive(Debug)]
pub enum ContentError {
    Read(io::Error),
    Pack(PackError),
}

impl From<PackError> for ContentError {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Reads `file` (of which `meta` was just taken) to its end and stores it. `member` carries the
/// snapshot path and the metadata for the archive's headers.
pub fn store_file(
    store: &mut Store<'_>,
    file: &mut File,
    meta: &std::fs::Metadata,
    member: &Member,
    chunker: Chunker,
    buffer: &mut Vec<u8>,
) -> Result<Stored, ContentError> {
    let size = meta.len();
    let sparse = size > 0 && meta.blocks() * 512 < size;
    if !sparse && size <= RUN_BYTES as u64 {
        buffer.clear();
        // One byte more than promised, to see that it grew.
        file.take(size + 1).read_to_end(buffer)?;
        return Ok(store_small(store, buffer, member, chunker)?);
    }
    let mut runs = Runs::new(store, ArchiveKind::Data, member);
    let mut whole = blake3::Hasher::new();
    let mut offset = 0;
    while offset < size {
        let (data, end) = match sparse {
            true => next_data(file, offset, size)?,
            false => (offset, size),
        };
        if data > offset {
            hash_zeros(&mut whole, data - offset);
            runs.hole(data - offset)?;
        }
        let read = store_stretch(&mut runs, &mut whole, file, data, end, chunker, buffer)?;
        offset = data + read;
        if read < end - data {
            break; // it shrank; the caller sees the wrong size
        }
    }
    let (extents, new_bytes) = runs.finish()?;
    Ok(Stored {
        extents,
        blake3: Hash(*whole.finalize().as_bytes()),
        size: offset,
        new_bytes,
    })
}

/// The next stretch of data at or after `offset`: its start and end.
fn next_data(file: &mut File, offset: u64, size: u64) -> io::Result<(u64, u64)> {
    let seek = |at| rustix::fs::seek(&*file, at).map_err(io::Error::from);
    let data = match seek(rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data.min(size),
        // ENXIO: nothing but a hole up to the end.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => size,
        // A file system that does not know holes has none.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => offset,
        Err(e) => return Err(e),
    };
    if data >= size {
        return Ok((size, size));
    }
    let end = seek(rustix::fs::SeekFrom::Hole(data)).unwrap_or(size);
    Ok((data, end.min(size).max(data + 1)))
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        count -= now;
    }
}

/// Stores bytes `start..end` of the file; gives how many there were.
fn store_stretch(
    runs: &mut Runs<'_, '_>,
    whole: &mut blake3::Hasher,
    file: &mut File,
    start: u64,
    end: u64,
    chunker: Chunker,
    buffer: &mut Vec<u8>,
) -> Result<u64, ContentError> {
    file.seek(SeekFrom::Start(start))?;
    let mut left = end - start;
    let mut read_bytes = 0;
    buffer.clear();
    loop {
        let want = (RUN_BYTES - buffer.len().min(CDC_MAX)) as u64;
        let before = buffer.len();
        let read = (&*file).take(want.min(left)).read_to_end(buffer)? as u64;
        whole.update(&buffer[before..]);
        read_bytes += read;
        left -= read;
        let last = left == 0 || read == 0;
        let mut done = 0;
        for length in chunker.cut(buffer, last) {
            runs.chunk(&buffer[done..done + length])?;
            done += length;
        }
        buffer.drain(..done);
        if last {
            return Ok(read_bytes);
        }
    }
}

/// Stores content that is in memory: as one whole member if all of it is new.
fn store_small(
    store: &mut Store<'_>,
    content: &[u8],
    member: &Member,
    chunker: Chunker,
) -> Result<Stored, PackError> {
    let blake3 = Hash::blake3(content);
    let mut chunks = Vec::new();
    let mut offset = 0;
    let mut seen = HashSet::new();
    let mut all_new = true;
    for length in chunker.cut(content, true) {
        // A file of one chunk needs no second hash.
        let hash = match length == content.len() {
            true => short(&blake3),
            false => chunk_hash(&content[offset..offset + length]),
        };
        let chunk = Chunk { hash, length };
        offset += length;
        all_new &= seen.insert(hash) && store.find(&chunk, ArchiveKind::Data)?.is_none();
        chunks.push(chunk);
    }
    let size = content.len() as u64;
    let (extents, new_bytes) = if content.is_empty() {
        (Vec::new(), 0)
    } else if all_new {
        let member = Member {
            path: [b"files/", member.path.as_slice()].concat(),
            size,
            ..member.clone()
        };
        let extent = store.append(ArchiveKind::Data, &member, content, &chunks)?;
        (vec![extent], size)
    } else {
        let mut runs = Runs::new(store, ArchiveKind::Data, member);
        let mut offset = 0;
        for chunk in chunks {
            runs.hashed_chunk(&content[offset..offset + chunk.length], chunk.hash)?;
            offset += chunk.length;
        }
        runs.finish()?
    };
    Ok(Stored {
        extents,
        blake3,
        size,
        new_bytes,
    })
}

fn short(hash: &Hash) -> ChunkHash {
    let mut short = [0; 24];
    short.copy_from_slice(&hash.0[..24]);
    short
}

/// Gathers runs of new chunks into members `blocks/PATH/OFFSET` (or `index/OFFSET`).
pub struct Runs<'s, 'a> {
    store: &'s mut Store<'a>,
    kind: ArchiveKind,
    member: &'s Member,
    offset: u64,
    run: Vec<u8>,
    chunks: Vec<Chunk>,
    in_run: HashSet<ChunkHash>,
    extents: Vec<Extent>,
    new_bytes: u64,
}

impl<'s, 'a> Runs<'s, 'a> {
    pub fn new(store: &'s mut Store<'a>, kind: ArchiveKind, member: &'s Member) -> Self {
        Self {
            store,
            kind,
            member,
            offset: 0,
            run: Vec::new(),
            chunks: Vec::new(),
            in_run: HashSet::new(),
            extents: Vec::new(),
            new_bytes: 0,
        }
    }

    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.hashed_chunk(bytes, chunk_hash(bytes))
    }

    pub fn hashed_chunk(&mut self, bytes: &[u8], hash: ChunkHash) -> Result<(), PackError> {
        if self.in_run.contains(&hash) {
            // It repeats a chunk that has no place yet: give it one.
            self.end_run()?;
        }
        let chunk = Chunk {
            hash,
            length: bytes.len(),
        };
        if let Some(extent) = self.store.find(&chunk, self.kind)? {
            self.end_run()?;
            push_extent(&mut self.extents, extent);
        } else {
            if self.run.len() + bytes.len() > RUN_BYTES {
                self.end_run()?;
            }
            self.run.extend_from_slice(bytes);
            self.chunks.push(chunk);
            self.in_run.insert(hash);
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    pub fn hole(&mut self, length: u64) -> Result<(), PackError> {
        self.end_run()?;
        push_extent(
            &mut self.extents,
            Extent {
                archive: None,
                offset: 0,
                length,
            },
        );
        self.offset += length;
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), PackError> {
        if self.run.is_empty() {
            return Ok(());
        }
        let start = self.offset - self.run.len() as u64;
        let path = match self.kind {
            ArchiveKind::Data => {
                let name = format!("/{start:016x}");
                [b"blocks/", self.member.path.as_slice(), name.as_bytes()].concat()
            }
            ArchiveKind::Index => format!("index/{start:016x}").into_bytes(),
        };
        let member = Member {
            path,
            size: self.run.len() as u64,
            ..self.member.clone()
        };
        let extent = self
            .store
            .append(self.kind, &member, &self.run, &self.chunks)?;
        push_extent(&mut self.extents, extent);
        self.new_bytes += self.run.len() as u64;
        self.run.clear();
        self.chunks.clear();
        self.in_run.clear();
        Ok(())
    }

    /// The extents in order, and how many bytes were new.
    pub fn finish(mut self) -> Result<(Vec<Extent>, u64), PackError> {
        self.end_run()?;
        Ok((self.extents, self.new_bytes))
    }
}
