//! Checks whether a file is JSON, in bounded memory and time, however large it is.
//!
//! The parser keeps one byte for each open bracket and nothing else, so the reader in front of it
//! limits the brackets. The reader also checks what the parser leaves to its caller: that the text
//! is UTF-8.
//!
//! A backup must not lack files that programs write and read. So a byte order mark, UTF-16 behind
//! such a mark, and the `NaN` and `Infinity` that Python and others write are accepted, with a
//! note. A repeated key is valid by RFC 8259. Text after the document, comments and trailing commas
//! are not.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::time::{Duration, Instant};

use crate::base::openat::Dir;

/// Brackets that may be open at once. No real document comes near.
const MOST_DEPTH: u32 = 1 << 20;
/// The time for a check is this and what [`BYTES_PER_SECOND`] adds.
const START: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: u64 = 20_000_000;
const BUFFER_BYTES: usize = 1 << 16;

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JsonVerdict {
    /// It is JSON by RFC 8259.
    Json,
    /// Most programs read it as JSON, but it is not by RFC 8259, for this reason.
    Lenient(String),
    /// It is not JSON, for this reason.
    Invalid(String),
    /// The check took too long; this text says so.
    Unchecked(String),
}

/// Checks the file `rel` below `dir`.
pub(super) fn check(dir: &Dir, rel: &OsStr) -> JsonVerdict {
    match dir.open_file(rel) {
        Err(e) => JsonVerdict::Invalid(e.to_string()),
        Ok((file, meta)) => {
            // Reading holes takes no time.
            let bytes = meta.len().min(meta.blocks().saturating_mul(512));
            check_within(file, START + Duration::from_secs(bytes / BYTES_PER_SECOND))
        }
    }
}

fn check_within(file: File, allowed: Duration) -> JsonVerdict {
    let mut text = JsonText::new(file, Instant::now() + allowed);
    let parsed = serde_json::from_reader::<_, serde::de::IgnoredAny>(BufReader::with_capacity(
        BUFFER_BYTES,
        &mut text,
    ));
    if text.is_late {
        let why = format!("its check took more than {} s", allowed.as_secs());
        return JsonVerdict::Unchecked(why);
    }
    match parsed.and_then(|_| text.end().map_err(serde_json::Error::io)) {
        Err(e) => JsonVerdict::Invalid(format!("it is not JSON: {e}")),
        Ok(()) => match text.oddities() {
            odd if odd.is_empty() => JsonVerdict::Json,
            odd => JsonVerdict::Lenient(format!("it {}", odd.join(" and "))),
        },
    }
}

/// The text on its way to the parser: as UTF-8, and with a list in place of each number that the
/// parser does not know.
struct JsonText {
    file: BufReader<File>,
    deadline: Instant,
    is_late: bool,
    encoding: Option<Encoding>,
    /// The first bytes of a character that the last read cut off.
    cut: Vec<u8>,
    scan: Scan,
    /// Bytes for the parser, and how many of them it has taken.
    ready: Vec<u8>,
    taken: usize,
}

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    /// UTF-8 behind a byte order mark.
    MarkedUtf8,
    /// UTF-16 behind a byte order mark; the function decodes one unit.
    Utf16(fn([u8; 2]) -> u16),
}

impl Encoding {
    /// Returns the encoding of a file that begins with `head`, and the length of its mark.
    fn of(head: &[u8]) -> (Self, usize) {
        match head {
            [0xef, 0xbb, 0xbf, ..] => (Self::MarkedUtf8, 3),
            // Four such bytes are a mark of UTF-32, which no program writes.
            [0xff, 0xfe, 0, 0, ..] => (Self::Utf8, 0),
            [0xff, 0xfe, ..] => (Self::Utf16(u16::from_le_bytes), 2),
            [0xfe, 0xff, ..] => (Self::Utf16(u16::from_be_bytes), 2),
            _ => (Self::Utf8, 0),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl JsonText {
    fn new(file: File, deadline: Instant) -> Self {
        Self {
            file: BufReader::with_capacity(BUFFER_BYTES, file),
            deadline,
            is_late: false,
            encoding: None,
            cut: Vec::new(),
            scan: Scan::default(),
            ready: Vec::new(),
            taken: 0,
        }
    }

    /// Returns the deviations of the text from RFC 8259.
    fn oddities(&self) -> Vec<&'static str> {
        let mut odd = Vec::new();
        match self.encoding {
            Some(Encoding::MarkedUtf8) => odd.push("begins with a byte order mark"),
            Some(Encoding::Utf16(_)) => odd.push("is UTF-16"),
            Some(Encoding::Utf8) | None => {}
        }
        if self.scan.found {
            odd.push("holds NaN or Infinity");
        }
        odd
    }

    /// Makes the next bytes ready. At the end of the file there are none.
    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            let mut bytes = self.file.fill_buf()?;
            let read = bytes.len();
            if read == 0 {
                self.ready.append(&mut self.scan.pending);
                return Ok(());
            }
            let encoding = *self.encoding.get_or_insert_with(|| {
                let (encoding, mark) = Encoding::of(bytes);
                bytes = &bytes[mark..];
                encoding
            });
            let joined = [&self.cut[..], bytes].concat();
            self.file.consume(read);
            let text = match encoding {
                Encoding::Utf8 | Encoding::MarkedUtf8 => self.utf8(&joined)?,
                Encoding::Utf16(unit) => self.utf16(&joined, unit)?,
            };
            self.scan.pass(&text, &mut self.ready)?;
        }
        Ok(())
    }

