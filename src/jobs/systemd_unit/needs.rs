//! What a configuration needs of the sandbox of a unit.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::UnitName;
use crate::config::{
    ChannelKind, CommandLine, Config, DrillConfig, ListenAddress, PostCheckKind, Recipient,
    SecretText, Source, SourceKind, TargetConfig,
};
use crate::storage;

/// The directory that the agent's unit has for sockets.
const RUNTIME_DIR: &str = "/run/sealift";
/// Most entries of a tree that are looked at for databases in use.
const MOST_ENTRIES: usize = 200_000;
/// Programs whose sockets the agent's sandbox hides.
const CONTAINERS: &[&str] = &["docker", "podman", "nerdctl", "ctr", "crictl"];
/// Programs that become another user.
const OTHER_USERS: &[&str] = &["su", "sudo", "runuser", "setpriv", "doas"];
/// Programs that mount, or make snapshots of file systems.
const MOUNTS: &[&str] = &[
    "mount", "umount", "lvcreate", "lvremove", "btrfs", "zfs", "quiesce",
];

/// Whether something in home directories is needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HomeAccess {
    None,
    /// Something is read there, or written below one of the paths that are written; what it is.
    Read(String),
}

/// What a configuration needs of a sandbox.
#[derive(Debug)]
pub(super) struct SandboxNeeds {
    /// The user to run as; `None`: root.
    pub(super) user: Option<String>,
    /// What is written. No path is below another one.
    pub(super) writes: BTreeSet<PathBuf>,
    /// What these paths are, for a comment.
    pub(super) written: &'static str,
    /// Trees that no command needs to write, if there are commands.
    pub(super) only_read: BTreeSet<PathBuf>,
    /// Where the configuration has commands, such as `before in [hooks]`.
    pub(super) commands: Vec<String>,
    pub(super) home: HomeAccess,
    /// Whether a path is in `/tmp` or `/var/tmp`.
    pub(super) uses_tmp: bool,
    /// The command that uses containers; `None`: none does. So for the others.
    pub(super) containers: Option<String>,
    pub(super) other_users: Option<String>,
    pub(super) mounts: Option<String>,
}

impl SandboxNeeds {
    pub(super) fn of(name: UnitName, config: &Config, program: &Path) -> Self {
        let commands = commands(name, config);
        let mut reads = reads(config, program);
        if name != UnitName::Recover {
            reads.extend(files_of_agent(name, config));
        }
        let paths = UsedPaths::new(writes(name, config), reads, &commands);
        let mut reasons = paths.in_homes();
        reasons.extend(homes_of_targets(config));
        Self {
            user: owner(config),
            only_read: only_read(config, &commands),
            written: "State, snapshots, folders of targets, databases in use, locks, sockets and metrics.",
            ..Self::of_paths(paths, reasons, &commands)
        }
    }

    /// Returns the needs of a machine that drills with `config`.
    pub(super) fn of_drill(config: &DrillConfig, program: &Path) -> Self {
        let commands = commands_of_drill(config);
        let folders = config.from.iter();
        let folders = folders.filter_map(|from| storage::folder_path(from));
        // Receipts are put there.
        let writes = folders.chain(config.scratch.clone());
        let mut reads = vec![
            program.to_path_buf(),
            config.file.clone(),
            config.signer.clone(),
        ];
        reads.extend(config.identities.clone());
        let tokens = config.checks.iter().filter_map(|check| match &check.kind {
            PostCheckKind::Http(http) => http.token_file.clone(),
            _ => None,
        });
        reads.extend(tokens);
        let paths = UsedPaths::new(writes.collect(), reads, &commands);
        let reasons = paths.in_homes();
        Self::of_paths(paths, reasons, &commands)
    }

