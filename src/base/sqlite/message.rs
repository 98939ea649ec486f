//! The words between the agent and the child that opens a database for it: one line of JSON each.
//!
//! The request travels in the child's environment, which other users cannot read (they can read a command
//! line). The child's answers come from a process that has worked on someone else's file, so the parent
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
    pub dev: u64,
    pub ino: u64,
}

impl Identity {
    pub(crate) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

/// One component of a path: any bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFile {
    pub name: Vec<u8>,
    /// The file that the parent opened under this name.
    pub identity: Identity,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// The version of the program that asks: by path another one might be started.
    pub version: String,
    /// The process that asks, with which the child ends.
    pub parent: i32,
    /// The database, in the directory that is the child's stdin.
    pub database: NamedFile,
    /// Seconds of the processor that the child may use.
    pub cpu_seconds: u64,
    /// Size in bytes up to which the child may write a file.
    pub file_bytes: u64,
    pub work: ChildWork,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ChildWork {
    /// Checks a database that no process writes to.
    Check { depth: Depth },
    /// Locks the database against writers until the parent closes the socket; then checks it if asked.
    Lock { busy_ms: u64, depth: Option<Depth> },
    /// Copies the database into a file that exists, in the directory that is the child's stderr.
    Copy {
        busy_ms: u64,
        way: Way,
        copy: NamedFile,
    },
}

/// How a database is opened for copying, the way that touches least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// Without locks, of a WAL database that no process has open.
    Immutable,
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
    Start,
}

impl Step {
    /// A verb phrase that the database's path completes.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Check => "check the database",
            Self::Lock => "lock the database",
            Self::Open => "open the database",
            Self::OpenCopy => "open the copy of",
            Self::Copy => "copy the database",
            Self::FinishCopy => "finish the copy of",
            Self::Start => "confine the process that opens",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ChildAnswer {
    /// The lock is held, after so long a wait.
    Held {
        waited_ms: u64,
    },
    /// There is no lock to be had, see [`super::lock_for_read`].
    Unlocked,
    Checked {
        inspection: Inspection,
        cpu_ms: u64,
    },
    Copied {
        waited_ms: u64,
    },
    /// The database stayed locked.
    Busy,
    /// SQLite took more memory than it may.
    Memory,
    /// The name stood for another file when SQLite opened it.
    Exchanged,
    /// The journal belongs to a transaction over several databases.
    SuperJournal,
    /// The SQLite in this program is too old to write to a database from anywhere.
    OldSqlite {
        version: String,
    },
    /// SQLite failed, with its extended error code.
    Failed {
        step: Step,
        code: i32,
        message: String,
    },
    /// A system call failed.
    System {
        step: Step,
        errno: i32,
    },
}

/// Returns `time` as messages carry it.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
