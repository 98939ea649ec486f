//! Stores one file's content: reads, cuts, hashes, looks up, appends new chunks.
//!
//! A small file is completely in memory before any of it is stored, so one state of it is stored. A
//! large one streams, read and cut by a separate thread ([`read_ahead`]). If it changed meanwhile,
//! the caller reads it again: the appended chunks stay as unused content, and are known in the next
//! attempt.

pub(super) mod read_ahead;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};

use foldhash::fast::RandomState;

use super::archive_writer::{ArchiveWriter, NewMember};
use super::chunk_hash::{Chunk, hash_chunks, short};
use super::chunker::Chunker;
use super::error::PackError;
use crate::base::ids::Hash;
use crate::base::openat::Meta;
use crate::base::progress::{Progress, ProgressEvent};
use crate::format::archive_table::ArchiveKind;
use crate::format::extent::{Extent, push_extent};
use crate::state::catalog::ChunkHash;
use crate::state::figures::{Grain, Looks};
use read_ahead::Stretch;

/// Largest file that is read completely before it is stored, in bytes.
const RUN_BYTES: usize = 8 << 20;

/// A file's content in the archives.
#[derive(Debug)]
pub(super) struct StoredContent {
    /// Where it is, in order.
    pub(super) extents: Vec<Extent>,
    /// BLAKE3 of the whole content.
    pub(super) blake3: Hash,
    /// Bytes read.
    pub(super) size: u64,
    /// Bytes that no earlier archive held.
    pub(super) new_bytes: u64,
    /// How the content looks.
    pub(super) grain: Grain,
}

/// Why content could not be stored.
#[derive(Debug)]
pub(super) enum ContentError {
    /// The file cannot be read: try again, or skip it.
    Read(io::Error),
    /// The run cannot go on.
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
pub(super) struct ContentSource<'f> {
    pub(super) file: &'f mut File,
    /// Its current metadata.
    pub(super) meta: &'f Meta,
    /// Whether to remove the read bytes from the page cache.
    pub(super) cold: bool,
    /// Receives how much of a large file is read.
    pub(super) progress: &'f dyn Progress,
}

/// Reads a file to its end and stores it. `member` has the snapshot path and the metadata for the
/// archive's headers.
pub(super) fn store_file(
    archives: &mut ArchiveWriter<'_>,
    source: ContentSource<'_>,
    member: &NewMember,
    chunker: Chunker,
    buffer: &mut Vec<u8>,
) -> Result<StoredContent, ContentError> {
    let ContentSource {
        file,
        meta,
        cold,
        progress,
    } = source;
    let size = meta.len();
    let sparse = is_sparse(meta);
    if !sparse && size <= RUN_BYTES as u64 {
        buffer.clear();
        // One byte more than expected, to notice that it grew.
        (&mut *file).take(size + 1).read_to_end(buffer)?;
        if cold {
            crate::base::fs::let_go(file, 0, size);
        }
        return Ok(store_small(archives, buffer, cut(buffer, chunker), member)?);
    }
    let mut runs = Runs::new(archives, ArchiveKind::Data, member);
    let mut whole = blake3::Hasher::new();
    let mut looks = Looks::default();
    let plan = read_ahead::ReadPlan {
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
        let bytes = whole.count();
        progress.report(&ProgressEvent::FileRead { bytes });
        Ok(())
    })?;
    let (extents, new_bytes) = runs.finish();
    Ok(StoredContent {
        extents,
        blake3: Hash(*whole.finalize().as_bytes()),
        size: whole.count(),
        new_bytes,
        grain: looks.grain(),
    })
}

/// Returns whether a file has holes.
pub(super) fn is_sparse(meta: &Meta) -> bool {
    meta.len() > 0 && meta.blocks() * 512 < meta.len()
}

/// Adds `count` zeros to a hash.
pub(super) fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        count -= now;
    }
}

/// The chunks of content that is in memory.
pub(super) struct Cut {
    /// BLAKE3 of the whole content.
    pub(super) blake3: Hash,
    pub(super) chunks: Vec<Chunk>,
    /// How the content looks.
    pub(super) grain: Grain,
}

