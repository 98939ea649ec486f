//! Decrypts and decompresses one frame.

use std::io::{self, Read as _};
use std::ops::Range;

use bytes::Bytes;

use super::opened::OpenedArchive;
use crate::base::no_memory::is_lack_of_memory;
use crate::format::archive::seek_table::SeekFrame;

/// Largest window of a frame that is decompressed in part: frames have 8 MiB at most.
const WINDOW_LOG: u32 = 23;

/// Why a frame cannot be decoded.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// A chunk is not what was encrypted there.
    Chunk,
    /// All chunks are authentic, and the frame is not what the seek table says.
    Frame,
    /// The beginning of the frame holds less than is needed.
    Short,
    /// This machine lacks memory.
    NoMemory,
}

/// A part of a compressed stream: chunks of the payload, still sealed.
#[derive(Debug, Clone)]
pub(super) struct SealedChunks {
    /// The number of the first one.
    pub(super) first: u64,
    pub(super) sealed: Bytes,
}

/// Decodes all of a frame, whose chunks are among `chunks`. Its size must be that of the table.
pub(super) fn decode_frame(
    opened: &OpenedArchive,
    frame: &SeekFrame,
    chunks: &SealedChunks,
) -> Result<Bytes, DecodeError> {
    let compressed = decrypt(opened, &frame.compressed, chunks)?;
    let bytes = (frame.content.end - frame.content.start) as usize;
    let content = zstd::bulk::decompress(&compressed, bytes).map_err(not_decompressed)?;
    match content.len() == bytes {
        true => Ok(content.into()),
        false => Err(DecodeError::Frame),
    }
}

/// Decodes the beginning of a frame of which only the bytes `compressed` are here: at least
/// `needed` bytes of content, and what else comes with them.
pub(super) fn decode_beginning(
    opened: &OpenedArchive,
    compressed: &Range<u64>,
    needed: u64,
    chunks: &SealedChunks,
) -> Result<Bytes, DecodeError> {
    let compressed = decrypt(opened, compressed, chunks)?;
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(&compressed[..]).map_err(not_decompressed)?;
    let limited = decoder.window_log_max(WINDOW_LOG);
    limited.map_err(not_decompressed)?;
    let mut content = vec![0; needed as usize];
    match decoder.single_frame().read_exact(&mut content) {
        Ok(()) => Ok(content.into()),
        Err(error) if is_lack_of_memory(&error) => Err(DecodeError::NoMemory),
        Err(_) => Err(DecodeError::Short),
    }
}

/// Returns the bytes `compressed` of the compressed stream.
fn decrypt(
    opened: &OpenedArchive,
    compressed: &Range<u64>,
    chunks: &SealedChunks,
) -> Result<Vec<u8>, DecodeError> {
    let layout = opened.layout;
    let needed = layout.chunks_of(compressed);
    let (all, own) = (
        layout.sealed_of(&(0..chunks.first)).end,
        layout.sealed_of(&needed),
    );
    // The caller fetched all of them.
    let own = (own.start - all) as usize..(own.end - all) as usize;
    let sealed = chunks.sealed.get(own).ok_or(DecodeError::Frame)?;
    let plain = opened
        .key
        .open_chunks(layout, needed.start, sealed.to_vec());
    let mut plain = plain.map_err(|_| DecodeError::Chunk)?;
    let skipped = (compressed.start - layout.plain_start(needed.start)) as usize;
    plain.truncate(skipped + (compressed.end - compressed.start) as usize);
    plain.drain(..skipped);
    Ok(plain)
}

fn not_decompressed(error: io::Error) -> DecodeError {
    match is_lack_of_memory(&error) {
        true => DecodeError::NoMemory,
        false => DecodeError::Frame,
    }
}
