//! The child's end of the socket: its reads, and the rows that it sends.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use rusqlite::types::ValueRef;
use serde::Serialize;

use super::frame::{self, FrameKind, HEADER_BYTES};
use crate::base::lock::lock;

/// Rows are sent at once when they have this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// The connection of this process to its parent.
struct PageChannel {
    parent: UnixStream,
    /// Length of the database.
    bytes: u64,
    /// Frames that are not sent yet.
    unsent: Vec<u8>,
}

static CHANNEL: Mutex<Option<PageChannel>> = Mutex::new(None);

/// Makes `parent` the process that answers the reads of a database of this length.
pub(super) fn open(parent: UnixStream, bytes: u64) {
    *lock(&CHANNEL) = Some(PageChannel {
        parent,
        bytes,
        unsent: Vec::new(),
    });
}

/// Does something with the channel, which is open.
fn with<T>(work: impl FnOnce(&mut PageChannel) -> io::Result<T>) -> io::Result<T> {
    match &mut *lock(&CHANNEL) {
        Some(channel) => work(channel),
        None => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// Returns the length of the database.
pub(super) fn bytes() -> u64 {
    with(|channel| Ok(channel.bytes)).unwrap_or(0)
}

/// Fills `into` with the content from `offset` on. Returns the number of bytes that exist there;
/// the rest of `into` is unchanged.
pub(super) fn read_at(into: &mut [u8], offset: u64) -> io::Result<usize> {
    with(|channel| {
        let there = channel.bytes.saturating_sub(offset);
        let wanted = into.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        channel.push(FrameKind::Read, &frame::read(offset, wanted));
        channel.flush()?;
        let mut header = [0; HEADER_BYTES];
        channel.parent.read_exact(&mut header)?;
        if frame::parse_header(&header) != Some((FrameKind::Bytes, wanted)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        channel.parent.read_exact(&mut into[..wanted])?;
        Ok(wanted)
    })
}

/// Sends a value as JSON, or (`None`) a frame without content, and all that waits.
pub(super) fn send(kind: FrameKind, value: Option<&impl Serialize>) -> io::Result<()> {
    let payload = value.map(serde_json::to_vec).transpose()?;
    with(|channel| {
        channel.push(kind, &payload.unwrap_or_default());
        channel.flush()
    })
}

/// Sends a row, at the latest with the next read or the end.
pub(super) fn send_row(row: &[ValueRef<'_>]) -> io::Result<()> {
    let bytes = |value: &ValueRef<'_>| match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 9,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => 9 + bytes.len(),
    };
    with(|channel| {
        let length = row.iter().map(bytes).sum();
        channel.write(&frame::header(FrameKind::Row, length))?;
        for value in row {
            channel.write_value(value)?;
        }
        Ok(())
    })
}

impl PageChannel {
    fn push(&mut self, kind: FrameKind, payload: &[u8]) {
        let header = frame::header(kind, payload.len());
        self.unsent.extend_from_slice(&header);
        self.unsent.extend_from_slice(payload);
    }

    /// Sends a part of a frame. A large one is not copied.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unsent.len() + bytes.len() > BATCH_BYTES {
            self.flush()?;
        }
        if bytes.len() > BATCH_BYTES {
            return self.parent.write_all(bytes);
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    fn write_value(&mut self, value: &ValueRef<'_>) -> io::Result<()> {
        let (kind, number, bytes): (u8, [u8; 8], &[u8]) = match value {
            ValueRef::Null => return self.write(b"n"),
            ValueRef::Integer(number) => (b'i', number.to_le_bytes(), &[]),
            ValueRef::Real(number) => (b'r', number.to_le_bytes(), &[]),
            ValueRef::Text(text) => (b't', (text.len() as u64).to_le_bytes(), text),
            ValueRef::Blob(blob) => (b'b', (blob.len() as u64).to_le_bytes(), blob),
        };
        self.write(&[kind])?;
        self.write(&number)?;
        self.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.parent.write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }
}
