//! `list` and `ls`: which snapshots there are, and what is in one.

mod listing;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::backup::local_snapshot;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, printable, size};
use super::target_args::{self, RemoteArgs};
use super::{Context, status};
use crate::base::openat::{Dir, Kind, Meta};
use crate::base::walk::{Filter, Walked, walk};
use crate::format::index::{EntryRef, EntryType};
use crate::producer;
use crate::restore::{self, open::Identities};

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
    pub(super) identity: Vec<PathBuf>,
}

pub fn list(context: &Context, args: &ListArgs) -> Result<Outcome, Failure> {
    match args.remote.from.is_some() || args.remote.target.is_some() {
        true => list_remote(context, &args.remote),
        false => listing::list(context, &context.load_config()?),
    }
}

/// Findings that are shown one by one; there may be thousands that were planted.
const MOST_FINDINGS: usize = 20;

fn list_remote(context: &Context, args: &RemoteArgs) -> Result<Outcome, Failure> {
    let remote = target_args::runtime()?.block_on(args.open(context))?;
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
    let (header, entries) = target_args::runtime()?.block_on(async {
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
    let skipped = header.skipped.iter();
    let lacked: Vec<_> = skipped.filter(|one| concerns(&one.path, &wanted)).collect();
    for one in lacked.iter().take(MOST_FINDINGS) {
        output::tell(format_args!(
            "warning: the snapshot lacks {}: {}",
            printable(one.path.as_bytes()),
            one.reason
        ));
    }
    if let more @ 1.. = lacked.len().saturating_sub(MOST_FINDINGS) {
        output::tell(format_args!("warning: and {more} more"));
    }
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

/// Whether what is missing at `path` is missing from what was asked for.
fn concerns(path: &str, wanted: &[u8]) -> bool {
    is_below(path.as_bytes(), wanted) || is_below(wanted, path.as_bytes())
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
    for one in producer::left_out_of(&dir) {
        if concerns(&one.to, &wanted) {
            output::tell(format_args!(
                "warning: the snapshot lacks {}: {}",
                printable(one.to.as_bytes()),
                one.reason()
            ));
        }
    }
    let mut rows = Vec::new();
    for walked in walk(&Dir::open(&dir)?, &Filter::everything())? {
        match walked {
            Walked::Found(found) if is_below(&found.rel, &wanted) => rows.push(found),
            Walked::Found(_) | Walked::Note(_) => {}
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
                    "mode": found.meta.permissions(), "mtime": nanoseconds(&found.meta),
                })
            })
            .collect();
        output::print_json(&rows)?;
        return Ok(Outcome::Complete);
    }
    for found in rows {
        let letter = match found.meta.kind() {
            Kind::Dir => 'd',
            Kind::Symlink => 'l',
            _ => '-',
        };
        output::print_line(format_args!(
            "{letter}{} {:>12} {}",
            permissions(found.meta.mode()),
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

/// The time as a number of JSON; beyond 64 bits the nearest that is a double.
fn nanoseconds(meta: &Meta) -> serde_json::Value {
    let exact = meta
        .mtime()
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(meta.mtime_nsec()));
    exact.map_or_else(|| json!(meta.mtime() as f64 * 1e9), |exact| json!(exact))
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
    let seconds = i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or_default();
    let time = chrono::DateTime::from_timestamp(seconds, 0).map_or_else(
        || format!("@{seconds}"),
        |time| time.format("%Y-%m-%d %H:%M:%S").to_string(),
    );
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
