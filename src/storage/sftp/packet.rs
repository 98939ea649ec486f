//! Parses packets of sftp version 3, as far as [`super::packet_guard`] checks them.

use std::ops::Range;
use std::str::from_utf8;

/// Size of length, type, id and the first number of an answer; for names that is their count.
pub(super) const HEAD_BYTES: usize = 13;

const MOST_HELLO_BYTES: usize = 4096;
/// Maximum size of a packet, as in OpenSSH.
const MOST_BYTES: usize = (256 << 10) + 1024;
/// Minimum size of a name: two empty texts, and the flags of no attributes.
const LEAST_NAME_BYTES: usize = 12;

const STATUS: u8 = 101;
const NAME: u8 = 104;

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_PERMISSIONS: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_MORE: u32 = 1 << 31;

const TOO_SHORT: &str = "the server sends a packet that is too short to be one";

/// The beginning of a packet.
#[derive(Debug)]
pub(super) struct Head {
    /// Size of the whole packet.
    pub bytes: usize,
    /// Whether the packet contains texts, which are checked.
    pub has_texts: bool,
}

impl Head {
    /// Parses the beginning of a packet: at least [`HEAD_BYTES`] bytes, or four of the first
    /// packet.
    pub(super) fn read(start: &[u8], is_first: bool) -> Result<Self, &'static str> {
        let mut reader = PacketReader::new(start);
        let length = reader.number()? as usize;
        let bytes = length + 4;
        if is_first {
            return match (5..=MOST_HELLO_BYTES).contains(&length) {
                true => Ok(Self {
                    bytes,
                    has_texts: false,
                }),
                false => Err(
                    "the server's first answer is no sftp: does a login script there print something?",
                ),
            };
        }
        if bytes < HEAD_BYTES {
            return Err(TOO_SHORT);
        }
        if bytes > MOST_BYTES {
            return Err("the server sends a packet that is too long to be one");
        }
        let kind = start[reader.skip(1)?.start];
        reader.skip(4)?;
        let count = reader.number()? as usize;
        if kind == NAME && count > (bytes - HEAD_BYTES) / LEAST_NAME_BYTES {
            return Err("the server sends fewer names than it says");
        }
        Ok(Self {
            bytes,
            has_texts: matches!(kind, NAME | STATUS),
        })
    }
}

/// Returns the packet with `?` for non-ASCII bytes in texts that are not UTF-8. Its size stays.
pub(super) fn cleaned(packet: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut reader = PacketReader::new(packet);
    let kind = packet[reader.skip(5)?.end - 1];
    reader.skip(4)?;
    let number = reader.number()?;
    let mut texts = Vec::new();
    if kind == STATUS {
        // Some servers send neither a message nor its language.
        while reader.at < packet.len() {
            texts.push(reader.skip_text()?);
        }
    } else {
        for _ in 0..number {
            texts.push(reader.skip_text()?);
            reader.skip_text()?;
            reader.skip_attributes()?;
        }
    }
    let mut clean = packet.to_vec();
    for text in texts {
        let text = &mut clean[text];
        if from_utf8(text).is_err() {
            let foreign = text.iter_mut().filter(|byte| !byte.is_ascii());
            foreign.for_each(|byte| *byte = b'?');
        }
    }
    Ok(clean)
}

/// Reads the fields of a packet in order.
struct PacketReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> PacketReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn skip(&mut self, length: usize) -> Result<Range<usize>, &'static str> {
        let skipped = self.at..self.at.saturating_add(length);
        if skipped.end > self.bytes.len() {
            return Err(TOO_SHORT);
        }
        self.at = skipped.end;
        Ok(skipped)
    }

    fn number(&mut self) -> Result<u32, &'static str> {
        let bytes = self.bytes[self.skip(4)?].iter();
        Ok(bytes.fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn skip_text(&mut self) -> Result<Range<usize>, &'static str> {
        let length = self.number()? as usize;
        self.skip(length)
    }

    fn skip_attributes(&mut self) -> Result<(), &'static str> {
        let flags = self.number()?;
        let fields = [
            (HAS_SIZE, 8),
            (HAS_OWNER, 8),
            (HAS_PERMISSIONS, 4),
            (HAS_TIMES, 8),
        ];
        for (_, bytes) in fields.iter().filter(|(flag, _)| flags & flag != 0) {
            self.skip(*bytes)?;
        }
        if flags & HAS_MORE != 0 {
            for _ in 0..self.number()? {
                self.skip_text()?;
                self.skip_text()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn packet(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32 + 1).to_be_bytes();
        [&length[..], &[kind], content].concat()
    }

    fn text(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text].concat()
    }

    pub(in crate::storage) fn hello() -> Vec<u8> {
        packet(2, &[0, 0, 0, 3])
    }

    pub(in crate::storage) fn data(data: &[u8]) -> Vec<u8> {
        packet(103, &[&[0, 0, 0, 1][..], &text(data)].concat())
    }

    /// Returns a packet of names of files with all attributes.
    pub(in crate::storage) fn names(names: &[&[u8]]) -> Vec<u8> {
        let mut content = vec![0, 0, 0, 1];
        content.extend((names.len() as u32).to_be_bytes());
        for name in names {
            content.extend(text(name));
            content.extend(text(b"-rw-r--r-- \xe9"));
            content.extend((HAS_SIZE | HAS_OWNER | HAS_PERMISSIONS | HAS_TIMES).to_be_bytes());
            content.extend([0xff; 28]);
        }
        packet(NAME, &content)
    }

    #[test]
    fn only_texts_are_cleaned() {
        let sound = names(&[b"a", b"b"]);
        assert_eq!(cleaned(&sound).unwrap(), sound);
        let status = |message: &[u8]| {
            let content = [&[0, 0, 0, 1, 0, 0, 0, 4][..], &text(message), &text(b"")].concat();
            packet(STATUS, &content)
        };
        assert_eq!(
            cleaned(&status(b"Fehlschl\xe4ge")).unwrap(),
            status(b"Fehlschl?ge")
        );
        let bare = packet(STATUS, &[0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(cleaned(&bare).unwrap(), bare);
    }

    #[test]
    fn texts_do_not_reach_beyond_their_packet() {
        let whole = names(&[b"a", b"b"]);
        for length in 13..whole.len() {
            assert!(cleaned(&whole[..length]).is_err(), "{length}");
        }
    }
}
