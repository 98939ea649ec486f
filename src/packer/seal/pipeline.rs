//! The threads that seal: tar streams in, sealed objects out, in order and in bounded memory.
//!
//! ```text
//! packer              compress × N              seal                  publish
//!
//! write() ───frames──▶ compress, ──┐
//!                      unzip,      ├─messages─▶ order,
//!                      compare     │            encrypt, ──written──▶ check,
//! finish_archive() ────────────────┘            hash                  fsync,
//!                                                                     rename
//! next_sealed() ◀─────────────────────────sealed────────────────────────┘
//! ```
//!
//! - N + 1 stretches circulate between packer and compressors (`used` takes them back), and N + 2
//!   buffers for what is compressed between compressors and writer. So memory is bounded, and a
//!   fast producer waits for the slowest stage.
//! - Stretches and ends of archives are numbered; the writer restores their order.
//! - The first error ends the writer and the publisher. The packer sees it when it next waits for a
//!   frame or a sealed archive.
//! - Dropping the [`Sealer`] closes the channels, which ends all threads; an unfinished object is
//!   removed.

use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::compress::compress_frames;
use super::error::SealError;
use super::object_writer::{ObjectWriter, write_objects};
use super::publish::{ObjectPublisher, SealedArchive, WrittenObject};
use super::work::{CompressorsShared, FRAME_BYTES, TarStretch, Texture, WriterMessage};
use crate::base::ids::Hash;
use crate::keys::recipients::{RecipientError, Recipients};
use crate::state::spool::Spool;

/// Archives that are written and not yet durable: while the disk takes one, the next can be
/// finished.
const UNFLUSHED_ARCHIVES: usize = 1;

