//! Encrypts and decrypts the payload of an age file: STREAM of ChaCha20-Poly1305 in chunks of
//! 64 KiB, as specified by age-encryption.org/v1, *Payload*.
//!
//! The `age` crate makes and reads headers, and with them everything that concerns recipients and
//! identities. The payload is handled here with ring's cipher, which takes less than half of the
//! time (docs/decisions.md).

use std::io::{self, BufRead, Read, Write};
use std::ops::Range;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// Bytes of the file key, from which the payload's key is derived.
pub const FILE_KEY_BYTES: usize = 16;
/// Bytes of the nonce between header and payload.
pub const NONCE_BYTES: usize = 16;
const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;
const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// The key of one payload.
pub struct PayloadKey {
    key: LessSafeKey,
    /// Number of chunks that were encrypted or decrypted.
    counter: u64,
}

impl PayloadKey {
    /// Derives the key from the file key that the header's stanzas wrap, and the nonce behind the
    /// header.
    pub fn derive(file_key: &[u8; FILE_KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> io::Result<Self> {
        let secret = Salt::new(HKDF_SHA256, nonce).extract(file_key);
        let key = secret
            .expand(&[b"payload"], &CHACHA20_POLY1305)
            .map_err(|_| io::Error::other("no payload key can be derived"))?;
        Ok(Self {
            key: LessSafeKey::new(UnboundKey::from(key)),
            counter: 0,
        })
    }

    fn nonce(chunk: u64, is_last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
        nonce[11] = u8::from(is_last);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts `chunk` in place and appends its tag. No two chunks share a nonce, since the
    /// counter only grows.
    fn seal(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> io::Result<()> {
        let sealed = self.key.seal_in_place_append_tag(
            Self::nonce(self.counter, is_last),
            Aad::empty(),
            chunk,
        );
        self.counter += 1;
        sealed.map_err(|_| io::Error::other("a chunk cannot be encrypted"))
    }

    /// Decrypts `chunk` in place and returns the length of its plaintext. `None` if it is not the
    /// chunk that was encrypted at this position.
    fn open(&self, chunk: &mut [u8], is_last: bool) -> Option<usize> {
        self.open_at(self.counter, chunk, is_last)
    }

    fn open_at(&self, number: u64, chunk: &mut [u8], is_last: bool) -> Option<usize> {
        let nonce = Self::nonce(number, is_last);
        let opened = self.key.open_in_place(nonce, Aad::empty(), chunk);
        opened.ok().map(|plain| plain.len())
    }

    /// Decrypts `sealed`, the chunks of a payload from the one with the number `first` on, whole
    /// ones but for the payload's last. Returns their plaintext, or the number of the first chunk
    /// that is not what was encrypted there.
    pub fn open_chunks(
        &self,
        layout: PayloadLayout,
        first: u64,
        mut sealed: Vec<u8>,
    ) -> Result<Vec<u8>, u64> {
        let (mut number, mut plain_bytes) = (first, 0);
        let mut start = 0;
        while start < sealed.len() {
            let end = sealed.len().min(start + SEALED_CHUNK_BYTES);
            let is_last = number + 1 == layout.chunks();
            let is_whole = end - start == SEALED_CHUNK_BYTES || is_last;
            let chunk = &mut sealed[start..end];
            let opened = match is_whole && number < layout.chunks() {
                true => self.open_at(number, chunk, is_last),
                false => None,
            };
            let length = opened.ok_or(number)?;
            sealed.copy_within(start..start + length, plain_bytes);
            plain_bytes += length;
            start = end;
            number += 1;
        }
        sealed.truncate(plain_bytes);
        Ok(sealed)
    }
}

impl Drop for PayloadKey {
    /// Overwrites the key, so that our memory does not reveal it later.
    fn drop(&mut self) {
        if let Ok(nothing) = UnboundKey::new(&CHACHA20_POLY1305, &[0; 32]) {
            self.key = LessSafeKey::new(nothing);
            std::hint::black_box(&self.key);
        }
    }
}

/// Where the chunks of a payload are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadLayout {
    sealed_bytes: u64,
}

impl PayloadLayout {
    /// Returns the layout of a payload of `sealed_bytes`. `None`: no payload has this size.
    pub fn new(sealed_bytes: u64) -> Option<Self> {
        let last = sealed_bytes % SEALED_CHUNK_BYTES as u64;
        let tag = TAG_BYTES as u64;
        // Only the single chunk of an empty payload is empty.
        let is_possible = match sealed_bytes {
            0 => false,
            bytes if bytes == tag => true,
            _ => last == 0 || last > tag,
        };
        is_possible.then_some(Self { sealed_bytes })
    }

    /// Returns the number of chunks, at least 1.
    pub fn chunks(self) -> u64 {
        self.sealed_bytes.div_ceil(SEALED_CHUNK_BYTES as u64)
    }

    /// Returns the size of the plaintext.
    pub fn plain_bytes(self) -> u64 {
        self.sealed_bytes - self.chunks() * TAG_BYTES as u64
    }

    /// Returns the numbers of the chunks that hold the bytes `plain` of the plaintext.
    pub fn chunks_of(self, plain: &Range<u64>) -> Range<u64> {
        let end = plain.end.min(self.plain_bytes());
        let chunk = CHUNK_BYTES as u64;
        match plain.start < end {
            true => plain.start / chunk..end.div_ceil(chunk),
            false => 0..0,
        }
    }

    /// Returns the bytes of the payload that `chunks` have.
    pub fn sealed_of(self, chunks: &Range<u64>) -> Range<u64> {
        let at = |chunk: u64| (chunk * SEALED_CHUNK_BYTES as u64).min(self.sealed_bytes);
        at(chunks.start)..at(chunks.end)
    }

    /// Returns the position in the plaintext where a chunk begins.
    pub fn plain_start(self, chunk: u64) -> u64 {
        chunk * CHUNK_BYTES as u64
    }

    /// Returns the first chunk that is whole in the payload's bytes from `sealed_start` on.
    pub fn first_whole_from(self, sealed_start: u64) -> u64 {
        sealed_start.div_ceil(SEALED_CHUNK_BYTES as u64)
    }
}

/// Encrypts the bytes written to it. Without [`PayloadWriter::finish`] the payload is cut short.
pub struct PayloadWriter<W> {
    key: PayloadKey,
    /// Plaintext of the next chunk. A full chunk is written only when more bytes follow, since the
    /// last chunk is encrypted differently.
    chunk: Vec<u8>,
    output: W,
}

impl<W: Write> PayloadWriter<W> {
    /// Writes a payload to `output`.
    pub fn new(key: PayloadKey, output: W) -> Self {
        Self {
            key,
            chunk: Vec::with_capacity(SEALED_CHUNK_BYTES),
            output,
        }
    }

    fn write_chunk(&mut self, is_last: bool) -> io::Result<()> {
        self.key.seal(&mut self.chunk, is_last)?;
        let written = self.output.write_all(&self.chunk);
        self.chunk.clear();
        written
    }

    /// Writes the last chunk and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_chunk(true)?;
        Ok(self.output)
    }
}

impl<W: Write> Write for PayloadWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.chunk.len() == CHUNK_BYTES {
            self.write_chunk(false)?;
        }
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Decrypts the payload that it reads. Fails with `UnexpectedEof` if the payload is cut short, with
/// `InvalidData` if it is damaged.
pub struct PayloadReader<R> {
    key: PayloadKey,
    /// The current chunk, decrypted in place.
    chunk: Vec<u8>,
    /// The part of `chunk` that is plaintext and not yet consumed.
    plain: Range<usize>,
    ended: bool,
    input: R,
}

impl<R: BufRead> PayloadReader<R> {
    /// Reads a payload from `input`.
    pub fn new(key: PayloadKey, input: R) -> Self {
        Self {
            key,
            chunk: vec![0; SEALED_CHUNK_BYTES],
            plain: 0..0,
            ended: false,
            input,
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let count = read_full(&mut self.input, &mut self.chunk)?;
        let is_last = count < SEALED_CHUNK_BYTES || is_at_end(&mut self.input)?;
        let chunk = &mut self.chunk[..count];
        let opened = match is_last {
            false => self.key.open(chunk, false),
            true => {
                let mut ciphertext = chunk.to_vec();
                let opened = self.key.open(chunk, true);
                let cut = opened.is_none()
                    && (count == 0 || self.key.open(&mut ciphertext, false).is_some());
                if cut {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                opened
            }
        };
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let Some(length) = opened else {
            return Err(damaged("it does not decrypt"));
        };
        if length == 0 && self.key.counter > 0 {
            return Err(damaged("its last chunk is empty"));
        }
        self.key.counter += 1;
        self.ended = is_last;
        self.plain = 0..length;
        Ok(())
    }
}

/// Fills `buffer` as far as the input goes. Returns the number of bytes read.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match input.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn is_at_end(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        match input.fill_buf() {
            Ok(bytes) => return Ok(bytes.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl<R: BufRead> BufRead for PayloadReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.plain.is_empty() && !self.ended {
            self.next_chunk()?;
        }
        Ok(&self.chunk[self.plain.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.plain.start = self.plain.end.min(self.plain.start + count);
    }
}

impl<R: BufRead> Read for PayloadReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let plain = self.fill_buf()?;
        let count = plain.len().min(buffer.len());
        buffer[..count].copy_from_slice(&plain[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_chunks_decrypt_alone_and_only_at_their_place() {
        let key = || PayloadKey::derive(&[1; FILE_KEY_BYTES], &[2; NONCE_BYTES]).unwrap();
        for bytes in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
        ] {
            let plain: Vec<u8> = (0..bytes).map(|i| (i / 7) as u8).collect();
            let mut writer = PayloadWriter::new(key(), Vec::new());
            writer.write_all(&plain).unwrap();
            let sealed = writer.finish().unwrap();
            let layout = PayloadLayout::new(sealed.len() as u64).unwrap();
            assert_eq!(layout.plain_bytes(), bytes as u64);
            for first in 0..layout.chunks() {
                for end in first + 1..=layout.chunks() {
                    let part = layout.sealed_of(&(first..end));
                    let part = sealed[part.start as usize..part.end as usize].to_vec();
                    let start = layout.plain_start(first) as usize;
                    let expected = &plain[start..(end as usize * CHUNK_BYTES).min(bytes)];
                    let opened = key().open_chunks(layout, first, part.clone());
                    assert_eq!(opened.as_deref(), Ok(expected));
                    // At another place, cut, longer, or damaged.
                    assert!(key().open_chunks(layout, first + 1, part.clone()).is_err());
                    let cut = part[..part.len() - 1].to_vec();
                    assert!(key().open_chunks(layout, first, cut).is_err());
                    let longer = [&part[..], b"x"].concat();
                    assert!(key().open_chunks(layout, first, longer).is_err());
                    let mut damaged = part;
                    *damaged.last_mut().unwrap() ^= 1;
                    assert_eq!(key().open_chunks(layout, first, damaged), Err(end - 1));
                }
            }
            // A payload that is cut after a whole chunk has no last one.
            if let shorter @ 1.. = layout.chunks() - 1 {
                let part = layout.sealed_of(&(0..shorter));
                let cut = sealed[..part.end as usize].to_vec();
                let layout = PayloadLayout::new(part.end).unwrap();
                assert_eq!(key().open_chunks(layout, 0, cut), Err(shorter - 1));
            }
        }
        for impossible in [0, 1, 15, SEALED_CHUNK_BYTES as u64 + 16] {
            assert_eq!(PayloadLayout::new(impossible), None, "{impossible}");
        }
    }

    /// No writer makes an empty last chunk: a payload must have only one form.
    #[test]
    fn an_empty_last_chunk_is_refused_unless_it_is_the_only_one() {
        let key = || PayloadKey::derive(&[1; FILE_KEY_BYTES], &[2; NONCE_BYTES]).unwrap();
        let mut sealing = key();
        let (mut first, mut last) = (vec![3; CHUNK_BYTES], Vec::new());
        sealing.seal(&mut first, false).unwrap();
        sealing.seal(&mut last, true).unwrap();
        let payload = [first, last].concat();
        let read = |payload: &[u8]| {
            let mut plain = Vec::new();
            let read = PayloadReader::new(key(), payload).read_to_end(&mut plain);
            read.map(|_| plain)
        };
        let refused = read(&payload).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        let nothing = PayloadWriter::new(key(), Vec::new()).finish().unwrap();
        assert_eq!(read(&nothing).unwrap(), b"");
    }
}
