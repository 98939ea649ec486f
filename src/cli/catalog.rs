//! `catalog rebuild`: the host's memory made anew from what the targets show.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::failure::{Failure, Outcome};
use super::key::prompt;
use super::output;
use super::restore::wrong_key_hint;
use super::scratch::Scratch;
use super::target_args;
use super::terminal::RestoreDisplay;
use crate::base::cleanup::CleanupGuard;
use crate::config::Config;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::signature::Trust;
use crate::jobs::push::Target;
use crate::jobs::rebuild_catalog::Rebuild;
use crate::packer::reindex::Root;
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::{self, RestoreError, RestorePlan, RestoreRequest};
use crate::state::catalog::NewArchive;

#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Make the catalog anew from what the targets show; the old one is kept beside it
    Rebuild(RebuildArgs),
}

#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Also learn where content lies, or the next push stores everything once more; an identity file, may be given
    /// again. On a host that others may own an identity is lost: then better push everything
    #[arg(long, short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Fetch nothing but the index: content that is not here any more is stored once more
    #[arg(long, requires = "identity")]
    at_hand: bool,
    /// Where content lies meanwhile that must be fetched [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR", requires = "identity")]
    scratch: Option<PathBuf>,
}

pub fn run(context: &Context, command: &CatalogCommand) -> Result<Outcome, Failure> {
    match command {
        CatalogCommand::Rebuild(args) => rebuild(context, args),
    }
}

/// What was learned of the newest snapshot's content.
struct Learned {
    stamp: String,
    files: u64,
    bytes: u64,
    fetched_files: u64,
    chunks: u64,
    unknown_files: u64,
}

fn rebuild(context: &Context, args: &RebuildArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let identities = match args.identity.as_slice() {
        [] => None,
        files => Some(Arc::new(Identities::load(files, &prompt())?)),
    };
    let trust = target_args::own_trust(&config)?;
    let targets = config
        .targets
        .iter()
        .map(target_args::open_target)
        .collect::<Result<Vec<_>, _>>()?;
    let state = context.open_state(&config)?;
    let begun = Rebuild::begin(state, &config.host, &targets, &trust);
    let mut rebuild = begun.map_err(|error| unchanged(error.into()))?;
    let learned = match identities {
        Some(identities) if rebuild.snapshots > 0 => {
            let learning = Learning {
                context,
                args,
                config: &config,
                trust: &trust,
                identities,
            };
            let learned = learning.learn(&targets, &mut rebuild);
            Some(learned.map_err(unchanged)?)
        }
        _ => None,
    };
    let (snapshots, notes) = (rebuild.snapshots, std::mem::take(&mut rebuild.notes));
    let kept = rebuild.finish()?;
    if context.json {
        output::print_json(&json!({
            "snapshots": snapshots,
            "content": learned.as_ref().map(to_json),
            "kept": kept,
            "warnings": notes,
        }))?;
    } else {
        print(&config, snapshots, learned.as_ref(), kept.as_deref())?;
    }
    for note in &notes {
        output::tell(format_args!("warning: {note}"));
    }
    Ok(match notes.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Partial,
    })
}

/// The error keeps its own next step.
fn unchanged(failure: Failure) -> Failure {
    output::tell("nothing was rebuilt: the catalog is as it was");
    failure
}

