//! Reads an index and checks every line against those before it.

use std::collections::HashMap;
use std::io::{BufRead, Read as _};

use super::entry::{Entry, EntryType, parent_path};
use super::error::IndexError;
use super::header::{ArchiveStream, IndexHeader};
use super::open_dirs::OpenDirs;
use crate::base::ids::ArchiveId;
use crate::format::version::FORMAT;

/// Longest line of an index, in bytes: an entry with some 40 million extents.
const MAX_LINE_BYTES: u64 = 2 << 30;
/// Longest tar stream of an archive, in bytes (`archive_size` is 4 GiB at the most).
pub const MAX_TAR_BYTES: u64 = 8 << 30;

/// Reads an index line by line; iterates over its entries.
pub struct IndexReader<R> {
    pub(super) input: R,
    /// Number of the last line read, from 1.
    pub(super) line: u64,
    /// The index's first line.
    pub header: IndexHeader,
    /// The archives that entries may name.
    pub archives: HashMap<ArchiveId, ArchiveStream>,
    entries_read: u64,
    /// Text of the last line, without its newline.
    pub(super) text: Vec<u8>,
    last_path: Vec<u8>,
    /// Directories above `last_path`, for the rule that parents come first.
    open_dirs: OpenDirs,
}

impl<R: BufRead> IndexReader<R> {
    /// Reads the header and the archive lines.
    pub fn new(mut input: R) -> Result<Self, IndexError> {
        let mut line = 0;
        let malformed = |line, what: String| IndexError::Malformed { line, what };
        let mut text = Vec::new();
        if !next_line(&mut input, &mut line, &mut text)? {
            return Err(malformed(1, "it is empty".to_owned()));
        }
        let header: IndexHeader =
            serde_json::from_slice(&text).map_err(|e| malformed(1, e.to_string()))?;
        if header.format != FORMAT {
            return Err(malformed(1, format!("format {}", header.format)));
        }
        let mut archives = HashMap::new();
        for _ in 0..header.archives {
            if !next_line(&mut input, &mut line, &mut text)? {
                return Err(malformed(line, "it ends among the archives".to_owned()));
            }
            let stream: ArchiveStream =
                serde_json::from_slice(&text).map_err(|e| malformed(line, e.to_string()))?;
            if stream.tar_bytes > MAX_TAR_BYTES {
                let what = format!("{} with {} bytes", stream.archive, stream.tar_bytes);
                return Err(malformed(line, what));
            }
            if archives.insert(stream.archive, stream).is_some() {
                return Err(malformed(line, format!("{} twice", stream.archive)));
            }
        }
        Ok(Self {
            input,
            line,
            header,
            archives,
            entries_read: 0,
            text,
            last_path: Vec::new(),
            open_dirs: OpenDirs::default(),
        })
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, IndexError> {
        let has_line = next_line(&mut self.input, &mut self.line, &mut self.text)?;
        let line = self.line;
        let malformed = |what: String| IndexError::Malformed { line, what };
        if !has_line {
            return self.check_end().map(|()| None);
        }
        let entry = Entry::from_line(&self.text).map_err(malformed)?;
        self.accept(&entry).map_err(malformed)?;
        Ok(Some(entry))
    }

    /// Checks that `entry` may be the next one.
    pub(super) fn accept(&mut self, entry: &Entry) -> Result<(), String> {
        self.check_order(entry)?;
        check_extents(entry, &self.archives)?;
        self.entries_read += 1;
        Ok(())
    }

    /// Checks that the index may end here.
    pub(super) fn check_end(&self) -> Result<(), IndexError> {
        let (found, promised) = (self.entries_read, self.header.entries);
        match found == promised {
            true => Ok(()),
            false => Err(IndexError::Malformed {
                line: self.line,
                what: format!("{found} entries, promised {promised}"),
            }),
        }
    }

    fn check_order(&mut self, entry: &Entry) -> Result<(), String> {
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
        if entry.kind == EntryType::Dir {
            self.open_dirs.open(entry.path.clone());
        }
        self.last_path.clone_from(&entry.path);
        Ok(())
    }
}

impl<R: BufRead> Iterator for IndexReader<R> {
    type Item = Result<Entry, IndexError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.read_entry().transpose()
    }
}

/// Checks that the extents of `entry` are within `archives`.
pub(crate) fn check_extents(
    entry: &Entry,
    archives: &HashMap<ArchiveId, ArchiveStream>,
) -> Result<(), String> {
    for extent in &entry.extents {
        let Some(id) = extent.archive else { continue };
        let stream = archives
            .get(&id)
            .ok_or_else(|| format!("an extent in {id}, which the index does not list"))?;
        if extent.offset + extent.length > stream.tar_bytes {
            return Err(format!("an extent beyond the end of {id}"));
        }
    }
    Ok(())
}

/// Reads the next line into `text`, without its newline. Returns false at the end. A last line
/// without newline is an error.
pub(super) fn next_line(
    input: &mut impl BufRead,
    line: &mut u64,
    text: &mut Vec<u8>,
) -> Result<bool, IndexError> {
    text.clear();
    let mut limited = input.take(MAX_LINE_BYTES);
    limited.read_until(b'\n', text).map_err(IndexError::Read)?;
    let Some(last) = text.pop() else {
        return Ok(false);
    };
    *line += 1;
    match last {
        b'\n' => Ok(true),
        _ => Err(IndexError::Malformed {
            line: *line,
            what: "it ends within the line (truncated?)".to_owned(),
        }),
    }
}
