//! Why a database could not be copied, locked or checked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;

use super::code;

/// Why a database could not be copied, locked or checked.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// Another process held a lock for longer than the caller wanted to wait.
    #[error("{} stayed locked for {} s: is a long transaction running?", path.display(), waited.as_secs())]
    Busy {
        /// The database.
        path: PathBuf,
        /// How long the lock was waited for.
        waited: Duration,
    },
    /// SQLite failed.
    #[error("cannot {what} {}", path.display())]
    Sqlite {
        /// A verb phrase that the path completes.
        what: &'static str,
        /// The database.
        path: PathBuf,
        /// SQLite's own error.
        #[source]
        source: rusqlite::Error,
    },
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// A verb phrase that the path completes.
        what: &'static str,
        /// The database, or its copy.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The content of a sidecar can be read only by writing beside it, which is not possible.
    #[error(
        "cannot copy the database {}: the content of its {sidecar} can be read only by writing to {}, {why}",
        path.display(), dir.display()
    )]
    ReadOnlyPlace {
        /// The database.
        path: PathBuf,
        /// `-wal` or `-journal`.
        sidecar: &'static str,
        /// The directory that is not writable.
        dir: PathBuf,
        /// A relative clause about the directory, such as `which is mounted read-only`.
        why: &'static str,
    },
    /// Nothing is known about the database: the process that opened it did not finish, or lacks a
    /// function or module of the database's application.
    #[error("cannot {what} {}: {why}", path.display())]
    Unchecked {
        /// A verb phrase that the path completes.
        what: &'static str,
        /// The database.
        path: PathBuf,
        /// The reason, for the operator.
        why: String,
    },
}

impl SqliteError {
    /// Returns whether SQLite found that the file, which has the magic, is not a sound database.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => code::extended(source).is_some_and(code::is_damage),
            _ => false,
        }
    }

    /// Returns whether the database stayed locked.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// Returns whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unchecked { .. } | Self::ReadOnlyPlace { .. } => false,
            Self::Sqlite { source, .. } => code::kind(source) == Some(ErrorCode::DiskFull),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
        }
    }

    /// Returns why a check did not finish; `None` for every other error.
    pub fn unchecked(&self) -> Option<&str> {
        match self {
            Self::Unchecked { why, .. } => Some(why),
            _ => None,
        }
    }
}
