//! The threads of [`super`]: frames in, sealed objects out, in order and in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use age::stream::StreamWriter;
use sha2::{Digest as _, Sha256};

use super::{FRAME_BYTES, Recipients, SealError, read_age_head};
use crate::ids::{Hash, ObjectKey};
use crate::spool::{Spool, SpoolFile};

/// A complete archive, durable in the spool under its name.
#[derive(Debug, Clone)]
pub struct SealedArchive {
    pub blake3: Hash,
    pub sha256: Hash,
    pub bytes: u64,
    pub head_sha256: Hash,
    pub tar_bytes: u64,
    pub tar_blake3: Hash,
}

struct Frame {
    order: u64,
    tar: Vec<u8>,
}

enum Message {
    Compressed {
        order: u64,
        tar: Vec<u8>,
        zstd: Vec<u8>,
    },
    /// The archive ends here.
    Finish {
        order: u64,
    },
    Failed(SealError),
}

/// Seals tar streams, one archive after the other.
pub struct Sealer {
    frame: Vec<u8>,
    order: u64,
    buffers: Receiver<Vec<u8>>,
    frames: Option<SyncSender<Frame>>,
    messages: Option<Sender<Message>>,
    sealed: Receiver<Result<SealedArchive, SealError>>,
    unfinished: VecDeque<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Sealer {
    /// Starts `threads` compressors at zstd `level` and one writer into `spool`.
    pub fn start(
        recipients: Arc<Recipients>,
        spool: Spool,
        level: i32,
        threads: usize,
    ) -> Result<Self, SealError> {
        if recipients.count() == 0 {
            return Err(SealError::NoRecipient);
        }
        let workers = threads.max(1);
        let (buffer_out, buffers) = channel();
        for _ in 0..workers * 2 + 1 {
            let _ = buffer_out.send(Vec::new());
        }
        let (frames, frame_queue) = sync_channel::<Frame>(workers);
        let frame_queue = Arc::new(Mutex::new(frame_queue));
        let (messages, message_queue) = channel();
        let (sealed_out, sealed) = channel();
        let mut handles = Vec::new();
        for _ in 0..workers {
            let (queue, out) = (frame_queue.clone(), messages.clone());
            handles.push(thread::spawn(move || compress_frames(&queue, &out, level)));
        }
        handles.push(thread::spawn(move || {
            let writer = ObjectWriter {
                recipients,
                spool,
                open: None,
            };
            write_objects(writer, &message_queue, &buffer_out, &sealed_out);
        }));
        Ok(Self {
            frame: Vec::with_capacity(FRAME_BYTES),
            order: 0,
            buffers,
            frames: Some(frames),
            messages: Some(messages),
            sealed,
            unfinished: VecDeque::new(),
            threads: handles,
        })
    }

    /// Appends to the tar stream of the current archive.
    pub fn write(&mut self, mut tar: &[u8]) -> Result<(), SealError> {
        while !tar.is_empty() {
            let (now, later) = tar.split_at(tar.len().min(FRAME_BYTES - self.frame.len()));
            self.frame.extend_from_slice(now);
            tar = later;
            if self.frame.len() == FRAME_BYTES {
                self.send_frame()?;
            }
        }
        Ok(())
    }

    fn send_frame(&mut self) -> Result<(), SealError> {
        let mut next = match self.buffers.recv() {
            Ok(buffer) => buffer,
            Err(_) => return Err(self.cause()),
        };
        next.clear();
        next.reserve(FRAME_BYTES);
        let frame = Frame {
            order: self.order,
            tar: mem::replace(&mut self.frame, next),
        };
        self.order += 1;
        let sent = self.frames.as_ref().map(|frames| frames.send(frame));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.cause()),
        }
    }

    /// Ends the current archive's tar stream; [`Self::next_sealed`] will give it.
    pub fn finish_archive(&mut self) -> Result<(), SealError> {
        if !self.frame.is_empty() {
            self.send_frame()?;
        }
        let finish = Message::Finish { order: self.order };
        self.order += 1;
        self.unfinished.push_back(());
        let sent = self.messages.as_ref().map(|messages| messages.send(finish));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.cause()),
        }
    }

    /// The oldest ended archive: at once if it is ready, waiting for it if `wait`.
    pub fn next_sealed(&mut self, wait: bool) -> Result<Option<SealedArchive>, SealError> {
        if self.unfinished.is_empty() {
            return Ok(None);
        }
        let next = match wait {
            true => self.sealed.recv().ok(),
            false => match self.sealed.try_recv() {
                Err(std::sync::mpsc::TryRecvError::Empty) => return Ok(None),
                other => other.ok(),
            },
        };
        self.unfinished.pop_front();
        next.unwrap_or(Err(SealError::ThreadGone)).map(Some)
    }

    /// Why the threads stopped taking work.
    fn cause(&mut self) -> SealError {
        loop {
            match self.sealed.recv() {
                Ok(Err(error)) => return error,
                Ok(Ok(_)) => continue,
                Err(_) => return SealError::ThreadGone,
            }
        }
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.frames = None;
        self.messages = None;
        // The writer ends when all senders are gone; an unfinished object vanishes with it.
        let (_, empty) = channel();
        self.buffers = empty;
        for handle in self.threads.drain(..) {
            let _ = handle.join();
        }
    }
}

