//! `sql`: queries a database in a snapshot.

mod print;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::cache_args::CacheArgs;
use super::choose::{self, NarrowArgs};
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{printable, shell_word};
use super::target_args::RemoteArgs;
use super::{Context, cat, ls};
use crate::base::openat::Dir;
use crate::base::progress::Stage;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::base::sqlite::{PagedQueryError, Place};
use crate::browse::sql::{
    self, ContentReadError, LocalDatabase, SealedDatabase, SnapshotDatabase, SqlError,
};
use crate::config::{parse_duration, parse_size};
use crate::jobs::context::{FrontEnd as _, runtime};
use crate::jobs::{local_snapshots, wrong_key};
use crate::producer;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::{self, RangeReader, WantedPaths};
use crate::storage::Allowance;
use print::Format;

/// The most that a query fetches, unless the operator says otherwise.
const MOST_FETCHED: &str = "500MB";
/// The most time that a query takes, unless the operator says otherwise.
const MOST_TIME: &str = "5m";

#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// latest, a sequence, a stamp, a hash, or a time: 2026-11-29, "2026-11-29 18:00", yesterday,
    /// "3 days ago"
    #[arg(value_parser = SnapshotChoice::parse)]
    snapshot: SnapshotChoice,
    /// The database in the snapshot, such as db/app.db
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// One statement that only reads, such as 'SELECT count(*) FROM documents'
    #[arg(value_name = "QUERY")]
    query: String,
    /// Print the rows as CSV: a line of names, then a line for each row
    #[arg(long)]
    csv: bool,
    /// Stop before more than this is fetched from the target for the query
    #[arg(long, value_name = "SIZE", default_value = MOST_FETCHED, value_parser = parse_size)]
    max_fetch: u64,
    /// Stop after this time
    #[arg(long, value_name = "TIME", default_value = MOST_TIME, value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    narrow: NarrowArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// An identity file, to decrypt a snapshot on a target; can be repeated. Without one the local
    /// snapshot directory is read
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
}

pub(super) fn run(context: &Context, args: &SqlArgs) -> Result<Outcome, Failure> {
    let format = match (context.json, args.csv) {
        (true, true) => return Err(Failure::usage("--json and --csv exclude each other")),
        (true, false) => Format::Json,
        (false, true) => Format::Csv,
        (false, false) => Format::Table,
    };
    let choice = args.narrow.narrow(&args.snapshot)?;
    let database = match args.identity.is_empty() {
        true => {
            args.remote.refuse_without_identity()?;
            SnapshotDatabase::Local(local(context, args, &choice)?)
        }
        false => SnapshotDatabase::Sealed(Box::new(sealed(context, args, &choice)?)),
    };
    let failed = |error| failure(args, error);
    let rows = sql::query(database, &args.query, args.timeout).map_err(failed)?;
    let columns = rows.columns().to_vec();
    print::print(format, &columns, &mut rows.map(|row| row.map_err(failed)))?;
    Ok(Outcome::Complete)
}

/// Opens the database of a snapshot on a target.
fn sealed(
    context: &Context,
    args: &SqlArgs,
    choice: &SnapshotChoice,
) -> Result<SealedDatabase, Failure> {
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let options = args.cache.options(context)?;
    let allowance = Allowance::unlimited();
    let wanted = choose::snapshot_path(&args.path);
    let sidecars = [&b"-wal"[..], b"-journal"].map(|suffix| [&wanted[..], suffix].concat());
    let runtime = runtime()?;
    let (reader, table, entries) = runtime.block_on(async {
        let remote = args.remote.open(context).await?;
        let (folder, chain) = (&remote.folder, &remote.chain);
        let choice = choose::exactly(context, folder, chain, choice, &identities).await?;
        let snapshot = chain.resolve(&choice)?;
        let table = folder.table(&snapshot.manifest).await?;
        let limited = HostFolder {
            target: allowance.over(Arc::clone(&folder.target)),
            host: folder.host.clone(),
        };
        let reader = RangeReader::new(limited, Arc::clone(&identities), options);
        context.stage(Stage::Reading, Some(folder.target.label()));
        let paths = WantedPaths {
            required: vec![wanted.clone()],
            optional: sidecars.to_vec(),
            with_trees: false,
        };
        let index = restore::read_entries_by(&reader, &snapshot.manifest, &table, &paths).await;
        let (_, entries) = index.map_err(|error| match wrong_key::next_step(&error) {
            Some(next) => Failure::from(error).hint(next),
            None => error.into(),
        })?;
        Ok::<_, Failure>((reader, table, entries))
    })?;
    let source = cat::source_of(&entries, &wanted)?;
    if entries.find(&wanted).is_some_and(|entry| entry.torn) {
        context.warn(&format!(
            "{} changed while it was read: its content may be of several moments",
            printable(&wanted)
        ));
    }
    for path in &sidecars {
        if entries.find(path).is_some_and(|beside| beside.size > 0) {
            return Err(has_sidecar(args, path));
        }
    }
    allowance.limit_from_now(args.max_fetch);
    Ok(SealedDatabase::new(
        reader, table, source, allowance, runtime,
    ))
}

