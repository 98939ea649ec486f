//! Opens an archive for reading in parts: its head gives the key, its tail the table of its frames.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::ciphertext::{CipherPart, Ciphertext, Freshness, blocking};
use super::error::is_damage;
use crate::format::archive::age_header::AgeHeader;
use crate::format::archive::age_payload::{PayloadKey, PayloadLayout};
use crate::format::archive::seek_table::{self, SeekFrame, SeekTableError};
use crate::format::manifest::ArchiveRow;
use crate::restore::fetch::ArchiveError;
use crate::restore::open::{Identities, OpenArchiveError, payload_key, read_head};

/// Bytes at an archive's begin that are fetched for its age header, and as much more as it takes.
const HEAD_BYTES: u64 = 4 << 10;
const MOST_HEAD_BYTES: u64 = 8 << 20;
/// Bytes at its end that are fetched for the table of its frames: its last encrypted chunk, with
/// the one before it if that is short, and as much more as a large table takes.
const TAIL_BYTES: u64 = 68 << 10;
/// A smaller archive is fetched whole.
const SMALL_ARCHIVE_BYTES: u64 = 256 << 10;

/// An archive whose key is known and whose frames are known, if it has a table.
pub(super) struct OpenedArchive {
    pub(super) row: ArchiveRow,
    pub(super) key: PayloadKey,
    /// Bytes before the payload.
    pub(super) head_bytes: u64,
    pub(super) layout: PayloadLayout,
    /// The frames, unless the archive has no usable table.
    pub(super) frames: Result<Vec<SeekFrame>, SeekTableError>,
    /// The frames are not what the table says: it must be read from its begin.
    is_misdescribed: AtomicBool,
    /// The ciphertext of a small archive, until its frames are read.
    whole: Mutex<Option<CipherPart>>,
    /// The last frame that was read.
    last: AtomicU32,
    /// How many frames up to it were read in order.
    in_order: AtomicU32,
    /// Their content, bytes.
    in_order_bytes: AtomicU64,
}

impl OpenedArchive {
    /// Returns the bytes of the archive that the chunks have.
    pub(super) fn sealed_of(&self, chunks: &Range<u64>) -> Range<u64> {
        let sealed = self.layout.sealed_of(chunks);
        self.head_bytes + sealed.start..self.head_bytes + sealed.end
    }

    /// Returns the frames, unless the archive must be read from its begin.
    pub(super) fn table(&self) -> Option<&[SeekFrame]> {
        let frames = self.frames.as_deref().ok();
        frames.filter(|_| !self.is_misdescribed.load(Ordering::Relaxed))
    }

    /// Notes that a frame is not what the table says.
    pub(super) fn distrust_table(&self) {
        self.is_misdescribed.store(true, Ordering::Relaxed);
    }

    /// Takes the whole ciphertext, if it is here.
    pub(super) fn take_whole(&self) -> Option<CipherPart> {
        let whole = self.whole.lock();
        whole.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes that one read took the frames `first..=last`, with `bytes` of content. Returns how
    /// many frames in a row were read in order, and their content; the first read counts.
    pub(super) fn note_order(&self, first: u32, last: u32, bytes: u64) -> (u32, u64) {
        let (frames, total) = (&self.in_order, &self.in_order_bytes);
        let before = self.last.swap(last, Ordering::Relaxed);
        if before == last {
            return (
                frames.load(Ordering::Relaxed),
                total.load(Ordering::Relaxed),
            );
        }
        let is_next = before.checked_add(1) == Some(first) || before == first;
        if let Some(more) = last.checked_sub(before).filter(|_| is_next) {
            return (
                frames.fetch_add(more, Ordering::Relaxed) + more,
                total.fetch_add(bytes, Ordering::Relaxed) + bytes,
            );
        }
        frames.store(1, Ordering::Relaxed);
        total.store(bytes, Ordering::Relaxed);
        (1, bytes)
    }
}

/// Opens the archive `row`. What is wrong in the cache is fetched again.
pub(super) async fn open(
    ciphertext: &Ciphertext,
    identities: &Arc<Identities>,
    row: &ArchiveRow,
) -> Result<OpenedArchive, ArchiveError> {
    let mut opening = Opening {
        ciphertext,
        identities,
        row,
        freshness: Freshness::Any,
        used_cache: false,
    };
    match opening.open().await {
        Err(error) if opening.used_cache && is_damage(&error) => {
            // What is fetched now takes the place of what the cache has.
            opening.freshness = Freshness::Fetched;
            opening.open().await
        }
        opened => opened,
    }
}

struct Opening<'a> {
    ciphertext: &'a Ciphertext,
    identities: &'a Arc<Identities>,
    row: &'a ArchiveRow,
    freshness: Freshness,
    used_cache: bool,
}

