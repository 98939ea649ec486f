//! A write-ahead journal: each record is on disk before the step that it announces is done.
//!
//! One record per line, `{"n":7,"crc":"16 hex digits","record":{…}}`, numbered from 1; the checksum
//! covers number and record. A record counts once its whole line is on disk: [`Journal::append`]
//! flushes before it returns. Records are appended and never replaced. A process can die at any
//! moment, so the last line may be torn: it does not count, and the next record takes its place. A
//! damaged line before the last is an error, since the records after it show that it was complete
//! once.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::ids::hex;
use crate::base::openat::{Dir, Meta};

/// Largest journal that is read, in bytes.
const MAX_BYTES: u64 = 1 << 30;
const CHECKSUM_BYTES: usize = 8;

#[derive(Serialize)]
struct LineOut<'a> {
    n: u64,
    crc: &'a str,
    record: &'a serde_json::value::RawValue,
}

#[derive(Deserialize)]
struct LineIn<'a> {
    n: u64,
    crc: String,
    #[serde(borrow)]
    record: &'a serde_json::value::RawValue,
}

/// An open journal of records `R`.
#[derive(Debug)]
pub struct Journal<R> {
    file: File,
    /// The number of the next record.
    next: u64,
    /// Bytes of the complete records.
    end: u64,
    records: PhantomData<fn(R)>,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Creates the journal `name` in `dir`; an existing one is an error. Its entry is on disk
    /// before this returns.
    pub fn create(dir: &Dir, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let file = dir.create_file(name, 0o600)?;
        dir.sync()?;
        Ok(Self {
            file,
            next: 1,
            end: 0,
            records: PhantomData,
        })
    }

    /// Opens the journal `name` in `dir` for appending, and returns it with its records. `None`:
    /// there is none. A torn last line is cut off.
    pub fn open(dir: &Dir, name: impl AsRef<OsStr>) -> io::Result<Option<(Self, Vec<R>)>> {
        let name = name.as_ref();
        let Some((records, good_bytes)) = Self::read(dir, name)? else {
            return Ok(None);
        };
        let file = dir.open_to_write(name)?;
        if Meta::of_fd(&file)?.len() > good_bytes {
            file.set_len(good_bytes)?;
            file.sync_data()?;
        }
        let next = records.len() as u64 + 1;
        let journal = Self {
            file,
            next,
            end: good_bytes,
            records: PhantomData,
        };
        Ok(Some((journal, records)))
    }

    /// Returns the records of the journal `name` in `dir` and the number of bytes that hold them,
    /// without changing it. `None`: there is none.
    pub fn read(dir: &Dir, name: impl AsRef<OsStr>) -> io::Result<Option<(Vec<R>, u64)>> {
        let (mut file, meta) = match dir.open_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if meta.len() > MAX_BYTES {
            return Err(damaged(0, "it is larger than any that we write"));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let (mut records, mut good_bytes) = (Vec::new(), 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let number = records.len() as u64 + 1;
            let end = good_bytes + line.len();
            match parse(line, number) {
                Ok(record) => {
                    records.push(record);
                    good_bytes = end;
                }
                // A torn last line does not count.
                Err(_) if end == text.len() => {}
                Err(what) => return Err(damaged(number, &what)),
            }
        }
        Ok(Some((records, good_bytes as u64)))
    }

    /// Appends a record, which is on disk when this returns.
    pub fn append(&mut self, record: &R) -> io::Result<()> {
        let text = serde_json::to_string(record)?;
        let crc = checksum(self.next, &text);
        let record = serde_json::value::RawValue::from_string(text)?;
        let mut line = serde_json::to_vec(&LineOut {
            n: self.next,
            crc: &crc,
            record: &record,
        })?;
        line.push(b'\n');
        let written = self.file.write_all_at(&line, self.end);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // It does not count, and the next record takes its place.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.next += 1;
        self.end += line.len() as u64;
        Ok(())
    }

    /// Reserves room for records of this many bytes, so that they can be written on a full disk, if
    /// the file system can do that.
    pub fn reserve(&self, bytes: u64) {
        let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(&self.file, flags, self.end, bytes);
    }
}

fn parse<R: DeserializeOwned>(line: &[u8], number: u64) -> Result<R, String> {
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err("it has no end".to_owned());
    };
    let parsed: LineIn<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if parsed.n != number {
        return Err(format!("it is numbered {}", parsed.n));
    }
    if parsed.crc != checksum(number, parsed.record.get()) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_str(parsed.record.get()).map_err(|error| error.to_string())
}

fn checksum(number: u64, record: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(record.as_bytes());
    hex(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES])
}

fn damaged(number: u64, what: &str) -> io::Error {
    let what = format!("line {number} of the journal is damaged: {what}");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(dir: &Dir) -> io::Result<Vec<u32>> {
        Ok(Journal::<u32>::read(dir, "j")?.unwrap().0)
    }

    #[test]
    fn a_journal_cut_at_any_byte_keeps_its_whole_records_and_can_be_continued() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut journal = Journal::create(&dir, "j").unwrap();
        for record in [5u32, 6, 7] {
            journal.append(&record).unwrap();
        }
        let whole = std::fs::read(temp.path().join("j")).unwrap();
        let ends: Vec<usize> = (1..=whole.len())
            .filter(|n| whole[n - 1] == b'\n')
            .collect();
        for cut in 0..=whole.len() {
            std::fs::write(temp.path().join("j"), &whole[..cut]).unwrap();
            let complete = ends.iter().filter(|end| **end <= cut).count();
            let expected: Vec<u32> = (5..8).take(complete).collect();
            assert_eq!(records(&dir).unwrap(), expected, "cut at {cut}");
            let (mut journal, found) = Journal::<u32>::open(&dir, "j").unwrap().unwrap();
            assert_eq!(found, expected);
            journal.append(&9).unwrap();
            let more: Vec<u32> = expected.into_iter().chain([9]).collect();
            assert_eq!(records(&dir).unwrap(), more, "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_line_before_the_last_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut journal = Journal::create(&dir, "j").unwrap();
        for record in [5u32, 6, 7] {
            journal.append(&record).unwrap();
        }
        let whole = std::fs::read_to_string(temp.path().join("j")).unwrap();
        std::fs::write(temp.path().join("j"), whole.replace(":6}", ":8}")).unwrap();
        let error = records(&dir).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        std::fs::write(temp.path().join("j"), whole.replace(":7}", ":8}")).unwrap();
        assert_eq!(records(&dir).unwrap(), [5, 6]);
        assert!(Journal::<u32>::read(&dir, "gone").unwrap().is_none());
        assert!(Journal::<u32>::create(&dir, "j").is_err());
    }
}
