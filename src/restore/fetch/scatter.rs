//! Cutting a tar stream into the pieces that somebody wants.
//!
//! Pieces may overlap (two files that share content) and lie in any order in their files; the stream
//! is read once, forwards. It is never read beyond what the index allows, so a bomb cannot swell.

use std::io::{self, Read};

use super::super::open::OpenError;
use super::super::plan::{ArchiveJob, Piece};
use super::Sink;
use crate::ids::Hash;

const BUFFER_BYTES: usize = 256 << 10;

pub(super) enum ScatterError {
    Open(OpenError),
    Stream(String),
    Write(io::Error),
}

pub(super) fn scatter(
    tar: &mut dyn Read,
    job: &ArchiveJob,
    sink: &mut dyn Sink,
) -> Result<(), ScatterError> {
    let ends = job.pieces.iter().map(|p| p.tar_offset + p.length);
    let needed_bytes = ends.max().unwrap_or(0);
    let mut cutter = Cutter {
        waiting: job.pieces.iter().peekable(),
        active: Vec::new(),
        position: 0,
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    // Without a promise about the stream nothing is to be compared behind the last piece.
    while job.stream.is_some() || cutter.position < needed_bytes {
        let count = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ScatterError::Open(OpenError::reading(error))),
        };
        let end = cutter.position + count as u64;
        if job.stream.is_some_and(|stream| end > stream.tar_bytes) {
            let what = "it is longer (a bomb, or another archive)";
            return Err(ScatterError::Stream(what.to_owned()));
        }
        hasher.update(&buffer[..count]);
        cutter
            .deliver(&buffer[..count], sink)
            .map_err(ScatterError::Write)?;
    }
    if cutter.position < needed_bytes {
        let (is, needs) = (cutter.position, needed_bytes);
        let what = format!("it has {is} bytes, {needs} are needed");
        return Err(ScatterError::Stream(what));
    }
    let Some(promised) = job.stream else {
        return Ok(());
    };
    let found = Hash(*hasher.finalize().as_bytes());
    match cutter.position == promised.tar_bytes && found == promised.tar_blake3 {
        true => Ok(()),
        false => Err(ScatterError::Stream("its BLAKE3 differs".to_owned())),
    }
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
