//! Unpacks the tar of a restored directory ([`pack_restored`](crate::restore::pack_restored)).
//!
//! The first member is the record. Every further header must be, byte by byte, the one of the next
//! file in the record, so no path, size or number of members can be another than the record's: the
//! stream is read in the record's budget, and nothing is made that it does not list. Each file is
//! compared with its hash. Links are made after all files, as in every restore.

use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::kept::NotKept;
use super::metadata::{self, Problems, Restorer};
use super::tree::{OpenParent, Tree};
use crate::base::ids::Hash;
use crate::base::openat::Dir;
use crate::base::progress::{Progress, ProgressEvent};
use crate::format::archive::tar_member::{BLOCK_BYTES, padding};
use crate::format::index::{EntryRef, EntryType};
use crate::format::restored::{RestoredError, RestoredRecord};
use crate::restore::pack_restored::{PIECE_BYTES, TRAILER_BYTES, file_member, record_member};

/// Largest record, in bytes: some twenty million entries.
const MAX_RECORD_BYTES: u64 = 4 << 30;

/// Why the tar of a restored directory could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The stream cannot be read further.
    #[error("cannot read the restored files that are sent")]
    Read(#[source] io::Error),
    /// It ends before its end.
    #[error("the stream of restored files broke off")]
    BrokeOff,
    /// It is another stream.
    #[error("this is not the stream of a restored directory: {0}")]
    Stream(String),
    /// Its record is refused.
    #[error("the stream's record is refused")]
    Record(#[from] RestoredError),
    /// A file does not have the hash in the record.
    #[error("{path} was damaged on the way: its content is not what the record says")]
    Content {
        /// The file's path; lossy.
        path: String,
    },
    /// An entry cannot be made.
    #[error("cannot make {path}")]
    Make {
        /// The entry's path; lossy.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What could not be made as the record has it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Problems that did no harm to content.
    pub(crate) problems: Vec<String>,
    /// Metadata that the file system did not keep.
    pub(crate) not_kept: Vec<NotKept>,
}

/// Reads the stream up to the end of its record.
pub(crate) fn read_record(input: &mut dyn Read) -> Result<RestoredRecord, UnpackError> {
    let mut block = [0; BLOCK_BYTES];
    read_all(input, &mut block)?;
    let foreign = || UnpackError::Stream("it does not begin with restored.jsonl".to_owned());
    let size = tar::Header::from_byte_slice(&block).entry_size();
    let size = size.map_err(|_| foreign())?;
    if record_member(size).header() != block {
        return Err(foreign());
    }
    if size > MAX_RECORD_BYTES {
        let what = format!("its record has {size} bytes");
        return Err(UnpackError::Stream(what));
    }
    let limited = BufReader::with_capacity(PIECE_BYTES, input.take(size));
    let record = RestoredRecord::read(limited).map_err(|error| match error {
        RestoredError::Read(source) => UnpackError::Read(source),
        // A record that was refused on this side is never sent, so the stream is short.
        RestoredError::Truncated { .. } => UnpackError::BrokeOff,
        error => UnpackError::Record(error),
    })?;
    skip_zeros(input, padding(size))?;
    Ok(record)
}

/// Reads the rest of the stream into `dir`, which must be empty and private.
pub(crate) fn unpack(
    input: &mut dyn Read,
    record: &RestoredRecord,
    dir: &Dir,
    progress: &dyn Progress,
) -> Result<Unpacked, UnpackError> {
    let mut unpacking = Unpacking {
        input,
        tree: Tree::new(dir.clone()),
        parent: None,
        restorer: Restorer::this_process(),
        problems: Problems::default(),
        progress,
        buffer: vec![0; PIECE_BYTES],
    };
    for entry in record.entries.iter() {
        let made = match entry.kind {
            EntryType::Dir => unpacking.tree.make_dir(entry.path),
            EntryType::File => {
                unpacking.file(&entry)?;
                continue;
            }
            _ => continue,
        };
        made.map_err(|source| making(&entry, source))?;
    }
    skip_zeros(unpacking.input, TRAILER_BYTES)?;
    unpacking.finish(record)
}

fn making(entry: &EntryRef<'_>, source: io::Error) -> UnpackError {
    UnpackError::Make {
        path: entry.path_lossy().into_owned(),
        source,
    }
}

fn read_all(input: &mut dyn Read, bytes: &mut [u8]) -> Result<(), UnpackError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => UnpackError::BrokeOff,
        _ => UnpackError::Read(error),
    })
}

/// Reads `count` bytes, at most two blocks, which must be zeros.
fn skip_zeros(input: &mut dyn Read, count: usize) -> Result<(), UnpackError> {
    let mut bytes = [0; TRAILER_BYTES];
    let bytes = &mut bytes[..count];
    read_all(input, bytes)?;
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => {
            let what = "it goes on where zeros should be";
            Err(UnpackError::Stream(what.to_owned()))
        }
    }
}

struct Unpacking<'a> {
    input: &'a mut dyn Read,
    tree: Tree,
    /// The directory of the last file.
    parent: Option<OpenParent>,
    restorer: Restorer,
    problems: Problems,
    progress: &'a dyn Progress,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    /// Reads one member, and makes the file of it.
    fn file(&mut self, entry: &EntryRef<'_>) -> Result<(), UnpackError> {
        let expected = file_member(entry).header();
        let mut header = vec![0; expected.len()];
        read_all(self.input, &mut header)?;
        if header != expected {
            let what = format!("its next member is not {:?}", entry.path_lossy());
            return Err(UnpackError::Stream(what));
        }
        let file = self
            .tree
            .create_in(&mut self.parent, entry.path, entry.mode);
        let file = file.map_err(|source| making(entry, source))?;
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < entry.size {
            let left = usize::try_from(entry.size - at).unwrap_or(usize::MAX);
            let bytes = &mut self.buffer[..left.min(PIECE_BYTES)];
            read_all(self.input, bytes)?;
            hasher.update(bytes);
            // A run of zeros stays a hole.
            if bytes.iter().any(|byte| *byte != 0) {
                let written = file.write_all_at(bytes, at);
                written.map_err(|source| making(entry, source))?;
            }
            at += bytes.len() as u64;
            let bytes = bytes.len() as u64;
            self.progress.report(&ProgressEvent::BytesFetched { bytes });
        }
        if Some(Hash(*hasher.finalize().as_bytes())) != entry.blake3 {
            return Err(UnpackError::Content {
                path: entry.path_lossy().into_owned(),
            });
        }
        let sized = file.set_len(entry.size);
        sized.map_err(|source| making(entry, source))?;
        metadata::apply_to_file(&file, entry, &self.restorer, &mut self.problems);
        skip_zeros(self.input, padding(entry.size))
    }

    /// Makes everything that is no file and no directory, and sets the metadata.
    fn finish(mut self, record: &RestoredRecord) -> Result<Unpacked, UnpackError> {
        let mut left_out = Vec::new();
        for (number, entry) in record.entries.iter().enumerate() {
            let made = metadata::make_special(&self.tree, &entry, self.restorer.as_root);
            if !made.map_err(|source| making(&entry, source))? {
                let path = entry.path_lossy();
                self.problems
                    .add(format!("{path}: left out: a device is made only by root"));
                left_out.push(number);
            }
        }
        metadata::apply_to_rest(
            &self.tree,
            &record.entries,
            &left_out,
            &self.restorer,
            &mut self.problems,
        );
        Ok(Unpacked {
            problems: self.problems.take_list(),
            not_kept: self.problems.not_kept.into_list(),
        })
    }
}

#[cfg(test)]
mod tests;
