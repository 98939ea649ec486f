//! What the threads of a [`super::Sealer`] hand to each other.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender};

use zstd::bulk::Compressor;

use super::error::SealError;
use crate::base::ids::Hash;

/// Most bytes of tar stream in one zstd frame.
pub const FRAME_BYTES: usize = 8 << 20;
/// Most bytes in one that has lines of an index: a search of the index reads a few frames.
const LINES_FRAME_BYTES: usize = 256 << 10;

/// The nature of a part of a tar stream, as far as it matters for compression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Texture {
    /// Pages of a SQLite database.
    Pages,
    /// Lines of an index.
    Lines,
    /// Anything else.
    #[default]
    Other,
}

impl Texture {
    /// Returns the most bytes of a frame that takes a part of this nature.
    pub(super) fn frame_bytes(self) -> usize {
        match self {
            Self::Lines => LINES_FRAME_BYTES,
            Self::Pages | Self::Other => FRAME_BYTES,
        }
    }
}

/// A part of a tar stream. Its buffer circulates: filled, compressed, and filled again.
#[derive(Default)]
pub(super) struct Frame {
    /// Position among all messages to the writer.
    pub(super) order: u64,
    /// The content, at most [`FRAME_BYTES`].
    pub(super) tar: Vec<u8>,
    /// Bytes of `tar` that are pages of databases.
    pub(super) page_bytes: usize,
}

/// A message to the writer.
pub(super) enum WriterMessage {
    /// A frame was compressed. The buffer circulates, too: written, and filled again.
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
    /// A compressor failed.
    Failed(SealError),
}

/// What the compressors share.
pub(super) struct CompressorsShared {
    /// Full frames, in order.
    pub(super) frames: Mutex<Receiver<Frame>>,
    /// Empty buffers for compressed frames. A compressor takes a buffer before it takes a frame, so
    /// the frame for which all others wait never lacks a buffer.
    pub(super) buffers: Mutex<Receiver<Vec<u8>>>,
    /// Takes the frames back when they are compressed.
    pub(super) used: Sender<Frame>,
    /// To the writer.
    pub(super) messages: Sender<WriterMessage>,
    /// zstd level.
    pub(super) level: i32,
    /// Buffers for decompressing frames again. That takes a quarter of a compressor's time, so two
    /// compressors share one.
    pub(super) checks: Vec<Mutex<Vec<u8>>>,
    /// The compressor for frames for which there is time: one for all, since it takes 11 MB. `None`
    /// until it is needed.
    pub(super) thorough: Mutex<Option<Compressor<'static>>>,
}
