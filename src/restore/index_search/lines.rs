//! Lines of an index, read in order from somewhere on.

use super::source::IndexSource;
use super::{MOST_LINE_BYTES, NotFound};

/// Bytes that are read at first, and at most at a time.
const FIRST_BYTES: u64 = 32 << 10;
const MOST_BYTES: u64 = 4 << 20;

/// A part of the index that moves on line by line.
pub(super) struct LineWindow<'a, S> {
    source: &'a S,
    bytes: Vec<u8>,
    /// Position in the index at which `bytes` begins.
    start: u64,
    /// Position in `bytes` of the next line.
    next: usize,
    read_next: u64,
}

impl<'a, S: IndexSource> LineWindow<'a, S> {
    /// Returns a window at `start`, where a line begins.
    pub(super) fn new(source: &'a S, start: u64) -> Self {
        Self {
            source,
            bytes: Vec::new(),
            start,
            next: 0,
            read_next: FIRST_BYTES,
        }
    }

    /// Returns the position of the next line.
    pub(super) fn position(&self) -> u64 {
        self.start + self.next as u64
    }

    /// Returns the next line, without its newline. `None`: the index ends.
    pub(super) async fn line(&mut self) -> Result<Option<&[u8]>, NotFound> {
        let mut searched = self.next;
        let end = loop {
            let end = lines_end(&self.bytes, searched);
            if end < self.bytes.len() {
                break end;
            }
            searched = end - self.next;
            if !self.read_more().await? {
                return match self.bytes.is_empty() {
                    true => Ok(None),
                    // It ends within a line.
                    false => Err(NotFound::ReadWhole),
                };
            }
        };
        let begin = std::mem::replace(&mut self.next, end + 1);
        Ok(Some(&self.bytes[begin..end]))
    }

    /// Reads the next bytes, and drops the lines that were returned. Returns false at the end.
    async fn read_more(&mut self) -> Result<bool, NotFound> {
        if (self.bytes.len() - self.next) as u64 > MOST_LINE_BYTES {
            return Err(NotFound::ReadWhole);
        }
        self.bytes.drain(..self.next);
        self.start += self.next as u64;
        self.next = 0;
        let from = self.start + self.bytes.len() as u64;
        let more = self.source.read(from..from + self.read_next).await?;
        self.read_next = (self.read_next * 2).min(MOST_BYTES);
        self.bytes.extend_from_slice(&more);
        Ok(!more.is_empty())
    }
}

/// Returns where the line ends that `from` is in: at its newline, or at the end of `bytes`.
pub(super) fn lines_end(bytes: &[u8], from: usize) -> usize {
    let newline = memchr::memchr(b'\n', &bytes[from..]);
    newline.map_or(bytes.len(), |at| from + at)
}