/// What can be done where the content cannot be read.
fn unread(error: RestoreError) -> Failure {
    let wrong_key = wrong_key_hint(&error);
    let hint = match &error {
        _ if wrong_key.is_some() => wrong_key,
        RestoreError::Frozen(_) => {
            Some("give --at-hand: what would have to be thawed is stored once more instead")
        }
        RestoreError::Incomplete { .. } => Some(
            "`sealift verify --repair` mends what another target has; or give --at-hand, and what is not here is stored \
             once more",
        ),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn to_json(learned: &Learned) -> serde_json::Value {
    json!({
        "stamp": learned.stamp, "files": learned.files, "bytes": learned.bytes, "chunks": learned.chunks,
        "fetched_files": learned.fetched_files, "unknown_files": learned.unknown_files,
    })
}

fn print(
    config: &Config,
    snapshots: usize,
    learned: Option<&Learned>,
    kept: Option<&Path>,
) -> io::Result<()> {
    let count = |number: u64, what| output::count(number, what);
    output::print_line(format_args!(
        "known again: {} of {}",
        count(snapshots as u64, "snapshot"),
        config.host
    ))?;
    match learned {
        Some(learned) => {
            output::print_line(format_args!(
                "of {}: {} ({}) in {}; {} had to be fetched",
                learned.stamp,
                count(learned.files, "file"),
                output::size(learned.bytes),
                count(learned.chunks, "chunk"),
                count(learned.fetched_files, "file")
            ))?;
            if learned.unknown_files > 0 {
                output::print_line(format_args!(
                    "{} that were not at hand are stored once more by the next push",
                    count(learned.unknown_files, "file")
                ))?;
            }
        }
        None if snapshots > 0 => output::print_line(
            "what lies in their archives only an identity can tell: without --identity the next push stores \
             everything once more",
        )?,
        None => {}
    }
    match kept {
        Some(path) => output::print_line(format_args!("the old one is {}", path.display())),
        None => Ok(()),
    }
}

struct Learning<'a> {
    context: &'a Context,
    args: &'a RebuildArgs,
    config: &'a Config,
    trust: &'a Trust,
    identities: Arc<Identities>,
}

impl Learning<'_> {
    fn learn(&self, targets: &[Target], rebuild: &mut Rebuild) -> Result<Learned, Failure> {
        let runtime = target_args::runtime()?;
        let (folder, chain) = runtime.block_on(self.newest(targets))?;
        let scratch = Scratch::make("rebuild", self.args.scratch.as_deref())?;
        let plan = self.plan(&folder, &chain, Vec::new(), &scratch);
        let plan = runtime.block_on(plan).map_err(unread)?;
        let archives: Vec<NewArchive> = plan
            .streams()
            .map(|(row, stream)| NewArchive {
                row: row.clone(),
                tar_bytes: stream.tar_bytes,
                tar_blake3: stream.tar_blake3,
            })
            .collect();
        let recipients: Vec<Vec<String>> = chain
            .snapshots
            .iter()
            .map(|snapshot| snapshot.manifest.core.recipients.clone())
            .collect();
        let roots = self.roots(&plan);
        let here = rebuild.learn(&archives, &recipients, plan.contents(), &roots, None)?;
        let mut learned = Learned {
            stamp: plan.stamp.to_string(),
            files: here.files,
            bytes: here.bytes,
            fetched_files: 0,
            chunks: here.chunks,
            unknown_files: here.missing.len() as u64,
        };
        if here.missing.is_empty() || self.args.at_hand {
            return Ok(learned);
        }
        let owed = {
            // What is decrypted does not outlive an interrupt.
            let all = Arc::clone(scratch.private());
            CleanupGuard::register(move || match all.remove() {
                Ok(()) => "removed what was fetched for the catalog".to_owned(),
                Err(error) => {
                    let all = all.dir().path().display();
                    format!(
                        "{all} holds decrypted files and could not be removed ({error}): remove it"
                    )
                }
            })
        };
        let fetched = runtime.block_on(async {
            let missing = here.missing.clone();
            let plan = self.plan(&folder, &chain, missing, &scratch).await?;
            let display = RestoreDisplay::start(self.context.quiet || self.context.json);
            let done = restore::execute(plan, display.clone()).await;
            display.finish();
            done
        });
        let roots = [Root::new(Vec::new(), &scratch.path().join(RESTORED))];
        let missing: HashSet<Vec<u8>> = here.missing.into_iter().collect();
        let there = fetched.map_err(unread).and_then(|_| {
            let (all, paths) = (plan.contents(), Some(&missing));
            Ok(rebuild.learn(&archives, &recipients, all, &roots, paths)?)
        });
        let removed = scratch.private().dir().remove_tree(RESTORED);
        owed.take();
        let there = there?;
        removed?;
        learned.files += there.files;
        learned.bytes += there.bytes;
        learned.chunks += there.chunks;
        learned.fetched_files = there.files;
        learned.unknown_files = there.missing.len() as u64;
        Ok(learned)
    }

    /// The readable target whose newest snapshot is the newest of all.
    async fn newest(&self, targets: &[Target]) -> Result<(HostFolder, Chain), Failure> {
        let mut best: Option<(HostFolder, Chain)> = None;
        for target in targets.iter().filter(|target| !target.write_only) {
            let folder = HostFolder::new(target.target.clone(), self.config.host.clone());
            if folder.manifest_names().await?.is_empty() {
                continue;
            }
            let chain = folder.chain(self.trust).await?;
            let head = |chain: &Chain| chain.snapshots.last().map(VerifiedSnapshot::sequence);
            let is_newer = match &best {
                Some((_, best)) => head(best) < head(&chain),
                None => true,
            };
            if is_newer {
                best = Some((folder, chain));
            }
        }
        best.ok_or_else(|| Failure::from_error("no target that can be read has a snapshot"))
    }

    async fn plan(
        &self,
        folder: &HostFolder,
        chain: &Chain,
        paths: Vec<Vec<u8>>,
        scratch: &Scratch,
    ) -> Result<RestorePlan, RestoreError> {
        // Of the siblings of a fork any serves: each says where its own content is.
        let newest = match chain.snapshots.last() {
            Some(newest) => newest,
            None => chain.latest().map_err(|error| RestoreError::Repository {
                host: folder.host.clone(),
                source: error.into(),
            })?,
        };
        let request = RestoreRequest {
            snapshot: newest.manifest.name().hash16,
            to: PathBuf::from(RESTORED),
            paths,
            overwrite: false,
            at_least: None,
            devices: false,
        };
        let identities = Arc::clone(&self.identities);
        let scratch = scratch.private().dir();
        restore::plan_within(scratch, folder, chain.clone(), &request, identities).await
    }

    /// Where its content may still be: in the local snapshot, or where it was read in place.
    fn roots(&self, plan: &RestorePlan) -> Vec<Root> {
        let snapshot = self.config.snapshots_dir.join(plan.stamp.to_string());
        let mut roots = vec![Root::new(Vec::new(), &snapshot)];
        let in_place = plan.header().sources.iter().filter(|source| !source.stage);
        roots.extend(in_place.map(|source| {
            let prefix = source.to.trim_matches('/').as_bytes().to_vec();
            Root::new(prefix, source.path.as_ref())
        }));
        roots
    }
}

const RESTORED: &str = "restored";
