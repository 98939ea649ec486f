//! `diff`: what changed from one snapshot to another, or to a directory.

mod local;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::Context;
use super::cache_args::CacheArgs;
use super::choose::snapshot_path;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output;
use super::target_args::RemoteArgs;
use crate::base::openat::Dir;
use crate::base::path_choice::is_at_or_below;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::browse::difference::{ComparedSide, Differences, compare, entries_of};
use crate::browse::live_tree::LiveTree;
use crate::browse::row_counts::{RowChange, row_changes};
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::index::{EntryList, IndexHeader};
use crate::jobs::context::runtime;
use crate::jobs::wrong_key;
use crate::repository::{ArchiveTable, HostFolder};
use crate::restore::{self, open::Identities};
use report::{DiffReport, DiffSide};

/// The file that describes a snapshot, and so differs from snapshot to snapshot.
const METADATA: &[u8] = b"backup-metadata.json";
/// The second side of a comparison with a directory.
const NOW: &str = "now";

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The first snapshot: latest, a sequence, a stamp, a hash, or a time; or both as A..B
    #[arg(value_name = "A")]
    before: String,
    /// The second one; `now` means the directory of --live
    #[arg(value_name = "B")]
    after: Option<String>,
    /// Only this path and everything under it
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Compare with this directory, which stands for PATH (without PATH: for the whole snapshot)
    #[arg(long, value_name = "DIR")]
    live: Option<PathBuf>,
    /// Print only how much differs
    #[arg(long)]
    stat: bool,
    /// Print only paths
    #[arg(long, conflicts_with = "stat")]
    names: bool,
    /// Also show how the numbers of rows in databases differ
    #[arg(long, conflicts_with = "live")]
    rows: bool,
    /// Exit with 3 if anything differs
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file, to decrypt snapshots on a target; can be repeated. Without one the
    /// snapshots on this host are compared
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// The two sides, as the operator named them.
struct Sides {
    from: SnapshotChoice,
    /// `None`: the directory of `--live`.
    to: Option<SnapshotChoice>,
    path: Vec<u8>,
}

impl DiffArgs {
    fn sides(&self) -> Result<Sides, Failure> {
        let parse = |text: &str| SnapshotChoice::parse(text).map_err(Failure::usage);
        let (from, to, path) = match (self.before.split_once(".."), &self.after, &self.path) {
            (Some((from, to)), path, None) => (from, Some(to), path.as_deref().map(Path::new)),
            (Some(_), _, Some(_)) => {
                return Err(
                    Failure::usage("A..B names both snapshots, and one more is named")
                        .hint("write `sealift diff A B PATH` or `sealift diff A..B PATH`"),
                );
            }
            (None, to, path) => (&*self.before, to.as_deref(), path.as_deref()),
        };
        let to = match (to, &self.live) {
            (Some(NOW) | None, Some(_)) => None,
            (Some(NOW), None) => {
                return Err(
                    Failure::usage("`now` is the directory of --live, which is missing")
                        .hint("add --live DIR, or name a snapshot"),
                );
            }
            (Some(_), Some(_)) => {
                return Err(
                    Failure::usage("--live takes the place of the second snapshot")
                        .hint("write `now` for it, or omit --live"),
                );
            }
            (None, None) => {
                return Err(Failure::usage("the second snapshot is missing")
                    .hint("write `sealift diff A B`, or compare with a directory by --live DIR"));
            }
            (Some(to), None) => Some(parse(to)?),
        };
        Ok(Sides {
            from: parse(from)?,
            to,
            path: path.map(snapshot_path).unwrap_or_default(),
        })
    }
}

pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<Outcome, Failure> {
    let sides = args.sides()?;
    let report = match args.identity.is_empty() {
        true if args.remote.from.is_some() || args.remote.target.is_some() => {
            return Err(
                Failure::usage("the content of snapshots on a target is encrypted")
                    .hint("give the key holder's identity with --identity FILE"),
            );
        }
        true => local::diff(context, args, &sides)?,
        false => sealed(context, args, &sides)?,
    };
    match (context.json, args.stat, args.names) {
        (true, ..) => output::print_json(&report.json())?,
        (_, true, _) => report.print_stat()?,
        (_, _, true) => report.print_names()?,
        _ => report.print()?,
    }
    for one in &report.skipped {
        output::tell(format_args!(
            "warning: not compared: {}: {}",
            output::printable(one.path.as_bytes()),
            one.reason
        ));
    }
    let differs = report.differs() && args.exit_code;
    Ok(match differs || !report.skipped.is_empty() {
        true => Outcome::Partial,
        false => Outcome::Complete,
    })
}

