//! `list` and `ls`: which snapshots there are, and what is in one.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::backup::local_snapshot;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, printable, size};
use super::remote::{self, RemoteArgs};
use super::{Context, status};
use crate::config::Config;
use crate::ids::Stamp;
use crate::index::{EntryRef, EntryType};
use crate::producer;
use crate::restore::{self, open::Identities};
use crate::walk::{Filter, Walked, walk};

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// latest, a stamp, a sequence number, or the last 16 digits of a manifest's name
    #[arg(default_value = "latest")]
    snapshot: String,
    /// Only what lies at or below this path
    #[arg(value_name = "PATH")]
    path: Option<String>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file: what is in a snapshot on a target is sealed. Without one the local
    /// snapshot directory is listed
    #[arg(long, short, value_name = "FILE")]
    identity: Vec<PathBuf>,
}

pub fn list(context: &Context, args: &ListArgs) -> Result<Outcome, Failure> {
    match args.remote.from.is_some() || args.remote.target.is_some() {
        true => list_remote(context, &args.remote),
        false => list_local(context, &context.load_config()?),
    }
}

/// Findings that are shown one by one; there may be thousands that were planted.
const MOST_FINDINGS: usize = 20;

fn list_remote(context: &Context, args: &RemoteArgs) -> Result<Outcome, Failure> {
    let remote = remote::runtime()?.block_on(args.open(context))?;
    let snapshots = &remote.chain.snapshots;
    let findings = &remote.chain.findings;
    for finding in findings.iter().take(MOST_FINDINGS) {
        output::tell(format_args!("warning: {finding}"));
    }
    if let more @ 1.. = findings.len().saturating_sub(MOST_FINDINGS) {
        output::tell(format_args!("warning: and {more} more; --json has all"));
    }
    if context.json {
        let rows: Vec<_> = snapshots
            .iter()
            .map(|snapshot| {
                let core = &snapshot.manifest.core;
                json!({
                    "stamp": core.stamp, "sequence": core.sequence, "host": core.host,
                    "manifest": snapshot.manifest.name().to_string(), "signer": snapshot.signer,
                    "totals": core.totals, "recipients": core.recipients, "next_by": core.next_by,
                })
            })
            .collect();
        let findings: Vec<String> = remote
            .chain
            .findings
            .iter()
            .map(ToString::to_string)
            .collect();
        output::print_json(&json!({ "snapshots": rows, "findings": findings }))?;
    } else {
        let rows: Vec<Vec<String>> = snapshots
            .iter()
            .map(|snapshot| {
                let core = &snapshot.manifest.core;
                vec![
                    core.stamp.to_string(),
                    core.sequence.to_string(),
                    core.totals.files.to_string(),
                    size(core.totals.bytes),
                    size(core.totals.new_bytes),
                    snapshot.manifest.name().hash16,
                ]
            })
            .collect();
        let header = ["STAMP", "SEQUENCE", "FILES", "SIZE", "NEW", "MANIFEST"];
        output::write_stdout(output::table(&header, &rows).as_bytes())?;
    }
    Ok(match remote.chain.findings.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// One snapshot as this host knows it.
#[derive(Default)]
struct Row {
    sequence: Option<u64>,
    bytes: Option<u64>,
    new_bytes: Option<u64>,
    /// `None`: no directory of that stamp is here.
    path: Option<PathBuf>,
    valid: Option<bool>,
    /// What `backup-metadata.json` says.
    metadata: Option<serde_json::Value>,
    /// Per configured target.
    published: Vec<Option<String>>,
}

impl Row {
    fn tags(&self) -> Vec<&str> {
        let tags = self
            .metadata
            .as_ref()
            .map(|metadata| &metadata["sealift"]["tags"]);
        let tags = tags
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten();
        tags.filter_map(serde_json::Value::as_str).collect()
    }
}

fn list_local(context: &Context, config: &Config) -> Result<Outcome, Failure> {
    let mut rows: BTreeMap<Stamp, Row> = BTreeMap::new();
    for local in producer::list(&config.snapshots_dir)? {
        let row = rows.entry(local.stamp).or_default();
        row.path = Some(local.path);
        row.valid = local.valid;
        row.metadata = local.metadata;
    }
    if let Some(catalog) = status::open_catalog(config)? {
        for snapshot in catalog.snapshots()? {
            let row = rows.entry(snapshot.known.stamp).or_default();
            row.sequence = Some(snapshot.known.sequence);
            row.bytes = Some(snapshot.bytes);
            row.new_bytes = Some(snapshot.new_bytes);
            for target in &config.targets {
                let state = catalog.publication(&target.name, &snapshot.known.core)?;
                row.published.push(state);
            }
        }
    }
    if context.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(stamp, row)| row_json(config, *stamp, row))
            .collect();
        output::print_json(&json!({
            "backup_dir": config.snapshots_dir.display().to_string(), "backups": rows,
        }))?;
        return Ok(Outcome::Complete);
    }
    if rows.is_empty() {
        context.note("no snapshot yet; `sealift backup` makes the first");
    }
    let mut header = vec!["STAMP", "SEQUENCE", "SIZE", "NEW", "HERE"];
    header.extend(config.targets.iter().map(|target| target.name.as_str()));
    header.push("TAGS");
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(stamp, row)| row_cells(config, *stamp, row))
        .collect();
    output::write_stdout(output::table(&header, &cells).as_bytes())?;
    Ok(Outcome::Complete)
}