/// Cuts and hashes content that is in memory.
pub(super) fn cut(content: &[u8], chunker: Chunker) -> Cut {
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

/// Stores content that is in memory. If all of it is new, it becomes one member.
pub(super) fn store_small(
    archives: &mut ArchiveWriter<'_>,
    content: &[u8],
    Cut {
        blake3,
        chunks,
        grain,
    }: Cut,
    member: &NewMember,
) -> Result<StoredContent, PackError> {
    let mut all_new = true;
    let mut seen: HashSet<_, RandomState> = HashSet::default();
    for chunk in &chunks {
        // A file that contains a chunk twice does not become one member.
        let is_first = chunks.len() == 1 || seen.insert(chunk.hash);
        all_new &= is_first && archives.find(chunk, ArchiveKind::Data)?.is_none();
    }
    let size = content.len() as u64;
    let (extents, new_bytes) = if content.is_empty() {
        (Vec::new(), 0)
    } else if all_new {
        let path = [b"files/", member.header.path.as_slice()].concat();
        let member = member.at(path, content.len());
        let extent = archives.append(ArchiveKind::Data, &member, content, &chunks)?;
        (vec![extent], size)
    } else {
        let mut runs = Runs::new(archives, ArchiveKind::Data, member);
        runs.stretch(content, &chunks)?;
        runs.finish()
    };
    Ok(StoredContent {
        extents,
        blake3,
        size,
        new_bytes,
        grain,
    })
}

/// Gathers runs of new chunks into members `blocks/PATH/OFFSET` (or `index/OFFSET`).
pub(super) struct Runs<'s, 'a> {
    archives: &'s mut ArchiveWriter<'a>,
    kind: ArchiveKind,
    member: &'s NewMember,
    offset: u64,
    in_run: HashSet<ChunkHash, RandomState>,
    extents: Vec<Extent>,
    new_bytes: u64,
}

impl<'s, 'a> Runs<'s, 'a> {
    pub(super) fn new(
        archives: &'s mut ArchiveWriter<'a>,
        kind: ArchiveKind,
        member: &'s NewMember,
    ) -> Self {
        Self {
            archives,
            kind,
            member,
            offset: 0,
            in_run: HashSet::default(),
            extents: Vec::new(),
            new_bytes: 0,
        }
    }

    /// Stores `bytes`, which consist of `chunks` and follow the last stretch. A run ends with its
    /// stretch, so it is appended without a copy.
    pub(super) fn stretch(&mut self, bytes: &[u8], chunks: &[Chunk]) -> Result<(), PackError> {
        let (mut from, mut to) = (0, 0);
        let mut first = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            if self.in_run.contains(&chunk.hash) {
                // It repeats a chunk of the run, which is appended first so that it has an extent.
                self.end_run(&bytes[from..to], &chunks[first..index])?;
                (from, first) = (to, index);
            }
            let known = self.archives.find(chunk, self.kind)?;
            match known {
                Some(extent) => {
                    self.end_run(&bytes[from..to], &chunks[first..index])?;
                    push_extent(&mut self.extents, extent);
                    self.offset += extent.length;
                    (from, first) = (to + chunk.length, index + 1);
                }
                None => {
                    self.in_run.insert(chunk.hash);
                }
            }
            to += chunk.length;
        }
        self.end_run(&bytes[from..to], &chunks[first..])
    }

    /// Adds a hole after the last stretch.
    pub(super) fn hole(&mut self, length: u64) {
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
                [
                    b"blocks/",
                    self.member.header.path.as_slice(),
                    name.as_bytes(),
                ]
                .concat()
            }
            ArchiveKind::Index => format!("index/{start:016x}").into_bytes(),
        };
        let member = self.member.at(path, run.len());
        let extent = self.archives.append(self.kind, &member, run, chunks)?;
        push_extent(&mut self.extents, extent);
        self.offset += extent.length;
        self.new_bytes += extent.length;
        self.in_run.clear();
        Ok(())
    }

    /// Returns the extents in order, and the number of new bytes.
    pub(super) fn finish(self) -> (Vec<Extent>, u64) {
        (self.extents, self.new_bytes)
    }
}
