//! What the first bytes of a database and the names beside it say.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The first bytes of every database.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// So much of a file's head is enough for [`is_sqlite`], [`page_size`] and the journal mode.
pub const HEAD_BYTES: usize = 100;

/// What is added to a database's name for its log, the log's index and its journal.
pub const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

pub fn is_sqlite(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Bytes per page of the database that begins with `head`; `None` if it is no database.
pub fn page_size(head: &[u8]) -> Option<u32> {
    let field = head.get(16..18).filter(|_| is_sqlite(head))?;
    match u32::from(u16::from_be_bytes([field[0], field[1]])) {
        1 => Some(65536),
        size if size >= 512 && size.is_power_of_two() => Some(size),
        _ => None,
    }
}

/// Whether the header says write-ahead log.
pub(super) fn is_wal_mode(head: &[u8]) -> bool {
    head.get(18..20)
        .is_some_and(|versions| versions.contains(&2))
}

/// Whether a journal's end names another one, as that of a transaction over several databases does.
pub(super) fn super_journal(journal: &File) -> bool {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let bytes = journal.metadata().map_or(0, |meta| meta.len());
    let mut end = [0; 16];
    let read = bytes
        .checked_sub(16)
        .map(|at| journal.read_exact_at(&mut end, at));
    matches!(read, Some(Ok(()))) && end[8..] == MAGIC && end[..4] != [0; 4]
}

/// The files that may be beside a database: `-wal`, `-shm`, `-journal`.
pub fn sidecars(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_page_sizes() {
        let mut head = [MAGIC.as_slice(), &[0; 84]].concat();
        assert_eq!(page_size(&head), None);
        for (bytes, size) in [([16, 0], 4096), ([0, 1], 65536), ([2, 0], 512)] {
            head[16..18].copy_from_slice(&bytes);
            assert_eq!(page_size(&head), Some(size));
        }
        assert!(!is_sqlite(b"SQLite format 3"));
    }

    #[test]
    fn a_journal_that_names_another_is_told_from_one_that_does_not() {
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
