//! Reads a record and checks every line against those before it.

use std::io::{BufRead, Read as _};

use super::{RESTORED, RestoredEnd, RestoredError, RestoredHeader, RestoredRecord, VERSION};
use crate::base::ids::Hash;
use crate::format::index::{Entry, EntryList, EntryType, OpenDirs, parent_path};

/// Longest line, in bytes: an entry whose extended attributes are tens of megabytes.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Most entries: they are numbered with 32 bits.
const MOST_ENTRIES: u64 = u32::MAX as u64;
/// Begin of the last line; an entry begins with its path.
const END: &[u8] = b"{\"entries\":";

impl RestoredRecord {
    /// Reads a whole record. Anything after its last line is an error.
    pub fn read(input: impl BufRead) -> Result<Self, RestoredError> {
        RecordReader::new(input).read()
    }
}

struct RecordReader<R> {
    input: R,
    /// The number of the last line that was read.
    line: u64,
    /// The last line, without its newline.
    text: Vec<u8>,
    hasher: blake3::Hasher,
    /// The hash of all lines before the last one that was read.
    before: Hash,
    last_path: Vec<u8>,
    open_dirs: OpenDirs,
}

impl<R: BufRead> RecordReader<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            line: 0,
            text: Vec::new(),
            hasher: blake3::Hasher::new(),
            before: Hash::blake3(b""),
            last_path: Vec::new(),
            open_dirs: OpenDirs::default(),
        }
    }

    fn read(mut self) -> Result<RestoredRecord, RestoredError> {
        self.next_line()?;
        let header = self.header()?;
        let mut entries = EntryList::default();
        loop {
            self.next_line()?;
            if self.text.starts_with(END) {
                self.check_end(entries.len() as u64)?;
                return Ok(RestoredRecord { header, entries });
            }
            if entries.len() as u64 == MOST_ENTRIES {
                return Err(self.malformed("it has too many entries"));
            }
            let entry = Entry::from_bare_line(&self.text).map_err(|what| self.malformed(what))?;
            let accepted = self.accept(&entry, &entries);
            accepted.map_err(|what| self.malformed(what))?;
            entries.push(&entry);
        }
    }

    fn malformed(&self, what: impl Into<String>) -> RestoredError {
        RestoredError::Malformed {
            line: self.line,
            what: what.into(),
        }
    }

    /// Reads the next line into `text`.
    fn next_line(&mut self) -> Result<(), RestoredError> {
        self.before = Hash(*self.hasher.finalize().as_bytes());
        self.text.clear();
        let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut self.text);
        let read = read.map_err(RestoredError::Read)?;
        self.hasher.update(&self.text);
        if self.text.pop_if(|last| *last == b'\n').is_some() {
            self.line += 1;
            return Ok(());
        }
        match read as u64 == MAX_LINE_BYTES {
            true => {
                self.line += 1;
                Err(self.malformed("it is too long"))
            }
            false => Err(RestoredError::Truncated { line: self.line }),
        }
    }

    fn header(&self) -> Result<RestoredHeader, RestoredError> {
        // A later version may have other keys.
        let any: serde_json::Value =
            serde_json::from_slice(&self.text).map_err(|e| self.malformed(e.to_string()))?;
        match any.get("restored").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => return Err(RestoredError::Version(version)),
            None => return Err(self.malformed("it is not the header of a restored.jsonl")),
        }
        let header: RestoredHeader =
            serde_json::from_slice(&self.text).map_err(|e| self.malformed(e.to_string()))?;
        let is_whole = header.paths.is_empty() && header.left_out.is_empty();
        match header.complete == is_whole {
            true => Ok(header),
            false => Err(self.malformed("`complete` contradicts `paths` and `left_out`")),
        }
    }

    /// Checks that `entry` may be the next one.
    fn accept(&mut self, entry: &Entry, earlier: &EntryList) -> Result<(), String> {
        let name = || entry.path_lossy().into_owned();
        // No path is empty, so the first one passes.
        if self.last_path >= entry.path {
            return Err(format!("{:?} is out of order", name()));
        }
        if let Some(parent) = parent_path(&entry.path)
            && !self.open_dirs.hold(&entry.path, parent)
        {
            return Err(format!("{:?} has no parent directory", name()));
        }
        if entry.path == RESTORED.as_bytes() {
            return Err("the record lists itself".to_owned());
        }
        if let (EntryType::Hardlink, Some(target)) = (entry.kind, &entry.target) {
            let first = earlier.find(target);
            if !first.is_some_and(|first| first.kind == EntryType::File) {
                return Err(format!("{:?} is a hard link to no earlier file", name()));
            }
        }
        if entry.kind == EntryType::Dir {
            self.open_dirs.open(entry.path.clone());
        }
        self.last_path.clone_from(&entry.path);
        Ok(())
    }

    /// Checks the last line, which was read, and that nothing follows it.
    fn check_end(&mut self, entries: u64) -> Result<(), RestoredError> {
        let end: RestoredEnd =
            serde_json::from_slice(&self.text).map_err(|e| self.malformed(e.to_string()))?;
        if end.blake3 != self.before {
            return Err(RestoredError::Damaged);
        }
        if end.entries != entries {
            let what = format!("{entries} entries, promised {}", end.entries);
            return Err(self.malformed(what));
        }
        match self.input.fill_buf().map_err(RestoredError::Read)? {
            [] => Ok(()),
            _ => Err(self.malformed("something follows the last line")),
        }
    }
}
