//! Whether a file is JSON, in bounded memory and time, however large it is.
//!
//! The parser keeps nothing of what it reads but one byte for each bracket that is open, so the reader
//! before it bounds those. It also checks what the parser leaves to its caller: that the text is UTF-8.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::time::{Duration, Instant};

use crate::openat::Dir;

/// Brackets that may be open at once. No document that a person or a program means comes near.
const MOST_DEPTH: u32 = 1 << 20;
const START: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: u64 = 20_000_000;
const BUFFER_BYTES: usize = 1 << 16;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Json,
    /// It is not, for this reason.
    Invalid(String),
    /// It took too long to say.
    Unchecked(String),
}

/// Reads the file `rel` below `dir` to its end.
pub(super) fn check(dir: &Dir, rel: &OsStr) -> Verdict {
    match dir.open_file(rel) {
        Err(e) => Verdict::Invalid(e.to_string()),
        Ok((file, meta)) => {
            // Holes are read in no time.
            let bytes = meta.len().min(meta.blocks().saturating_mul(512));
            check_within(file, START + Duration::from_secs(bytes / BYTES_PER_SECOND))
        }
    }
}

fn check_within(file: File, allowed: Duration) -> Verdict {
    let mut text = Text::new(file, Instant::now() + allowed);
    let parsed = serde_json::from_reader::<_, serde::de::IgnoredAny>(BufReader::with_capacity(
        BUFFER_BYTES,
        &mut text,
    ));
    if text.is_late {
        let why = format!("its check took more than {} s", allowed.as_secs());
        return Verdict::Unchecked(why);
    }
    match parsed.and_then(|_| text.end().map_err(serde_json::Error::io)) {
        Ok(()) => Verdict::Json,
        Err(e) => Verdict::Invalid(e.to_string()),
    }
}

/// Text on its way to the parser.
struct Text {
    file: BufReader<File>,
    deadline: Instant,
    is_late: bool,
    /// The bytes of a character that the last read cut off.
    cut: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Text {
    fn new(file: File, deadline: Instant) -> Self {
        Self {
            file: BufReader::with_capacity(BUFFER_BYTES, file),
            deadline,
            is_late: false,
            cut: Vec::new(),
            depth: 0,
            in_string: false,
            escaped: false,
        }
    }

    /// Takes bytes that need not end with a character.
    fn check_characters(&mut self, bytes: &[u8]) -> io::Result<()> {
        let joined;
        let bytes = match self.cut.is_empty() {
            true => bytes,
            false => {
                joined = [&self.cut[..], bytes].concat();
                &joined
            }
        };
        self.cut = match std::str::from_utf8(bytes) {
            Ok(_) => Vec::new(),
            Err(e) if e.error_len().is_none() => bytes[e.valid_up_to()..].to_vec(),
            Err(_) => return Err(invalid("it is not UTF-8")),
        };
        Ok(())
    }

    fn check_depth(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth > MOST_DEPTH {
                return Err(invalid("more than a million brackets are open at once"));
            }
        }
        Ok(())
    }

    /// What only the end shows.
    fn end(&self) -> io::Result<()> {
        match self.cut.is_empty() {
            true => Ok(()),
            false => Err(invalid("it is not UTF-8")),
        }
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            self.is_late = true;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let bytes = self.file.fill_buf()?.len().min(buffer.len());
        let buffer = &mut buffer[..bytes];
        self.file.read_exact(buffer)?;
        self.check_characters(buffer)?;
        self.check_depth(buffer)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(parts: &[(&[u8], usize)]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (part, times) in parts {
            file.write_all(&part.repeat(*times)).unwrap();
        }
        file
    }

    fn verdict(parts: &[(&[u8], usize)]) -> Verdict {
        let file = file(parts);
        let (dir, name) = Dir::open_parent(file.path()).unwrap();
        check(&dir, &name)
    }

    #[test]
    fn it_says_what_a_parser_of_the_whole_text_says() {
        let texts: [&[u8]; 17] = [
            b"{}",
            b" [1, 2.5e3, \"a\\u00e9\\\"]\", null] ",
            b"\"\xc3\xa9\"",
            b"",
            b"{",
            b"[1,]",
            b"{} {}",
            b"\"\xff\"",
            b"\"\xc3\"",
            b"\"\xc3",
            b"\xef\xbb\xbf{}",
            b"\"\n\"",
            b"nul",
            b"[\"]\"]",
            b"{\"a\":[{\"b\":\"\\\\\"}]}",
            b"01",
            b"\0\0\0\0",
        ];
        for text in texts {
            let whole = std::str::from_utf8(text)
                .ok()
                .filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
            let is_json = verdict(&[(text, 1)]) == Verdict::Json;
            assert_eq!(
                is_json,
                whole.is_some(),
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn characters_may_lie_across_reads() {
        for before in 0..4 {
            let text = [
                (&b"\""[..], 1),
                (b"x", before),
                ("é€𝄞".as_bytes(), 40_000),
                (b"\"", 1),
            ];
            assert_eq!(verdict(&text), Verdict::Json);
        }
    }

    #[test]
    fn brackets_without_end_are_refused_before_they_fill_the_memory() {
        let Verdict::Invalid(why) = verdict(&[(b"[", 3 << 20)]) else {
            panic!("it is no JSON");
        };
        assert!(why.contains("brackets"), "{why}");
        let deep = [(&b"["[..], 1 << 20), (b"]", 1 << 20)];
        assert_eq!(verdict(&deep), Verdict::Json);
    }

    #[test]
    fn a_check_that_takes_too_long_is_no_fault_of_the_file() {
        let text = file(&[(b"[", 1), (b"1,", 10_000), (b"1]", 1)]);
        let file = File::open(text.path()).unwrap();
        assert!(matches!(
            check_within(file, Duration::ZERO),
            Verdict::Unchecked(_)
        ));
    }
}
