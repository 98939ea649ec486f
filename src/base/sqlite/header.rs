//! What the first bytes of a database say, and the names of the files beside it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The first bytes of every database.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of a database's header, which [`is_sqlite`], [`page_size`] and the journal mode are read
/// from.
pub const HEAD_BYTES: usize = 100;

/// The endings that a database's name gets for its log, the log's index and its journal.
pub const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// Returns whether a file that begins with `head` claims to be a database.
pub fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Returns the page size in bytes of the database that begins with `head`; `None` if that is not a
/// valid header.
pub fn page_size(head: &[u8]) -> Option<u32> {
    let field = head.get(16..18).filter(|_| is_sqlite(head))?;
    match u32::from(u16::from_be_bytes([field[0], field[1]])) {
        1 => Some(65536),
        size if size >= 512 && size.is_power_of_two() => Some(size),
        _ => None,
    }
}

/// Returns whether the header says that the database uses a write-ahead log.
pub(super) fn is_wal_mode(head: &[u8]) -> bool {
    head.get(18..20)
        .is_some_and(|versions| versions.contains(&2))
}

/// Returns whether the end of a journal names another journal, as after a transaction over several
/// databases.
pub(super) fn super_journal(journal: &File) -> bool {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let bytes = journal.metadata().map_or(0, |meta| meta.len());
    let mut end = [0; 16];
    let read = bytes
        .checked_sub(16)
        .map(|at| journal.read_exact_at(&mut end, at));
    matches!(read, Some(Ok(()))) && end[8..] == MAGIC && end[..4] != [0; 4]
}

/// Returns the paths of the files that may be beside a database: its `-wal`, `-shm` and `-journal`.
pub fn sidecars(path: &Path) -> [PathBuf; 3] {
    SIDECARS.map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(OsStr::from_bytes(ending));
        PathBuf::from(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_size_is_read_from_the_header() {
        let mut head = [MAGIC.as_slice(), &[0; 84]].concat();
        assert_eq!(page_size(&head), None);
        for (bytes, size) in [([16, 0], 4096), ([0, 1], 65536), ([2, 0], 512)] {
            head[16..18].copy_from_slice(&bytes);
            assert_eq!(page_size(&head), Some(size));
        }
        assert!(!is_sqlite(b"SQLite format 3"));
    }

    #[test]
    fn only_a_journal_that_names_another_is_recognized_as_such() {
        let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        let named = [&[0; 512][..], b"x.db-mj0", &[0, 0, 0, 8], &[0; 4], &magic].concat();
        let alone = [&magic[..], &[0; 512]].concat();
        for (bytes, expected) in [(&named, true), (&alone, false), (&Vec::new(), false)] {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), bytes).unwrap();
            assert_eq!(super_journal(&File::open(path.path()).unwrap()), expected);
        }
    }
}
