//! The threads of [`super`]: frames in, sealed objects out, in order and in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use super::compress::{Thorough, compress_frames};
use super::{FRAME_BYTES, Recipients, SealError, Texture, read_age_head};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::archive::age_payload::PayloadWriter;
use crate::state::spool::{Spool, SpoolFile};

/// Archives written whole and not yet durable: while the disk takes one, the next can be finished.
const UNFLUSHED_ARCHIVES: usize = 1;

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

/// A part of a tar stream. Its buffer goes round: filled, compressed, and filled again.
#[derive(Default)]
pub(super) struct Frame {
    pub order: u64,
    pub tar: Vec<u8>,
    /// Of `tar`, bytes that are pages of databases.
    pub page_bytes: usize,
}

pub(super) enum Message {
    /// The buffer goes round too: written, and filled again.
    Compressed {
        order: u64,
        tar_bytes: usize,
        zstd: Vec<u8>,
    },
    /// The archive ends here.
    Finish {
        order: u64,
        tar_bytes: u64,
        tar_blake3: Hash,
    },
    Failed(SealError),
}

/// What the compressors share.
pub(super) struct Floor {
    pub frames: Mutex<Receiver<Frame>>,
    /// Whoever takes a frame has taken one of these before: so the frame that all others wait for is never the
    /// one without a buffer.
    pub buffers: Mutex<Receiver<Vec<u8>>>,
    pub used: Sender<Frame>,
    pub messages: Sender<Message>,
    pub level: i32,
    /// For the second look: it takes a quarter of a compressor's time.
    pub checks: Vec<Mutex<Vec<u8>>>,
    pub thorough: Thorough,
}

/// Seals tar streams, one archive after the other.
pub struct Sealer {
    /// Being filled. A full one goes to the compressors before there is an empty one.
    frame: Option<Frame>,
    order: u64,
    /// Of the current archive.
    tar_blake3: blake3::Hasher,
    empty: Receiver<Frame>,
    frames: Option<SyncSender<Frame>>,
    messages: Option<Sender<Message>>,
    sealed: Receiver<Result<SealedArchive, SealError>>,
    unfinished: VecDeque<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Sealer {
    /// Starts `threads` compressors at zstd `level`, one writer into `spool`, and one thread that makes
    /// durable what the writer wrote while that goes on with the next.
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
        let (used, empty) = channel();
        for _ in 0..workers + 1 {
            let _ = used.send(Frame::default());
        }
        let (written_out, buffers) = channel();
        for _ in 0..workers + 2 {
            let _ = written_out.send(Vec::new());
        }
        let (frames, frame_queue) = sync_channel::<Frame>(workers);
        let (messages, message_queue) = channel();
        let floor = Arc::new(Floor {
            frames: Mutex::new(frame_queue),
            buffers: Mutex::new(buffers),
            used,
            messages: messages.clone(),
            level,
            checks: (0..workers.div_ceil(2)).map(|_| Mutex::default()).collect(),
            thorough: Thorough::default(),
        });
        let (sealed_out, sealed) = channel();
        let mut handles = Vec::new();
        for worker in 0..workers {
            let floor = Arc::clone(&floor);
            handles.push(start("compress", move || {
                compress_frames(&floor, worker / 2)
            })?);
        }
        drop(floor);
        let (written, to_publish) =
            sync_channel::<Result<WrittenObject, SealError>>(UNFLUSHED_ARCHIVES);
        let publisher = Publisher {
            stanzas: recipients.count(),
            spool: spool.clone(),
        };
        handles.push(start("publish", move || {
            for object in to_publish {
                let published = object.and_then(|object| publisher.publish(object));
                let failed = published.is_err();
                if sealed_out.send(published).is_err() || failed {
                    return;
                }
            }
        })?);
        handles.push(start("seal", move || {
            let writer = ObjectWriter {
                recipients,
                spool,
                open: None,
            };
            write_objects(writer, &message_queue, &written_out, &written);
        })?);
        Ok(Self {
            frame: None,
            order: 0,
            tar_blake3: blake3::Hasher::new(),
            empty,
            frames: Some(frames),
            messages: Some(messages),
            sealed,
            unfinished: VecDeque::new(),
            threads: handles,
        })
    }

