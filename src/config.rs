//! Reads the TOML configuration into one validated [`Config`]; no other module sees a raw key.
//!
//! Every error names the file and the line, and for an unknown key the nearest known one. Relative
//! paths are relative to the file's directory. A configuration that contains an identity is
//! refused: the backing-up host must never be able to open its own backups.

mod atocore_source;
mod check;
mod document;
mod drill;
mod edit;
mod error;
mod find;
mod hooks;
mod notify;
mod post_check;
mod preset;
mod proof;
mod raw;
mod raw_command;
mod recipients;
pub mod remotes;
mod restore_settings;
mod schedule;
mod serve_settings;
mod show;
mod source;
mod value;
mod write;
mod written;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::document::ConfigDocument;
use self::source::SNAPSHOT;
use crate::base::ids::HostName;
use crate::base::rate_schedule::Timetable;
use crate::base::walk::Filter;
use crate::retention::KeptTags;
use crate::storage::Patience;

pub use crate::base::command::CommandLine;
pub use crate::retention::Policy as Retention;
pub use atocore_source::{AtoCoreSource, Fallback};
pub use drill::{
    CHECK_TIMEOUT, DrillConfig, DrillSnapshot, RANDOM_OLDER, SERVICE_TIMEOUT, check_principal,
};
pub use edit::{EditError, add_table, remove_table};
pub use error::ConfigError;
pub use find::{LoadedConfig, named_by_environment};
pub use hooks::RunHooks;
pub use notify::{
    ChannelKind, EmailSettings, MailServer, MailTransport, NotifyChannel, NotifyEvent, PartialPing,
    PingJob, QuietHours, SECRET_BYTES, SecretText, check_channel_url, check_ping_url,
};
pub use post_check::{
    Expectation, Explanation, FileCheck, HttpCheck, Operator, PostCheck, PostCheckKind, SqlCheck,
};
pub use proof::{ProofPart, ProofSettings};
pub use recipients::Recipient;
pub use restore_settings::{Preserve, RestoreSettings};
pub use schedule::{CronLine, MissedRuns, Schedule};
pub(crate) use serve_settings::parse_base_path;
pub use serve_settings::{HistoryLimits, IpRange, ListenAddress, ServeConfig};
pub use show::Setting;
pub use value::{parse_age, parse_cron, parse_duration, parse_size};
pub use write::{
    NewConfig, NewSource, NewSourceKind, NewTarget, ServiceControl, TakenPlace, free_place,
    render_new, render_source, render_target,
};
pub use written::{TableKind, WrittenTable};

/// The name of a configuration file.
pub const FILE_NAME: &str = "sealift.toml";
/// The environment variable that names the configuration file.
pub const ENVIRONMENT: &str = "SEALIFT_CONFIG";
/// The configuration of the whole machine.
const SYSTEM_FILE: &str = "/etc/sealift/sealift.toml";
/// Number of newest snapshots that stay on this host if the configuration does not say.
const KEEP_LOCAL: u32 = 2;
/// How long a source waits for its lock if the configuration does not say.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a source's command may take if the configuration does not say.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);

/// The configuration of one host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The absolute path of the file.
    pub file: PathBuf,
    /// The name under which this host's backups are stored.
    pub host: HostName,
    /// Public keys, or files of them, to which everything is sealed; at least one.
    pub recipients: Vec<Recipient>,
    /// Path of the OpenSSH private key that signs manifests.
    pub signer: PathBuf,
    /// Path of another public key that may sign from now on, for a rotation; `None`: no rotation is
    /// under way.
    pub next_signer: Option<PathBuf>,
    /// The state directory.
    pub state: PathBuf,
    /// The directory of local snapshots.
    pub snapshots_dir: PathBuf,
    /// Number of newest snapshots that stay on this host; `None`: all. Older ones stay until every
    /// target has them.
    pub keep_local: Option<u32>,
    /// The preset's sources, then the others in the order of the file.
    pub sources: Vec<Source>,
    /// The running AtoCore that makes the snapshots; the sources are then the preset's, which name
    /// its data. `None`: this host copies the sources itself.
    pub atocore: Option<AtoCoreSource>,
    /// The root of the preset's application; `None`: no preset is in use.
    pub preset_root: Option<PathBuf>,
    /// In the order of the file.
    pub targets: Vec<TargetConfig>,
    /// The policy for targets without one of their own. `None` keeps everything.
    pub retention: Option<Retention>,
    /// The tags of `[retention]` that keep their snapshots: on this host, and on targets without
    /// `keep_tags` of their own.
    pub keep_tags: Vec<String>,
    /// When jobs are due.
    pub schedule: Schedule,
    /// Within what time `verify` must read back every archive; `None`: it need not.
    pub verify_max_age: Option<Duration>,
    /// How the agent answers over HTTP, and what it keeps.
    pub serve: ServeConfig,
    /// Commands around a run.
    pub hooks: RunHooks,
    /// How a restore in place is done.
    pub restore: RestoreSettings,
    /// What must be true after a restore in place, and in a drill.
    pub checks: Vec<PostCheck>,
    /// Whom this host notifies, in the order of the file.
    pub channels: Vec<NotifyChannel>,
    /// Which proof of its backups this host wants. `None`: it does not ask for any.
    pub proof: Option<ProofSettings>,
    /// How archives are made.
    pub pack: PackConfig,
    /// Size in bytes up to which the spool may grow; `None`: half of the free space.
    pub spool_limit: Option<u64>,
    /// How long the command that runs waits for a target's first answer; not part of the file.
    pub patience: Patience,
}

