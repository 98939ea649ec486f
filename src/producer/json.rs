//! Whether a file is JSON, in bounded memory and time, however large it is.
//!
//! The parser keeps nothing of what it reads but one byte for each bracket that is open, so the reader
//! before it bounds those. It also checks what the parser leaves to its caller: that the text is UTF-8.
//!
//! A backup must not lack what programs write and read. So a byte order mark, UTF-16 behind such a mark,
//! and the `NaN` and `Infinity` that Python and others write are taken, with a note. A key that is there twice is
//! valid by RFC 8259. Anything after the document, comments and trailing commas are not.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::time::{Duration, Instant};

use crate::base::openat::Dir;

/// Brackets that may be open at once. No document that a person or a program means comes near.
const MOST_DEPTH: u32 = 1 << 20;
const START: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: u64 = 20_000_000;
const BUFFER_BYTES: usize = 1 << 16;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum JsonVerdict {
    Json,
    /// Most programs read it as JSON, though it is not by RFC 8259, for this reason.
    Lenient(String),
    /// It is not, for this reason.
    Invalid(String),
    /// It took too long to say.
    Unchecked(String),
}

/// Reads the file `rel` below `dir` to its end.
pub(super) fn check(dir: &Dir, rel: &OsStr) -> JsonVerdict {
    match dir.open_file(rel) {
        Err(e) => JsonVerdict::Invalid(e.to_string()),
        Ok((file, meta)) => {
            // Holes are read in no time.
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
        Err(e) => JsonVerdict::Invalid(format!("it is no JSON: {e}")),
        Ok(()) => match text.oddities() {
            odd if odd.is_empty() => JsonVerdict::Json,
            odd => JsonVerdict::Lenient(format!("it {}", odd.join(" and "))),
        },
    }
}

/// JsonText on its way to the parser, as UTF-8 and without what the parser does not know.
struct JsonText {
    file: BufReader<File>,
    deadline: Instant,
    is_late: bool,
    encoding: Option<Encoding>,
    /// The bytes of a character that the last read cut off.
    cut: Vec<u8>,
    scan: Scan,
    /// Bytes that wait for the parser, and how many it has taken.
    ready: Vec<u8>,
    taken: usize,
}

#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    /// UTF-8 behind a byte order mark.
    MarkedUtf8,
    /// UTF-16 behind a byte order mark; the function reads one unit of it.
    Utf16(fn([u8; 2]) -> u16),
}

