//! The head of an age file (`age-encryption.org/v1`), read without any key: the header with one
//! stanza per recipient, and the payload nonce behind it.

use std::io::{self, BufRead, Read as _};

use super::age_payload::NONCE_BYTES;
use crate::base::ids::Hash;

/// Longest head that is read, in bytes: some thousand recipients.
const MAX_HEAD_BYTES: u64 = 4 << 20;
const FIRST_LINE: &[u8] = b"age-encryption.org/v1\n";

/// Why the head of an age file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AgeHeaderError {
    /// The input does not begin like an age file.
    #[error("it is not an age file")]
    NotAge,
    /// The header does not end within the bound.
    #[error("its age header is longer than {} MiB", MAX_HEAD_BYTES >> 20)]
    TooLong,
    /// The input ends within the header or the nonce.
    #[error("it ends within its age header")]
    Truncated,
    /// Reading the input failed.
    #[error("{0}")]
    Read(io::Error),
}

/// The head of an age file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgeHeader {
    bytes: Vec<u8>,
}

impl AgeHeader {
    /// Reads the header and the nonce, and nothing behind them.
    pub fn read(input: &mut impl BufRead) -> Result<Self, AgeHeaderError> {
        let mut bytes = Vec::new();
        let mut limited = input.take(MAX_HEAD_BYTES);
        loop {
            let line = bytes.len();
            let read = limited.read_until(b'\n', &mut bytes);
            let read = read.map_err(AgeHeaderError::Read)?;
            // The input may also end after a whole line.
            if read == 0 || !bytes.ends_with(b"\n") {
                if bytes.len() as u64 == MAX_HEAD_BYTES {
                    return Err(AgeHeaderError::TooLong);
                }
                let is_age = line > 0 || FIRST_LINE.starts_with(&bytes);
                return Err(match is_age {
                    true => AgeHeaderError::Truncated,
                    false => AgeHeaderError::NotAge,
                });
            }
            if line == 0 && bytes != FIRST_LINE {
                return Err(AgeHeaderError::NotAge);
            }
            if bytes[line..].starts_with(b"---") {
                break;
            }
        }
        let nonce = limited.take(NONCE_BYTES as u64).read_to_end(&mut bytes);
        match nonce.map_err(AgeHeaderError::Read)? {
            NONCE_BYTES => Ok(Self { bytes }),
            _ => Err(AgeHeaderError::Truncated),
        }
    }

    /// Returns the header and the nonce, byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the header and the nonce, byte for byte.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the nonce of the payload.
    pub fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.bytes[self.bytes.len() - NONCE_BYTES..]);
        nonce
    }

    /// Returns the SHA-256 of the header and the nonce.
    pub fn sha256(&self) -> Hash {
        Hash::sha256(&self.bytes)
    }

    /// Counts the stanzas that stand for a recipient. Some implementations add a meaningless
    /// `*-grease` stanza, which does not count.
    pub fn stanzas(&self) -> usize {
        let header = &self.bytes[..self.bytes.len() - NONCE_BYTES];
        let tags = header
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"-> "))
            .filter_map(|line| line.split(|byte| *byte == b' ').next());
        tags.filter(|tag| !tag.ends_with(b"-grease")).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"age-encryption.org/v1\n-> X25519 AAAA\nBBBB\n-> x-grease y\n\n--- CCCC\n0123456789abcdef";

    #[test]
    fn a_head_is_read_up_to_its_nonce() {
        let input = [HEAD, b"payload"].concat();
        let mut input = &input[..];
        let header = AgeHeader::read(&mut input).unwrap();
        assert_eq!(header.bytes(), HEAD);
        assert_eq!(&header.nonce(), b"0123456789abcdef");
        assert_eq!(header.stanzas(), 1);
        assert_eq!(header.sha256(), Hash::sha256(HEAD));
        assert_eq!(input, b"payload");
    }

    #[test]
    fn a_header_that_ends_anywhere_is_truncated() {
        for length in 0..HEAD.len() {
            let cut = AgeHeader::read(&mut &HEAD[..length]);
            assert!(
                matches!(cut, Err(AgeHeaderError::Truncated)),
                "{length}: {cut:?}"
            );
        }
    }

    #[test]
    fn other_files_and_endless_headers_are_refused() {
        for other in [&b"zip\n"[..], b"age-encryption.org/v2\n--- x\n", b"\n"] {
            let found = AgeHeader::read(&mut &other[..]);
            assert!(matches!(found, Err(AgeHeaderError::NotAge)), "{found:?}");
        }
        let line = [FIRST_LINE, b"-> X25519 "].concat();
        let endless = io::Read::chain(&line[..], io::repeat(b'x'));
        let found = AgeHeader::read(&mut io::BufReader::new(endless));
        assert!(matches!(found, Err(AgeHeaderError::TooLong)));
    }
}