    /// Appends to the tar stream of the current archive.
    pub fn write(&mut self, mut tar: &[u8], texture: Texture) -> Result<(), SealError> {
        self.tar_blake3.update(tar);
        while !tar.is_empty() {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None => {
                    let Ok(mut empty) = self.empty.recv() else {
                        return Err(self.cause());
                    };
                    empty.tar.clear();
                    empty.tar.reserve_exact(FRAME_BYTES);
                    empty.page_bytes = 0;
                    self.frame.insert(empty)
                }
            };
            let (now, later) = tar.split_at(tar.len().min(FRAME_BYTES - frame.tar.len()));
            frame.tar.extend_from_slice(now);
            if texture == Texture::Pages {
                frame.page_bytes += now.len();
            }
            tar = later;
            if frame.tar.len() == FRAME_BYTES {
                self.send_frame()?;
            }
        }
        Ok(())
    }

    fn send_frame(&mut self) -> Result<(), SealError> {
        let Some(mut frame) = self.frame.take() else {
            return Ok(());
        };
        frame.order = self.order;
        self.order += 1;
        let sent = self.frames.as_ref().map(|frames| frames.send(frame));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.cause()),
        }
    }

    /// Ends the current archive's tar stream; [`Self::next_sealed`] will give it.
    pub fn finish_archive(&mut self) -> Result<(), SealError> {
        self.send_frame()?;
        let stream = std::mem::take(&mut self.tar_blake3);
        let finish = Message::Finish {
            order: self.order,
            tar_bytes: stream.count(),
            tar_blake3: Hash(*stream.finalize().as_bytes()),
        };
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
        let (_, none) = channel();
        self.empty = none;
        for handle in self.threads.drain(..) {
            let _ = handle.join();
        }
    }
}

fn write_objects(
    mut writer: ObjectWriter,
    messages: &Receiver<Message>,
    used: &Sender<Vec<u8>>,
    written: &SyncSender<Result<WrittenObject, SealError>>,
) {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for message in messages {
        match message {
            Message::Failed(error) => {
                let _ = written.send(Err(error));
                return;
            }
            Message::Compressed { order, .. } | Message::Finish { order, .. } => {
                waiting.insert(order, message);
            }
        }
        while let Some(message) = waiting.remove(&next) {
            next += 1;
            let done = match message {
                Message::Compressed {
                    tar_bytes, zstd, ..
                } => {
                    let done = writer.write_frame(tar_bytes, &zstd);
                    // The compressors may be gone already; then nobody waits for the buffers.
                    let _ = used.send(zstd);
                    done.map(|()| None)
                }
                Message::Finish {
                    tar_bytes,
                    tar_blake3,
                    ..
                } => writer.finish(tar_bytes, tar_blake3).map(Some),
                Message::Failed(error) => Err(error),
            };
            let failed = done.is_err();
            if let Some(done) = done.transpose()
                && (written.send(done).is_err() || failed)
            {
                return;
            }
        }
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SealError> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(SealError::Thread)
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

fn unwritten(spool: &Spool) -> impl FnOnce(io::Error) -> SealError + use<> {
    let spool = spool.dir().display().to_string();
    |source| SealError::Write { spool, source }
}

struct OpenObject {
    age: PayloadWriter<Hashing>,
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
        Ok(OpenObject {
            age: self.recipients.encrypt(output)?,
            seek_table: SeekTable::default(),
        })
    }

    fn write_frame(&mut self, tar_bytes: usize, zstd: &[u8]) -> Result<(), SealError> {
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let Some(object) = &mut self.open else {
            return Err(SealError::ThreadGone);
        };
        object.seek_table.add(zstd.len(), tar_bytes);
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
}

/// A whole object, of which the disk may not have everything yet.
struct WrittenObject {
    file: SpoolFile,
    blake3: Hash,
    sha256: Hash,
    bytes: u64,
    tar_bytes: u64,
    tar_blake3: Hash,
}

struct Publisher {
    /// As many as there are recipients.
    stanzas: usize,
    spool: Spool,
}

impl Publisher {
    fn publish(&self, object: WrittenObject) -> Result<SealedArchive, SealError> {
        let head_sha256 = self.check_sealed(&object.file)?;
        let key = ObjectKey::archive(&object.blake3);
        self.spool.publish(object.file, &key)?;
        Ok(SealedArchive {
            blake3: object.blake3,
            sha256: object.sha256,
            bytes: object.bytes,
            head_sha256,
            tar_bytes: object.tar_bytes,
            tar_blake3: object.tar_blake3,
        })
    }

    /// The tripwire: what lies on disk is age, sealed to as many recipients as we have.
    fn check_sealed(&self, file: &SpoolFile) -> Result<Hash, SealError> {
        let expected = self.stanzas;
        let wrong = |found: String| SealError::NotSealed { expected, found };
        let written = File::open(file.path()).map_err(unwritten(&self.spool))?;
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
        // Frames are some MiB at the most, so neither is near u32's end.
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
