//! The table of frames at the end of an archive, as the zstd seekable format has it: a skippable
//! frame that stock `zstd` passes over.

use std::ops::Range;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

/// Bytes of the end of the table, which has its number of frames.
pub const SEEK_FOOTER_BYTES: usize = 9;
/// Bytes of the table beside its frames: the head of the skippable frame, and the footer.
const FIXED_BYTES: u64 = 8 + SEEK_FOOTER_BYTES as u64;
const ROW_BYTES: u64 = 8;
/// Most content of one frame (docs/format.md).
const MAX_FRAME_CONTENT_BYTES: u32 = 8 << 20;
/// Largest table that is read: a million frames.
const MAX_TABLE_BYTES: u64 = 8 << 20;

/// Why the frames of an archive are not known. It can be read from its beginning nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeekTableError {
    /// The archive does not end with a table.
    #[error("it has no seek table")]
    Absent,
    /// The table contradicts itself or the archive.
    #[error("its seek table {0}")]
    Wrong(&'static str),
}

/// One zstd frame of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekFrame {
    /// The frame's bytes in the compressed stream.
    pub compressed: Range<u64>,
    /// Its content's bytes in the tar stream.
    pub content: Range<u64>,
}

/// Returns the bytes of the table that ends with `end`, the last bytes of a compressed stream, at
/// least [`SEEK_FOOTER_BYTES`].
pub fn table_bytes(end: &[u8]) -> Result<u64, SeekTableError> {
    let start = end.len().checked_sub(SEEK_FOOTER_BYTES);
    let footer = start.and_then(|start| end.get(start..));
    let Some([n0, n1, n2, n3, descriptor, magic @ ..]) = footer else {
        return Err(SeekTableError::Absent);
    };
    if magic != SEEKABLE_MAGIC.to_le_bytes() {
        return Err(SeekTableError::Absent);
    }
    if *descriptor != 0 {
        return Err(SeekTableError::Wrong("has checksums or reserved bits"));
    }
    let frames = u32::from_le_bytes([*n0, *n1, *n2, *n3]);
    let bytes = u64::from(frames) * ROW_BYTES + FIXED_BYTES;
    match bytes <= MAX_TABLE_BYTES {
        true => Ok(bytes),
        false => Err(SeekTableError::Wrong("is too large")),
    }
}

/// Parses `table`, the whole table at the end of a compressed stream of `stream_bytes`. The frames
/// that it returns fill the stream up to the table.
pub fn decode(table: &[u8], stream_bytes: u64) -> Result<Vec<SeekFrame>, SeekTableError> {
    let bytes = table_bytes(table)?;
    if bytes != table.len() as u64 || bytes > stream_bytes {
        return Err(SeekTableError::Wrong("is longer than the archive"));
    }
    let word = |at: usize| {
        let word = table.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.map_or(0, u32::from_le_bytes)
    };
    if word(0) != SKIPPABLE_MAGIC || u64::from(word(4)) + 8 != bytes {
        return Err(SeekTableError::Wrong("is not in a skippable frame"));
    }
    let mut frames = Vec::new();
    let (mut compressed, mut content) = (0u64, 0u64);
    for at in (8..table.len() - SEEK_FOOTER_BYTES).step_by(ROW_BYTES as usize) {
        let (packed, unpacked) = (word(at), word(at + 4));
        if unpacked > MAX_FRAME_CONTENT_BYTES {
            return Err(SeekTableError::Wrong("has a frame that is too large"));
        }
        // The most that zstd makes of incompressible content, generously.
        let most = u64::from(unpacked) + u64::from(unpacked >> 7) + 1024;
        if packed == 0 || u64::from(packed) > most {
            return Err(SeekTableError::Wrong("has a frame of an impossible size"));
        }
        let (start, begin) = (compressed, content);
        compressed += u64::from(packed);
        content += u64::from(unpacked);
        frames.push(SeekFrame {
            compressed: start..compressed,
            content: begin..content,
        });
    }
    match compressed + bytes == stream_bytes {
        true => Ok(frames),
        false => Err(SeekTableError::Wrong("does not fit the archive's size")),
    }
}

