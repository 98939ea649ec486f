//! What a configuration needs of the sandbox of a unit.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::UnitName;
use crate::config::{CommandLine, Config, Recipient, Source, SourceKind, TargetConfig};
use crate::storage;

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
        let using = |programs: &[&str]| {
            let uses = |(_, line): &&(String, &CommandLine)| names_one(line, programs);
            let found = commands.iter().find(uses);
            found.map(|(place, _)| place.clone())
        };
        let writes = outermost(writes(name, config));
        let reads = reads(config, program);
        let all = || writes.iter().chain(&reads);
        let in_tmp = |path: &&PathBuf| path.starts_with("/tmp") || path.starts_with("/var/tmp");
        Self {
            user: owner(config),
            home: home(config, all()),
            uses_tmp: all().any(|path| in_tmp(&path)),
            only_read: only_read(config, &commands),
            containers: using(CONTAINERS),
            other_users: using(OTHER_USERS),
            mounts: using(MOUNTS),
            commands: commands.into_iter().map(|(place, _)| place).collect(),
            writes,
        }
    }
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
    of_tables.chain(of_sources).collect()
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
    writes
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

fn home<'a>(config: &Config, paths: impl Iterator<Item = &'a PathBuf>) -> HomeAccess {
    let is_there = |path: &&PathBuf| {
        let homes = ["/home", "/root", "/run/user"];
        homes.iter().any(|home| path.starts_with(home))
    };
    let mut reasons: BTreeSet<String> = paths
        .filter(is_there)
        .map(|path| path.display().to_string())
        .collect();
    for target in &config.targets {
        if storage::is_over_ssh(&target.url) && needs_home(target) {
            reasons.insert(format!("the files of ssh for the target {}", target.name));
        }
        if target.url.starts_with("s3:") && Path::new("/root/.aws").exists() {
            reasons.insert("/root/.aws".to_owned());
        }
    }
    match reasons.is_empty() {
        true => HomeAccess::None,
        false => {
            let reasons: Vec<String> = reasons.into_iter().collect();
            HomeAccess::Read(reasons.join(", "))
        }
    }
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