fn not_a_file(args: &SqlArgs) -> Failure {
    Failure::from_error(format!("{} is not a file", shell_word(&args.path)))
}

/// Returns the error for a database whose file alone is not all of it.
fn has_sidecar(args: &SqlArgs, sidecar: &[u8]) -> Failure {
    let text = format!(
        "{} cannot be queried alone: {} in the snapshot belongs to its content",
        shell_word(&args.path),
        printable(sidecar)
    );
    Failure::from_error(text).hint("restore both into one directory, and query the database there")
}

/// Opens the database of a snapshot directory of this host.
fn local(
    context: &Context,
    args: &SqlArgs,
    choice: &SnapshotChoice,
) -> Result<LocalDatabase, Failure> {
    let config = context.load_config()?;
    let snapshot = local_snapshots::find(&config, choice, context)?;
    let wanted = choose::snapshot_path(&args.path);
    let dir = Dir::open(&snapshot)?;
    let path = OsStr::from_bytes(&wanted);
    if !dir.try_meta(path).is_ok_and(|meta| meta.is_some()) {
        let in_place = producer::in_place_of(&snapshot);
        let elsewhere = ls::is_elsewhere("sql", args.snapshot.text(), &wanted, &in_place);
        return Err(elsewhere.unwrap_or_else(|| ls::no_such_local(&dir, &wanted)));
    }
    let place = Place::below(&dir, path)?;
    if place.has_live_journal() {
        return Err(has_sidecar(
            args,
            &[&wanted[..], b"-wal or -journal"].concat(),
        ));
    }
    let file = place.open().map_err(|_| not_a_file(args))?;
    Ok(LocalDatabase::new(file).map_err(SqlError::from)?)
}

/// Names the database in an error, and the next step.
fn failure(args: &SqlArgs, error: SqlError) -> Failure {
    let hint = match &error {
        SqlError::Content(ContentReadError::TooMuch { .. }) => Some(
            "let it fetch more with --max-fetch, or restore the database and query it there; an index that fits the query reads less",
        ),
        SqlError::Content(ContentReadError::Range(_)) => {
            Some("another target may have it whole: `sealift verify` shows what is damaged")
        }
        SqlError::NotADatabase => Some("`sealift restore` or `sealift ls` shows what it is"),
        SqlError::Query(PagedQueryError::TimeUp(_)) => {
            Some("give it more time with --timeout, or restore the database and query it there")
        }
        SqlError::Query(PagedQueryError::Memory) => {
            Some("restore the database and query it there; or sort and group less")
        }
        SqlError::Query(PagedQueryError::Writes | PagedQueryError::NotOneStatement) => {
            Some("give one SELECT, or a PRAGMA that reads")
        }
        SqlError::Content(_) | SqlError::Query(_) => None,
    };
    let failure = Failure::from_error(NamedDatabase {
        path: shell_word(&args.path),
        source: error,
    });
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// An error about a database, with the database's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot query {path}")]
struct NamedDatabase {
    path: String,
    source: SqlError,
}
