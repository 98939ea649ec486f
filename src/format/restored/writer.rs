//! Writes a record.

use std::io::{self, Write};

use super::{RestoredEnd, RestoredHeader};
use crate::base::ids::Hash;
use crate::format::index::Entry;
use crate::format::json::json_line;

/// Writes the lines of a record. Only [`Self::finish`] makes it complete.
pub struct RecordWriter<W> {
    out: W,
    hasher: blake3::Hasher,
    entries: u64,
}

impl<W: Write> RecordWriter<W> {
    /// Writes the header. `out` should be buffered.
    pub fn begin(out: W, header: &RestoredHeader) -> io::Result<Self> {
        let mut writer = Self {
            out,
            hasher: blake3::Hasher::new(),
            entries: 0,
        };
        writer.line(json_line(header))?;
        Ok(writer)
    }

    /// Writes the line of an entry, which must sort after the one before it. Its extents are left
    /// out.
    pub fn entry(&mut self, mut entry: Entry) -> io::Result<()> {
        entry.extents.clear();
        self.line(entry.to_line())?;
        self.entries += 1;
        Ok(())
    }

    /// Writes the last line and flushes. Returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        let end = RestoredEnd {
            entries: self.entries,
            blake3: Hash(*self.hasher.finalize().as_bytes()),
        };
        self.line(json_line(&end))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn line(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.hasher.update(&line);
        self.out.write_all(&line)
    }
}
