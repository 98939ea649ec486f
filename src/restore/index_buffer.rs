//! Holds an index between its archives and its parser: in memory or, if it is large, in a file
//! without a name.
//!
//! Such a file vanishes with the process, whatever ends that.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::fetch::Sink;
use super::plan::Piece;
use crate::base::ids::Hash;
use crate::base::openat::Dir;

/// A larger index goes into a file.
const MOST_IN_MEMORY_BYTES: u64 = 32 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// The bytes of an index that arrive in pieces.
#[derive(Clone)]
pub(super) struct IndexBuffer(Arc<IndexStorage>);

enum IndexStorage {
    Memory(Mutex<Vec<u8>>),
    File(File),
}

impl IndexBuffer {
    /// Makes space for `bytes`. A file is made in `near`, or among the temporary files if that
    /// fails.
    pub(super) fn new(bytes: u64, near: Option<&Dir>) -> io::Result<Self> {
        let store = match bytes > MOST_IN_MEMORY_BYTES {
            true => in_file(bytes, near)?,
            false => IndexStorage::Memory(Mutex::new(vec![0; bytes as usize])),
        };
        Ok(Self(Arc::new(store)))
    }

    /// Returns a sink for pieces of the index.
    pub(super) fn sink(&self) -> Box<dyn Sink> {
        Box::new(IndexSink(self.clone()))
    }

    /// Returns a reader of all bytes. `None`: their BLAKE3 is not `expected`.
    pub(super) fn verified(self, expected: Hash) -> io::Result<Option<Box<dyn BufRead>>> {
        let (found, reader): (Hash, Box<dyn BufRead>) = match &*self.0 {
            IndexStorage::Memory(bytes) => {
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = std::mem::take(&mut *bytes);
                (Hash::blake3(&bytes), Box::new(io::Cursor::new(bytes)))
            }
            IndexStorage::File(file) => {
                let mut file = file.try_clone()?;
                file.rewind()?;
                let found = hash(&file)?;
                file.rewind()?;
                let reader = BufReader::with_capacity(BUFFER_BYTES, file);
                (found, Box::new(reader))
            }
        };
        Ok((found == expected).then_some(reader))
    }
}

fn in_file(bytes: u64, near: Option<&Dir>) -> io::Result<IndexStorage> {
    let file = match near.map(Dir::unnamed_file) {
        Some(Ok(file)) => file,
        _ => tempfile::tempfile()?,
    };
    file.set_len(bytes)?;
    Ok(IndexStorage::File(file))
}

fn hash(mut file: &File) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Hash(*hasher.finalize().as_bytes())),
            count => hasher.update(&buffer[..count]),
        };
    }
}

struct IndexSink(IndexBuffer);

impl Sink for IndexSink {
    fn write(&mut self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<()> {
        let start = piece.file_offset + at;
        match &*self.0.0 {
            IndexStorage::File(file) => file.write_all_at(bytes, start),
            IndexStorage::Memory(all) => {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                let start = start as usize;
                all[start..start + bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_file_return_the_same_bytes_and_only_if_the_hash_matches() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"a line\nanother line\n";
        let piece = |file_offset, length| Piece {
            entry: 0,
            file_offset,
            tar_offset: 0,
            length,
        };
        let length = content.len() as u64;
        let memory = || IndexBuffer::new(length, None).unwrap();
        let near = Dir::open(dir.path()).unwrap();
        let file = || IndexBuffer(Arc::new(in_file(length, Some(&near)).unwrap()));
        for (raw, expected) in [
            (memory(), &content[..]),
            (file(), &content[..]),
            (memory(), b"other"),
            (file(), b"other"),
        ] {
            // Two pieces out of order, one of them in parts.
            let mut sink = raw.sink();
            sink.write(&piece(9, length - 9), 0, &content[9..12])
                .unwrap();
            sink.write(&piece(9, length - 9), 3, &content[12..])
                .unwrap();
            raw.sink().write(&piece(0, 9), 0, &content[..9]).unwrap();
            let read = raw.verified(Hash::blake3(expected)).unwrap();
            let read = read.map(|mut reader| {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                all
            });
            assert_eq!(read.as_deref(), (expected == content).then_some(expected));
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
