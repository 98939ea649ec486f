//! The table of frames at the end of an archive, as the zstd seekable format has it: a skippable
//! frame that stock `zstd` passes over.

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;

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
    }
}