    /// Returns `bytes` without a character that is cut off at their end; that waits for its rest.
    fn utf8(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let whole = match std::str::from_utf8(bytes) {
            Ok(_) => bytes.len(),
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Err(_) => return Err(invalid("it is not UTF-8")),
        };
        self.cut = bytes[whole..].to_vec();
        Ok(bytes[..whole].to_vec())
    }

    /// Returns `bytes` as UTF-8, without a character that is cut off at their end.
    fn utf16(&mut self, bytes: &[u8], unit: fn([u8; 2]) -> u16) -> io::Result<Vec<u8>> {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let mut units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        self.cut.clear();
        // The first half of a pair of surrogates waits for the second.
        if units
            .pop_if(|unit| (0xd800..0xdc00).contains(unit))
            .is_some()
        {
            self.cut.extend_from_slice(&pairs[pairs.len() - 1]);
        }
        self.cut.extend_from_slice(rest);
        let text = String::from_utf16(&units).map_err(|_| invalid("it is not UTF-16"))?;
        Ok(text.into_bytes())
    }

    /// Checks that the file does not end within a character.
    fn end(&self) -> io::Result<()> {
        match self.cut.is_empty() {
            true => Ok(()),
            false => Err(invalid("it ends within a character")),
        }
    }
}

/// Counts brackets, and replaces the numbers that RFC 8259 does not know.
#[derive(Default)]
struct Scan {
    in_string: bool,
    escaped: bool,
    depth: u32,
    /// The beginning of a possible number of this kind.
    pending: Vec<u8>,
    /// Whether there was one.
    found: bool,
}

const NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

impl Scan {
    /// Copies `bytes` to `out`, with the replacements.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' if self.in_string => self.in_string = false,
                _ if self.in_string => {}
                _ => {
                    self.pass_outside(*byte, out)?;
                    continue;
                }
            }
            out.push(*byte);
        }
        Ok(())
    }

    /// Copies a byte that is outside of strings.
    fn pass_outside(&mut self, byte: u8, out: &mut Vec<u8>) -> io::Result<()> {
        self.pending.push(byte);
        if NUMBERS.contains(&&self.pending[..]) {
            // The list has the number's length, so that the parser's columns are right. It may
            // stand wherever a number may, and cannot be part of a longer word.
            let blanks = self.pending.len() - 2;
            out.push(b'[');
            out.resize(out.len() + blanks, b' ');
            out.push(b']');
            self.pending.clear();
            self.found = true;
            return Ok(());
        }
        let may_be = |pending: &[u8]| NUMBERS.iter().any(|number| number.starts_with(pending));
        if may_be(&self.pending) {
            return Ok(());
        }
        self.pending.pop();
        out.append(&mut self.pending);
        if may_be(&[byte]) {
            self.pending.push(byte);
            return Ok(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > MOST_DEPTH {
            return Err(invalid("more than a million brackets are open at once"));
        }
        out.push(byte);
        Ok(())
    }
}

impl Read for JsonText {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            self.is_late = true;
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.taken == self.ready.len() {
            self.fill()?;
        }
        let bytes = buffer.len().min(self.ready.len() - self.taken);
        buffer[..bytes].copy_from_slice(&self.ready[self.taken..self.taken + bytes]);
        self.taken += bytes;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
