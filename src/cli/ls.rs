//! `ls`: the files of a snapshot.

mod line;
mod local;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args};

use super::Context;
use super::choose::{self, NarrowArgs};
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, printable};
use super::target_args::RemoteArgs;

use crate::base::path_choice::{PathChoice, near_globbed, near_names};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::index::{EntryList, IndexHeader};
use crate::jobs::context::runtime;
use crate::jobs::wrong_key;
use crate::restore::{self, PlanError, open::Identities};

pub(super) use line::{LsColumns, print_entries, second_of_ns, time_of_ns};
pub(super) use local::{is_elsewhere, no_such_local};

/// Most skipped paths of a snapshot that are shown.
const MOST_SKIPPED: usize = 20;

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct LsArgs {
    /// latest, a sequence, a stamp, a hash, or a time: 2026-11-29, "2026-11-29 18:00", yesterday,
    /// "3 days ago"
    #[arg(default_value = "latest", value_parser = SnapshotChoice::parse)]
    snapshot: SnapshotChoice,
    /// Only these paths and everything under them; a glob such as 'photos/**/*.jpg' is one
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    narrow: NarrowArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    /// An identity file, to decrypt a snapshot on a target; can be repeated. Without one the local
    /// snapshot directory is listed
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Print sizes as people read them: 1.5 MB
    #[arg(long, short = 'h')]
    human_readable: bool,
    /// Also print the first 16 digits of each file's BLAKE3, as the index has it
    #[arg(long, short)]
    long: bool,
    /// List what is below directories too, which `ls` always does
    #[arg(long, short = 'R')]
    recursive: bool,
    /// With --json: also where each file's content is stored, as the index has it
    #[arg(long)]
    extents: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

pub(super) fn run(context: &Context, args: &LsArgs) -> Result<Outcome, Failure> {
    let choice = args.narrow.narrow(&args.snapshot)?;
    if args.identity.is_empty() {
        args.remote.refuse_without_identity()?;
        return local::run(context, args, &choice);
    }
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let (header, entries) = runtime()?.block_on(async {
        let remote = args.remote.open(context).await?;
        let (folder, chain) = (&remote.folder, &remote.chain);
        let choice = choose::exactly(context, folder, chain, &choice, &identities).await?;
        let snapshot = chain.resolve(&choice)?;
        let table = folder.table(&snapshot.manifest).await?;
        let index = restore::read_index(folder, &snapshot.manifest, &table, &identities).await;
        index.map_err(|error| match wrong_key::next_step(&error) {
            Some(next) => Failure::from(error).hint(next),
            None => error.into(),
        })
    })?;
    let wanted = args.wanted(|path| entries.find(path).is_some());
    tell_about(context, &header, &wanted);
    require_found(&entries, &wanted)?;
    let columns = LsColumns {
        human_readable: args.human_readable,
        extents: args.extents,
        hashes: args.long,
    };
    let shown = || entries.iter().filter(|entry| wanted.takes(entry.path));
    print_entries(context.json, columns, shown)?;
    Ok(Outcome::Complete)
}

impl LsArgs {
    /// Returns the wanted paths; `exists` returns whether the snapshot has a path.
    fn wanted(&self, exists: impl Fn(&[u8]) -> bool) -> PathChoice {
        let paths: Vec<Vec<u8>> = self
            .paths
            .iter()
            .map(|path| choose::snapshot_path(path))
            .collect();
        PathChoice::new(paths.iter().map(Vec::as_slice), exists)
    }
}

/// Prints tags, note, and what the snapshot lacks of `wanted`.
fn tell_about(context: &Context, header: &IndexHeader, wanted: &PathChoice) {
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
    let lacked: Vec<_> = skipped
        .filter(|one| wanted.concerns(one.path.as_bytes()))
        .collect();
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

/// Fails if one of the wanted paths is not there, or a glob matches nothing.
fn require_found(entries: &EntryList, wanted: &PathChoice) -> Result<(), Failure> {
    if let Some(path) = wanted.missing() {
        return Err(no_such_path(path, &mut paths_of(entries)));
    }
    if wanted.has_globs() {
        for entry in entries.iter() {
            wanted.takes(entry.path);
        }
    }
    match wanted.unmatched() {
        Some(glob) => Err(no_match(glob, &mut paths_of(entries))),
        None => Ok(()),
    }
}

fn paths_of(entries: &EntryList) -> impl Iterator<Item = Vec<u8>> {
    entries.iter().map(|entry| entry.path.to_vec())
}

/// The error for a path that the snapshot does not have; `paths` are those that it has.
pub(super) fn no_such_path(path: &[u8], paths: &mut dyn Iterator<Item = Vec<u8>>) -> Failure {
    let near = near_names(path, paths);
    let path = String::from_utf8_lossy(path).into_owned();
    not_found(PlanError::NoSuchPath { path, near })
}

fn no_match(glob: &[u8], paths: &mut dyn Iterator<Item = Vec<u8>>) -> Failure {
    let near = near_globbed(glob, paths);
    let glob = String::from_utf8_lossy(glob).into_owned();
    not_found(PlanError::NoMatch { glob, near })
}

fn not_found(error: PlanError) -> Failure {
    Failure::from_error(error).hint("`sealift ls` without a path shows everything")
}
