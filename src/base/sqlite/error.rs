//! Why a database could not be copied, locked or checked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;

use super::code;

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
