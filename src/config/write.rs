//! Writes the configuration that `init` makes, and the tables that are added to one later: short,
//! commented, and read back by [`super::Config::parse`].

mod restore;

use std::fmt::Write as _;
use std::path::PathBuf;

use super::source::{METADATA, default_name, overlaps};

pub use restore::ServiceControl;

/// The settings of a new configuration.
#[derive(Debug, Clone, Default)]
pub struct NewConfig {
    /// The host's name.
    pub host: String,
    /// Recipients or paths of recipient files.
    pub recipients: Vec<String>,
    /// Path of the signing key.
    pub signer: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// The directory of local snapshots; `None`: the default below the state directory.
    pub snapshots_dir: Option<PathBuf>,
    /// The preset and its root; `None`: no preset.
    pub preset: Option<(String, PathBuf)>,
    /// What starts and stops the preset's application; `None`: the configuration has an example.
    pub service: Option<ServiceControl>,
    /// In the order of the file.
    pub sources: Vec<NewSource>,
    /// In the order of the file.
    pub targets: Vec<NewTarget>,
    /// A cron line in UTC; `None`: no schedule.
    pub schedule: Option<String>,
}

/// A `[[source]]` to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSource {
    /// What is read.
    pub kind: NewSourceKind,
    /// Its path in the snapshot.
    pub to: String,
    /// Its name; `None`: made of `to`.
    pub name: Option<String>,
}

/// What a new source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewSourceKind {
    /// A SQLite database.
    Sqlite(PathBuf),
    /// A JSON file.
    Json(PathBuf),
    /// A directory, read in place, without what these patterns match.
    Tree(PathBuf, Vec<String>),
    /// The output of a line for the shell.
    Command(String),
}

/// A `[[target]]` to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTarget {
    /// The target's name.
    pub name: String,
    /// The target's URL.
    pub url: String,
    /// The S3 endpoint; `None`: Amazon's.
    pub endpoint: Option<String>,
    /// The S3 region; `None`: the environment's.
    pub region: Option<String>,
    /// The ssh command; `None`: plain `ssh`.
    pub ssh: Option<String>,
}

/// The name and the path in the snapshot that a source has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenPlace {
    /// The source's name.
    pub name: String,
    /// Its path in the snapshot.
    pub to: String,
}

impl TakenPlace {
    /// Returns the place of a source that is named after its path in the snapshot.
    pub fn of(to: &str) -> Self {
        Self {
            name: default_name(to),
            to: to.to_owned(),
        }
    }
}

/// Returns a path in the snapshot for a source whose path ends with `base`: `base` itself, or with
/// a number before its ending, as `app-2.db`, if another source has that path or that name.
pub fn free_place(base: &str, taken: &[TakenPlace]) -> String {
    let base = match base {
        "" | "." | ".." | "/" => "root",
        other => other,
    };
    let (stem, ending) = match base.rfind('.') {
        Some(at) if at > 0 => base.split_at(at),
        _ => (base, ""),
    };
    let numbered = (2_u32..).map(|number| format!("{stem}-{number}{ending}"));
    let mut places = std::iter::once(base.to_owned()).chain(numbered);
    let is_free = |place: &String| {
        let name = default_name(place);
        let is_taken = |other: &TakenPlace| other.name == name || overlaps(&other.to, place);
        !overlaps(place, METADATA) && !taken.iter().any(is_taken)
    };
    places.find(is_free).unwrap_or_default()
}

