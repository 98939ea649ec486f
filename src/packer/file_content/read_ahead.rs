//! Reading a large file on a thread of its own, a few stretches ahead of who stores them: read, cut, and
//! each chunk hashed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::super::chunk_hash::{Chunk, hash_chunks};
use super::super::chunker::{CDC_MAX, Chunker};
use super::{ContentError, PackError};

/// Bytes of one stretch.
const STRETCH_BYTES: usize = 4 << 20;
/// Stretches that are read and not yet stored, at the most.
const AHEAD: usize = 1;
/// One being filled, those waiting, one being stored.
const BUFFERS: usize = AHEAD + 2;

/// A part of a file, in order.
pub enum Stretch<'a> {
    /// So many zeros that take no space.
    Hole(u64),
    /// `bytes` is `chunks`, one after the other.
    Data {
        bytes: &'a [u8],
        chunks: &'a [Chunk],
    },
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    /// How many of `bytes` the chunks are; the rest begins the next stretch.
    cut_bytes: usize,
}

enum Read {
    Hole(u64),
    Data(Buffer),
}

/// How to read a file.
pub struct Plan {
    /// So many bytes, or as many as there are.
    pub size: u64,
    /// It has holes.
    pub sparse: bool,
    pub chunker: Chunker,
    /// What is read does not stay in the page cache.
    pub cold: bool,
}

/// Reads `file` as `plan` says and gives it to `take`, part after part.
pub fn read(
    file: &mut File,
    plan: Plan,
    mut take: impl FnMut(Stretch<'_>) -> Result<(), PackError>,
) -> Result<(), ContentError> {
    let (used, empty) = channel();
    for _ in 0..BUFFERS {
        let _ = used.send(Buffer::default());
    }
    let (out, stretches) = sync_channel(AHEAD);
    // Leaving early takes both channels along, and that ends the reader.
    std::thread::scope(move |scope| {
        let named = std::thread::Builder::new().name("read".to_owned());
        let reading = named.spawn_scoped(scope, move || {
            let mut reader = Reader {
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
                Read::Hole(length) => take(Stretch::Hole(length))?,
                Read::Data(buffer) => {
                    take(Stretch::Data {
                        bytes: &buffer.bytes[..buffer.cut_bytes],
                        chunks: &buffer.chunks,
                    })?;
                    // At the end of the file nobody wants it back.
                    let _ = used.send(buffer);
                }
            }
        }
        let stopped = |_| io::Error::other("its reader stopped");
        Ok(reading.join().map_err(stopped)??)
    })
}

struct Reader<'f> {
    file: &'f mut File,
    chunker: Chunker,
    cold: bool,
    empty: Receiver<Buffer>,
    out: SyncSender<Read>,
}

impl Reader<'_> {
    /// Reads on until all is read, the file ends early (the caller sees the wrong size), or nobody takes
    /// any more (and has its own reason).
    fn run(&mut self, size: u64, sparse: bool) -> io::Result<()> {
        let mut offset = 0;
        while offset < size {
            let (data, end) = match sparse {
                true => next_data(self.file, offset, size)?,
                false => (offset, size),
            };
            if data > offset && self.out.send(Read::Hole(data - offset)).is_err() {
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

    /// Bytes `start..end` of the file; false if they ended early or nobody takes them.
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
            if self.out.send(Read::Data(buffer)).is_err() || ended {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn cut(&self, buffer: &mut Buffer, last: bool) {
        let Buffer {
            bytes,
            chunks,
            cut_bytes,
        } = buffer;
        chunks.clear();
        *cut_bytes = hash_chunks(bytes, &self.chunker.cut(bytes, last), chunks);
    }
}

/// The next stretch of data at or after `offset`: its start and end.
fn next_data(file: &mut File, offset: u64, size: u64) -> io::Result<(u64, u64)> {
    let seek = |at| rustix::fs::seek(&*file, at).map_err(io::Error::from);
    let data = match seek(rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data.min(size),
        // ENXIO: nothing but a hole up to the end.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => size,
        // A file system that does not know holes has none.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => offset,
        Err(e) => return Err(e),
    };
    if data >= size {
        return Ok((size, size));
    }
    let end = seek(rustix::fs::SeekFrom::Hole(data)).unwrap_or(size);
    Ok((data, end.min(size).max(data + 1)))
}