/// A snapshot that was read from a target.
struct SealedSide {
    header: IndexHeader,
    entries: EntryList,
    table: ArchiveTable,
    side: DiffSide,
}

/// Compares snapshots on a target.
fn sealed(context: &Context, args: &DiffArgs, sides: &Sides) -> Result<DiffReport, Failure> {
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let options = args.cache.options(context)?;
    let (before, after) = runtime()?.block_on(async {
        let remote = args.remote.open_kept(context, &options, false).await?;
        let folder = &remote.folder;
        let before = read(context, folder, &remote.chain, &sides.from, &identities).await?;
        let after = match &sides.to {
            Some(to) => Some(read(context, folder, &remote.chain, to, &identities).await?),
            None => None,
        };
        Ok::<_, Failure>((before, after))
    })?;
    let is_meant = |path: &[u8]| is_meant(path, &sides.path);
    let of_before = entries_of(&before.entries).filter(|one| is_meant(&one.path));
    let Some(after) = after else {
        let live = args.live.as_deref().unwrap_or(Path::new("."));
        let mut tree = LiveTree::read(Dir::open(live)?, &sides.path)?;
        let entries = std::mem::take(&mut tree.entries);
        // The directory stands for the path, which is no entry below itself.
        let of_before = of_before.filter(|one| one.path != sides.path);
        let entries = entries.into_iter().filter(|one| is_meant(&one.path));
        let found = compare(of_before, entries, |_, entry| tree.hash(&entry.path));
        let after = DiffSide::Live(live.to_owned());
        return Ok(DiffReport {
            skipped: tree.skipped,
            ..DiffReport::new(before.side, after, found)
        });
    };
    require_path(sides, &before.entries, &after.entries)?;
    let of_after = entries_of(&after.entries).filter(|one| is_meant(&one.path));
    let found: Differences = compare(of_before, of_after, |_: ComparedSide, _| None);
    let rows: Option<Vec<RowChange>> = args
        .rows
        .then(|| row_changes(&before.header, &after.header, is_meant));
    let old = before.table.rows.values().map(|row| row.blake3);
    let old: std::collections::HashSet<_> = old.collect();
    let new = after
        .table
        .rows
        .values()
        .filter(|row| !old.contains(&row.blake3));
    Ok(DiffReport {
        rows,
        new_stored_bytes: Some(new.map(|row| row.bytes).sum()),
        ..DiffReport::new(before.side, after.side, found)
    })
}

/// Whether `path` is compared. The description of the snapshot itself is only if it is named.
fn is_meant(path: &[u8], wanted: &[u8]) -> bool {
    is_at_or_below(path, wanted) && (path != METADATA || wanted == METADATA)
}

/// Fails if neither side has the path that the operator named.
fn require_path(sides: &Sides, before: &EntryList, after: &EntryList) -> Result<(), Failure> {
    let path = &sides.path;
    if path.is_empty() || before.find(path).is_some() || after.find(path).is_some() {
        return Ok(());
    }
    Err(no_such_path(path))
}

fn no_such_path(path: &[u8]) -> Failure {
    let text = format!("neither snapshot has {}", output::printable(path));
    Failure::from_error(text).hint("`sealift ls` without a path shows everything")
}

async fn read(
    context: &Context,
    folder: &HostFolder,
    chain: &Chain,
    choice: &SnapshotChoice,
    identities: &Arc<Identities>,
) -> Result<SealedSide, Failure> {
    let choice = super::choose::exactly(context, folder, chain, choice, identities).await?;
    let snapshot: &VerifiedSnapshot = chain.resolve(&choice)?;
    let table = folder.table(&snapshot.manifest).await?;
    let index = restore::read_index(folder, &snapshot.manifest, &table, identities).await;
    let (header, entries) = index.map_err(|error| match wrong_key::next_step(&error) {
        Some(next) => Failure::from(error).hint(next),
        None => error.into(),
    })?;
    Ok(SealedSide {
        header,
        entries,
        table,
        side: DiffSide::Snapshot(snapshot.stamp(), Some(snapshot.sequence())),
    })
}
