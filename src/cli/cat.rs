//! `cat`: the content of files of a snapshot, on the standard output.

mod local;

use std::io::{self, IsTerminal as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::cache_args::CacheArgs;
use super::choose::{self, NarrowArgs};
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output::{self, printable};
use super::target_args::RemoteArgs;
use super::{Context, ls};
use crate::base::progress::Stage;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::browse::{CopyContentError, SnapshotContent, copy_content, is_binary};
use crate::config::parse_size;
use crate::format::index::{EntryList, EntryType};
use crate::jobs::context::{FrontEnd as _, runtime};
use crate::jobs::wrong_key;
use crate::restore::{self, RangeReader, WantedPaths, open::Identities};

#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// latest, a sequence, a stamp, a hash, or a time: 2026-11-29, "2026-11-29 18:00", yesterday,
    /// "3 days ago"
    #[arg(value_parser = SnapshotChoice::parse)]
    snapshot: SnapshotChoice,
    /// The files, one after another
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Leave out the first bytes of each file: 4096, 1MiB
    #[arg(long, value_name = "N", value_parser = parse_size)]
    offset: Option<u64>,
    /// Print at most this many bytes of each file. A part is not compared with the file's hash
    #[arg(long, value_name = "N", value_parser = parse_size)]
    length: Option<u64>,
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

pub(super) fn run(context: &Context, args: &CatArgs) -> Result<Outcome, Failure> {
    let choice = args.narrow.narrow(&args.snapshot)?;
    if args.identity.is_empty() {
        args.remote.refuse_without_identity()?;
        return local::run(context, args, &choice);
    }
    let identities = Arc::new(Identities::load(&args.identity, &prompt())?);
    let options = args.cache.options(context)?;
    runtime()?.block_on(async {
        let remote = args.remote.open(context).await?;
        let (folder, chain) = (&remote.folder, &remote.chain);
        let choice = choose::exactly(context, folder, chain, &choice, &identities).await?;
        let snapshot = chain.resolve(&choice)?;
        let table = folder.table(&snapshot.manifest).await?;
        let reader = RangeReader::new(folder.clone(), identities, options);
        context.stage(Stage::Reading, Some(folder.target.label()));
        let wanted = WantedPaths {
            required: args
                .paths
                .iter()
                .map(|path| choose::snapshot_path(path))
                .collect(),
            ..WantedPaths::default()
        };
        let index = restore::read_entries_by(&reader, &snapshot.manifest, &table, &wanted).await;
        let (_, entries) = index.map_err(|error| match wrong_key::next_step(&error) {
            Some(next) => Failure::from(error).hint(next),
            None => error.into(),
        })?;
        let mut sources = Vec::new();
        for path in &args.paths {
            let path = choose::snapshot_path(path);
            sources.push((source_of(&entries, &path)?, path));
        }
        drop(entries);
        let mut out = DataOutput::new();
        for (source, path) in sources {
            let mut write = |bytes: &[u8]| out.write(bytes);
            let copied = copy_content(&reader, &table, &source, args.range(), &mut write).await;
            copied.map_err(|error| not_copied(error, &path))?;
        }
        if let Some(trouble) = reader.cache_trouble() {
            context.warn(&format!(
                "not everything could be kept in the cache: {trouble}"
            ));
        }
        Ok(Outcome::Complete)
    })
}

impl CatArgs {
    /// Returns the bytes of each file that are asked for.
    fn range(&self) -> Range<u64> {
        let start = self.offset.unwrap_or(0);
        let end = self
            .length
            .map_or(u64::MAX, |length| start.saturating_add(length));
        start..end
    }
}

/// Returns where the content of the file at `path` is.
pub(super) fn source_of(entries: &EntryList, path: &[u8]) -> Result<SnapshotContent, Failure> {
    let Some(entry) = entries.find(path) else {
        let mut paths = entries.iter().map(|entry| entry.path.to_vec());
        return Err(ls::no_such_path(path, &mut paths));
    };
    let not_a_file = |what: &str, hint: String| {
        let text = format!("{} is {what}", printable(path));
        Err(Failure::from_error(text).hint(hint))
    };
    match entry.kind {
        EntryType::File => Ok(SnapshotContent::of(&entry)),
        EntryType::Hardlink => {
            let first = entry.target.and_then(|target| entries.find(target));
            let first = first.filter(|first| first.kind == EntryType::File);
            first
                .map(|first| SnapshotContent::of(&first))
                .ok_or_else(|| {
                    Failure::from_error(format!("{} is a hard link to nothing", printable(path)))
                        .hint("the index of this snapshot is wrong: try an older snapshot")
                })
        }
        EntryType::Symlink => {
            let target = printable(entry.target.unwrap_or_default());
            not_a_file(
                &format!("a symbolic link to {target}"),
                "give the path of that file in the snapshot".to_owned(),
            )
        }
        EntryType::Dir => not_a_file(
            "a directory",
            "`sealift ls` shows what is in it; `sealift restore` restores it".to_owned(),
        ),
        EntryType::Fifo | EntryType::Chardev | EntryType::Blockdev => not_a_file(
            "no regular file",
            "only files have content in a snapshot".to_owned(),
        ),
    }
}

fn not_copied(error: CopyContentError, path: &[u8]) -> Failure {
    let path = printable(path);
    match error {
        CopyContentError::Write(error) => error.into(),
        CopyContentError::Read(error) => {
            let hint = error.is_damage().then_some(
                "try another target, or an older snapshot; `sealift verify --data` finds all damage",
            );
            let failure = Failure::from(CatError {
                path,
                source: error.into(),
            });
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        wrong => Failure::from(CatError {
            path,
            source: wrong,
        })
        .hint("what was printed is not the file: try another target, or an older snapshot"),
    }
}

/// A file whose content could not be printed, or is wrong.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} from the snapshot")]
struct CatError {
    path: String,
    #[source]
    source: CopyContentError,
}

/// The standard output. A terminal gets only text.
struct DataOutput {
    is_terminal: bool,
}

impl DataOutput {
    fn new() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Writes a part of a file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_terminal && is_binary(bytes) {
            let what = "refusing to write binary content to the terminal: pipe it, or write it to a file with >";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        output::write_stdout(bytes)
    }
}
