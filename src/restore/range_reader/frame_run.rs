//! A run of frames of one archive: fetched with one request, decoded each on a thread of its own.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::ciphertext::{Ciphertext, Freshness, JOINED_BYTES, blocking};
use super::decode::{DecodeError, SealedChunks, decode_beginning, decode_frame};
use super::opened::{OpenedArchive, not_authentic};
use crate::format::archive::seek_table::SeekFrame;
use crate::restore::fetch::ArchiveError;
use crate::restore::open::OpenArchiveError;

/// Content of the frames that are fetched with one request, at most, if it is more than one.
const MOST_IN_RUN: u64 = 32 << 20;
/// Frames that are fetched with one request, at most, however small they are.
pub(super) const MOST_FRAMES_IN_RUN: usize = 256;
/// What the beginning of a frame may compress worse than the whole of it, in bytes.
const BEGINNING_SLACK: u64 = 96 << 10;

/// The rest of a frame is left out if it has at least this size.
const WORTH_CUTTING: u64 = 128 << 10;

/// A frame that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameWant {
    /// Its number in the archive.
    pub(super) number: u32,
    /// How many bytes of its content are needed, from its begin.
    pub(super) needed: u64,
}

/// A frame to load, or the beginning of one.
#[derive(Debug, Clone)]
pub(super) struct RunFrame {
    pub(super) want: FrameWant,
    frame: SeekFrame,
    /// How much of `frame.compressed` is fetched at first.
    compressed: Range<u64>,
}

impl RunFrame {
    /// Returns the frame that `want` means. Of a frame whose first part will do, `may_cut` cuts off
    /// the rest.
    pub(super) fn new(frame: &SeekFrame, want: FrameWant, may_cut: bool) -> Self {
        let content = frame.content.end - frame.content.start;
        let all = frame.compressed.end - frame.compressed.start;
        // The products fit: both factors have 24 bits or so.
        let share = all * want.needed / content.max(1) + BEGINNING_SLACK;
        let is_cut = may_cut && share + WORTH_CUTTING <= all;
        let bytes = if is_cut { share } else { all };
        Self {
            want,
            compressed: frame.compressed.start..frame.compressed.start + bytes,
            frame: frame.clone(),
        }
    }

    /// Returns the bytes of the whole frame's content.
    pub(super) fn content_bytes(&self) -> u64 {
        self.frame.content.end - self.frame.content.start
    }

    /// Returns where its content begins in the tar stream.
    pub(super) fn content_start(&self) -> u64 {
        self.frame.content.start
    }

    fn is_cut(&self) -> bool {
        self.compressed != self.frame.compressed
    }
}

/// Joins frames, which are in order, to runs.
pub(super) fn runs(frames: Vec<RunFrame>) -> Vec<Vec<RunFrame>> {
    let mut runs: Vec<Vec<RunFrame>> = Vec::new();
    // Content of the last run.
    let mut run_bytes = 0;
    for frame in frames {
        let bytes = frame.content_bytes();
        let near = |last: &RunFrame| {
            let gap = frame.compressed.start.checked_sub(last.compressed.end);
            gap.is_some_and(|gap| gap < JOINED_BYTES)
        };
        match runs.last_mut() {
            Some(run)
                if run_bytes + bytes <= MOST_IN_RUN
                    && run.len() < MOST_FRAMES_IN_RUN
                    && run.last().is_some_and(near) =>
            {
                run.push(frame);
                run_bytes += bytes;
            }
            _ => {
                runs.push(vec![frame]);
                run_bytes = bytes;
            }
        }
    }
    runs
}

/// Loads the frames of `run`, by number.
pub(super) async fn load_run(
    ciphertext: &Arc<Ciphertext>,
    opened: &Arc<OpenedArchive>,
    run: &[RunFrame],
) -> Result<HashMap<u32, Result<Bytes, ArchiveError>>, ArchiveError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(HashMap::new());
    };
    let all = first.compressed.start..last.compressed.end;
    let part = match opened.take_whole() {
        Some(whole) => {
            let chunks = opened.sealed_of(&opened.layout.chunks_of(&all));
            let sealed = whole
                .bytes
                .slice(chunks.start as usize..chunks.end as usize);
            FetchedChunks {
                chunks: SealedChunks {
                    first: opened.layout.chunks_of(&all).start,
                    sealed,
                },
                is_from_cache: whole.is_from_cache,
            }
        }
        None => fetch(ciphertext, opened, &all, Freshness::Any).await?,
    };
    let decoded = run.iter().map(async |frame| {
        let content = decode(ciphertext, opened, frame, part.clone()).await;
        (frame.want.number, content)
    });
    Ok(join_all(decoded).await.into_iter().collect())
}

/// Chunks, and whether they may be damaged without the archive's being so.
#[derive(Clone)]
struct FetchedChunks {
    chunks: SealedChunks,
    is_from_cache: bool,
}