fn row_cells(config: &Config, stamp: Stamp, row: &Row) -> Vec<String> {
    let dash = || "-".to_owned();
    let here = match (&row.path, row.valid) {
        (None, _) => dash(),
        (Some(_), Some(true)) => "valid".to_owned(),
        (Some(_), Some(false)) => "NOT VALID".to_owned(),
        (Some(_), None) => "not validated".to_owned(),
    };
    let mut cells = vec![
        stamp.to_string(),
        row.sequence.map_or_else(dash, |n| n.to_string()),
        row.bytes.map_or_else(dash, size),
        row.new_bytes.map_or_else(dash, size),
        here,
    ];
    for at in 0..config.targets.len() {
        let state = row.published.get(at).cloned().flatten();
        cells.push(match row.sequence {
            Some(_) => state.unwrap_or_else(|| "behind".to_owned()),
            None => dash(),
        });
    }
    cells.push(printable(row.tags().join(" ").as_bytes()));
    cells
}

fn row_json(config: &Config, stamp: Stamp, row: &Row) -> serde_json::Value {
    let targets: BTreeMap<&str, Option<&String>> = config
        .targets
        .iter()
        .enumerate()
        .map(|(at, target)| {
            let state = row.published.get(at).and_then(Option::as_ref);
            (target.name.as_str(), state)
        })
        .collect();
    json!({
        "stamp": stamp, "sequence": row.sequence, "bytes": row.bytes, "new_bytes": row.new_bytes,
        "path": row.path.as_ref().map(|path| path.display().to_string()), "valid": row.valid,
        "targets": targets, "metadata": row.metadata,
    })
}

pub fn ls(context: &Context, args: &LsArgs) -> Result<Outcome, Failure> {
    if args.identity.is_empty() {
        if args.remote.from.is_some() || args.remote.target.is_some() {
            return Err(
                Failure::usage("what is in a snapshot on a target is sealed")
                    .hint("give the key holder's identity with --identity FILE"),
            );
        }
        return ls_local(context, args);
    }
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let (header, entries) = remote::runtime()?.block_on(async {
        let remote = args.remote.open(context).await?;
        let snapshot = remote.chain.resolve(&args.snapshot)?;
        let table = remote.folder.table(&snapshot.manifest).await?;
        let (header, entries) =
            restore::read_index(&remote.folder, &snapshot.manifest, &table, &identities).await?;
        Ok::<_, Failure>((header, entries))
    })?;
    if !header.tags.is_empty() {
        context.note(format_args!(
            "tags: {}",
            printable(header.tags.join(" ").as_bytes())
        ));
    }
    if let Some(note) = &header.note {
        context.note(format_args!("note: {}", printable(note.as_bytes())));
    }
    let wanted = wanted(args);
    let mut shown = entries
        .iter()
        .filter(|entry| is_below(entry.path, &wanted))
        .peekable();
    if shown.peek().is_none() && !wanted.is_empty() {
        return Err(nothing_there(&wanted));
    }
    if context.json {
        output::print_json_list(shown.map(|entry| {
            let line = entry.to_entry().to_line();
            Ok::<serde_json::Value, Failure>(serde_json::from_slice(&line)?)
        }))?;
        return Ok(Outcome::Complete);
    }
    for entry in shown {
        output::print_line(entry_line(&entry))?;
    }
    Ok(Outcome::Complete)
}

