//! Reads parts of sealed archives: of a file, what is asked for, and no more of its archives than
//! that takes.
//!
//! The head of an archive, which the signed table binds, gives its key; its tail has the table of
//! its frames. Of a frame only the chunks that hold it are fetched, and each authenticates itself
//! under the key. What is fetched may be kept as ciphertext on this machine, what is decrypted only
//! in memory.
//!
//! That proves that the host, or someone with an identity, sealed every byte that is returned, as a
//! part of this archive. Only the BLAKE3 of a file, which needs all of it, proves that the index
//! means the same bytes.

mod block_cache;
mod block_file;
mod ciphertext;
mod decode;
mod error;
mod frame_cache;
mod frame_run;
mod load;
mod opened;
mod recent_parts;
mod sequential;
mod whole_files;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::open::Identities;
use crate::base::ids::ArchiveId;
use crate::format::index::Extent;
use crate::format::manifest::ArchiveRow;
use crate::repository::{ArchiveTable, HostFolder};
use crate::restore::fetch::ArchiveError;
use block_cache::BlockCache;
use ciphertext::Ciphertext;
use frame_run::FrameWant;
use load::{FIRST_PART, FrameLoader};
use opened::OpenedArchive;
use sequential::PART_BYTES;

pub use error::RangeError;

/// Archives that are opened at a time.
const OPENED_AT_ONCE: usize = 8;
/// Batches of frames that are loaded at a time for one content.
const BATCHES_AT_ONCE: usize = 2;
/// Share of the memory that one such batch may take.
const BATCH_SHARE: u64 = 4;

/// What a [`RangeReader`] may use.
#[derive(Debug, Clone)]
pub struct RangeReaderOptions {
    /// A directory for ciphertext that was fetched, shared with other processes. `None`: none.
    pub cache_dir: Option<PathBuf>,
    /// Most bytes in that directory.
    pub cache_bytes: u64,
    /// Most bytes of decrypted frames in memory.
    pub memory_bytes: u64,
}

/// Reads parts of the archives of one host's folder. Can be shared by threads. Its methods need a
/// runtime of Tokio.
pub struct RangeReader {
    loader: Arc<FrameLoader>,
    folder: HostFolder,
    identities: Arc<Identities>,
    memory_bytes: u64,
    /// Why there is no cache although one was wanted.
    cache_trouble: Option<String>,
}

impl RangeReader {
    /// Returns a reader of the archives in `folder`. Without a usable cache directory, it keeps
    /// nothing on disk and says so in [`Self::cache_trouble`].
    pub fn new(
        folder: HostFolder,
        identities: Arc<Identities>,
        options: RangeReaderOptions,
    ) -> Self {
        let wanted = options.cache_dir.filter(|_| options.cache_bytes > 0);
        let opened = wanted.map(|dir| {
            let opened = BlockCache::open(&dir, &folder.host, options.cache_bytes);
            opened.map_err(|error: io::Error| format!("{}: {error}", dir.display()))
        });
        let (cache, cache_trouble) = match opened {
            Some(Ok(cache)) => (Some(cache), None),
            Some(Err(trouble)) => (None, Some(trouble)),
            None => (None, None),
        };
        let ciphertext = Ciphertext::new(folder.clone(), cache);
        Self {
            loader: Arc::new(FrameLoader::new(
                ciphertext,
                Arc::clone(&identities),
                options.memory_bytes,
            )),
            folder,
            identities,
            memory_bytes: options.memory_bytes,
            cache_trouble,
        }
    }

    /// Returns the host's folder.
    pub fn folder(&self) -> &HostFolder {
        &self.folder
    }

    /// Returns the identities that decrypt its archives.
    pub fn identities(&self) -> &Arc<Identities> {
        &self.identities
    }

    /// Returns the bytes of archives that were fetched so far.
    pub fn fetched_bytes(&self) -> u64 {
        self.loader.ciphertext().fetched_bytes()
    }

