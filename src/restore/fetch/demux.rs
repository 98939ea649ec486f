//! Cutting a tar stream into the pieces that somebody wants.
//!
//! Pieces may overlap (two files that share content) and lie in any order in their files; the stream
//! is read once, forwards, to the end of the last piece. It is never read beyond what the index allows, so
//! a bomb cannot swell. The stream itself is not hashed: its ciphertext is, and so is every file.

use std::io::{self, Read};

use super::sink::Sink;
use crate::restore::open::OpenArchiveError;
use crate::restore::plan::{ArchiveJob, Piece};

const BUFFER_BYTES: usize = 256 << 10;

pub(super) enum DemuxError {
    Open(OpenArchiveError),
    Stream(String),
    Write(io::Error),
}

pub(super) fn demux(
    tar: &mut dyn Read,
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
    let mut buffer = vec![0; BUFFER_BYTES];
    while cutter.position < needed_bytes {
        let count = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DemuxError::Open(OpenArchiveError::reading(error))),
        };
        let end = cutter.position + count as u64;
        if job.stream.is_some_and(|stream| end > stream.tar_bytes) {
            let what = "it is longer (a bomb, or another archive)";
            return Err(DemuxError::Stream(what.to_owned()));
        }
        cutter
            .deliver(&buffer[..count], sink)
            .map_err(DemuxError::Write)?;
    }
    if cutter.position < needed_bytes {
        let (is, needs) = (cutter.position, needed_bytes);
        let what = format!("it has {is} bytes, {needs} are needed");
        return Err(DemuxError::Stream(what));
    }
    Ok(())
}

struct Cutter<'a, I: Iterator<Item = &'a Piece>> {
    waiting: std::iter::Peekable<I>,
    /// Begun and not ended before `position`.
    active: Vec<&'a Piece>,
    position: u64,
}

impl<'a, I: Iterator<Item = &'a Piece>> Cutter<'a, I> {
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
