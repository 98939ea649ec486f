//! The writer: puts compressed frames in order, encrypts them into an object and hashes it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use sha2::{Digest as _, Sha256};

use super::error::{SealError, unwritten};
use super::publish::WrittenObject;
use super::work::{FrameSize, WriterMessage};
use crate::base::ids::Hash;
use crate::format::archive::age_payload::PayloadWriter;
use crate::format::archive::seek_table::SeekTable;
use crate::keys::recipients::Recipients;
use crate::state::spool::{Spool, SpoolFile};

/// Counts and hashes the bytes that it writes to a spool file.
struct HashingFile {
    file: io::BufWriter<SpoolFile>,
    blake3: blake3::Hasher,
    sha256: Sha256,
    bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct OpenObject {
    age: PayloadWriter<HashingFile>,
    seek_table: SeekTable,
}

/// Writes one object after the other.
pub(super) struct ObjectWriter {
    recipients: Arc<Recipients>,
    spool: Spool,
    open: Option<OpenObject>,
}

impl ObjectWriter {
    pub(super) fn new(recipients: Arc<Recipients>, spool: Spool) -> Self {
        Self {
            recipients,
            spool,
            open: None,
        }
    }

    fn begin(&self) -> Result<OpenObject, SealError> {
        let output = HashingFile {
            file: io::BufWriter::with_capacity(256 << 10, self.spool.create()?),
            blake3: blake3::Hasher::new(),
            sha256: Sha256::new(),
            bytes: 0,
        };
        Ok(OpenObject {
            age: self.recipients.encrypt(output)?,
            seek_table: SeekTable::default(),
        })
    }

    /// Writes `zstd`, which consists of `frames`.
    fn write_frames(&mut self, frames: &[FrameSize], zstd: &[u8]) -> Result<(), SealError> {
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(object) = &mut self.open else {
            return Err(SealError::ThreadGone);
        };
        for frame in frames {
            object.seek_table.add(frame.zstd_bytes, frame.tar_bytes);
        }
        let written = object.age.write_all(zstd);
        written.map_err(unwritten(&self.spool))
    }

    fn finish(&mut self, tar_bytes: u64, tar_blake3: Hash) -> Result<WrittenObject, SealError> {
        let mut object = match self.open.take() {
            Some(object) => object,
            None => self.begin()?,
        };
        let table = object.seek_table.encode();
        let written = object.age.write_all(&table);
        let hashing = written.and_then(|()| object.age.finish());
        let hashing = hashing.map_err(unwritten(&self.spool))?;
        let file = hashing.file.into_inner();
        let file = file.map_err(|e| unwritten(&self.spool)(e.into_error()))?;
        Ok(WrittenObject {
            file,
            blake3: Hash(*hashing.blake3.finalize().as_bytes()),
            sha256: Hash(hashing.sha256.finalize().into()),
            bytes: hashing.bytes,
            tar_bytes,
            tar_blake3,
        })
    }

    /// Handles one message. Returns an object if the message ended it.
    fn handle(
        &mut self,
        message: WriterMessage,
        used: &Sender<Vec<u8>>,
    ) -> Result<Option<WrittenObject>, SealError> {
        match message {
            WriterMessage::Compressed { frames, zstd, .. } => {
                let written = self.write_frames(&frames, &zstd);
                // Fails if the compressors are gone; then they need no more buffers.
                let _ = used.send(zstd);
                written.map(|()| None)
            }
            WriterMessage::Finish {
                tar_bytes,
                tar_blake3,
                ..
            } => self.finish(tar_bytes, tar_blake3).map(Some),
            WriterMessage::Failed(error) => Err(error),
        }
    }
}

/// Writes the objects that `messages` describe, until there are no more messages or one fails.
/// Buffers go back to `used`, finished objects and the error to `written`.
pub(super) fn write_objects(
    mut writer: ObjectWriter,
    messages: &Receiver<WriterMessage>,
    used: &Sender<Vec<u8>>,
    written: &SyncSender<Result<WrittenObject, SealError>>,
) {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for message in messages {
        match message {
            WriterMessage::Failed(error) => {
                let _ = written.send(Err(error));
                return;
            }
            WriterMessage::Compressed { order, .. } | WriterMessage::Finish { order, .. } => {
                waiting.insert(order, message);
            }
        }
        while let Some(message) = waiting.remove(&next) {
            next += 1;
            let done = writer.handle(message, used);
            let failed = done.is_err();
            if let Some(done) = done.transpose()
                && (written.send(done).is_err() || failed)
            {
                return;
            }
        }
    }
}