    /// Returns why something that was fetched could not be kept, with the directory. `None`: all
    /// was, or nothing was to be.
    pub fn cache_trouble(&self) -> Option<String> {
        let trouble = self.cache_trouble.clone();
        trouble.or_else(|| self.loader.ciphertext().cache_trouble())
    }

    /// Reads the bytes `range` of an archive's tar stream. Every byte is authenticated.
    pub async fn read_archive(
        &self,
        row: &ArchiveRow,
        range: Range<u64>,
    ) -> Result<Bytes, RangeError> {
        let bytes = range.end.saturating_sub(range.start);
        let tar = range.start..range.start + bytes;
        let piece = ContentPiece { row, tar, at: 0 };
        Ok(self.read_pieces(&[piece], bytes).await?.into())
    }

    /// Returns where the frames of an archive begin in its tar stream. Empty: it has no table of
    /// them.
    pub(super) async fn frame_begins(&self, row: &ArchiveRow) -> Result<Vec<u64>, RangeError> {
        let opened = self.loader.open(row).await?;
        let frames = opened.table().unwrap_or_default();
        Ok(frames.iter().map(|frame| frame.content.start).collect())
    }

    /// Returns the bytes of an archive's tar stream; 0: it has no table of its frames.
    pub(super) async fn content_bytes(&self, row: &ArchiveRow) -> Result<u64, RangeError> {
        let opened = self.loader.open(row).await?;
        let last = opened.table().and_then(<[_]>::last);
        Ok(last.map_or(0, |frame| frame.content.end))
    }

    /// Reads several ranges of an archive's tar stream, as [`Self::read_archive`] does. Frames that
    /// they share are loaded once.
    pub(super) async fn read_ranges(
        &self,
        row: &ArchiveRow,
        ranges: Vec<Range<u64>>,
    ) -> Result<Vec<Bytes>, RangeError> {
        let (mut pieces, mut cuts, mut at) = (Vec::new(), Vec::new(), 0);
        for tar in ranges {
            let bytes = tar.end.saturating_sub(tar.start);
            cuts.push(at as usize..(at + bytes) as usize);
            pieces.push(ContentPiece { row, tar, at });
            at += bytes;
        }
        let content = Bytes::from(self.read_pieces(&pieces, at).await?);
        Ok(cuts.into_iter().map(|cut| content.slice(cut)).collect())
    }

    /// Reads the bytes `range` of the content that `extents` make, of a snapshot with this `table`.
    /// Holes are zeros. A range beyond the end is cut there.
    pub async fn read_content(
        &self,
        table: &ArchiveTable,
        extents: &[Extent],
        range: Range<u64>,
    ) -> Result<Vec<u8>, RangeError> {
        let (mut pieces, mut bytes, mut start) = (Vec::new(), 0, 0_u64);
        for extent in extents {
            let end = start.saturating_add(extent.length);
            let from = range.start.clamp(start, end) - start;
            let to = range.end.clamp(start, end) - start;
            start = end;
            if from >= to {
                continue;
            }
            if let Some(archive) = extent.archive {
                let row = table.rows.get(&archive);
                pieces.push(ContentPiece {
                    row: row.ok_or(RangeError::NotInTable(archive))?,
                    tar: extent.offset + from..extent.offset + to,
                    at: bytes,
                });
            }
            bytes += to - from;
        }
        self.read_pieces(&pieces, bytes).await
    }