impl Encoding {
    /// The encoding of a file that begins with `head`, and the bytes of its mark.
    fn of(head: &[u8]) -> (Self, usize) {
        match head {
            [0xef, 0xbb, 0xbf, ..] => (Self::MarkedUtf8, 3),
            // Four bytes of such a mark are one of UTF-32, which no program writes.
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

    /// What is in the text that RFC 8259 does not know.
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

    /// Makes the next bytes ready; none at the end of the file.
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

    /// `bytes` but for a character that is cut off at their end, which waits for its rest.
    fn utf8(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let whole = match std::str::from_utf8(bytes) {
            Ok(_) => bytes.len(),
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Err(_) => return Err(invalid("it is not UTF-8")),
        };
        self.cut = bytes[whole..].to_vec();
        Ok(bytes[..whole].to_vec())
    }

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

    /// What only the end shows.
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
    /// The beginning of what may be such a number.
    pending: Vec<u8>,
    found: bool,
}

const NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

impl Scan {
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

    /// Passes a byte that is in no string.
    fn pass_outside(&mut self, byte: u8, out: &mut Vec<u8>) -> io::Result<()> {
        self.pending.push(byte);
        if NUMBERS.contains(&&self.pending[..]) {
            // Of the same length, so that the parser's columns are right. A list is a value wherever a number is,
            // and no part of a longer word.
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

    fn verdict(parts: &[(&[u8], usize)]) -> JsonVerdict {
        let file = file(parts);
        let (dir, name) = Dir::open_parent(file.path()).unwrap();
        check(&dir, &name)
    }

    #[test]
    fn it_says_what_a_parser_of_the_whole_text_says() {
        let texts: [&[u8]; 16] = [
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
            let is_json = verdict(&[(text, 1)]) == JsonVerdict::Json;
            assert_eq!(
                is_json,
                whole.is_some(),
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn what_programs_write_beyond_the_standard_is_named_and_what_they_cannot_read_is_invalid() {
        let little = utf16("\u{feff}{\"a\": \"€𝄞\"}", u16::to_le_bytes);
        let big = utf16("\u{feff}[NaN]", u16::to_be_bytes);
        let cases: [(&[u8], &str); 8] = [
            (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
            (b"NaN", "it holds NaN or Infinity"),
            (b"[NaN, -Infinity,Infinity]", "it holds NaN or Infinity"),
            (b"{\"a\":-Infinity}", "it holds NaN or Infinity"),
            (
                b"\xef\xbb\xbf[NaN]",
                "it begins with a byte order mark and holds NaN or Infinity",
            ),
            (&little, "it is UTF-16"),
            (&big, "it is UTF-16 and holds NaN or Infinity"),
            (b"[\"a\\\"\", NaN]", "it holds NaN or Infinity"),
        ];
        for (text, expected) in cases {
            let shown = text.escape_ascii();
            let JsonVerdict::Lenient(why) = verdict(&[(text, 1)]) else {
                panic!("{shown}: {:?}", verdict(&[(text, 1)]));
            };
            assert_eq!(why, expected, "{shown}");
        }
        for text in [
            &b"{\"a\":1,\"a\":2}"[..],
            b"[\"NaN\", \"-Infinity\"]",
            b"{}\n",
        ] {
            assert_eq!(verdict(&[(text, 1)]), JsonVerdict::Json);
        }
        let cut = &little[..little.len() - 1];
        for text in [
            &b"[1NaN]"[..],
            b"[NaN1]",
            b"[-NaN]",
            b"[--Infinity]",
            b"[+Infinity]",
            b"{NaN: 1}",
            b"[NaN NaN]",
            b"[Na]",
            b"-",
            b"Infinit",
            b"{}x",
            b"{}\0\0",
            b"{} {}",
            b"{\"a\":1,}",
            b"// x\n{}",
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b"{\0}\0",
            b"\xff\xfe{\0",
            b"\xff\xfe\0\xd8\"\0",
            b"\xff\xfe\0\0{\0\0\0}\0\0\0",
            cut,
        ] {
            let said = verdict(&[(text, 1)]);
            assert!(
                matches!(said, JsonVerdict::Invalid(_)),
                "{}: {said:?}",
                text.escape_ascii()
            );
        }
    }

    /// Python's parser takes what we take and refuses what we refuse, whatever the text.
    #[test]
    fn it_says_what_python_says() {
        const PIECES: [&[u8]; 26] = [
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b":",
            b"\"a\"",
            b"\"NaN\"",
            b"\"\\\"\"",
            b"1",
            b"-",
            b"0.5",
            b"1e3",
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"true",
            b"null",
            b" ",
            b"\n",
            b"\"\xc3\xa9\"",
            b"Na",
            b"\0",
            b"\xff",
            b"[NaN]",
            b"{\"a\":Infinity}",
        ];
        let mut state = 18_u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % below
        };
        let texts: Vec<Vec<u8>> = (0..600)
            .map(|_| {
                let pieces = 1 + next(6);
                let body: Vec<u8> = (0..pieces)
                    .flat_map(|_| PIECES[next(26)].to_vec())
                    .collect();
                match (next(6), std::str::from_utf8(&body)) {
                    (0, _) => [&b"\xef\xbb\xbf"[..], &body].concat(),
                    (1, Ok(text)) => utf16(&format!("\u{feff}{text}"), u16::to_le_bytes),
                    (2, _) => [&b"["[..], &body, b"]"].concat(),
                    _ => body,
                }
            })
            .collect();
        let script = "import sys,json\n\
                      for line in sys.stdin:\n\
                      \x20   try: json.loads(bytes.fromhex(line.strip())); print(1)\n\
                      \x20   except ValueError: print(0)\n";
        let mut python = std::process::Command::new("python3")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let hex = |text: &Vec<u8>| text.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let lines: Vec<String> = texts.iter().map(hex).collect();
        let mut stdin = python.stdin.take().unwrap();
        let writer =
            std::thread::spawn(move || stdin.write_all(lines.join("\n").as_bytes()).unwrap());
        let said = python.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        let said: Vec<bool> = said
            .split(|b| *b == b'\n')
            .map(|line| line == b"1")
            .collect();
        let mut valid = 0;
        for (text, python) in texts.iter().zip(said) {
            // Python guesses UTF-16 without a mark from zeros; no program writes it.
            if text.contains(&0) && !text.starts_with(b"\xff\xfe") {
                continue;
            }
            let ours = !matches!(verdict(&[(text, 1)]), JsonVerdict::Invalid(_));
            assert_eq!(ours, python, "{}", text.escape_ascii());
            valid += u32::from(ours);
        }
        assert!(valid > 60, "{valid}");
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
            assert_eq!(verdict(&text), JsonVerdict::Json);
            let whole = format!("\u{feff}\"{}{}\"", "x".repeat(before), "é€𝄞".repeat(40_000));
            let text = utf16(&whole, u16::to_le_bytes);
            assert!(matches!(verdict(&[(&text, 1)]), JsonVerdict::Lenient(_)));
            let numbers = [
                (&b"["[..], 1),
                (b" ", before),
                (b"-Infinity,", 40_000),
                (b"NaN]", 1),
            ];
            assert!(matches!(verdict(&numbers), JsonVerdict::Lenient(_)));
        }
    }

    #[test]
    fn brackets_without_end_are_refused_before_they_fill_the_memory() {
        let JsonVerdict::Invalid(why) = verdict(&[(b"[", 3 << 20)]) else {
            panic!("it is no JSON");
        };
        assert!(why.contains("brackets"), "{why}");
        let deep = [(&b"["[..], 1 << 20), (b"]", 1 << 20)];
        assert_eq!(verdict(&deep), JsonVerdict::Json);
    }

    #[test]
    fn a_check_that_takes_too_long_is_no_fault_of_the_file() {
        let text = file(&[(b"[", 1), (b"1,", 10_000), (b"1]", 1)]);
        let file = File::open(text.path()).unwrap();
        assert!(matches!(
            check_within(file, Duration::ZERO),
            JsonVerdict::Unchecked(_)
        ));
    }
}
