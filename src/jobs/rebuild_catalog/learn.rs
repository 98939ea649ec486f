//! Learns from the newest snapshot's index where its content is stored: as far as the content is on
//! this host, and after fetching the rest from a target.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::super::choose::read_header;
use super::super::context::{FrontEnd, runtime, scratch_dir};
use super::super::error::JobError;
use super::super::push::Target;
use super::super::wrong_key;
use super::{Fetching, LearnedContent, Rebuild};
use crate::base::cleanup::CleanupGuard;
use crate::base::openat::PrivateDir;
use crate::base::scratch_dir::ScratchDir;
use crate::config::Config;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::signature::Trust;
use crate::packer::reindex::{Reindexed, Root};
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::restore::{self, DatabaseCheck, RestoreError, RestorePlan, RestoreRequest};
use crate::state::catalog::{NewArchive, SnapshotAbout};

/// The directory in the scratch directory for fetched files.
const RESTORED: &str = "restored";

/// Inputs of learning.
pub(super) struct Learning<'a> {
    pub(super) front: &'a dyn FrontEnd,
    pub(super) config: &'a Config,
    pub(super) trust: &'a Trust,
    pub(super) identities: Arc<Identities>,
    pub(super) fetching: Fetching,
    pub(super) scratch: Option<&'a Path>,
}

/// The newest snapshot, opened.
struct Newest {
    folder: HostFolder,
    chain: Chain,
    scratch: ScratchDir,
    plan: RestorePlan,
    archives: Vec<NewArchive>,
    /// Every set of recipients that archives may be sealed to.
    recipients: Vec<Vec<String>>,
}

