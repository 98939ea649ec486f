//! Guesses from samples whether a file's content compresses.
//!
//! A sample is 4 KiB at the file's start, middle and end; its measure is the entropy of single
//! bytes. Text, tables, databases and programs are far below eight bits per byte, compressed or
//! encrypted content hardly below. A file that begins like a known format is in a class of its own:
//! photos, videos and compressed dumps are meant to be dense.

use std::sync::OnceLock;

/// The class of a file's content. Its number is stored in the files cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grain {
    /// The content is too short, or no sample was taken.
    #[default]
    Unknown = 0,
    /// All samples compress.
    Plain = 1,
    /// Some samples do not compress, but none looks random.
    Mixed = 2,
    /// A sample looks like random bytes, and the content begins like no known format.
    Noise = 3,
    /// The content begins like a format that is compressed.
    Packed = 4,
}

/// Size of a sample in bytes.
const PIECE_BYTES: usize = 4096;
/// Fewer bytes allow no conclusion.
const FEWEST_BYTES: usize = 1024;
/// Bits per byte up to which content counts as compressible.
const PLAIN_BITS: f64 = 7.0;
/// How far below random bytes noise may be, in bits per byte.
const NOISE_MARGIN_BITS: f64 = 0.1;

impl Grain {
    /// Returns the class of content that is in memory.
    pub fn of(content: &[u8]) -> Self {
        let last = content.len().saturating_sub(PIECE_BYTES);
        let mut looks = Looks::default();
        looks.look(content);
        if last > PIECE_BYTES {
            looks.look(&content[last / 2..]);
        }
        if last > 0 {
            looks.look(&content[last..]);
        }
        looks.grain()
    }

    /// Returns the class as three bits.
    pub fn to_bits(self) -> u8 {
        self as u8
    }

    /// Returns the class of these bits; bits that were never written are `Unknown`.
    pub fn from_bits(bits: u8) -> Self {
        let all = [Self::Plain, Self::Mixed, Self::Noise, Self::Packed];
        let found = all.into_iter().find(|one| one.to_bits() == bits);
        found.unwrap_or_default()
    }
}

/// Collects the samples of a file; the first must be from its beginning.
#[derive(Debug, Default)]
pub struct Looks {
    pieces: usize,
    is_packed: bool,
    is_plain: bool,
    is_noise: bool,
}

impl Looks {
    /// Takes the first bytes of `piece` as a sample.
    pub fn look(&mut self, piece: &[u8]) {
        let piece = &piece[..piece.len().min(PIECE_BYTES)];
        if piece.len() < FEWEST_BYTES {
            return;
        }
        if self.pieces == 0 {
            self.is_plain = true;
            self.is_packed = is_packed_format(piece);
        }
        self.pieces += 1;
        let bits = bits_per_byte(piece);
        self.is_plain &= bits <= PLAIN_BITS;
        self.is_noise |= bits >= random_bits(piece.len()) - NOISE_MARGIN_BITS;
    }

    /// Returns the class that follows from the samples so far.
    pub fn grain(&self) -> Grain {
        match self {
            Self { pieces: 0, .. } => Grain::Unknown,
            Self {
                is_packed: true, ..
            } => Grain::Packed,
            Self { is_noise: true, .. } => Grain::Noise,
            Self { is_plain: true, .. } => Grain::Plain,
            _ => Grain::Mixed,
        }
    }
}

/// Returns Shannon's entropy of single bytes, in bits per byte.
fn bits_per_byte(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let weights = weights();
    let total = bytes.len() as f64;
    let weight: f64 = counts.iter().map(|count| weights[*count as usize]).sum();
    total.log2() - weight / total
}

/// Returns `n log2 n` of each count that a sample can have: computing logarithms would take longer
/// than everything else.
fn weights() -> &'static [f64; PIECE_BYTES + 1] {
    static WEIGHTS: OnceLock<Box<[f64; PIECE_BYTES + 1]>> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let mut weights = Box::new([0.0; PIECE_BYTES + 1]);
        for (count, weight) in weights.iter_mut().enumerate().skip(1) {
            *weight = count as f64 * (count as f64).log2();
        }
        weights
    })
}

