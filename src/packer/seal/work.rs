//! What the threads of a [`super::Sealer`] hand to each other.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender};

use zstd::bulk::Compressor;

use super::error::SealError;
use crate::base::ids::Hash;

/// Most bytes of tar stream in one zstd frame, and that a compressor takes at a time.
pub const FRAME_BYTES: usize = 8 << 20;

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

/// A part of a tar stream, for one frame or several. Its buffer circulates: filled, compressed, and
/// filled again.
#[derive(Default)]
pub(super) struct TarStretch {
    /// Position among all messages to the writer.
    pub(super) order: u64,
    /// The content, at most [`FRAME_BYTES`].
    pub(super) tar: Vec<u8>,
    /// Bytes of `tar` that are pages of databases.
    pub(super) page_bytes: usize,
    /// Bytes of `tar` that are lines of an index.
    pub(super) line_bytes: usize,
}

impl TarStretch {
    /// Returns the nature of most of it.
    pub(super) fn texture(&self) -> Texture {
        if self.line_bytes * 2 > self.tar.len() {
            Texture::Lines
        } else if self.page_bytes * 2 > self.tar.len() {
            Texture::Pages
        } else {
            Texture::Other
        }
    }
}

/// A frame: bytes of tar stream, and compressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameSize {
    pub(super) tar_bytes: usize,
    pub(super) zstd_bytes: usize,
}

/// A message to the writer.
pub(super) enum WriterMessage {
    /// A stretch was compressed, to these frames. The buffer circulates, too: written, and filled
    /// again.
    Compressed {
        order: u64,
        frames: Vec<FrameSize>,
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
    /// Full stretches, in order.
    pub(super) stretches: Mutex<Receiver<TarStretch>>,
    /// Empty buffers for what is compressed. A compressor takes a buffer before it takes a stretch,
    /// so the stretch for which all others wait never lacks a buffer.
    pub(super) buffers: Mutex<Receiver<Vec<u8>>>,
    /// Takes the stretches back when they are compressed.
    pub(super) used: Sender<TarStretch>,
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