impl Config {
    /// Gives all targets the `patience` of the command that runs.
    pub fn set_patience(&mut self, patience: &Patience) {
        self.patience = patience.clone();
        for target in &mut self.targets {
            target.patience = patience.clone();
        }
    }
}

/// One thing that a snapshot contains.
#[derive(Debug, Clone)]
pub struct Source {
    /// Unique. Begins the codes of its validation errors, and names its stage record.
    pub name: String,
    /// What is read, and how.
    pub kind: SourceKind,
    /// Its path in the snapshot: relative, with `/` between components.
    pub to: String,
    /// Owner and group of the copy; `None`: those of the original.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of the copy; `None`: those of the original.
    pub mode: Option<u32>,
    /// A missing source is no error.
    pub optional: bool,
    /// If this source fails, no snapshot is made. If another one fails, it is left out, and the run
    /// ends with exit code 3.
    pub required: bool,
    /// A command that prints nothing is no error.
    pub allow_empty: bool,
    /// Whether an alarm is raised if the source loses most of its content.
    pub shrink_alarm: bool,
    /// It is taken only if the command line names it.
    pub on_request: bool,
    /// The command that runs before the copy; `None`: none.
    pub before: Option<CommandLine>,
    /// The command that runs after the copy, whatever happened since `before` began; `None`: none.
    pub after: Option<CommandLine>,
    /// The file that is locked (flock) from before `before` until after `after`; `None`: none.
    pub lock: Option<PathBuf>,
    /// How long the lock file or a database's lock is waited for.
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

    /// Returns whether it is the preset's vector store, whose files are consistent only while no
    /// process writes.
    pub fn is_vector_store(&self) -> bool {
        self.name == "chroma" && self.to == "chroma"
    }

    /// Returns the path that is read. `None`: the source is a command.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            SourceKind::Sqlite { path } | SourceKind::Json { path } => Some(path),
            SourceKind::Tree(tree) => Some(&tree.path),
            SourceKind::Command { .. } => None,
        }
    }

    /// Returns whether its path has a part that only its `before` knows.
    pub fn is_of_snapshot(&self) -> bool {
        let path = self.path().and_then(Path::to_str);
        path.is_some_and(|path| path.contains(SNAPSHOT))
    }

    /// Returns the source with the text `made`, the last line that its `before` printed, in its
    /// path.
    pub fn of_snapshot(&self, made: &str) -> Self {
        let mut source = self.clone();
        let path = match &mut source.kind {
            SourceKind::Sqlite { path } | SourceKind::Json { path } => path,
            SourceKind::Tree(tree) => &mut tree.path,
            SourceKind::Command { .. } => return source,
        };
        if let Some(text) = path.to_str() {
            *path = PathBuf::from(text.replace(SNAPSHOT, made));
        }
        source
    }

    /// Returns whether it is a tree that must not be written while it is copied, and neither a lock
    /// nor a hook prevents that.
    pub fn is_unguarded(&self) -> bool {
        let is_staged = matches!(&self.kind, SourceKind::Tree(tree) if tree.stage);
        let is_special = self.on_request || self.is_vector_store();
        is_staged && is_special && self.lock.is_none() && self.before.is_none()
    }
}

/// The kind of a source, with the settings that only this kind has.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// A SQLite database, copied as of one moment.
    Sqlite {
        /// The database.
        path: PathBuf,
    },
    /// A JSON file, which must parse.
    Json {
        /// The file.
        path: PathBuf,
    },
    /// A directory tree.
    Tree(TreeSource),
    /// The output of a command.
    Command {
        /// The command.
        command: CommandLine,
    },
}

impl SourceKind {
    /// Returns the kind as the configuration names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Json { .. } => "json",
            Self::Tree(_) => "tree",
            Self::Command { .. } => "command",
        }
    }
}

/// A directory tree as a source.
#[derive(Debug, Clone)]
pub struct TreeSource {
    /// The directory.
    pub path: PathBuf,
    /// The tree is copied into the snapshot directory first; otherwise the packer reads it in
    /// place.
    pub stage: bool,
    /// What of it is taken.
    pub filter: Filter,
    /// How a damaged database in it is treated.
    pub check: Check,
    /// Paths below the directory, with `/` between components: if one is missing, the tree is not
    /// read.
    pub must_exist: Vec<String>,
    /// The tree is read only if the directory is a mount point.
    pub mountpoint: bool,
}

