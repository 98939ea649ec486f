//! Cuts the needed pieces out of a tar stream.
//!
//! Pieces may overlap (two files that share content) and may be in any order in their files. The
//! stream is read once, forwards, to the end of the last piece, and never beyond the size that the
//! index states: so a decompression bomb has no effect. The stream itself is not hashed, since its
//! ciphertext and every file are.

use std::io::{self, BufRead};

use super::sink::Sink;
use crate::restore::open::OpenArchiveError;
use crate::restore::plan::{ArchiveJob, Piece};

/// Why a tar stream could not be cut.
pub(super) enum DemuxError {
    /// It cannot be read.
    Open(OpenArchiveError),
    /// It contradicts the index.
    Stream(String),
    /// A piece cannot be written.
    Write(io::Error),
}

/// Passes the pieces of `job` in `tar` to `sink`.
pub(super) fn demux(
    tar: &mut dyn BufRead,
    job: &ArchiveJob,
    sink: &mut dyn Sink,
) -> Result<(), DemuxError> {
    let ends = job.pieces.iter().map(|p| p.tar_offset + p.length);
    let needed_bytes = ends.max().unwrap_or(0);
    let mut cutter = Cutter {
        waiting: job.pieces.iter().peekable(),
        active: Vec::new(),
        position: 0,
    };
    while cutter.position < needed_bytes {
        let bytes = match tar.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DemuxError::Open(OpenArchiveError::reading(error))),
        };
        let count = bytes.len();
        let end = cutter.position + count as u64;
        if job.stream.is_some_and(|stream| end > stream.tar_bytes) {
            let what = "it is longer (a decompression bomb, or another archive)";
            return Err(DemuxError::Stream(what.to_owned()));
        }
        cutter.deliver(bytes, sink).map_err(DemuxError::Write)?;
        tar.consume(count);
    }
    if cutter.position < needed_bytes {
        let (is, needs) = (cutter.position, needed_bytes);
        let what = format!("it has {is} bytes, {needs} are needed");
        return Err(DemuxError::Stream(what));
    }
    Ok(())
}

/// The position in a tar stream.
struct Cutter<'a, I: Iterator<Item = &'a Piece>> {
    /// Pieces that begin after `position`.
    waiting: std::iter::Peekable<I>,
    /// Pieces that contain `position`.
    active: Vec<&'a Piece>,
    position: u64,
}

impl<'a, I: Iterator<Item = &'a Piece>> Cutter<'a, I> {
    /// Takes the next bytes of the stream.
    fn deliver(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> io::Result<()> {
        let (start, end) = (self.position, self.position + bytes.len() as u64);
        while let Some(piece) = self.waiting.next_if(|piece| piece.tar_offset < end) {
            self.active.push(piece);
        }
        for piece in &self.active {
            let from = piece.tar_offset.max(start);
            let to = (piece.tar_offset + piece.length).min(end);
            let slice = &bytes[(from - start) as usize..(to - start) as usize];
            sink.write(piece, from - piece.tar_offset, slice)?;
        }
        let ended = |piece: &&Piece| piece.tar_offset + piece.length <= end;
        self.active.retain(|piece| !ended(piece));
        self.position = end;
        Ok(())
    }
}
