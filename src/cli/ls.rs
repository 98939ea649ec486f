//! `ls`: the files of a snapshot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, printable};
use super::target_args::RemoteArgs;
use crate::base::openat::{Dir, Kind, Meta};
use crate::base::walk::{self, Filter, Found, Walked};
use crate::format::index::{EntryList, EntryRef, EntryType, IndexHeader};
use crate::jobs::context::runtime;
use crate::jobs::local_snapshots;
use crate::producer;
use crate::restore::{self, open::Identities};

/// Most skipped paths of a snapshot that are shown.
const MOST_SKIPPED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// latest, a stamp, a sequence number, or the last 16 digits of a manifest's name
    #[arg(default_value = "latest")]
    snapshot: String,
    /// Only this path and everything under it
    #[arg(value_name = "PATH")]
    path: Option<String>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file, to decrypt a snapshot on a target; can be repeated. Without one the local
    /// snapshot directory is listed
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
}

pub(super) fn run(context: &Context, args: &LsArgs) -> Result<Outcome, Failure> {
    if args.identity.is_empty() {
        if args.remote.from.is_some() || args.remote.target.is_some() {
            return Err(
                Failure::usage("the content of a snapshot on a target is encrypted")
                    .hint("give the key holder's identity with --identity FILE"),
            );
        }
        return ls_local(context, args);
    }
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let (header, entries) = runtime()?.block_on(async {
        let remote = args.remote.open(context).await?;
        let snapshot = remote.chain.resolve(&args.snapshot)?;
        let table = remote.folder.table(&snapshot.manifest).await?;
        let index =
            restore::read_index(&remote.folder, &snapshot.manifest, &table, &identities).await?;
        Ok::<_, Failure>(index)
    })?;
    let wanted = wanted(args);
    tell_about(context, &header, &wanted);
    print_entries(context, &entries, &wanted)?;
    Ok(Outcome::Complete)
}

/// Prints tags, note, and what the snapshot lacks of `wanted`.
fn tell_about(context: &Context, header: &IndexHeader, wanted: &[u8]) {
    if !header.tags.is_empty() {
        context.note(format_args!(
            "tags: {}",
            printable(header.tags.join(" ").as_bytes())
        ));
    }
    if let Some(note) = &header.note {
        context.note(format_args!("note: {}", printable(note.as_bytes())));
    }
    let skipped = header.skipped.iter();
    let lacked: Vec<_> = skipped.filter(|one| concerns(&one.path, wanted)).collect();
    for one in lacked.iter().take(MOST_SKIPPED) {
        output::tell(format_args!(
            "warning: the snapshot lacks {}: {}",
            printable(one.path.as_bytes()),
            one.reason
        ));
    }
    if let more @ 1.. = lacked.len().saturating_sub(MOST_SKIPPED) {
        output::tell(format_args!("warning: and {more} more"));
    }
}

fn print_entries(context: &Context, entries: &EntryList, wanted: &[u8]) -> Result<(), Failure> {
    let shown = entries.iter().filter(|entry| is_below(entry.path, wanted));
    let mut shown = shown.peekable();
    if shown.peek().is_none() && !wanted.is_empty() {
        return Err(nothing_at(wanted));
    }
    if context.json {
        return output::print_json_list(shown.map(|entry| {
            let line = entry.to_entry().to_line();
            Ok::<serde_json::Value, Failure>(serde_json::from_slice(&line)?)
        }));
    }
    for entry in shown {
        output::print_line(entry_line(&entry))?;
    }
    Ok(())
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

/// Whether a path that the snapshot lacks is at, below or above `wanted`.
fn concerns(path: &str, wanted: &[u8]) -> bool {
    is_below(path.as_bytes(), wanted) || is_below(wanted, path.as_bytes())
}

fn nothing_at(wanted: &[u8]) -> Failure {
    Failure::from_error(format!("no {} in this snapshot", printable(wanted)))
        .hint("`sealift ls` without a path shows everything")
}

/// Lists a snapshot directory of this host, which does not hold the trees that are read in place.
fn ls_local(context: &Context, args: &LsArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let dir = local_snapshots::find(&config, &args.snapshot, context)?;
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
    let found = walk_below(&dir, &wanted)?;
    if context.json {
        let rows: Vec<_> = found.iter().map(found_json).collect();
        output::print_json(&rows)?;
        return Ok(Outcome::Complete);
    }
    for one in found {
        output::print_line(found_line(&one))?;
    }
    let sources = config.sources.iter();
    for source in sources.filter(|source| local_snapshots::is_in_place(source)) {
        context.note(format_args!(
            "{} is read in place and not copied here: list it on a target, with --identity",
            source.to
        ));
    }
    Ok(Outcome::Complete)
}

/// Returns the entries of `dir` at or below `wanted`.
fn walk_below(dir: &Path, wanted: &[u8]) -> Result<Vec<Found>, Failure> {
    let mut all = Vec::new();
    for walked in walk::walk(&Dir::open(dir)?, &Filter::everything())? {
        match walked {
            Walked::Found(found) if is_below(&found.rel, wanted) => all.push(found),
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
    match all.is_empty() && !wanted.is_empty() {
        true => Err(nothing_at(wanted)),
        false => Ok(all),
    }
}

fn found_json(found: &Found) -> serde_json::Value {
    json!({
        "path": String::from_utf8_lossy(&found.rel), "size": found.meta.len(),
        "mode": found.meta.permissions(), "mtime": nanoseconds(&found.meta),
    })
}

fn found_line(found: &Found) -> String {
    let letter = match found.meta.kind() {
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        _ => '-',
    };
    format!(
        "{letter}{} {:>12} {}",
        permissions(found.meta.mode()),
        found.meta.len(),
        printable(&found.rel),
    )
}

/// Returns the time as a JSON number; beyond 64 bits the nearest double.
fn nanoseconds(meta: &Meta) -> serde_json::Value {
    let exact = meta
        .mtime()
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(meta.mtime_nsec()));
    exact.map_or_else(|| json!(meta.mtime() as f64 * 1e9), |exact| json!(exact))
}

/// Returns `-rw-r--r-- root:root        4096 2026-04-07 06:00:00 PATH -> TARGET`
pub(super) fn entry_line(entry: &EntryRef<'_>) -> String {
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