    /// Returns `bytes` bytes: the pieces at their places, and zeros elsewhere.
    async fn read_pieces(
        &self,
        pieces: &[ContentPiece<'_>],
        bytes: u64,
    ) -> Result<Vec<u8>, RangeError> {
        let mut content = vec![0; bytes as usize];
        loop {
            let slices = self.slices(pieces).await?;
            match self.read_slices(&slices, &mut content).await {
                // What its table of frames says of an archive turned out to be wrong.
                Err(_) if slices.iter().any(FrameSlice::is_outdated) => {}
                read => return read.map(|()| content),
            }
        }
    }

    /// Cuts the pieces into parts of frames, in the order of their archives.
    async fn slices(&self, pieces: &[ContentPiece<'_>]) -> Result<Vec<FrameSlice>, RangeError> {
        let mut rows: Vec<&ArchiveRow> = pieces.iter().map(|piece| piece.row).collect();
        rows.sort_by_key(|row| row.id);
        rows.dedup_by_key(|row| row.id);
        // Futures of a closure would not be `Send` for every lifetime.
        let mut openings = Vec::new();
        for row in rows {
            openings.push(self.open(row));
        }
        let opened = futures::stream::iter(openings).buffered(OPENED_AT_ONCE);
        let opened: HashMap<ArchiveId, Arc<OpenedArchive>> = opened.try_collect().await?;
        let mut slices = Vec::new();
        for piece in pieces {
            let Some(opened) = opened.get(&piece.row.id) else {
                continue;
            };
            let cut = cut(opened, piece);
            let failed = |error| RangeError::new(piece.row, self.folder.target.label(), error);
            slices.extend(cut.map_err(failed)?);
        }
        slices.sort_by_key(|slice| (slice.opened.row.id, slice.number));
        Ok(slices)
    }

    /// Puts what `slices` mean into `content`: each frame is loaded once, and only some at a time.
    async fn read_slices(
        &self,
        slices: &[FrameSlice],
        content: &mut [u8],
    ) -> Result<(), RangeError> {
        let frames = slices.chunk_by(|a, b| a.is_same_frame(b));
        let frames: Vec<&[FrameSlice]> = frames.collect();
        let mut batches = Vec::new();
        for batch in batches_of(&frames, self.memory_bytes / BATCH_SHARE) {
            batches.push(self.load_batch(batch));
        }
        let mut batches = futures::stream::iter(batches).buffered(BATCHES_AT_ONCE);
        while let Some(batch) = batches.try_next().await? {
            for (slice, frame) in batch {
                let to = slice.at as usize..slice.at as usize + slice.in_frame.len();
                // Both have the size that was cut.
                if let (Some(to), Some(from)) =
                    (content.get_mut(to), frame.get(slice.in_frame.clone()))
                {
                    to.copy_from_slice(from);
                }
            }
        }
        Ok(())
    }

    /// Loads frames. Returns each slice with its frame.
    async fn load_batch<'a>(
        &self,
        frames: &[&'a [FrameSlice]],
    ) -> Result<Vec<(&'a FrameSlice, Bytes)>, RangeError> {
        let archives = frames.chunk_by(|a, b| match (a.first(), b.first()) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a.opened, &b.opened),
            _ => false,
        });
        let mut loads = Vec::new();
        for frames in archives {
            loads.push(self.load_frames(frames));
        }
        let loaded: Vec<Vec<_>> = futures::future::try_join_all(loads).await?;
        Ok(loaded.into_iter().flatten().collect())
    }

    /// Loads frames of one archive.
    async fn load_frames<'a>(
        &self,
        frames: &[&'a [FrameSlice]],
    ) -> Result<Vec<(&'a FrameSlice, Bytes)>, RangeError> {
        let Some(first) = frames.first().and_then(|slices| slices.first()) else {
            return Ok(Vec::new());
        };
        let wants: Vec<FrameWant> = frames.iter().filter_map(|one| want_of(one)).collect();
        let loaded = self.loader.frames(&first.opened, &wants).await?;
        let slices = frames.iter().flat_map(|slices| slices.iter());
        let found = slices.filter_map(|slice| Some((slice, loaded.get(&slice.number)?.clone())));
        Ok(found.collect())
    }

    async fn open(&self, row: &ArchiveRow) -> Result<(ArchiveId, Arc<OpenedArchive>), RangeError> {
        Ok((row.id, self.loader.open(row).await?))
    }
}