/// How a damaged database in a tree is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It makes the source fail.
    Strict,
    /// It is reported, and the snapshot is packed with it.
    Report,
}

/// A `[[target]]` of the configuration.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// Unique and not empty.
    pub name: String,
    /// An absolute path or a URL of the scheme `s3`, `gs`, `az`, `https`, `http`, `file`, `rsync`
    /// or `sftp`, without a password.
    pub url: String,
    /// The S3 endpoint; `None`: Amazon's.
    pub endpoint: Option<String>,
    /// The S3 region; `None`: the environment's.
    pub region: Option<String>,
    /// The S3 bucket is part of the path and not of the server's name.
    pub path_style: bool,
    /// Timeout of one request; `None`: the default of the storage.
    pub timeout: Option<Duration>,
    /// For how long a failing request is repeated; `None`: the default of the storage.
    pub retry: Option<Duration>,
    /// The command for rsync and sftp over ssh, such as `ssh` with options; `None`: plain `ssh`.
    pub ssh: Option<String>,
    /// The limit of the upload rate; `None`: no limit.
    pub upload: Option<Timetable>,
    /// The limit of the download rate; `None`: no limit.
    pub download: Option<Timetable>,
    /// Number of concurrent transfers; `None`: the default of the storage.
    pub concurrency: Option<usize>,
    /// The target's credentials can neither list nor read.
    pub write_only: bool,
    /// The storage class of data archives, for S3, GCS and Azure; `None`: as `class`.
    pub data_class: Option<String>,
    /// The storage class of all other objects; `None`: the bucket's default.
    pub class: Option<String>,
    /// The policy for this target; `None`: that of `[retention]`.
    pub retention: Option<Retention>,
    /// The tags that keep their snapshots on this target; `None`: those of `[retention]`.
    pub keep_tags: Option<Vec<String>>,
    /// Each backup also deletes the snapshots on this target that the policy does not keep.
    pub prune: bool,
    /// For how long the newest snapshot there may age before that is a finding; `None`: as the
    /// schedule says.
    pub max_age: Option<Duration>,
    /// How long the command that runs waits for the target's first answer; not part of the file.
    pub patience: Patience,
}

/// `[pack]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackConfig {
    /// Approximate size of an archive's tar stream in bytes.
    pub archive_bytes: u64,
    /// The compression level of zstd.
    pub level: i32,
    /// Number of threads that compress; `None`: one for each processor.
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
    /// Validates `text` as the content of `file`, an absolute path. The file need not exist.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let document = ConfigDocument { text, file };
        if drill::is_for_drills(&document)? {
            let file = file.to_owned();
            return Err(ConfigError::ForDrills { file });
        }
        check::keys_and_secrets(&document, &raw::known_keys())?;
        let raw: raw::RawConfig = toml::from_str(text).map_err(|e| document.syntax(&e))?;
        raw.validate(&document)
    }

    /// Returns the tables of this kind that `text`, the content of `file`, has, in its order. The
    /// sources of a preset are not among them.
    pub fn written_tables(
        text: &str,
        file: &Path,
        kind: TableKind,
    ) -> Result<Vec<WrittenTable>, ConfigError> {
        let document = ConfigDocument { text, file };
        let raw: raw::RawConfig = toml::from_str(text).map_err(|e| document.syntax(&e))?;
        raw.written_tables(&document, kind)
    }

    /// Returns every key, by table: first the top, whose name is empty.
    pub fn known_keys() -> Vec<(&'static str, &'static [&'static str])> {
        let known = raw::known_keys();
        let mut all = vec![("", known.top)];
        all.extend(known.tables);
        all.push(drill::keys());
        all
    }

    /// Returns the policy for `target`; `None` keeps everything.
    pub fn retention_of(&self, target: &TargetConfig) -> Option<Retention> {
        target.retention.or(self.retention)
    }

    /// Returns the tags that keep their snapshots on `target`.
    pub fn keep_tags_of<'a>(&'a self, target: &'a TargetConfig) -> &'a [String] {
        target.keep_tags.as_ref().unwrap_or(&self.keep_tags)
    }

    /// Returns the tags that keep snapshots on any target or on this host.
    pub fn all_keep_tags(&self) -> Vec<String> {
        let of_targets = self
            .targets
            .iter()
            .flat_map(|target| self.keep_tags_of(target));
        self.keep_tags.iter().chain(of_targets).cloned().collect()
    }

    /// Returns the tags that keep their snapshots on this host.
    pub fn kept_tags(&self) -> KeptTags {
        KeptTags::new(self.keep_tags.iter().cloned())
    }

    /// Returns the target `name`; `None` if there is none.
    pub fn target(&self, name: &str) -> Option<&TargetConfig> {
        self.targets.iter().find(|target| target.name == name)
    }
}