fn wanted(args: &LsArgs) -> Vec<u8> {
    let path = args.path.as_deref().unwrap_or_default();
    path.trim_start_matches("./")
        .trim_matches('/')
        .as_bytes()
        .to_vec()
}

fn is_below(path: &[u8], wanted: &[u8]) -> bool {
    let rest = path.strip_prefix(wanted);
    wanted.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn nothing_there(wanted: &[u8]) -> Failure {
    Failure::from_error(format!("the snapshot holds no {}", printable(wanted)))
        .hint("`sealift ls` without a path shows everything")
}

/// A snapshot directory of this host; trees read in place are not in it.
fn ls_local(context: &Context, args: &LsArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let dir = local_snapshot(&config, &args.snapshot)?;
    let wanted = wanted(args);
    let mut rows = Vec::new();
    for walked in walk(&dir, &Filter::everything())? {
        match walked {
            Walked::Found(found) if is_below(&found.rel, &wanted) => rows.push(found),
            Walked::Found(_) => {}
            Walked::Skipped(skipped) => {
                output::tell(format_args!(
                    "skipped: {}: {}",
                    printable(skipped.path.as_bytes()),
                    skipped.reason
                ));
            }
        }
    }
    if rows.is_empty() && !wanted.is_empty() {
        return Err(nothing_there(&wanted));
    }
    if context.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|found| {
                json!({
                    "path": String::from_utf8_lossy(&found.rel), "size": found.meta.len(),
                    "mode": found.meta.permissions().mode() & 0o7777, "mtime": found.meta.mtime() * 1_000_000_000 + found.meta.mtime_nsec(),
                })
            })
            .collect();
        output::print_json(&rows)?;
        return Ok(Outcome::Complete);
    }
    for found in rows {
        let letter = match found.meta.file_type() {
            kind if kind.is_dir() => 'd',
            kind if kind.is_symlink() => 'l',
            _ => '-',
        };
        output::print_line(format_args!(
            "{letter}{} {:>12} {}",
            permissions(found.meta.permissions().mode()),
            found.meta.len(),
            printable(&found.rel),
        ))?;
    }
    for source in config
        .sources
        .iter()
        .filter(|source| status::is_in_place(source))
    {
        context.note(format_args!(
            "{} is read in place and not copied here: look on a target, with --identity",
            source.to
        ));
    }
    Ok(Outcome::Complete)
}

/// `-rw-r--r-- root:root        4096 2026-04-07 06:00:00 PATH -> TARGET`
pub fn entry_line(entry: &EntryRef<'_>) -> String {
    let letter = match entry.kind {
        EntryType::File => '-',
        EntryType::Dir => 'd',
        EntryType::Symlink => 'l',
        EntryType::Hardlink => 'h',
        EntryType::Fifo => 'p',
        EntryType::Chardev => 'c',
        EntryType::Blockdev => 'b',
    };
    let name = |name: Option<&str>, id: u32| name.map_or_else(|| id.to_string(), str::to_owned);
    let (owner, group) = (name(entry.user, entry.uid), name(entry.group, entry.gid));
    let time = chrono::DateTime::from_timestamp(entry.mtime_ns.div_euclid(1_000_000_000), 0)
        .map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default();
    let mut line = format!(
        "{letter}{} {:<15} {:>12} {time} {}",
        permissions(entry.mode),
        format!("{owner}:{group}"),
        entry.size,
        printable(entry.path),
    );
    if let Some(target) = entry.target {
        line.push_str(" -> ");
        line.push_str(&printable(target));
    }
    if entry.torn {
        line.push_str("  (changed while it was read)");
    }
    line
}

fn permissions(mode: u32) -> String {
    let mut text = String::new();
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_ls_shows_them() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o1777, "rwxrwxrwt"),
            (0o2640, "rw-r-S---"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn a_path_is_below_itself_and_its_parents_only() {
        assert!(is_below(b"a/b", b"a") && is_below(b"a", b"a") && is_below(b"a", b""));
        assert!(!is_below(b"ab", b"a"));
    }
}