/// A part of an archive's tar stream, and its place in what is read.
struct ContentPiece<'a> {
    row: &'a ArchiveRow,
    tar: Range<u64>,
    at: u64,
}

/// A part of a frame, and its place in what is read.
struct FrameSlice {
    opened: Arc<OpenedArchive>,
    /// The frame's number, or that of a part of an archive that is read from its begin.
    number: u32,
    in_frame: Range<usize>,
    at: u64,
}

impl FrameSlice {
    fn is_same_frame(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opened, &other.opened) && self.number == other.number
    }

    /// Returns the bytes of the whole frame's content.
    fn frame_bytes(&self) -> u64 {
        let frames = self.opened.frames.as_deref().unwrap_or_default();
        let frame = frames.get(self.number as usize);
        frame.map_or(PART_BYTES, |frame| frame.content.end - frame.content.start)
    }

    /// Whether it was cut by a table that is no longer trusted.
    fn is_outdated(&self) -> bool {
        self.number < FIRST_PART && self.opened.table().is_none()
    }
}

/// Cuts `frames` into batches of at most `most_bytes` of content, if they are more than one frame.
fn batches_of<'s, 'f>(
    mut frames: &'s [&'f [FrameSlice]],
    most_bytes: u64,
) -> Vec<&'s [&'f [FrameSlice]]> {
    let content = |frame: &&[FrameSlice]| frame.first().map_or(0, FrameSlice::frame_bytes);
    let mut batches = Vec::new();
    while !frames.is_empty() {
        let mut bytes = 0;
        let fits = frames.iter().take_while(|frame| {
            bytes += content(frame);
            bytes <= most_bytes
        });
        let (batch, later) = frames.split_at(fits.count().max(1));
        batches.push(batch);
        frames = later;
    }
    batches
}

/// Returns the frame of `slices`, and how much of it they need.
fn want_of(slices: &[FrameSlice]) -> Option<FrameWant> {
    let ends = slices.iter().map(|slice| slice.in_frame.end as u64);
    Some(FrameWant {
        number: slices.first()?.number,
        needed: ends.max()?,
    })
}

/// Cuts a piece into parts of frames.
fn cut(
    opened: &Arc<OpenedArchive>,
    piece: &ContentPiece<'_>,
) -> Result<Vec<FrameSlice>, ArchiveError> {
    let mut slices = Vec::new();
    let mut add = |number: u32, frame: &Range<u64>| {
        let (from, to) = (
            piece.tar.start.max(frame.start),
            piece.tar.end.min(frame.end),
        );
        if from < to {
            slices.push(FrameSlice {
                opened: Arc::clone(opened),
                number,
                in_frame: (from - frame.start) as usize..(to - frame.start) as usize,
                at: piece.at + (from - piece.tar.start),
            });
        }
    };
    let Some(frames) = opened.table() else {
        let parts = piece.tar.start / PART_BYTES..piece.tar.end.div_ceil(PART_BYTES);
        for part in parts {
            let number = u32::try_from(part).ok().filter(|part| *part < FIRST_PART);
            let number = number.ok_or_else(|| lacks(opened.row.bytes, piece))?;
            let start = part * PART_BYTES;
            add(FIRST_PART | number, &(start..start + PART_BYTES));
        }
        return Ok(slices);
    };
    let total = frames.last().map_or(0, |frame| frame.content.end);
    if piece.tar.end > total {
        return Err(lacks(total, piece));
    }
    let first = frames.partition_point(|frame| frame.content.end <= piece.tar.start);
    for (number, frame) in (first as u32..).zip(&frames[first..]) {
        if frame.content.start >= piece.tar.end {
            break;
        }
        add(number, &frame.content);
    }
    Ok(slices)
}

fn lacks(total: u64, piece: &ContentPiece<'_>) -> ArchiveError {
    let needed = piece.tar.end;
    ArchiveError::Stream(format!("it has {total} bytes, {needed} are needed"))
}