/// Returns the text of a new `sealift.toml`.
pub fn render_new(new: &NewConfig) -> String {
    let mut text = String::from(
        "# Sealift's configuration; docs/configuration.md explains every key. `sealift config check` reads it,\n\
         # `sealift source add` and `sealift target add` extend it.\n",
    );
    let recipients: Vec<String> = new.recipients.iter().map(|r| quoted(r)).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "host = {}", quoted(&new.host));
    text.push_str(
        "# Public keys, or files of them. Identities never belong on this machine. The backup after one is added encrypts and\n\
         # sends everything again; the backup after one is removed does not.\n",
    );
    let _ = writeln!(text, "recipients = [{}]", recipients.join(", "));
    text.push_str("# Signs the manifests; readers pin its public half.\n");
    let _ = writeln!(text, "signer = {}", path(&new.signer));
    text.push_str(
        "# Also keeps plain copies (not encrypted) of the 2 newest snapshots; `keep` in [snapshots] says how many.\n",
    );
    let _ = writeln!(text, "state = {}", path(&new.state));
    write_snapshots(&mut text, new);
    if !new.sources.is_empty() || new.preset.is_some() {
        text.push_str(
            "\n# A source that fails is left out, and the backup exits 3. One with `required = true`, as the preset's database,\n\
             # fails the whole snapshot.\n",
        );
    }
    for source in &new.sources {
        let _ = write!(text, "\n{}", render_source(source));
    }
    for target in &new.targets {
        let _ = write!(text, "\n{}", render_target(target));
    }
    if let Some((_, root)) = &new.preset {
        restore::write_restore(&mut text, root, new.service.as_ref());
    }
    text.push_str(
        "\n# What stays on targets: with `prune = true` after every backup, on the others with `sealift prune`.\n[retention]\n\
         daily = 7\nweekly = 4\nmonthly = 6\n# within = \"2d\"             # everything of the last two days, too\n",
    );
    match &new.schedule {
        Some(line) => {
            let line = quoted(line);
            let _ = writeln!(text, "\n[schedule]\nbackup = {line}     # cron, UTC");
        }
        None => text.push_str(
            "\n# When backups are due (cron, UTC), so that `status` reports a late one. A timer or cron runs them.\n\
             # [schedule]\n# backup = \"0 6 * * *\"\n",
        ),
    }
    text
}

/// Writes `[snapshots]` if the directory or a preset is set.
fn write_snapshots(text: &mut String, new: &NewConfig) {
    if new.snapshots_dir.is_none() && new.preset.is_none() {
        return;
    }
    text.push_str("\n[snapshots]\n");
    if let Some(dir) = &new.snapshots_dir {
        let _ = writeln!(text, "dir = {}", path(dir));
    }
    if let Some((preset, root)) = &new.preset {
        let _ = writeln!(text, "preset = {}", quoted(preset));
        let _ = writeln!(text, "root = {}", path(root));
        text.push_str(
            "# include_chroma = true     # with every snapshot, not only on --include chroma\n\
             # Chroma's files fit each other only while nothing writes. To hold AtoCore still for the copy, say\n\
             # the source in full, with `lock`, or `before` and `after`: docs/operations.md, \"With the vector store\".\n",
        );
    }
}

/// Returns the lines of a `[[source]]`, each with its line end.
pub fn render_source(source: &NewSource) -> String {
    let (kind, what) = match &source.kind {
        NewSourceKind::Sqlite(file) => ("sqlite", format!("path = {}", path(file))),
        NewSourceKind::Json(file) => ("json", format!("path = {}", path(file))),
        NewSourceKind::Tree(dir, _) => ("tree", format!("path = {}", path(dir))),
        NewSourceKind::Command(line) => ("command", format!("command = {}", quoted(line))),
    };
    let mut text = format!("[[source]]\nkind = \"{kind}\"\n{what}\n");
    if let Some(name) = &source.name {
        let _ = writeln!(text, "name = {}", quoted(name));
    }
    if let NewSourceKind::Tree(..) = &source.kind {
        text.push_str("stage = false               # read in place, not copied first\n");
    }
    let _ = writeln!(text, "to = {}", quoted(&source.to));
    match &source.kind {
        NewSourceKind::Tree(_, excludes) if excludes.is_empty() => {
            text.push_str("# exclude = [\"*.tmp\", \"cache/\"]     # gitignore patterns\n");
        }
        NewSourceKind::Tree(_, excludes) => {
            let lines: Vec<String> = excludes.iter().map(|line| quoted(line)).collect();
            let _ = writeln!(text, "exclude = [{}]", lines.join(", "));
        }
        NewSourceKind::Sqlite(_) => {
            text.push_str("# required = true           # no snapshot without it\n");
        }
        NewSourceKind::Json(_) | NewSourceKind::Command(_) => {}
    }
    text
}

/// Returns the lines of a `[[target]]`, each with its line end.
pub fn render_target(target: &NewTarget) -> String {
    let (name, url) = (quoted(&target.name), quoted(&target.url));
    let mut text = format!("[[target]]\nname = {name}\nurl = {url}\n");
    let settings = [
        ("endpoint", &target.endpoint),
        ("region", &target.region),
        ("ssh", &target.ssh),
    ];
    for (key, value) in settings {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {}", quoted(value));
        }
    }
    text.push_str("# prune = true              # each backup applies the retention here, too\n");
    if !target.url.starts_with("file://") {
        text.push_str("# upload = \"2MB\"            # bytes per second\n");
    }
    text
}

/// Returns a path as a TOML string; lossy if it is not UTF-8.
fn path(path: &std::path::Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Returns `text` as a basic TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