fn compress_frames(queue: &Mutex<Receiver<Frame>>, out: &Sender<Message>, level: i32) {
    let mut check = Vec::with_capacity(FRAME_BYTES);
    loop {
        let frame = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok(Frame { order, tar }) = frame else {
            return;
        };
        let compressed = checked(&tar, &mut check, |tar| zstd::bulk::compress(tar, level));
        let message = match compressed {
            Ok(zstd) => Message::Compressed { order, tar, zstd },
            Err(error) => Message::Failed(error),
        };
        if out.send(message).is_err() {
            return;
        }
    }
}

/// Compresses one frame, and lets it through only if it gives back what went in.
fn checked(
    tar: &[u8],
    check: &mut Vec<u8>,
    compress: impl FnOnce(&[u8]) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, SealError> {
    let zstd = compress(tar).map_err(SealError::Compress)?;
    check.resize(tar.len(), 0);
    let length = zstd::bulk::decompress_to_buffer(&zstd, check).map_err(SealError::Compress)?;
    if check[..length] != *tar {
        return Err(SealError::FrameMismatch);
    }
    Ok(zstd)
}

fn write_objects(
    mut writer: ObjectWriter,
    messages: &Receiver<Message>,
    buffers: &Sender<Vec<u8>>,
    sealed: &Sender<Result<SealedArchive, SealError>>,
) {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for message in messages {
        match message {
            Message::Failed(error) => {
                let _ = sealed.send(Err(error));
                return;
            }
            Message::Compressed { order, .. } | Message::Finish { order } => {
                waiting.insert(order, message);
            }
        }
        while let Some(message) = waiting.remove(&next) {
            next += 1;
            let done = match message {
                Message::Compressed { tar, zstd, .. } => {
                    let written = writer.write_frame(&tar, &zstd);
                    // The packer may be gone already; then nobody waits for the buffer.
                    let _ = buffers.send(tar);
                    written.map(|()| None)
                }
                Message::Finish { .. } => writer.finish().map(Some),
                Message::Failed(error) => Err(error),
            };
            match done {
                Ok(None) => {}
                Ok(Some(archive)) => {
                    let _ = sealed.send(Ok(archive));
                }
                Err(error) => {
                    let _ = sealed.send(Err(error));
                    return;
                }
            }
        }
    }
}

/// Hashes and counts what goes into the spool file.
struct Hashing {
    file: io::BufWriter<SpoolFile>,
    blake3: blake3::Hasher,
    sha256: Sha256,
    bytes: u64,
}

impl Write for Hashing {
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
    age: StreamWriter<Hashing>,
    tar_blake3: blake3::Hasher,
    tar_bytes: u64,
    seek_table: SeekTable,
}

struct ObjectWriter {
    recipients: Arc<Recipients>,
    spool: Spool,
    open: Option<OpenObject>,
}

impl ObjectWriter {
    fn begin(&self) -> Result<OpenObject, SealError> {
        let output = Hashing {
            file: io::BufWriter::with_capacity(256 << 10, self.spool.create()?),
            blake3: blake3::Hasher::new(),
            sha256: Sha256::new(),
            bytes: 0,
        };
        let age = self
            .recipients
            .encryptor()?
            .wrap_output(output)
            .map_err(|e| SealError::Encrypt(e.to_string()))?;
        Ok(OpenObject {
            age,
            tar_blake3: blake3::Hasher::new(),
            tar_bytes: 0,
            seek_table: SeekTable::default(),
        })
    }

    fn write_frame(&mut self, tar: &[u8], zstd: &[u8]) -> Result<(), SealError> {
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(object) = &mut self.open else {
            return Err(SealError::ThreadGone);
        };
        object.tar_blake3.update(tar);
        object.tar_bytes += tar.len() as u64;
        object.seek_table.add(zstd.len(), tar.len());
        object.age.write_all(zstd).map_err(SealError::Write)
    }

    fn finish(&mut self) -> Result<SealedArchive, SealError> {
        let mut object = match self.open.take() {
            Some(object) => object,
            None => self.begin()?,
        };
        let table = object.seek_table.encode();
        object.age.write_all(&table).map_err(SealError::Write)?;
        let hashing = object.age.finish().map_err(SealError::Write)?;
        let file = hashing
            .file
            .into_inner()
            .map_err(|e| SealError::Write(e.into_error()))?;
        let head_sha256 = self.check_sealed(&file)?;
        let sealed = SealedArchive {
            blake3: Hash(*hashing.blake3.finalize().as_bytes()),
            sha256: Hash(hashing.sha256.finalize().into()),
            bytes: hashing.bytes,
            head_sha256,
            tar_bytes: object.tar_bytes,
            tar_blake3: Hash(*object.tar_blake3.finalize().as_bytes()),
        };
        let key = ObjectKey::archive(&sealed.blake3);
        self.spool.publish(file, &key)?;
        Ok(sealed)
    }

    /// The tripwire: what lies on disk is age, sealed to as many recipients as we have.
    fn check_sealed(&self, file: &SpoolFile) -> Result<Hash, SealError> {
        let expected = self.recipients.count();
        let wrong = |found: String| SealError::NotSealed { expected, found };
        let written = File::open(file.path()).map_err(SealError::Write)?;
        let head = read_age_head(written).map_err(wrong)?;
        if head.stanzas != expected {
            return Err(wrong(format!("{} stanzas", head.stanzas)));
        }
        Ok(head.sha256)
    }
}

/// The zstd seekable format's table of frames: a skippable frame that stock `zstd` passes over.
#[derive(Default)]
struct SeekTable {
    frames: Vec<(u32, u32)>,
}

impl SeekTable {
    const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
    const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

    fn add(&mut self, compressed: usize, decompressed: usize) {
        // Frames are 4 MiB at the most, so neither is near u32's end.
        self.frames.push((compressed as u32, decompressed as u32));
    }

    fn encode(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.frames.len() * 8 + 17);
        table.extend(Self::SKIPPABLE_MAGIC.to_le_bytes());
        table.extend((self.frames.len() as u32 * 8 + 9).to_le_bytes());
        for (compressed, decompressed) in &self.frames {
            table.extend(compressed.to_le_bytes());
            table.extend(decompressed.to_le_bytes());
        }
        table.extend((self.frames.len() as u32).to_le_bytes());
        table.push(0); // no checksums: BLAKE3 and age's own tags stand for them
        table.extend(Self::SEEKABLE_MAGIC.to_le_bytes());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bad memory between the compressor and the seal must not reach an archive.
    #[test]
    fn a_frame_that_gives_back_something_else_is_not_sealed() {
        let tar = b"what the host has".repeat(100);
        let good = checked(&tar, &mut Vec::new(), |tar| zstd::bulk::compress(tar, 3));
        assert!(good.is_ok());
        for wrong in [
            b"what the disk has".repeat(100),
            tar[..90].to_vec(),
            Vec::new(),
        ] {
            let lying = |_: &[u8]| zstd::bulk::compress(&wrong, 3);
            let refused = checked(&tar, &mut Vec::new(), lying);
            assert!(matches!(refused, Err(SealError::FrameMismatch)));
        }
        let garbage = checked(&tar, &mut Vec::new(), |_| Ok(b"no zstd".to_vec()));
        assert!(matches!(garbage, Err(SealError::Compress(_))));
    }
}
