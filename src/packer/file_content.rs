//! One file's content: read, cut, hash, look up, append what is new.
//!
//! A small file is in memory before any of it is stored, so what is stored of it is one state of
//! it. A large one streams, read and cut [`ahead`] on a thread of its own; if it changed meanwhile, the
//! caller reads it again (what was appended stays as unused content, and serves the next attempt as
//! known chunks).

pub(super) mod read_ahead;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};

use foldhash::fast::RandomState;

use super::PackError;
use super::archive_writer::Store;
use super::chunk_hash::{Chunk, hash_chunks, short};
use super::chunker::Chunker;
use crate::base::ids::Hash;
use crate::base::openat::Meta;
use crate::format::archive::tar_member::Member;
use crate::format::index::{Extent, push_extent};
use crate::format::manifest::ArchiveKind;
use crate::state::catalog::ChunkHash;
use crate::state::figures::{Grain, Looks};
use read_ahead::Stretch;

/// Up to here a file is read whole before it is stored.
const RUN_BYTES: usize = 8 << 20;

/// What storing a file's content gave.
#[derive(Debug)]
pub struct Stored {
    pub extents: Vec<Extent>,
    pub blake3: Hash,
    /// Bytes read.
    pub size: u64,
    /// Of them, new.
    pub new_bytes: u64,
    /// How they look.
    pub grain: Grain,
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

/// A file to be stored.
pub struct Source<'f> {
    pub file: &'f mut File,
    /// As it was just taken.
    pub meta: &'f Meta,
    /// What was read of it is not to stay in the page cache.
    pub cold: bool,
}

/// Reads a file to its end and stores it. `member` carries the snapshot path and the metadata for the
/// archive's headers.
pub fn store_file(
    store: &mut Store<'_>,
    source: Source<'_>,
    member: &Member,
    chunker: Chunker,
    buffer: &mut Vec<u8>,
) -> Result<Stored, ContentError> {
    let Source { file, meta, cold } = source;
    let size = meta.len();
    let sparse = is_sparse(meta);
    if !sparse && size <= RUN_BYTES as u64 {
        buffer.clear();
        // One byte more than promised, to see that it grew.
        (&mut *file).take(size + 1).read_to_end(buffer)?;
        if cold {
            crate::base::fs::let_go(file, 0, size);
        }
        return Ok(store_small(store, buffer, cut(buffer, chunker), member)?);
    }
    let mut runs = Runs::new(store, ArchiveKind::Data, member);
    let mut whole = blake3::Hasher::new();
    let mut looks = Looks::default();
    let plan = read_ahead::Plan {
        size,
        sparse,
        chunker,
        cold,
    };
    read_ahead::read(file, plan, |stretch| {
        match stretch {
            Stretch::Hole(length) => {
                hash_zeros(&mut whole, length);
                runs.hole(length);
            }
            Stretch::Data { bytes, chunks } => {
                whole.update(bytes);
                looks.look(bytes);
                runs.stretch(bytes, chunks)?;
            }
        }
        Ok(())
    })?;
    let (extents, new_bytes) = runs.finish();
    Ok(Stored {
        extents,
        blake3: Hash(*whole.finalize().as_bytes()),
        size: whole.count(),
        new_bytes,
        grain: looks.grain(),
    })
}

pub fn is_sparse(meta: &Meta) -> bool {
    meta.len() > 0 && meta.blocks() * 512 < meta.len()
}

pub fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        count -= now;
    }
}

/// How content that is in memory is cut, and how it looks.
pub struct Cut {
    pub blake3: Hash,
    pub chunks: Vec<Chunk>,
    pub grain: Grain,
}

pub fn cut(content: &[u8], chunker: Chunker) -> Cut {
    let blake3 = Hash::blake3(content);
    let mut chunks = Vec::new();
    match chunker.cut(content, true).as_slice() {
        // A file of one chunk needs no second hash.
        [length] => chunks.push(Chunk {
            hash: short(&blake3),
            length: *length,
        }),
        lengths => {
            hash_chunks(content, lengths, &mut chunks);
        }
    }
    Cut {
        blake3,
        chunks,
        grain: Grain::of(content),
    }
}

/// Stores content that is in memory: as one whole member if all of it is new.
pub fn store_small(
    store: &mut Store<'_>,
    content: &[u8],
    Cut {
        blake3,
        chunks,
        grain,
    }: Cut,
    member: &Member,
) -> Result<Stored, PackError> {
    let mut all_new = true;
    let mut seen: HashSet<_, RandomState> = HashSet::default();
    for chunk in &chunks {
        // Two alike in one file make it no whole member.
        let is_first = chunks.len() == 1 || seen.insert(chunk.hash);
        all_new &= is_first && store.find(chunk, ArchiveKind::Data)?.is_none();
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
        runs.stretch(content, &chunks)?;
        runs.finish()
    };
    Ok(Stored {
        extents,
        blake3,
        size,
        new_bytes,
        grain,
    })
}

/// Gathers runs of new chunks into members `blocks/PATH/OFFSET` (or `index/OFFSET`).
pub struct Runs<'s, 'a> {
    store: &'s mut Store<'a>,
    kind: ArchiveKind,
    member: &'s Member,
    offset: u64,
    in_run: HashSet<ChunkHash, RandomState>,
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
            in_run: HashSet::default(),
            extents: Vec::new(),
            new_bytes: 0,
        }
    }

    /// Stores `bytes`, which are `chunks` one after the other and what follows on the last stretch. A run
    /// ends with its stretch, so that it is appended from where it lies.
    pub fn stretch(&mut self, bytes: &[u8], chunks: &[Chunk]) -> Result<(), PackError> {
        let (mut from, mut to) = (0, 0);
        let mut first = 0;
        for (at, chunk) in chunks.iter().enumerate() {
            if self.in_run.contains(&chunk.hash) {
                // It repeats a chunk that has no place yet: give it one.
                self.end_run(&bytes[from..to], &chunks[first..at])?;
                (from, first) = (to, at);
            }
            let known = self.store.find(chunk, self.kind)?;
            match known {
                Some(extent) => {
                    self.end_run(&bytes[from..to], &chunks[first..at])?;
                    push_extent(&mut self.extents, extent);
                    self.offset += extent.length;
                    (from, first) = (to + chunk.length, at + 1);
                }
                None => {
                    self.in_run.insert(chunk.hash);
                }
            }
            to += chunk.length;
        }
        self.end_run(&bytes[from..to], &chunks[first..])
    }

    pub fn hole(&mut self, length: u64) {
        let hole = Extent {
            archive: None,
            offset: 0,
            length,
        };
        push_extent(&mut self.extents, hole);
        self.offset += length;
    }

    fn end_run(&mut self, run: &[u8], chunks: &[Chunk]) -> Result<(), PackError> {
        if run.is_empty() {
            return Ok(());
        }
        let start = self.offset;
        let path = match self.kind {
            ArchiveKind::Data => {
                let name = format!("/{start:016x}");
                [b"blocks/", self.member.path.as_slice(), name.as_bytes()].concat()
            }
            ArchiveKind::Index => format!("index/{start:016x}").into_bytes(),
        };
        let member = Member {
            path,
            size: run.len() as u64,
            ..self.member.clone()
        };
        let extent = self.store.append(self.kind, &member, run, chunks)?;
        push_extent(&mut self.extents, extent);
        self.offset += extent.length;
        self.new_bytes += extent.length;
        self.in_run.clear();
        Ok(())
    }

    /// The extents in order, and how many bytes were new.
    pub fn finish(self) -> (Vec<Extent>, u64) {
        (self.extents, self.new_bytes)
    }
}