    fn of_paths(
        paths: UsedPaths,
        homes: BTreeSet<String>,
        commands: &[(String, &CommandLine)],
    ) -> Self {
        let using = |programs: &[&str]| {
            let uses = |(_, line): &&(String, &CommandLine)| names_one(line, programs);
            let found = commands.iter().find(uses);
            found.map(|(place, _)| place.clone())
        };
        Self {
            user: None,
            home: match homes.is_empty() {
                true => HomeAccess::None,
                false => {
                    let reasons: Vec<String> = homes.into_iter().collect();
                    HomeAccess::Read(reasons.join(", "))
                }
            },
            uses_tmp: paths.use_tmp(),
            only_read: BTreeSet::new(),
            containers: using(CONTAINERS),
            other_users: using(OTHER_USERS),
            mounts: using(MOUNTS),
            commands: commands.iter().map(|(place, _)| place.clone()).collect(),
            writes: paths.writes,
            written: "Folders of targets, which get receipts, and the directory for restored snapshots.",
        }
    }
}

/// The paths that a unit uses.
struct UsedPaths {
    /// No path is below another one.
    writes: BTreeSet<PathBuf>,
    /// Including the programs that commands name.
    reads: Vec<PathBuf>,
}

impl UsedPaths {
    fn new(
        writes: BTreeSet<PathBuf>,
        mut reads: Vec<PathBuf>,
        commands: &[(String, &CommandLine)],
    ) -> Self {
        reads.extend(commands.iter().flat_map(|(_, line)| named_paths(line)));
        Self {
            writes: outermost(writes),
            reads,
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.writes.iter().chain(&self.reads)
    }

    fn use_tmp(&self) -> bool {
        let is_in_tmp = |path: &PathBuf| path.starts_with("/tmp") || path.starts_with("/var/tmp");
        self.all().any(is_in_tmp)
    }

    /// Returns the paths in home directories.
    fn in_homes(&self) -> BTreeSet<String> {
        let is_there = |path: &&PathBuf| {
            let homes = ["/home", "/root", "/run/user"];
            homes.iter().any(|home| path.starts_with(home))
        };
        let found = self.all().filter(is_there);
        found.map(|path| path.display().to_string()).collect()
    }
}

/// Returns the absolute paths among the words of a command, such as its program.
fn named_paths(line: &CommandLine) -> Vec<PathBuf> {
    let text = line.to_string();
    let words = text.split(|c: char| c.is_whitespace() || "'\"=;|&<>()".contains(c));
    let paths = words.filter(|word| word.len() > 1 && word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// Returns the user to whom the state directory belongs, or else the signer. `None`: root, or
/// neither is there.
fn owner(config: &Config) -> Option<String> {
    let found = std::fs::metadata(&config.state).or_else(|_| std::fs::metadata(&config.signer));
    let uid = found.ok()?.uid();
    let name = || {
        let user = uzers::get_user_by_uid(uid);
        user.map(|user| user.name().to_string_lossy().into_owned())
    };
    (uid != 0).then(|| name().unwrap_or_else(|| uid.to_string()))
}

/// Returns the commands that run in the unit, each with its place in the configuration.
fn commands(name: UnitName, config: &Config) -> Vec<(String, &CommandLine)> {
    if name == UnitName::Recover {
        // It starts and stops nothing.
        return Vec::new();
    }
    let (hooks, restore) = (&config.hooks, &config.restore);
    let of_tables = [
        ("`before` of [hooks]", &hooks.before),
        ("`after` of [hooks]", &hooks.after),
        ("`failed` of [hooks]", &hooks.failed),
        ("`stop` of [restore]", &restore.stop),
        ("`start` of [restore]", &restore.start),
        ("`stopped` of [restore]", &restore.stopped),
    ];
    let of_tables = of_tables.into_iter().filter_map(|(place, line)| {
        let is_run = name == UnitName::Agent || !place.contains("[restore]");
        let line = line.as_ref().filter(|_| is_run)?;
        Some((place.to_owned(), line))
    });
    let of_sources = config.sources.iter().flat_map(|source| {
        let own = match &source.kind {
            SourceKind::Command { command } => Some(command),
            _ => None,
        };
        let lines = [
            ("command", own),
            ("before", source.before.as_ref()),
            ("after", source.after.as_ref()),
        ];
        lines.into_iter().filter_map(|(key, line)| {
            Some((format!("`{key}` of the source {}", source.name), line?))
        })
    });
    let of_channels = config
        .channels
        .iter()
        .filter_map(|channel| match &channel.kind {
            ChannelKind::Command(line) => {
                Some((format!("`command` of the channel {}", channel.name), line))
            }
            _ => None,
        });
    of_tables.chain(of_sources).chain(of_channels).collect()
}

/// Whether the command names one of the programs, at any place.
fn names_one(line: &CommandLine, programs: &[&str]) -> bool {
    let text = line.to_string();
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let mut words = text.split(|c: char| !is_part(c));
    words.any(|word| programs.contains(&word))
}

/// Returns the paths that are written.
fn writes(name: UnitName, config: &Config) -> BTreeSet<PathBuf> {
    let mut writes = BTreeSet::from([config.state.clone()]);
    if name == UnitName::Recover {
        writes.extend(config.restore.preserve_dir.clone());
        // Old and new content are renamed beside the live path.
        let mapped = config.restore.map.values().map(PathBuf::as_path);
        let live = config.sources.iter().filter_map(Source::path);
        let parents = mapped.chain(live).filter_map(Path::parent);
        writes.extend(parents.map(Path::to_path_buf));
        return writes;
    }
    writes.insert(config.snapshots_dir.clone());
    let folders = config.targets.iter();
    writes.extend(folders.filter_map(|target| storage::folder_path(&target.url)));
    for source in &config.sources {
        writes.extend(writes_of(source));
    }
    writes.extend(written_for_readers(name, config));
    writes
}

/// Returns the directories of the file of metrics, which each run replaces, and of the sockets on
/// which the agent listens.
fn written_for_readers(name: UnitName, config: &Config) -> Vec<PathBuf> {
    let textfile = config.serve.textfile.iter().map(PathBuf::as_path);
    let sockets = config
        .serve
        .listen
        .iter()
        .filter_map(|address| match address {
            ListenAddress::Unix(path) if name == UnitName::Agent => Some(path.as_path()),
            _ => None,
        });
    let dirs = textfile.chain(sockets).filter_map(Path::parent);
    // Its own `RuntimeDirectory`, which systemd makes.
    let dirs = dirs.filter(|dir| *dir != Path::new(RUNTIME_DIR) && *dir != Path::new("/"));
    dirs.map(Path::to_path_buf).collect()
}

/// Returns the paths that are written while the source is copied.
fn writes_of(source: &Source) -> Vec<PathBuf> {
    let mut writes = Vec::new();
    if let Some(lock) = &source.lock
        && !lock.exists()
    {
        // It is made there.
        writes.extend(lock.parent().map(Path::to_path_buf));
    }
    match &source.kind {
        // Readers share its `-shm` with those who write.
        SourceKind::Sqlite { path } => writes.extend(path.parent().map(Path::to_path_buf)),
        SourceKind::Tree(tree) => writes.extend(databases_in_use(&tree.path)),
        SourceKind::Json { .. } | SourceKind::Command { .. } => {}
    }
    writes
}

/// Returns the directories below `root` with a database that is in use now: it has a write-ahead
/// log. Returns `root` itself if there are too many entries to look at.
fn databases_in_use(root: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![root.to_path_buf()];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MOST_ENTRIES {
                return vec![root.to_path_buf()];
            }
            // Does not follow a symbolic link.
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir {
                dirs.push(entry.path());
            } else if entry.file_name().as_encoded_bytes().ends_with(b"-wal") {
                found.insert(dir.clone());
            }
        }
    }
    found.into_iter().collect()
}

/// Returns those of `paths` that are below no other one.
fn outermost(paths: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let is_inner = |path: &PathBuf| {
        let mut above = path.ancestors().skip(1);
        above.any(|above| paths.contains(above))
    };
    paths
        .iter()
        .filter(|path| !is_inner(path))
        .cloned()
        .collect()
}

/// Returns the paths that are read.
fn reads(config: &Config, program: &Path) -> Vec<PathBuf> {
    let mut reads = vec![
        program.to_path_buf(),
        config.file.clone(),
        config.signer.clone(),
    ];
    reads.extend(config.next_signer.clone());
    reads.extend(config.recipients.iter().filter_map(|one| match one {
        Recipient::File(path) => Some(path.clone()),
        Recipient::Text(_) => None,
    }));
    for source in &config.sources {
        reads.extend(source.path().map(Path::to_path_buf));
        reads.extend(source.lock.clone());
    }
    if let Some(atocore) = &config.atocore {
        reads.extend(atocore.token_file.clone());
        reads.extend(atocore.allow_root.clone());
        reads.extend(atocore.root_map.iter().map(|(_, here)| here.clone()));
    }
    reads
}

/// Returns what the targets need in home directories.
fn homes_of_targets(config: &Config) -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for target in &config.targets {
        if storage::is_over_ssh(&target.url) && needs_home(target) {
            reasons.insert(format!("the files of ssh for the target {}", target.name));
        }
        if target.url.starts_with("s3:") && Path::new("/root/.aws").exists() {
            reasons.insert("/root/.aws".to_owned());
        }
    }
    reasons
}