/// Seals tar streams, one archive after the other.
pub struct Sealer {
    /// The stretch that is being filled. A full one goes to the compressors before an empty one is
    /// taken.
    stretch: Option<TarStretch>,
    /// Number of the next message to the writer.
    order: u64,
    /// BLAKE3 of the current archive's tar stream.
    tar_blake3: blake3::Hasher,
    empty: Receiver<TarStretch>,
    stretches: Option<SyncSender<TarStretch>>,
    messages: Option<Sender<WriterMessage>>,
    sealed: Receiver<Result<SealedArchive, SealError>>,
    /// Number of archives that ended and were not yet returned.
    unfinished: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Sealer {
    /// Starts `threads` compressors at zstd `level`, one writer into `spool`, and one thread that
    /// makes objects durable while the writer continues with the next.
    pub fn start(
        recipients: Arc<Recipients>,
        spool: Spool,
        level: i32,
        threads: usize,
    ) -> Result<Self, SealError> {
        if recipients.count() == 0 {
            return Err(RecipientError::None.into());
        }
        let workers = threads.max(1);
        let (used, empty) = channel();
        for _ in 0..workers + 1 {
            let _ = used.send(TarStretch::default());
        }
        let (written_out, buffers) = channel();
        for _ in 0..workers + 2 {
            let _ = written_out.send(Vec::new());
        }
        let (stretches, stretch_queue) = sync_channel::<TarStretch>(workers);
        let (messages, message_queue) = channel();
        let shared = Arc::new(CompressorsShared {
            stretches: Mutex::new(stretch_queue),
            buffers: Mutex::new(buffers),
            used,
            messages: messages.clone(),
            level,
            checks: (0..workers.div_ceil(2)).map(|_| Mutex::default()).collect(),
            thorough: Mutex::default(),
        });
        let mut threads = start_compressors(&shared, workers)?;
        drop(shared);
        let publisher = ObjectPublisher {
            stanzas: recipients.count(),
            spool: spool.clone(),
        };
        let (written, sealed, publishing) = start_publisher(publisher)?;
        threads.push(publishing);
        let writer = ObjectWriter::new(recipients, spool);
        threads.push(start("seal", move || {
            write_objects(writer, &message_queue, &written_out, &written);
        })?);
        Ok(Self {
            stretch: None,
            order: 0,
            tar_blake3: blake3::Hasher::new(),
            empty,
            stretches: Some(stretches),
            messages: Some(messages),
            sealed,
            unfinished: 0,
            threads,
        })
    }

    /// Appends to the tar stream of the current archive. Waits while all stretches are in use.
    pub fn write(&mut self, mut tar: &[u8], texture: Texture) -> Result<(), SealError> {
        self.tar_blake3.update(tar);
        while !tar.is_empty() {
            let stretch = match &mut self.stretch {
                Some(stretch) => stretch,
                None => {
                    let Ok(mut empty) = self.empty.recv() else {
                        return Err(self.cause());
                    };
                    empty.tar.clear();
                    empty.tar.reserve_exact(FRAME_BYTES);
                    (empty.page_bytes, empty.line_bytes) = (0, 0);
                    self.stretch.insert(empty)
                }
            };
            let (now, later) = tar.split_at(tar.len().min(FRAME_BYTES - stretch.tar.len()));
            stretch.tar.extend_from_slice(now);
            match texture {
                Texture::Pages => stretch.page_bytes += now.len(),
                Texture::Lines => stretch.line_bytes += now.len(),
                Texture::Other => {}
            }
            tar = later;
            if stretch.tar.len() == FRAME_BYTES {
                self.send_stretch()?;
            }
        }
        Ok(())
    }

    fn send_stretch(&mut self) -> Result<(), SealError> {
        let Some(mut stretch) = self.stretch.take() else {
            return Ok(());
        };
        stretch.order = self.order;
        self.order += 1;
        let sent = self.stretches.as_ref().map(|queue| queue.send(stretch));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.cause()),
        }
    }

    /// Ends the current archive's tar stream; [`Self::next_sealed`] will return the archive.
    pub fn finish_archive(&mut self) -> Result<(), SealError> {
        self.send_stretch()?;
        let stream = std::mem::take(&mut self.tar_blake3);
        let finish = WriterMessage::Finish {
            order: self.order,
            tar_bytes: stream.count(),
            tar_blake3: Hash(*stream.finalize().as_bytes()),
        };
        self.order += 1;
        self.unfinished += 1;
        let sent = self.messages.as_ref().map(|messages| messages.send(finish));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.cause()),
        }
    }

    /// Waits for the oldest ended archive. Returns `None` if all were returned.
    pub fn next_sealed(&mut self) -> Result<Option<SealedArchive>, SealError> {
        if self.unfinished == 0 {
            return Ok(None);
        }
        self.unfinished -= 1;
        let next = self.sealed.recv();
        next.unwrap_or(Err(SealError::ThreadGone)).map(Some)
    }

    /// Returns the oldest ended archive if it is ready.
    pub fn try_next_sealed(&mut self) -> Result<Option<SealedArchive>, SealError> {
        if self.unfinished == 0 {
            return Ok(None);
        }
        let next = match self.sealed.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => Err(SealError::ThreadGone),
        };
        self.unfinished -= 1;
        next.map(Some)
    }

    /// Returns the error because of which the threads stopped taking work.
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
        self.stretches = None;
        self.messages = None;
        // The writer ends when all senders are gone; an unfinished object is removed with it.
        let (_, none) = channel();
        self.empty = none;
        for handle in self.threads.drain(..) {
            let _ = handle.join();
        }
    }
}

fn start_compressors(
    shared: &Arc<CompressorsShared>,
    workers: usize,
) -> Result<Vec<JoinHandle<()>>, SealError> {
    let start_one = |worker: usize| {
        let shared = Arc::clone(shared);
        start("compress", move || compress_frames(&shared, worker / 2))
    };
    (0..workers).map(start_one).collect()
}

type WrittenSender = SyncSender<Result<WrittenObject, SealError>>;
type SealedReceiver = Receiver<Result<SealedArchive, SealError>>;

/// Starts the thread that publishes objects, which stops after the first error.
fn start_publisher(
    publisher: ObjectPublisher,
) -> Result<(WrittenSender, SealedReceiver, JoinHandle<()>), SealError> {
    let (written, to_publish) =
        sync_channel::<Result<WrittenObject, SealError>>(UNFLUSHED_ARCHIVES);
    let (sealed_out, sealed) = channel();
    let thread = start("publish", move || {
        for object in to_publish {
            let published = object.and_then(|object| publisher.publish(object));
            let failed = published.is_err();
            if sealed_out.send(published).is_err() || failed {
                return;
            }
        }
    })?;
    Ok((written, sealed, thread))
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SealError> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(SealError::Thread)
}