/// Fetches the chunks that hold the bytes `compressed` of the compressed stream.
async fn fetch(
    ciphertext: &Ciphertext,
    opened: &OpenedArchive,
    compressed: &Range<u64>,
    freshness: Freshness,
) -> Result<FetchedChunks, ArchiveError> {
    let chunks = opened.layout.chunks_of(compressed);
    let sealed = opened.sealed_of(&chunks);
    let part = ciphertext.read(&opened.row, sealed, freshness).await?;
    Ok(FetchedChunks {
        chunks: SealedChunks {
            first: chunks.start,
            sealed: part.bytes,
        },
        is_from_cache: part.is_from_cache,
    })
}

/// Decodes a frame. Fetches what is missing of it, and what the cache had damaged.
async fn decode(
    ciphertext: &Ciphertext,
    opened: &Arc<OpenedArchive>,
    frame: &RunFrame,
    mut part: FetchedChunks,
) -> Result<Bytes, ArchiveError> {
    let mut frame = frame.clone();
    loop {
        let (archive, chunks, one) = (Arc::clone(opened), part.chunks.clone(), frame.clone());
        let decoding = move || match one.is_cut() {
            true => decode_beginning(&archive, &one.compressed, one.want.needed, &chunks),
            false => decode_frame(&archive, &one.frame, &chunks),
        };
        let error = match blocking(decoding).await? {
            Ok(content) => return Ok(content),
            Err(error) => error,
        };
        match error {
            DecodeError::Chunk if part.is_from_cache => {
                // What is fetched now takes the place of what the cache has.
                let fresh = Freshness::Fetched;
                part = fetch(ciphertext, opened, &frame.compressed, fresh).await?;
            }
            DecodeError::Chunk => return Err(not_authentic()),
            DecodeError::NoMemory => return Err(ArchiveError::Open(OpenArchiveError::NoMemory)),
            DecodeError::Short | DecodeError::Frame if frame.is_cut() => {
                part = complete(ciphertext, opened, &frame, part).await?;
                frame.compressed = frame.frame.compressed.clone();
            }
            DecodeError::Short | DecodeError::Frame => {
                opened.distrust_table();
                let what = "a frame is not what its seek table says".to_owned();
                return Err(ArchiveError::Stream(what));
            }
        }
    }
}

/// Fetches the rest of a frame whose beginning is `part`.
async fn complete(
    ciphertext: &Ciphertext,
    opened: &OpenedArchive,
    frame: &RunFrame,
    part: FetchedChunks,
) -> Result<FetchedChunks, ArchiveError> {
    let here = opened.layout.chunks_of(&frame.compressed);
    let rest = opened.layout.plain_start(here.end)..frame.frame.compressed.end;
    let more = fetch(ciphertext, opened, &rest, Freshness::Any).await?;
    let before = opened.layout.sealed_of(&(0..part.chunks.first)).end;
    let own = opened.layout.sealed_of(&here);
    let own = (own.start - before) as usize..(own.end - before) as usize;
    let sealed = [part.chunks.sealed.slice(own), more.chunks.sealed].concat();
    Ok(FetchedChunks {
        chunks: SealedChunks {
            first: here.start,
            sealed: sealed.into(),
        },
        is_from_cache: part.is_from_cache || more.is_from_cache,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, compressed: Range<u64>) -> RunFrame {
        let content = 8 << 20;
        let frame = SeekFrame {
            compressed,
            content: 0..content,
        };
        let needed = content;
        RunFrame::new(&frame, FrameWant { number, needed }, true)
    }

    #[test]
    fn near_frames_are_fetched_with_one_request() {
        let mib = 1 << 20;
        let frames = vec![
            frame(0, 0..2 * mib),
            frame(1, 2 * mib..3 * mib),
            // One of less than 1 MiB is left out between them.
            frame(3, 4 * mib - 1..5 * mib),
            frame(5, 6 * mib..7 * mib),
        ];
        let numbers = |frames| -> Vec<Vec<u32>> {
            let runs = runs(frames).into_iter();
            runs.map(|run| run.iter().map(|one| one.want.number).collect())
                .collect()
        };
        assert_eq!(numbers(frames), [vec![0, 1, 3], vec![5]]);
        let many = (0..6).map(|n| frame(n, u64::from(n)..u64::from(n) + 1));
        assert_eq!(numbers(many.collect()), [vec![0, 1, 2, 3], vec![4, 5]]);
    }

    #[test]
    fn only_the_beginning_of_a_frame_is_fetched_if_that_will_do() {
        let whole = SeekFrame {
            compressed: 100..100 + (2 << 20),
            content: 0..8 << 20,
        };
        let cut = |needed, may_cut| {
            let run = RunFrame::new(&whole, FrameWant { number: 0, needed }, may_cut);
            run.compressed.end - run.compressed.start
        };
        assert_eq!(cut(4096, true), 1024 + BEGINNING_SLACK);
        assert_eq!(cut(4 << 20, true), (1 << 20) + BEGINNING_SLACK);
        assert_eq!(cut((8 << 20) - 4096, true), 2 << 20);
        assert_eq!(cut(4096, false), 2 << 20);
    }
}