/// Returns the files that the unit reads to answer over HTTP and to send messages.
fn files_of_agent(name: UnitName, config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if name == UnitName::Agent {
        files.extend(config.serve.token_file.clone());
        files.extend(config.serve.read_token_file.clone());
    }
    // Without an agent a backup sends messages itself.
    for channel in &config.channels {
        let secrets = channel.kind.secrets().into_iter();
        files.extend(secrets.filter_map(|secret| match secret {
            SecretText::File(path) => Some(path.clone()),
            SecretText::Inline(_) | SecretText::Environment(_) => None,
        }));
    }
    files
}

/// Returns the commands that a drill runs, each with its place in the configuration.
fn commands_of_drill(config: &DrillConfig) -> Vec<(String, &CommandLine)> {
    let own = [("start", &config.start), ("stop", &config.stop)];
    let own = own.into_iter().filter_map(|(key, line)| {
        let line = line.as_ref()?;
        Some((format!("`{key}` of [drill]"), line))
    });
    let checks = config.checks.iter().filter_map(|check| match &check.kind {
        PostCheckKind::Command(line) => Some((format!("the check {}", check.name), line)),
        _ => None,
    });
    own.chain(checks).collect()
}

/// Whether ssh takes its key or its known hosts from the home directory.
fn needs_home(target: &TargetConfig) -> bool {
    let ssh = target.ssh.as_deref().unwrap_or_default();
    let has_key = ssh.split_whitespace().any(|word| word.starts_with("-i"));
    !(has_key && ssh.contains("UserKnownHostsFile"))
}

/// Returns the trees that no command needs to write: those of sources without commands, if
/// `[hooks]` has none.
fn only_read(config: &Config, commands: &[(String, &CommandLine)]) -> BTreeSet<PathBuf> {
    let hooks = &config.hooks;
    let has_hooks = [&hooks.before, &hooks.after, &hooks.failed];
    if commands.is_empty() || has_hooks.iter().any(|hook| hook.is_some()) {
        return BTreeSet::new();
    }
    let trees = config
        .sources
        .iter()
        .filter_map(|source| match &source.kind {
            // A path that is named in a sandbox is always a mount point.
            SourceKind::Tree(tree) if !tree.mountpoint && !has_commands(source) => Some(tree),
            _ => None,
        });
    trees.map(|tree| tree.path.clone()).collect()
}

fn has_commands(source: &Source) -> bool {
    source.before.is_some() || source.after.is_some()
}
