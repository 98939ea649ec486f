//! TOML becomes one validated [`Config`]; nothing behind this module sees a raw key.
//!
//! Every complaint names the file and the line, an unknown key also the nearest known one. Relative
//! paths are relative to the file. A configuration that holds an identity is refused outright: the
//! backing-up host must never be able to open what it seals.

mod check;
mod document;
mod error;
mod find;
mod preset;
mod raw;
mod recipients;
mod source;
mod value;
mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use self::document::Document;
use crate::base::ids::HostName;
use crate::base::rate_schedule::Timetable;
use crate::base::walk::Filter;

pub use crate::retention::Policy as Retention;
pub use error::ConfigError;
pub use find::{LoadedConfig, named_by_environment};
pub use recipients::Recipient;
pub use value::{parse_age, parse_duration, parse_size};
pub use write::{NewConfig, render_new};

pub const FILE_NAME: &str = "sealift.toml";
pub const ENVIRONMENT: &str = "SEALIFT_CONFIG";
const SYSTEM_FILE: &str = "/etc/sealift/sealift.toml";
/// How long a source waits for its lock if the configuration does not say.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a source's command may take if the configuration does not say.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);

/// Everything one host's agent is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Absolute.
    pub file: PathBuf,
    pub host: HostName,
    pub recipients: Vec<Recipient>,
    /// The OpenSSH private key that signs manifests.
    pub signer: PathBuf,
    /// The public key that may sign from now on too.
    pub next_signer: Option<PathBuf>,
    pub state: PathBuf,
    pub snapshots_dir: PathBuf,
    /// By no order but the file's; the preset's first.
    pub sources: Vec<Source>,
    pub targets: Vec<TargetConfig>,
    /// `None` keeps everything.
    pub retention: Option<Retention>,
    pub schedule: Schedule,
    pub pack: PackConfig,
    /// Bytes that the spool may hold; `None`: half of what was free.
    pub spool_limit: Option<u64>,
}

/// One thing a snapshot contains.
#[derive(Debug, Clone)]
pub struct Source {
    /// Unique; begins the codes of its validation errors, names its stage record.
    pub name: String,
    pub kind: SourceKind,
    /// Where it stands in the snapshot: relative, `/` between components.
    pub to: String,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Its absence is no error.
    pub optional: bool,
    /// If it fails there is no snapshot; else it is left out, and the run ends with exit code 3.
    pub required: bool,
    /// Of a command: that it prints nothing is no error.
    pub allow_empty: bool,
    /// Whether an alarm is raised if it loses most of what it held.
    pub shrink_alarm: bool,
    /// Taken only when asked for by name.
    pub on_request: bool,
    pub before: Option<CommandLine>,
    /// Runs whatever happened after `before` was begun.
    pub after: Option<CommandLine>,
    /// Held (flock) from before `before` until after `after`.
    pub lock: Option<PathBuf>,
    /// How long to wait for the lock file or a database's lock.
    pub lock_timeout: Duration,
    /// How long a command may take.
    pub timeout: Duration,
}

impl Source {
    /// Returns the source `name` of this kind at `to`, with the default of every other setting.
    fn with_defaults(name: String, kind: SourceKind, to: String) -> Self {
        Self {
            name,
            kind,
            to,
            owner: None,
            mode: None,
            optional: false,
            required: false,
            allow_empty: false,
            shrink_alarm: true,
            on_request: false,
            before: None,
            after: None,
            lock: None,
            lock_timeout: LOCK_TIMEOUT,
            timeout: COMMAND_TIMEOUT,
        }
    }

    /// Whether it is the preset's vector store, whose files fit each other only while nothing writes.
    pub fn is_vector_store(&self) -> bool {
        self.name == "chroma" && self.to == "chroma"
    }

    /// Whether it is a tree that must not be written while it is copied, and nothing holds its writers back.
    pub fn is_unguarded(&self) -> bool {
        let is_staged = matches!(&self.kind, SourceKind::Tree(tree) if tree.stage);
        let is_special = self.on_request || self.is_vector_store();
        is_staged && is_special && self.lock.is_none() && self.before.is_none()
    }
}

#[derive(Debug, Clone)]
pub enum SourceKind {
    Sqlite { path: PathBuf },
    Json { path: PathBuf },
    Tree(TreeSource),
    Command { command: CommandLine },
}

