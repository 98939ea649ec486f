//! Decompresses zstd frames without copying their content.
//!
//! zstd's usual stream decoder keeps a window of its own and copies all content out of it. Frames
//! of archives state their size, so here the content of each is decompressed to one buffer, which
//! is the window too, and read from there while it is still in the processor's cache. A frame that
//! does not state its size, or a larger one, is decompressed as usual. Frames follow each other;
//! skippable ones are skipped.

use std::io::{self, BufRead, Read};

use zstd::zstd_safe::{
    DCtx, DParameter, InBuffer, OutBuffer, get_error_name, get_frame_content_size,
};

/// A frame with more content is decompressed through a window.
const MOST_CONTENT_BYTES: u64 = 8 << 20;
/// Longest header of a frame, in bytes.
const HEADER_BYTES: usize = 18;

/// Reads the content of the frames that `R` has.
pub(crate) struct FrameReader<R> {
    compressed: R,
    context: DCtx<'static>,
    /// The content of the current frame, or its newest part.
    content: Vec<u8>,
    /// How much of `content` was read.
    read: usize,
    /// A frame was begun: nothing at all is no stream.
    has_begun: bool,
    is_in_frame: bool,
    /// The whole content of the frame has its place in `content`.
    is_whole: bool,
}

impl<R: BufRead> FrameReader<R> {
    /// Returns a reader of the frames in `compressed`.
    pub(crate) fn new(compressed: R) -> io::Result<Self> {
        let no_memory = || io::Error::other("zstd could not allocate a decompression context");
        Ok(Self {
            compressed,
            context: DCtx::try_create().ok_or_else(no_memory)?,
            content: Vec::new(),
            read: 0,
            has_begun: false,
            is_in_frame: false,
            is_whole: false,
        })
    }

    /// Begins the next frame. Returns false if there is none.
    fn begin_frame(&mut self) -> io::Result<bool> {
        let input = self.compressed.fill_buf()?;
        if input.is_empty() {
            return match self.has_begun {
                true => Ok(false),
                false => Err(incomplete()),
            };
        }
        self.has_begun = true;
        // A header that is cut by the end of the buffer counts as one without a size.
        let header = Some(input).filter(|input| input.len() >= HEADER_BYTES);
        let stated = header.and_then(|header| get_frame_content_size(header).ok().flatten());
        let whole = stated.filter(|bytes| *bytes <= MOST_CONTENT_BYTES);
        self.is_whole = whole.is_some();
        let parameter = DParameter::StableOutBuffer(self.is_whole);
        self.context.set_parameter(parameter).map_err(zstd_error)?;
        self.content.clear();
        self.read = 0;
        let capacity = whole.map_or(DCtx::out_size(), |bytes| bytes as usize);
        // Of a frame without content, zstd wants to see a buffer too.
        let reserved = self.content.try_reserve_exact(capacity.max(1));
        reserved.map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        self.is_in_frame = true;
        Ok(true)
    }

    /// Decompresses what the next bytes of the frame have.
    fn decompress(&mut self) -> io::Result<()> {
        if !self.is_whole {
            self.content.clear();
            self.read = 0;
        }
        let input = self.compressed.fill_buf()?;
        let is_end = input.is_empty();
        let before = self.content.len();
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around_pos(&mut self.content, before);
        let step = self.context.decompress_stream(&mut output, &mut input);
        let hint = step.map_err(zstd_error)?;
        let consumed = input.pos();
        self.compressed.consume(consumed);
        self.is_in_frame = hint > 0;
        if is_end && self.is_in_frame && self.content.len() == before {
            return Err(incomplete());
        }
        Ok(())
    }
}

fn incomplete() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a frame is incomplete")
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

impl<R: BufRead> BufRead for FrameReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.read == self.content.len() {
            if !self.is_in_frame && !self.begin_frame()? {
                return Ok(&[]);
            }
            self.decompress()?;
        }
        Ok(&self.content[self.read..])
    }

    fn consume(&mut self, count: usize) {
        self.read = self.content.len().min(self.read + count);
    }
}

impl<R: BufRead> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.fill_buf()?;
        let count = content.len().min(buffer.len());
        buffer[..count].copy_from_slice(&content[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use proptest::prelude::*;

    use super::*;

    /// A frame or a skippable one.
    #[derive(Debug, Clone)]
    enum Part {
        /// With its size in the header.
        Sized(Vec<u8>),
        /// Without.
        Streamed(Vec<u8>),
        /// With more content than fits.
        Large(u8, u32),
        Skippable(Vec<u8>),
    }

    impl Part {
        fn bytes(&self) -> Vec<u8> {
            match self {
                Self::Sized(content) => zstd::bulk::compress(content, 1).unwrap(),
                Self::Streamed(content) => {
                    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
                    encoder.write_all(content).unwrap();
                    encoder.finish().unwrap()
                }
                Self::Large(byte, more) => {
                    let bytes = MOST_CONTENT_BYTES as usize + *more as usize;
                    zstd::bulk::compress(&vec![*byte; bytes], 1).unwrap()
                }
                Self::Skippable(content) => {
                    let length = content.len() as u32;
                    let magic = 0x184D_2A5E_u32.to_le_bytes();
                    [&magic[..], &length.to_le_bytes(), content].concat()
                }
            }
        }
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..300);
        // Repeated, it takes several blocks and matches far back.
        (noise, 0..3000_usize).prop_map(|(noise, times)| noise.repeat(times))
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            6 => content().prop_map(Part::Sized),
            2 => content().prop_map(Part::Streamed),
            1 => (any::<u8>(), 0..3_u32).prop_map(|(byte, more)| Part::Large(byte, more)),
            1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Part::Skippable),
        ]
    }

    /// Reads all by zstd's own decoder: the content, and whether it ended well.
    fn by_zstd(bytes: &[u8]) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut out = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(bytes).unwrap();
        let end = BufReader::new(decoder).read_to_end(&mut out);
        (out, end.err().map(|error| error.kind()))
    }

    fn by_frames(bytes: &[u8], buffer: usize) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut out = Vec::new();
        let input = BufReader::with_capacity(buffer, bytes);
        let end = FrameReader::new(input).unwrap().read_to_end(&mut out);
        (out, end.err().map(|error| error.kind()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Kind: content that zstd's own decoder does not return, or an error that it does not see.
        #[test]
        fn frames_are_what_zstd_says(
            parts in proptest::collection::vec(part(), 0..5),
            buffer in 1..100_000_usize,
            cut in any::<prop::sample::Index>(),
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(Part::bytes).collect();
            let (content, end) = by_zstd(&bytes);
            prop_assert_eq!(end.is_some(), bytes.is_empty());
            prop_assert!(by_frames(&bytes, buffer) == (content.clone(), end));
            if bytes.is_empty() {
                return Ok(());
            }
            let short = &bytes[..cut.index(bytes.len())];
            let (found, end) = by_frames(short, buffer);
            prop_assert_eq!(end, by_zstd(short).1);
            prop_assert!(content.starts_with(&found));
            let mut damaged = bytes.clone();
            let at = flip.0.index(bytes.len());
            damaged[at] ^= flip.1;
            let (found, end) = by_frames(&damaged, buffer);
            let (expected, expected_end) = by_zstd(&damaged);
            // Which of two errors of a damaged frame is seen first may differ.
            prop_assert_eq!(end.is_some(), expected_end.is_some());
            prop_assert!(end.is_some() || found == expected);
        }
    }
}
