//! The history of this host, a SQLite database apart from the catalog: runs, when each scheduled
//! job was last begun, what the last look at each target showed, and what the operator said.
//!
//! Several processes use it at once: the agent, its children, and commands that a person runs. Each
//! statement is one transaction, or says that it is not. It is not vital: a backup without it is a
//! backup, so callers report an error of this module and go on. A file that SQLite finds damaged is
//! moved aside, and a new one is begun.

mod acknowledgements;
mod channels;
mod credentials;
mod jobs;
mod looks;
mod marks;
mod open_findings;
mod outbox;
mod receipts;
mod reserve;
mod run_ends;
mod runs;
mod series;
mod stages;
mod upkeep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::base::sqlite::may_lack_room;

pub use acknowledgements::Acknowledgement;
pub use channels::{ChannelFinding, ChannelRecord};
pub use credentials::CredentialTrial;
pub use jobs::JobState;
pub use looks::TargetLook;
pub use marks::OperatorMark;
pub use open_findings::OpenFindingKey;
pub use outbox::{NewOutboxItem, OutboxItem, OutboxTransaction};
pub use receipts::{ReceiptLook, RememberedReceipt};
pub use run_ends::NewestEnd;
pub use runs::{EndedRun, NewRun, RunFilter, RunRow};
pub use series::RunFigure;

/// Name of the file in the state directory.
const NAME: &str = "history.db";
/// The version of the tables.
const HISTORY_VERSION: i64 = 1;
/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(10);

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite failed.
    #[error("the history {path} failed (is the disk full, read-only or damaged?)")]
    Sqlite {
        /// The file.
        path: String,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk is full.
    #[error("the disk at {disk} is full: the history {path} cannot be written")]
    DiskFull {
        /// The disk's mount point.
        disk: String,
        /// The history.
        path: String,
    },
    /// The damaged file cannot be renamed.
    #[error("cannot move the damaged history {path} aside")]
    MoveAside {
        /// The file.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A newer version of this program wrote it.
    #[error(
        "the history {path} is of version {found}; this sealift knows {HISTORY_VERSION}: use a newer one"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
    },
}

/// The open history.
#[derive(Debug)]
pub struct History {
    db: Connection,
    path: PathBuf,
    /// The path to which a damaged file was moved when this one was opened; `None`: it was sound.
    pub replaced: Option<PathBuf>,
}

impl History {
    /// Opens or creates the history in the state directory `dir`, which exists. A damaged file is
    /// moved aside, see [`Self::replaced`].
    pub fn open(dir: &Path) -> Result<Self, HistoryError> {
        let path = dir.join(NAME);
        match Self::open_once(&path) {
            Err(HistoryError::Sqlite { source, .. }) if is_damage(&source) => {
                let aside = move_aside(&path)?;
                let mut history = Self::open_once(&path)?;
                history.replaced = Some(aside);
                Ok(history)
            }
            Err(error) if reserve::free(&path, &error) => Self::open_once(&path),
            other => other,
        }
    }

    /// Opens the history if there is one; else returns `None` and creates nothing.
    pub fn open_existing(dir: &Path) -> Result<Option<Self>, HistoryError> {
        match dir.join(NAME).exists() {
            true => Self::open(dir).map(Some),
            false => Ok(None),
        }
    }

    fn open_once(path: &Path) -> Result<Self, HistoryError> {
        let fail = failing(path);
        let db = connect(path).map_err(&fail)?;
        let version = || {
            let read = db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
            read.map_err(&fail)
        };
        let found = version()?;
        if found > HISTORY_VERSION {
            return Err(HistoryError::Version {
                path: path.display().to_string(),
                found,
            });
        }
        if found < HISTORY_VERSION {
            let tables = [
                runs::TABLES,
                run_ends::TABLES,
                jobs::TABLES,
                looks::TABLES,
                marks::TABLES,
                receipts::TABLES,
                acknowledgements::TABLES,
                open_findings::TABLES,
                stages::TABLES,
                channels::TABLES,
                outbox::TABLES,
            ];
            let sql = format!(
                "BEGIN IMMEDIATE; {} PRAGMA user_version={HISTORY_VERSION}; COMMIT;",
                tables.concat()
            );
            if let Err(error) = db.execute_batch(&sql) {
                let _ = db.execute_batch("ROLLBACK");
                // Another process may have made them just now.
                if version()? < HISTORY_VERSION {
                    return Err(fail(error));
                }
            }
        }
        Ok(Self {
            db,
            path: path.to_path_buf(),
            replaced: None,
        })
    }

    /// Returns the size of the file in bytes.
    pub fn bytes(&self) -> Result<u64, HistoryError> {
        let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let bytes = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        bytes
            .map(|bytes| bytes.max(0).cast_unsigned())
            .map_err(self.fail())
    }

    fn fail(&self) -> impl Fn(rusqlite::Error) -> HistoryError + use<> {
        failing(&self.path)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // SQLite would create the file with the umask's mode; the files beside it get the file's own.
    // If this fails, SQLite reports why.
    let _ = crate::base::fs::write_new(path, b"", 0o600);
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-1000; PRAGMA temp_store=MEMORY;",
    )?;
    Ok(db)
}

fn failing(path: &Path) -> impl Fn(rusqlite::Error) -> HistoryError + use<> {
    let path = path.to_path_buf();
    move |source| {
        let full = match may_lack_room(&source) {
            true => crate::base::fs::full_disk(&path),
            false => None,
        };
        let path = path.display().to_string();
        match full {
            Some(disk) => HistoryError::DiskFull {
                disk: disk.display().to_string(),
                path,
            },
            None => HistoryError::Sqlite { path, source },
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let code = crate::base::sqlite::error_kind(error);
    matches!(code, Some(DatabaseCorrupt | NotADatabase))
}

/// Renames the damaged file, removes its log, and returns the new path.
fn move_aside(path: &Path) -> Result<PathBuf, HistoryError> {
    let aside = path.with_extension(format!("damaged-{}", std::process::id()));
    std::fs::rename(path, &aside).map_err(|source| HistoryError::MoveAside {
        path: path.display().to_string(),
        source,
    })?;
    for ending in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let _ = std::fs::remove_file(name);
    }
    Ok(aside)
}

/// Returns `time` as the tables store it: milliseconds since 1970.
fn millis(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// Returns the time that the tables store as `millis`. A value that no calendar has counts as 1970.
fn time(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_775_541_600 + seconds, 0).unwrap()
    }

    #[test]
    fn a_damaged_history_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert!(History::open_existing(dir.path()).unwrap().is_none());
        History::open(dir.path()).unwrap();
        std::fs::write(dir.path().join(NAME), vec![7; 8192]).unwrap();
        let history = History::open(dir.path()).unwrap();
        let aside = history.replaced.clone().unwrap();
        assert_eq!(std::fs::read(aside).unwrap().len(), 8192);
        assert_eq!(history.runs(&RunFilter::default()).unwrap(), []);
        assert!(history.bytes().unwrap() > 0);
    }

    #[test]
    fn several_processes_may_begin_it_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let open = || History::open(dir.path()).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap().replaced, None);
            }
        });
    }

    #[test]
    fn a_history_of_a_newer_version_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(dir.path()).unwrap();
        history.db.pragma_update(None, "user_version", 99).unwrap();
        drop(history);
        let refused = History::open(dir.path()).unwrap_err();
        assert!(matches!(refused, HistoryError::Version { found: 99, .. }));
    }
}
