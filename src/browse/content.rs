//! The content of one file of a sealed snapshot, from its begin to its end or a part of it.

use std::io;
use std::ops::Range;

use futures::{StreamExt as _, TryStreamExt as _};

use super::content_map::ContentMap;
use crate::base::ids::Hash;
use crate::format::index::EntryRef;
use crate::repository::ArchiveTable;
use crate::restore::{RangeError, RangeReader};

/// Bytes that are read at a time.
const WINDOW_BYTES: u64 = 8 << 20;
/// Windows that are read ahead of the one that is written.
const READ_AHEAD: usize = 2;

/// Where the content of a file is.
#[derive(Debug, Clone)]
pub struct SnapshotContent {
    /// Its runs of bytes in archives, and its holes.
    pub map: ContentMap,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3 of all of it.
    pub blake3: Option<Hash>,
}

impl SnapshotContent {
    /// Returns the source of a file's content.
    pub fn of(entry: &EntryRef<'_>) -> Self {
        Self {
            map: ContentMap::new(entry.extents()),
            bytes: entry.size,
            blake3: entry.blake3,
        }
    }
}

/// Why a file's content was not copied, or is not what the index says.
#[derive(Debug, thiserror::Error)]
pub enum CopyContentError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] RangeError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// All of it was written, and it is wrong.
    #[error("its BLAKE3 is {found}, and the index says {expected}: do not use what was written")]
    Hash {
        /// BLAKE3 of what was written.
        found: Hash,
        /// BLAKE3 in the index.
        expected: Hash,
    },
    /// The extents in the index are shorter than the file.
    #[error("the index says where {found} of its {expected} bytes are")]
    Size {
        /// Bytes that were found.
        found: u64,
        /// The file's size.
        expected: u64,
    },
}

/// Passes the bytes `range` of a file to `write`, in order; a range beyond the end is cut there.
/// If that is all of the file, it is compared with its BLAKE3. Returns how many bytes there were.
pub async fn copy_content(
    reader: &RangeReader,
    table: &ArchiveTable,
    source: &SnapshotContent,
    range: Range<u64>,
    write: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
) -> Result<u64, CopyContentError> {
    let (start, end) = (range.start.min(source.bytes), range.end.min(source.bytes));
    let starts = (start..end).step_by(WINDOW_BYTES as usize);
    let windows = starts.map(|at| at..end.min(at + WINDOW_BYTES));
    let reads = windows.map(|window| read_window(reader, table, source, window));
    let mut windows = futures::stream::iter(reads).buffered(READ_AHEAD);
    let is_whole = start == 0 && end == source.bytes;
    let (mut hasher, mut copied) = (blake3::Hasher::new(), 0);
    while let Some((bytes, expected)) = windows.try_next().await? {
        if is_whole {
            hasher.update(&bytes);
        }
        write(&bytes)?;
        copied += bytes.len() as u64;
        if bytes.len() as u64 != expected {
            return Err(CopyContentError::Size {
                found: start + copied,
                expected: source.bytes,
            });
        }
    }
    let found = Hash(*hasher.finalize().as_bytes());
    match source.blake3 {
        Some(expected) if is_whole && found != expected => {
            Err(CopyContentError::Hash { found, expected })
        }
        _ => Ok(copied),
    }
}

/// Returns a part of a file, and how many bytes it should have.
async fn read_window(
    reader: &RangeReader,
    table: &ArchiveTable,
    source: &SnapshotContent,
    window: Range<u64>,
) -> Result<(Vec<u8>, u64), RangeError> {
    let expected = window.end - window.start;
    let (extents, within) = source.map.part(window);
    let read = reader.read_content(table, extents, within).await;
    Ok((read?, expected))
}

/// Whether a terminal would not show `bytes`, a part of a file, as they are meant: they are not
/// UTF-8, or steer the terminal.
pub fn is_binary(bytes: &[u8]) -> bool {
    // A part may begin and end within a character.
    let begins = bytes
        .iter()
        .take(3)
        .take_while(|byte| **byte & 0xc0 == 0x80);
    let rest = &bytes[begins.count()..];
    let text = match std::str::from_utf8(rest) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            let valid = rest.get(..error.valid_up_to());
            valid
                .and_then(|valid| std::str::from_utf8(valid).ok())
                .unwrap_or_default()
        }
        Err(_) => return true,
    };
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\x0c');
    !text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_what_steers_a_terminal() {
        let text = "Grüße, 日本\n\tplain\r\n".as_bytes();
        for from in 0..text.len() {
            for to in from..=text.len() {
                assert!(!is_binary(&text[from..to]), "{from}..{to}");
            }
        }
        for binary in [
            &b"a\0b"[..],
            b"\x1b[2J",
            b"\xff\xfe",
            "\u{9b}2J".as_bytes(),
            b"SQLite format 3\0",
        ] {
            assert!(is_binary(binary), "{binary:?}");
        }
    }
}
