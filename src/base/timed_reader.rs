//! Reads a stream whose other side may fall silent.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait.
const MOST_PIECES: usize = 4;

/// A reader with a deadline for each read. A thread of its own reads the stream; it ends with the
/// stream, or with the process.
pub(crate) struct TimedReader {
    pieces: Receiver<io::Result<Vec<u8>>>,
    /// The piece that is being read, and how much of it was.
    piece: Vec<u8>,
    taken: usize,
    /// Longest silence.
    patience: Duration,
    is_over: bool,
}

impl TimedReader {
    /// Starts to read `stream`.
    pub(crate) fn start(
        mut stream: impl Read + Send + 'static,
        patience: Duration,
    ) -> io::Result<Self> {
        let (send, pieces) = sync_channel(MOST_PIECES);
        let named = std::thread::Builder::new().name("read-stream".to_owned());
        named.spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match stream.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(count) => {
                        piece.truncate(count);
                        Ok(piece)
                    }
                    Err(error) => Err(error),
                };
                let is_last = read.as_ref().map_or(true, Vec::is_empty);
                // The receiver is gone once its owner reads no further.
                if send.send(read).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(Self {
            pieces,
            piece: Vec::new(),
            taken: 0,
            patience,
            is_over: false,
        })
    }

    /// Sets the longest silence from now on.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Makes `piece` the next one, unless some of it is left.
    fn fill(&mut self) -> io::Result<()> {
        if self.taken < self.piece.len() || self.is_over {
            return Ok(());
        }
        // Should the next one not arrive, this one is not read again.
        self.piece.clear();
        self.taken = 0;
        self.piece = match self.pieces.recv_timeout(self.patience) {
            Ok(piece) => piece?,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.patience.as_secs();
                let what = format!("nothing arrived for {seconds} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Err(RecvTimeoutError::Disconnected) => Vec::new(),
        };
        self.is_over = self.piece.is_empty();
        Ok(())
    }
}

impl Read for TimedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let rest = &self.piece[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_stream_is_read_to_its_end_and_a_silent_one_is_given_up() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut timed = TimedReader::start(reader, Duration::from_millis(50)).unwrap();
        writer.write_all(b"abcdef").unwrap();
        let mut some = [0; 4];
        timed.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"abcd");
        timed.read_exact(&mut some[..2]).unwrap();
        let silent = timed.read(&mut some).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        timed.set_patience(Duration::from_secs(20));
        writer.write_all(b"g").unwrap();
        drop(writer);
        let mut rest = Vec::new();
        timed.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"g");
        assert_eq!(timed.read(&mut some).unwrap(), 0);
    }
}
