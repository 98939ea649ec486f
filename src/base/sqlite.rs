//! SQLite files as files: telling them, copying them whole, reading them untorn, checking them.
//!
//! A database that is in use is more than its file: pages may wait in a `-wal`, or a `-journal` may be
//! about to take some back. So a database with a live sidecar is copied by [`backup`] only, and one
//! without is read as the bytes it is under [`lock_for_read`]. Both leave page order alone, which is
//! what makes the next push small.
//!
//! **No database but our own catalog is opened in this process.** Any user who may write a file may have made it
//! to crash SQLite, to fill the memory or to be worked on for years. So [`process`] starts a [`child`] for
//! each: with limits, confined to the database's directory, killed when its time is up. What did not come to
//! an end is [`SqliteError::Unchecked`], never damage. The child also holds the lock for reading. (Here it
//! would be lost: a process loses all POSIX locks on a file when it closes any descriptor of it.)
//!
//! A database is named by a [`Place`]: an open directory and a name in it. The child proves that SQLite
//! opened the very file that the caller has open.

mod backup;
mod budget;
mod check;
mod child;
mod code;
mod confine;
mod inspect;
mod message;
mod place;
mod process;
mod refusal;
mod vfs;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ErrorCode;

pub use backup::{backup, backup_at};
pub use budget::Budget;
pub use check::{Lock, inspect, inspect_at, lock_for_read};
pub use child::serve;
pub use code::kind as error_kind;
pub use inspect::{Depth, Inspection};
pub use place::Place;
pub use process::register_program;

/// The first bytes of every database.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// So much of a file's head is enough for [`is_sqlite`], [`page_size`] and the journal mode.
pub const HEAD_BYTES: usize = 100;

/// What is added to a database's name for its log, the log's index and its journal.
pub const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("{} stayed locked for {} s: is a long transaction running?", path.display(), waited.as_secs())]
    Busy { path: PathBuf, waited: Duration },
    #[error("cannot {what} {}", path.display())]
    Sqlite {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What a sidecar holds can be read only by writing beside it, and there nothing can be written.
    #[error(
        "cannot copy the database {}: what its {sidecar} holds can be read only by writing to {}, {why}",
        path.display(), dir.display()
    )]
    ReadOnlyPlace {
        path: PathBuf,
        /// `-wal` or `-journal`.
        sidecar: &'static str,
        dir: PathBuf,
        why: &'static str,
    },
    /// Nothing is known of the database: what was to open it did not come to an end, or lacks what its
    /// application has.
    #[error("cannot {what} {}: {why}", path.display())]
    Unchecked {
        what: &'static str,
        path: PathBuf,
        why: String,
    },
}

impl SqliteError {
    /// The file has the magic, but SQLite does not take it for a sound database.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => code::extended(source).is_some_and(code::is_damage),
            _ => false,
        }
    }

    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unchecked { .. } | Self::ReadOnlyPlace { .. } => false,
            Self::Sqlite { source, .. } => code::kind(source) == Some(ErrorCode::DiskFull),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
        }
    }

    /// Why a check did not come to an end, if that is all there is to say.
    pub fn unchecked(&self) -> Option<&str> {
        match self {
            Self::Unchecked { why, .. } => Some(why),
            _ => None,
        }
    }
}

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
fn is_wal_mode(head: &[u8]) -> bool {
    head.get(18..20)
        .is_some_and(|versions| versions.contains(&2))
}

/// Whether a journal's end names another one, as that of a transaction over several databases does.
fn super_journal(journal: &File) -> bool {
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

/// [`Place::has_live_journal`] of a path.
pub fn has_live_journal(path: &Path) -> bool {
    Place::of(path).is_ok_and(|place| place.has_live_journal())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A connection that writes, for tests of what copies databases.
#[cfg(test)]
pub(crate) fn open_for_test(path: &std::path::Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
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

    #[test]
    fn the_sqlite_in_this_program_deletes_nothing_that_a_planted_journal_names() {
        assert!(rusqlite::version_number() >= child::SAFE_SQLITE);
    }
}