/// The sizes of an archive's zstd frames, in order.
#[derive(Debug, Default)]
pub struct SeekTable {
    /// Compressed and decompressed bytes of each frame.
    frames: Vec<(u32, u32)>,
}

impl SeekTable {
    /// Appends a frame. Frames have some MiB at most, so both sizes fit 32 bits.
    pub fn add(&mut self, compressed_bytes: usize, decompressed_bytes: usize) {
        self.frames
            .push((compressed_bytes as u32, decompressed_bytes as u32));
    }

    /// Returns the skippable frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.frames.len() * 8 + 17);
        table.extend(SKIPPABLE_MAGIC.to_le_bytes());
        table.extend((self.frames.len() as u32 * 8 + 9).to_le_bytes());
        for (compressed, decompressed) in &self.frames {
            table.extend(compressed.to_le_bytes());
            table.extend(decompressed.to_le_bytes());
        }
        table.extend((self.frames.len() as u32).to_le_bytes());
        // No checksums: BLAKE3 and age's own tags protect the frames.
        table.push(0);
        table.extend(SEEKABLE_MAGIC.to_le_bytes());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_skips_the_table_and_finds_the_frames_in_it() {
        let mut table = SeekTable::default();
        let mut archive = Vec::new();
        for content in [&b"one"[..], b"another"] {
            let frame = zstd::bulk::compress(content, 3).unwrap();
            table.add(frame.len(), content.len());
            archive.extend(frame);
        }
        let first = table.frames[0];
        let encoded = table.encode();
        archive.extend(&encoded);
        assert_eq!(zstd::decode_all(&archive[..]).unwrap(), b"oneanother");
        assert_eq!(encoded.len(), 8 + 2 * 8 + 9);
        assert_eq!(encoded[8..12], first.0.to_le_bytes());
        assert_eq!(encoded[12..16], 3u32.to_le_bytes());
        assert_eq!(encoded[24..28], 2u32.to_le_bytes());
        assert!(encoded.ends_with(&SEEKABLE_MAGIC.to_le_bytes()));

        let frames = decode(&encoded, archive.len() as u64).unwrap();
        assert_eq!(frames.len(), 2);
        for (frame, content) in frames.iter().zip([&b"one"[..], b"another"]) {
            let range = frame.compressed.start as usize..frame.compressed.end as usize;
            assert_eq!(zstd::decode_all(&archive[range]).unwrap(), content);
        }
        assert_eq!(frames[1].content, 3..10);
    }

    #[test]
    fn no_damaged_table_is_taken_unless_it_fits_the_archive() {
        let mut table = SeekTable::default();
        table.add(500, 1000);
        table.add(300, 400);
        let encoded = table.encode();
        let stream = 800 + encoded.len() as u64;
        assert_eq!(table_bytes(&encoded), Ok(encoded.len() as u64));
        assert_eq!(decode(&encoded, stream).unwrap().len(), 2);
        for at in 0..encoded.len() {
            for bit in 0..8 {
                let mut damaged = encoded.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(frames) = decode(&damaged, stream) {
                    // Only the sizes of content are left to the decompressor to compare.
                    let ends: Vec<u64> = frames.iter().map(|f| f.compressed.end).collect();
                    assert_eq!(ends, [500, 800], "{at}");
                }
            }
        }
        for length in 0..encoded.len() {
            assert!(decode(&encoded[..length], stream).is_err(), "{length}");
            assert!(decode(&encoded[encoded.len() - length..], stream).is_err());
        }
        for other in [0, stream - 1, stream + 1] {
            assert!(decode(&encoded, other).is_err(), "{other}");
        }
        assert_eq!(table_bytes(b"no table"), Err(SeekTableError::Absent));
        assert_eq!(
            table_bytes(b"zstd without a table"),
            Err(SeekTableError::Absent)
        );
    }
}