impl SourceKind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Json { .. } => "json",
            Self::Tree(_) => "tree",
            Self::Command { .. } => "command",
        }
    }
}

#[derive(Debug, Clone)]
pub struct TreeSource {
    pub path: PathBuf,
    /// Copied into the snapshot; else read in place by the packer.
    pub stage: bool,
    pub filter: Filter,
    pub check: Check,
    /// Paths below it: without one of them it is not read. `/` between components.
    pub must_exist: Vec<String>,
    /// It is read only if its path is a mount point.
    pub mountpoint: bool,
}

/// What a damaged database inside a tree does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Makes the snapshot invalid.
    Strict,
    /// Is reported with the snapshot, which is packed nevertheless.
    Report,
}

/// A command of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

impl CommandLine {
    /// The program, for a log: what follows it may be a password.
    pub fn brief(&self) -> String {
        let words: Vec<&str> = match self {
            Self::Shell(line) => line.split_whitespace().collect(),
            Self::Words(words) => words.iter().map(String::as_str).collect(),
        };
        // `PGPASSWORD=… pg_dump` of a shell.
        let is_set = |word: &&&str| matches!(self, Self::Shell(_)) && word.contains('=');
        let set = words.iter().take_while(is_set).count();
        let program = words.get(set).copied().unwrap_or("…");
        match words.len() {
            1 => program.to_owned(),
            _ => format!("{program} …"),
        }
    }
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shell(line) => f.write_str(line),
            Self::Words(words) => f.write_str(&words.join(" ")),
        }
    }
}

#[derive(Debug, Clone)]
pub struct TargetConfig {
    pub name: String,
    /// `s3`, `gs`, `az`, `https`, `http`, `file`, `rsync`, `sftp`; without a password.
    pub url: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: bool,
    /// Of one request.
    pub timeout: Option<Duration>,
    /// For how long a failing request is tried again.
    pub retry: Option<Duration>,
    /// Of rsync and sftp over ssh: `ssh` with options.
    pub ssh: Option<String>,
    /// How fast to send and to fetch, at the most.
    pub upload: Option<Timetable>,
    pub download: Option<Timetable>,
    /// Transfers at once.
    pub concurrency: Option<usize>,
    /// Its credentials can neither list nor read.
    pub write_only: bool,
    /// Of S3, GCS and Azure: the storage class of data archives, and of all else.
    pub data_class: Option<String>,
    pub class: Option<String>,
    /// What stays on it, if not what `[retention]` says.
    pub retention: Option<Retention>,
    /// `backup` deletes there what retention lets go.
    pub prune: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// When `backup` is due, UTC.
    pub backup: Option<croner::Cron>,
}

impl Schedule {
    /// The first due time after `now`.
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.backup.as_ref()?.find_next_occurrence(&now, false).ok()
    }

    /// By when a push that follows the one at `now` should have arrived: the next due time plus a
    /// quarter of the time to the one after it, at least one hour and at most a day. So a daily backup of
    /// 06:00 is late at 12:00, whatever it takes to pack and ship. `None` without a schedule.
    pub fn next_by(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let due = self.next(now)?;
        let interval = self.next(due)? - due;
        let grace = (interval / 4).clamp(chrono::Duration::hours(1), chrono::Duration::days(1));
        Some(due + grace)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackConfig {
    /// Bytes of tar stream per archive, about.
    pub archive_bytes: u64,
    /// Of zstd.
    pub level: i32,
    /// Of zstd; `None`: as many as there are processors.
    pub threads: Option<u32>,
}

impl Default for PackConfig {
    fn default() -> Self {
        Self {
            archive_bytes: 64 << 20,
            level: 3,
            threads: None,
        }
    }
}

impl Config {
    /// Validates `text` as the content of `file`, an absolute path that need not exist.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let document = Document { text, file };
        check::keys_and_secrets(&document, &raw::known_keys())?;
        let raw: raw::RawConfig = toml::from_str(text).map_err(|e| document.syntax(&e))?;
        raw.validate(&document)
    }

    /// What stays on `target`; `None` keeps everything.
    pub fn retention_of(&self, target: &TargetConfig) -> Option<Retention> {
        target.retention.or(self.retention)
    }

    pub fn target(&self, name: &str) -> Option<&TargetConfig> {
        self.targets.iter().find(|target| target.name == name)
    }
}
