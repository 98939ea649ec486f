//! Reads, cuts and hashes a large file on a separate thread, a few stretches ahead of the packer.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::super::chunk_hash::{Chunk, hash_chunks};
use super::super::chunker::{CDC_MAX, Chunker};
use super::super::error::PackError;
use super::ContentError;

/// Bytes of one stretch.
const STRETCH_BYTES: usize = 4 << 20;
/// Most stretches that are read and not yet stored.
const AHEAD: usize = 1;
/// Number of buffers: one being filled, those waiting, one being stored.
const BUFFERS: usize = AHEAD + 2;

/// A part of a file, in order.
pub(in crate::packer) enum Stretch<'a> {
    /// This many zeros, which use no space.
    Hole(u64),
    /// `bytes` consists of `chunks`.
    Data {
        bytes: &'a [u8],
        chunks: &'a [Chunk],
    },
}

#[derive(Default)]
struct StretchBuffer {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    /// Total length of the chunks; the rest of `bytes` begins the next stretch.
    cut_bytes: usize,
}

/// A part of a file, as it is sent to the packer.
enum ReadPart {
    Hole(u64),
    Data(StretchBuffer),
}

/// How to read a file.
pub(in crate::packer) struct ReadPlan {
    /// Most bytes to read.
    pub(in crate::packer) size: u64,
    /// Whether the file has holes.
    pub(in crate::packer) sparse: bool,
    pub(in crate::packer) chunker: Chunker,
    /// Whether to remove the read bytes from the page cache.
    pub(in crate::packer) cold: bool,
}

/// Reads `file` according to `plan` and passes it to `take`, stretch by stretch.
pub(in crate::packer) fn read(
    file: &mut File,
    plan: ReadPlan,
    mut take: impl FnMut(Stretch<'_>) -> Result<(), PackError>,
) -> Result<(), ContentError> {
    let (used, empty) = channel();
    for _ in 0..BUFFERS {
        let _ = used.send(StretchBuffer::default());
    }
    let (out, stretches) = sync_channel(AHEAD);
    // An early return drops both channels, which ends the reader.
    std::thread::scope(move |scope| {
        let named = std::thread::Builder::new().name("read".to_owned());
        let reading = named.spawn_scoped(scope, move || {
            let mut reader = StretchReader {
                file,
                chunker: plan.chunker,
                cold: plan.cold,
                empty,
                out,
            };
            reader.run(plan.size, plan.sparse)
        })?;
        for stretch in stretches {
            match stretch {
                ReadPart::Hole(length) => take(Stretch::Hole(length))?,
                ReadPart::Data(buffer) => {
                    take(Stretch::Data {
                        bytes: &buffer.bytes[..buffer.cut_bytes],
                        chunks: &buffer.chunks,
                    })?;
                    // Fails at the end of the file, when the reader is done.
                    let _ = used.send(buffer);
                }
            }
        }
        let stopped = |_| io::Error::other("the reading thread ended early");
        Ok(reading.join().map_err(stopped)??)
    })
}

struct StretchReader<'f> {
    file: &'f mut File,
    chunker: Chunker,
    cold: bool,
    empty: Receiver<StretchBuffer>,
    out: SyncSender<ReadPart>,
}

impl StretchReader<'_> {
    /// Reads until the plan's end, an early end of the file (the caller notices the wrong size), or
    /// the receiver is dropped (the caller has its own error).
    fn run(&mut self, size: u64, sparse: bool) -> io::Result<()> {
        let mut offset = 0;
        while offset < size {
            let (data, end) = match sparse {
                true => next_data(self.file, offset, size)?,
                false => (offset, size),
            };
            if data > offset && self.out.send(ReadPart::Hole(data - offset)).is_err() {
                return Ok(());
            }
            let complete = self.read_data(data, end)?;
            offset = end;
            if !complete {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads bytes `start..end` of the file. Returns false if they ended early or the receiver is
    /// dropped.
    fn read_data(&mut self, start: u64, end: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(start))?;
        let mut left = end - start;
        let mut rest: Vec<u8> = Vec::with_capacity(CDC_MAX);
        while left > 0 {
            let Ok(mut buffer) = self.empty.recv() else {
                return Ok(false);
            };
            buffer.bytes.clear();
            buffer.bytes.reserve_exact(STRETCH_BYTES);
            buffer.bytes.append(&mut rest);
            let want = (STRETCH_BYTES - buffer.bytes.len()) as u64;
            let file = &mut *self.file;
            let read = file.take(want.min(left)).read_to_end(&mut buffer.bytes)? as u64;
            let ended = read == 0;
            if self.cold {
                crate::base::fs::let_go(self.file, end - left, read);
            }
            left -= read;
            self.cut(&mut buffer, left == 0 || ended);
            rest.extend_from_slice(&buffer.bytes[buffer.cut_bytes..]);
            if self.out.send(ReadPart::Data(buffer)).is_err() || ended {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Cuts and hashes the bytes of a buffer.
    fn cut(&self, buffer: &mut StretchBuffer, last: bool) {
        let StretchBuffer {
            bytes,
            chunks,
            cut_bytes,
        } = buffer;
        chunks.clear();
        *cut_bytes = hash_chunks(bytes, &self.chunker.cut(bytes, last), chunks);
    }
}

/// Returns start and end of the next data at or after `offset`.
fn next_data(file: &mut File, offset: u64, size: u64) -> io::Result<(u64, u64)> {
    let seek = |to| rustix::fs::seek(&*file, to).map_err(io::Error::from);
    let data = match seek(rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data.min(size),
        // ENXIO: only a hole up to the end.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => size,
        // A file system without support for holes has none.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => offset,
        Err(e) => return Err(e),
    };
    if data >= size {
        return Ok((size, size));
    }
    let end = seek(rustix::fs::SeekFrom::Hole(data)).unwrap_or(size);
    Ok((data, end.min(size).max(data + 1)))
}