impl Learning<'_> {
    /// Learns where the content of the newest snapshot is stored.
    pub(super) fn learn(
        &self,
        targets: &[Target],
        rebuild: &mut Rebuild,
    ) -> Result<LearnedContent, JobError> {
        let runtime = runtime()?;
        let newest = self.open_newest(targets, &runtime)?;
        let (plan, roots) = (&newest.plan, self.roots(&newest.plan));
        let (archives, recipients) = (&newest.archives, &newest.recipients);
        let here = rebuild.learn(archives, recipients, plan.contents(), &roots, None)?;
        let mut learned = LearnedContent {
            stamp: plan.stamp.to_string(),
            files: here.files,
            bytes: here.bytes,
            fetched_files: 0,
            chunks: here.chunks,
            unknown_files: here.missing.len() as u64,
        };
        if here.missing.is_empty() || self.fetching == Fetching::IndexOnly {
            return Ok(learned);
        }
        let fetched = self.learn_missing(here.missing, &newest, rebuild, &runtime)?;
        learned.files += fetched.files;
        learned.bytes += fetched.bytes;
        learned.chunks += fetched.chunks;
        learned.fetched_files = fetched.files;
        learned.unknown_files = fetched.missing.len() as u64;
        Ok(learned)
    }

    /// Learns tags and sources of the snapshots of which they are not known, from their indexes.
    pub(super) fn learn_tags(
        &self,
        targets: &[Target],
        rebuild: &mut Rebuild,
    ) -> Result<(), JobError> {
        let mut unknown = rebuild.unknown()?;
        let runtime = runtime()?;
        for target in targets.iter().filter(|target| !target.write_only) {
            if unknown.is_empty() {
                return Ok(());
            }
            let folder = HostFolder::new(target.target.clone(), self.config.host.clone());
            let chain = runtime.block_on(folder.chain(self.trust))?;
            for snapshot in &chain.snapshots {
                let core = snapshot.manifest.core_hash;
                if !unknown.contains(&core) {
                    continue;
                }
                match runtime.block_on(read_header(&folder, snapshot, &self.identities)) {
                    Ok(header) => {
                        unknown.remove(&core);
                        let about = SnapshotAbout::from(header);
                        rebuild.learn_about(HashMap::from([(core, about)]))?;
                    }
                    Err(error) => rebuild.notes.push(format!(
                        "the tags of snapshot {} cannot be read: {}",
                        snapshot.stamp(),
                        error.with_causes()
                    )),
                }
            }
        }
        Ok(())
    }

    fn open_newest(&self, targets: &[Target], runtime: &Runtime) -> Result<Newest, JobError> {
        let (folder, chain) = runtime.block_on(self.find_newest(targets))?;
        let scratch = scratch_dir("rebuild", self.scratch)?;
        let plan = self.plan(&folder, &chain, Vec::new(), &scratch);
        let plan = runtime.block_on(plan).map_err(unread)?;
        let archives = plan.streams().map(|(row, stream)| NewArchive {
            row: row.clone(),
            tar_bytes: stream.tar_bytes,
            tar_blake3: stream.tar_blake3,
        });
        let recipients = chain
            .snapshots
            .iter()
            .map(|snapshot| snapshot.manifest.core.recipients.clone());
        Ok(Newest {
            archives: archives.collect(),
            recipients: recipients.collect(),
            folder,
            chain,
            scratch,
            plan,
        })
    }

    /// Fetches the files `missing`, learns where their content is stored, and removes them.
    fn learn_missing(
        &self,
        missing: Vec<Vec<u8>>,
        newest: &Newest,
        rebuild: &mut Rebuild,
        runtime: &Runtime,
    ) -> Result<Reindexed, JobError> {
        let scratch = &newest.scratch;
        let duty = removal_duty(scratch.private());
        let fetched = runtime.block_on(async {
            let (folder, chain) = (&newest.folder, &newest.chain);
            let plan = self.plan(folder, chain, missing.clone(), scratch).await?;
            let display = self.front.show_restore();
            restore::execute(plan, Arc::clone(&display.progress)).await
        });
        let roots = [Root::new(Vec::new(), &scratch.path().join(RESTORED))];
        let missing: HashSet<Vec<u8>> = missing.into_iter().collect();
        let learned = fetched.map_err(unread).and_then(|_| {
            let (archives, recipients) = (&newest.archives, &newest.recipients);
            let (all, paths) = (newest.plan.contents(), Some(&missing));
            Ok(rebuild.learn(archives, recipients, all, &roots, paths)?)
        });
        let removed = scratch.private().dir().remove_tree(RESTORED);
        duty.take();
        let learned = learned?;
        removed?;
        Ok(learned)
    }

    /// Returns the readable target whose newest snapshot is the newest of all, and its chain.
    async fn find_newest(&self, targets: &[Target]) -> Result<(HostFolder, Chain), JobError> {
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
        best.ok_or_else(|| JobError::work("no target that can be read has a snapshot"))
    }

    async fn plan(
        &self,
        folder: &HostFolder,
        chain: &Chain,
        paths: Vec<Vec<u8>>,
        scratch: &ScratchDir,
    ) -> Result<RestorePlan, RestoreError> {
        // Any sibling of a fork will do: each describes its own content.
        let newest = match chain.snapshots.last() {
            Some(newest) => newest,
            None => chain.latest().map_err(|error| RestoreError::Repository {
                host: folder.host.clone(),
                source: error.into(),
            })?,
        };
        let request = RestoreRequest {
            snapshot: newest.choice(),
            to: PathBuf::from(RESTORED),
            paths,
            overwrite: false,
            at_least: None,
            devices: false,
            databases: DatabaseCheck::AsSealed,
        };
        let identities = Arc::clone(&self.identities);
        let scratch = scratch.private().dir();
        restore::plan_within(scratch, folder, chain.clone(), &request, identities).await
    }

    /// Returns where the snapshot's content may still be: in the local snapshot, or where it was
    /// read in place.
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

/// Registers the removal of decrypted files, in case the process is interrupted.
fn removal_duty(scratch: &Arc<PrivateDir>) -> CleanupGuard {
    let all = Arc::clone(scratch);
    CleanupGuard::register(move || match all.remove() {
        Ok(()) => "removed what was fetched for the catalog".to_owned(),
        Err(error) => {
            let all = all.dir().path().display();
            format!("{all} holds decrypted files and could not be removed ({error}): remove it")
        }
    })
}

/// Adds the next step for content that cannot be read.
fn unread(error: RestoreError) -> JobError {
    let wrong_key = wrong_key::next_step(&error);
    let next = match &error {
        _ if wrong_key.is_some() => wrong_key,
        RestoreError::Frozen(_) => {
            Some("give --at-hand: content in cold storage is stored again instead of being thawed")
        }
        RestoreError::Incomplete { .. } => Some(
            "`sealift verify --repair` repairs what another target has; or give --at-hand, and what is not here is \
             stored again",
        ),
        _ => None,
    };
    match next {
        Some(next) => JobError::from(error).with_next(next),
        None => error.into(),
    }
}