/// Returns the average entropy of this number of random bytes: a sample never reaches eight bits.
fn random_bits(bytes: usize) -> f64 {
    8.0 - 255.0 / (2.0 * bytes as f64 * std::f64::consts::LN_2)
}

/// The beginnings of compressed formats, each with its offset: archives, images, sound, video,
/// dumps.
const PACKED_FORMATS: &[(usize, &[u8])] = &[
    (0, b"\x1f\x8b"),
    (0, b"\x1f\x9d"),
    (0, b"BZh"),
    (0, b"\xfd7zXZ\0"),
    (0, b"\x5d\0\0"),
    (0, b"LZIP"),
    (0, b"\x28\xb5\x2f\xfd"),
    (0, b"\x04\x22\x4d\x18"),
    (0, b"\x89LZO"),
    (0, b"\xff\x06\0\0sNaPpY"),
    (0, b"PK\x03\x04"),
    (0, b"7z\xbc\xaf\x27\x1c"),
    (0, b"Rar!"),
    (0, b"PGDMP"),
    (0, b"age-encryption.org/"),
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG"),
    (0, b"GIF8"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"\xff\x0a"),
    (0, b"\0\0\0\x0cJXL "),
    (0, b"RIFF"),
    (0, b"%PDF"),
    (0, b"ID3"),
    (0, b"OggS"),
    (0, b"fLaC"),
    (0, b"\x1a\x45\xdf\xa3"),
    (0, b"\0\0\x01\xba"),
    (0, b"\x30\x26\xb2\x75"),
    (0, b"hsqs"),
    (0, b"wOF2"),
    (4, b"ftyp"),
];

fn is_packed_format(head: &[u8]) -> bool {
    let begins = |(at, mark): &(usize, &[u8])| head.get(*at..).is_some_and(|h| h.starts_with(mark));
    // MP3 and AAC files without a tag begin with a frame.
    let is_frame = head.starts_with(b"\xff") && head.get(1).is_some_and(|byte| byte & 0xe0 == 0xe0);
    is_frame || PACKED_FORMATS.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    fn text(bytes: usize) -> Vec<u8> {
        let line = b"2026-11-29 06:00:00 backup of the photos: 1204 files, complete\n";
        line.iter().copied().cycle().take(bytes).collect()
    }

    #[test]
    fn random_bytes_are_noise_at_every_size_and_text_is_plain() {
        for bytes in [1024, 1500, 4096, 9000, 100_000, 1 << 20] {
            for seed in 0..50 {
                let looked = Grain::of(&random(bytes, seed));
                assert_eq!(looked, Grain::Noise, "{bytes} bytes of seed {seed}");
            }
            assert_eq!(Grain::of(&text(bytes)), Grain::Plain, "{bytes} bytes");
        }
        assert_eq!(Grain::of(&random(1023, 1)), Grain::Unknown);
        assert_eq!(Grain::of(b""), Grain::Unknown);
        assert_eq!(Grain::of(&[0; 5000]), Grain::Plain);
    }

    #[test]
    fn partly_encrypted_content_is_noise() {
        for at in [0, 47_952, 95_904] {
            let mut content = text(100_000);
            content[at..at + 4096].copy_from_slice(&random(4096, 7));
            assert_eq!(Grain::of(&content), Grain::Noise, "{at}");
        }
    }

    #[test]
    fn known_formats_are_packed() {
        for (at, mark) in PACKED_FORMATS {
            let mut content = random(20_000, 3);
            content[*at..at + mark.len()].copy_from_slice(mark);
            assert_eq!(Grain::of(&content), Grain::Packed, "{mark:?}");
        }
    }

    #[test]
    fn three_bits_restore_each_class() {
        for bits in 0..=255 {
            let grain = Grain::from_bits(bits);
            let expected = if bits <= 4 { bits } else { 0 };
            assert_eq!(grain.to_bits(), expected);
        }
    }
}
