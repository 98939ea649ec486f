//! Writes the configuration that `init` makes: short, commented, and read back by
//! [`super::Config::parse`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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
    /// Name and URL of each target.
    pub targets: Vec<(String, String)>,
    /// The endpoint of the S3 targets; `None`: Amazon's.
    pub endpoint: Option<String>,
    /// The region of the S3 targets; `None`: the environment's.
    pub region: Option<String>,
    /// The ssh command of the targets [`Self::over_ssh`]; `None`: plain `ssh`.
    pub ssh: Option<String>,
    /// The names of the targets that are reached over ssh.
    pub over_ssh: Vec<String>,
    /// Directory trees that are read in place.
    pub trees: Vec<PathBuf>,
    /// Exclude patterns of each tree.
    pub excludes: Vec<String>,
    /// The preset and its root; `None`: no preset.
    pub preset: Option<(String, PathBuf)>,
    /// A cron line in UTC; `None`: no schedule.
    pub schedule: Option<String>,
}

/// Returns the text of a new `sealift.toml`.
pub fn render_new(new: &NewConfig) -> String {
    let mut text =
        String::from("# Sealift's configuration; docs/configuration.md explains every key.\n");
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
    write_sources(&mut text, new);
    write_targets(&mut text, new);
    text.push_str(
        "\n# What stays on targets: with `prune = true` after every backup, on the others with `sealift prune`.\n[retention]\n\
         daily = 7\nweekly = 4\nmonthly = 6\n",
    );
    if let Some(line) = &new.schedule {
        let line = quoted(line);
        let _ = writeln!(text, "\n[schedule]\nbackup = {line}     # cron, UTC");
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

/// Writes one `[[source]]` for each tree.
fn write_sources(text: &mut String, new: &NewConfig) {
    if !new.trees.is_empty() || new.preset.is_some() {
        text.push_str(
            "\n# A source that fails is left out, and the backup exits 3. One with `required = true`, as the preset's database,\n\
             # fails the whole snapshot.\n",
        );
    }
    let mut taken = BTreeSet::new();
    for (index, tree) in new.trees.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.push_str("[[source]]\nkind = \"tree\"\n");
        let _ = writeln!(text, "path = {}", path(tree));
        text.push_str("stage = false               # read in place, not copied first\n");
        let place = free_place(tree, &mut taken);
        let _ = writeln!(text, "to = {}", quoted(&place));
        if !new.excludes.is_empty() {
            let lines: Vec<String> = new.excludes.iter().map(|line| quoted(line)).collect();
            let _ = writeln!(text, "exclude = [{}]", lines.join(", "));
        }
    }
}

/// Returns the tree's last name, with a number if another tree has it already.
fn free_place(tree: &Path, taken: &mut BTreeSet<String>) -> String {
    let name = tree.file_name().unwrap_or_default().to_string_lossy();
    let name = if name.is_empty() { "root".into() } else { name };
    let mut place = name.to_string();
    let mut number = 1;
    while !taken.insert(place.clone()) {
        number += 1;
        place = format!("{name}-{number}");
    }
    place
}

/// Writes one `[[target]]` for each target.
fn write_targets(text: &mut String, new: &NewConfig) {
    for (name, url) in &new.targets {
        let is_s3 = url.starts_with("s3://");
        let is_over_ssh = new.over_ssh.contains(name);
        let (name, url) = (quoted(name), quoted(url));
        let _ = writeln!(text, "\n[[target]]\nname = {name}\nurl = {url}");
        for (key, value) in [("endpoint", &new.endpoint), ("region", &new.region)] {
            if let (true, Some(value)) = (is_s3, value) {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
        if let (true, Some(ssh)) = (is_over_ssh, &new.ssh) {
            let _ = writeln!(text, "ssh = {}", quoted(ssh));
        }
    }
}

/// Returns a path as a TOML string; lossy if it is not UTF-8.
fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Returns `text` as a basic TOML string.
fn quoted(text: &str) -> String {
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
