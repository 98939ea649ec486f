//! The messages between this process and the child that opens a database for it: one line of JSON
//! each.
//!
//! The request is in the child's environment, which other users cannot read (they can read a
//! command line). The answers come from a process that has worked on a foreign file, so the parent
//! bounds their length, parses them strictly and shows none of their text unescaped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inspection::{Depth, Inspection};

/// The hidden first argument that makes this program the child.
pub(crate) const ARGUMENT: &str = "sqlite-child";
/// The environment variable that holds the [`Request`].
pub(crate) const VARIABLE: &str = "SEALIFT_SQLITE_REQUEST";

/// A file by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
}

impl Identity {
    /// Returns the identity of the file that `stat` describes.
    pub(crate) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// A file by its name in a directory that both processes have open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFile {
    /// One component of a path: any bytes.
    pub name: Vec<u8>,
    /// The file that the parent opened under this name.
    pub identity: Identity,
}

/// The task of a child.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// The version of the parent's program: at its path there might be another one by now.
    pub version: String,
    /// The parent's process id: the child ends with it.
    pub parent: i32,
    /// The database, in the directory that is the child's stdin.
    pub database: NamedFile,
    /// Processor time in seconds that the child may use.
    pub cpu_seconds: u64,
    /// Size in bytes up to which the child may write a file.
    pub file_bytes: u64,
    /// What the child does.
    pub work: ChildWork,
}

/// What a child does with the database. `busy_ms`: how long it waits for a lock.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ChildWork {
    /// Checks a database that no process writes to.
    Check { depth: Depth },
    /// Locks the database against writers until the parent closes the socket, and checks it
    /// meanwhile if a depth is given.
    Lock { busy_ms: u64, depth: Option<Depth> },
    /// Copies the database into an existing file in the directory that is the child's stderr.
    Copy {
        busy_ms: u64,
        way: Way,
        copy: NamedFile,
    },
    /// Plays the database's journal back or its log in, so that its one file is the database.
    CloseUp { busy_ms: u64 },
    /// Runs a query of the operator that returns one value.
    Query {
        busy_ms: u64,
        way: Way,
        query: String,
    },
}

/// How a database is opened for copying, beginning with the way that changes least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// Without locks: for a WAL database that no process has open.
    Immutable,
    /// With locks, but without writing to the database.
    ReadOnly,
    /// Plays a crashed writer's journal back, as the application would at its next start.
    Writable,
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Check,
    Lock,
    Open,
    OpenCopy,
    Copy,
    FinishCopy,
    CloseUp,
    Query,
    Start,
}

impl Step {
    /// Returns a verb phrase that the database's path completes.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Check => "check the database",
            Self::Lock => "lock the database",
            Self::Open => "open the database",
            Self::OpenCopy => "open the copy of",
            Self::Copy => "copy the database",
            Self::FinishCopy => "finish the copy of",
            Self::CloseUp => "close up the database",
            Self::Query => "query the database",
            Self::Start => "confine the process that opens",
        }
    }
}

/// One line of the child. `waited_ms`: how long it waited for locks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ChildAnswer {
    /// The lock is held, after this wait.
    Held { waited_ms: u64 },
    /// The database cannot be locked, see [`super::lock_for_read`].
    Unlocked,
    /// The check has ended, after this processor time.
    Checked { inspection: Inspection, cpu_ms: u64 },
    /// The copy is complete, after this wait for locks.
    Copied { waited_ms: u64 },
    /// The database is in its one file.
    ClosedUp,
    /// The value that the query returned: null, a number or a text.
    Value { value: serde_json::Value },
    /// The text of the query is not one statement.
    NotOneStatement,
    /// The statement would change the database.
    Writes,
    /// The query did not return one value, but this.
    NotOneValue { what: String },
    /// The database stayed locked.
    Busy,
    /// SQLite needed more memory than it may use.
    Memory,
    /// Another file had the database's name when SQLite opened it.
    Exchanged,
    /// The journal belongs to a transaction over several databases.
    SuperJournal,
    /// This program's SQLite is too old to write to a database that anyone may have written.
    OldSqlite { version: String },
    /// SQLite failed, with its extended error code.
    Failed {
        step: Step,
        code: i32,
        message: String,
    },
    /// A system call failed.
    System { step: Step, errno: i32 },
}

/// Returns `time` in milliseconds, as messages carry it.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