impl Opening<'_> {
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let read = self.ciphertext.read(self.row, range, self.freshness).await;
        let CipherPart {
            bytes,
            is_from_cache,
        } = read?;
        self.used_cache |= is_from_cache;
        Ok(bytes)
    }

    async fn open(&mut self) -> Result<OpenedArchive, ArchiveError> {
        let total = self.row.bytes;
        let tail_start = match total <= SMALL_ARCHIVE_BYTES {
            true => 0,
            false => total - TAIL_BYTES,
        };
        let (begin, tail) = if tail_start == 0 {
            let whole = self.read(0..total).await?;
            (whole.clone(), whole)
        } else {
            let read = |range| self.ciphertext.read(self.row, range, self.freshness);
            let (begin, tail) = (read(0..HEAD_BYTES), read(tail_start..total));
            let (begin, tail) = futures::future::try_join(begin, tail).await?;
            self.used_cache |= begin.is_from_cache || tail.is_from_cache;
            (begin.bytes, tail.bytes)
        };
        let head = self.head(begin).await?;
        let head_bytes = head.bytes().len() as u64;
        let identities = Arc::clone(self.identities);
        // A plugin may ask its user for something.
        let key = blocking(move || payload_key(&head, &identities)).await?;
        let key = key.map_err(ArchiveError::Open)?;
        let layout = PayloadLayout::new(total - head_bytes);
        let layout = layout.ok_or(ArchiveError::Open(OpenArchiveError::Truncated))?;
        let mut opened = OpenedArchive {
            row: self.row.clone(),
            key,
            head_bytes,
            layout,
            frames: Err(SeekTableError::Absent),
            is_misdescribed: AtomicBool::new(false),
            whole: Mutex::new((tail_start == 0).then(|| CipherPart {
                bytes: tail.clone(),
                is_from_cache: self.used_cache,
            })),
            last: AtomicU32::new(u32::MAX),
            in_order: AtomicU32::new(0),
            in_order_bytes: AtomicU64::new(0),
        };
        opened.frames = self.frames(&opened, tail_start, tail).await?;
        Ok(opened)
    }

    /// Returns the age header that begins with `begin`, if it is the one of the row.
    async fn head(&mut self, mut begin: Bytes) -> Result<AgeHeader, ArchiveError> {
        loop {
            let have = begin.len() as u64;
            let head = match read_head(&mut &begin[..]) {
                Err(OpenArchiveError::Truncated)
                    if have < self.row.bytes && have < MOST_HEAD_BYTES =>
                {
                    let more = self.read(have..self.row.bytes.min(have * 2)).await?;
                    begin = [begin, more].concat().into();
                    continue;
                }
                other => other.map_err(ArchiveError::Open)?,
            };
            return match head.sha256() == self.row.head_sha256 {
                true => Ok(head),
                false => Err(ArchiveError::Hash("age header")),
            };
        }
    }

    /// Reads the table of frames. `tail` is the archive from `tail_start` on.
    async fn frames(
        &mut self,
        opened: &OpenedArchive,
        tail_start: u64,
        tail: Bytes,
    ) -> Result<Result<Vec<SeekFrame>, SeekTableError>, ArchiveError> {
        let layout = opened.layout;
        let first = layout.first_whole_from(tail_start.saturating_sub(opened.head_bytes));
        let sealed = opened.sealed_of(&(first..layout.chunks()));
        let skipped = (sealed.start - tail_start) as usize;
        let plain = opened
            .key
            .open_chunks(layout, first, tail.slice(skipped..).into());
        let plain = plain.map_err(|_| not_authentic())?;
        let table_bytes = match seek_table::table_bytes(&plain) {
            Ok(bytes) if bytes <= layout.plain_bytes() => bytes,
            Ok(_) => {
                let wrong = SeekTableError::Wrong("is longer than the archive");
                return Ok(Err(wrong));
            }
            Err(error) => return Ok(Err(error)),
        };
        let table_start = layout.plain_bytes() - table_bytes;
        let here = layout.plain_start(first);
        if table_start >= here {
            let table = &plain[(table_start - here) as usize..];
            return Ok(seek_table::decode(table, layout.plain_bytes()));
        }
        // A large archive has a larger table.
        let chunks = layout.chunks_of(&(table_start..here));
        let more = self.read(opened.sealed_of(&chunks)).await?;
        let more = opened.key.open_chunks(layout, chunks.start, more.into());
        let more = more.map_err(|_| not_authentic())?;
        let from = (table_start - layout.plain_start(chunks.start)) as usize;
        let table = [&more[from..], &plain[..]].concat();
        Ok(seek_table::decode(&table, layout.plain_bytes()))
    }
}

/// The error for a chunk that does not decrypt.
pub(super) fn not_authentic() -> ArchiveError {
    ArchiveError::Open(OpenArchiveError::Corrupt("it does not decrypt".to_owned()))
}
