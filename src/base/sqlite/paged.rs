//! Runs a query on a database that is not a file here: its bytes come from a [`PageSource`].
//!
//! A child opens the database, since anyone may have written it. It has no file, no network, no
//! temporary file and no key. Its SQLite asks this process for each part of the content that it
//! reads, and this process fetches it. Rows arrive one at a time, so that their number is not
//! bounded by memory.

mod channel;
mod child;
mod error;
mod frame;
mod vfs;

use std::ops::Range;
use std::time::{Duration, Instant};

use super::message::ChildAnswer;
use super::process::{ChildProcess, START, Silence};
use super::refusal::silence_text;
pub(super) use child::serve;
pub use error::PagedQueryError;
use frame::{FrameKind, HEADER_BYTES, MOST_FRAME_BYTES, MOST_READ_BYTES, PagedRequest};
pub use frame::{MOST_QUERY_BYTES, SqlValue};

/// Bytes that are read from the child at once.
const RECEIVE_BYTES: usize = 64 << 10;

/// The content of a database.
pub trait PageSource {
    /// Why content cannot be read.
    type Error;

    /// Returns the length of the content in bytes.
    fn bytes(&self) -> u64;

    /// Reads the bytes `range`, all of which exist, within the time that is `left`.
    fn read(&mut self, range: Range<u64>, left: Duration) -> Result<Vec<u8>, Self::Error>;
}

/// The rows that a query returns, one after the other.
pub struct PagedRows<S> {
    source: S,
    child: ChildProcess,
    columns: Vec<String>,
    received: Vec<u8>,
    /// Position in `received` at which the next frame begins.
    at: usize,
    /// The time that the query may take, without the time that the caller spends between two rows.
    time: Duration,
    spent: Duration,
    is_done: bool,
}

impl<S: PageSource> PagedRows<S> {
    /// Starts `query` on the database whose content is `source`; it may take this `time`.
    pub fn start(
        source: S,
        query: &str,
        time: Duration,
    ) -> Result<Self, PagedQueryError<S::Error>> {
        if query.len() > MOST_QUERY_BYTES {
            return Err(PagedQueryError::LongQuery(query.len()));
        }
        let request = PagedRequest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            bytes: source.bytes(),
            cpu_seconds: time.as_secs().saturating_add(2),
            query: query.to_owned(),
        };
        let started = request.start();
        let child = started.map_err(|silence| PagedQueryError::Process(silence_text(silence)))?;
        let mut rows = Self {
            source,
            child,
            columns: Vec::new(),
            received: Vec::new(),
            at: 0,
            time: time.saturating_add(START),
            spent: Duration::ZERO,
            is_done: false,
        };
        match rows.timed()? {
            Some(Message::Columns(columns)) => rows.columns = columns,
            _ => return Err(rows.unreadable()),
        }
        // The start of a process is not the query's time.
        rows.time = time;
        Ok(rows)
    }

    /// Returns the names of the columns. None: the statement returns no rows.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the next message, and counts the time that it takes.
    fn timed(&mut self) -> Result<Option<Message>, PagedQueryError<S::Error>> {
        let began = Instant::now();
        let deadline = began + self.time.saturating_sub(self.spent);
        let message = self.message(deadline);
        self.spent += began.elapsed();
        message
    }

    /// Answers the child's reads until it sends something else. `None`: it is done.
    fn message(&mut self, deadline: Instant) -> Result<Option<Message>, PagedQueryError<S::Error>> {
        loop {
            let frame = self.frame(deadline);
            let (kind, payload) = match frame {
                Ok(frame) => frame,
                Err(silence) => return Err(self.silent(silence)),
            };
            match kind {
                FrameKind::Read => {
                    let range = frame::parse_read(&payload)
                        .filter(|range| range.end <= self.source.bytes())
                        .filter(|range| range.end - range.start <= MOST_READ_BYTES);
                    let range = range.ok_or_else(|| self.unreadable())?;
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(PagedQueryError::TimeUp(self.time));
                    }
                    let wanted = range.end - range.start;
                    let bytes = self.source.read(range, left);
                    let bytes = bytes.map_err(PagedQueryError::Content)?;
                    if bytes.len() as u64 != wanted {
                        let why = "the content is shorter than the index says".to_owned();
                        return Err(PagedQueryError::Process(why));
                    }
                    let header = frame::header(FrameKind::Bytes, bytes.len());
                    let sent = self.child.send(&[&header[..], &bytes].concat(), deadline);
                    sent.map_err(|silence| self.silent(silence))?;
                }
                FrameKind::Columns => {
                    let names = serde_json::from_slice(&payload);
                    let names = names.map_err(|_| self.unreadable())?;
                    return Ok(Some(Message::Columns(names)));
                }
                FrameKind::Row => {
                    let row = frame::parse_row(&payload, self.columns.len());
                    let row = row.ok_or_else(|| self.unreadable())?;
                    return Ok(Some(Message::Row(row)));
                }
                FrameKind::Failed => {
                    let answer = serde_json::from_slice(&payload);
                    let answer: ChildAnswer = answer.map_err(|_| self.unreadable())?;
                    return Err(error::refused(answer));
                }
                FrameKind::End => return Ok(None),
                FrameKind::Bytes => return Err(self.unreadable()),
            }
        }
    }

    /// Receives one frame.
    fn frame(&mut self, deadline: Instant) -> Result<(FrameKind, Vec<u8>), Silence> {
        self.receive(HEADER_BYTES, deadline)?;
        let header = &self.received[self.at..self.at + HEADER_BYTES];
        let (kind, length) = frame::parse_header(header).ok_or(Silence::Unreadable)?;
        if length > MOST_FRAME_BYTES {
            return Err(Silence::Unreadable);
        }
        self.receive(HEADER_BYTES + length, deadline)?;
        let start = self.at + HEADER_BYTES;
        self.at = start + length;
        Ok((kind, self.received[start..self.at].to_vec()))
    }

    /// Receives until `wanted` bytes are there after the last frame.
    fn receive(&mut self, wanted: usize, deadline: Instant) -> Result<(), Silence> {
        if self.received.len() - self.at >= wanted {
            return Ok(());
        }
        self.received.drain(..self.at);
        self.at = 0;
        let mut buffer = [0; RECEIVE_BYTES];
        while self.received.len() < wanted {
            let bytes = self.child.receive(&mut buffer, deadline, self.time)?;
            self.received.extend_from_slice(&buffer[..bytes]);
        }
        Ok(())
    }

    fn silent(&self, silence: Silence) -> PagedQueryError<S::Error> {
        match silence {
            Silence::Late(_) => PagedQueryError::TimeUp(self.time),
            other => PagedQueryError::Process(silence_text(other)),
        }
    }

    fn unreadable(&self) -> PagedQueryError<S::Error> {
        self.silent(Silence::Unreadable)
    }
}

/// What the child sends, apart from its reads.
enum Message {
    Columns(Vec<String>),
    Row(Vec<SqlValue>),
}

impl<S: PageSource> Iterator for PagedRows<S> {
    type Item = Result<Vec<SqlValue>, PagedQueryError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = match self.timed() {
            Ok(Some(Message::Row(row))) => Some(Ok(row)),
            Ok(Some(Message::Columns(_))) => Some(Err(self.unreadable())),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}
