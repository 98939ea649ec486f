//! From sealed archives on a target to a verified tree on disk: plan, fetch, open, extract.
//!
//! [`plan`] reads and verifies manifest, table and index and writes nothing; [`execute`] does what the
//! plan says. Every byte is proven on the way: the manifest by its signature, the table by hash, each
//! archive by BLAKE3 and SHA-256, its tar stream and each file by BLAKE3, each database by its own
//! integrity check. The destination changes in one step, after all of that, or not at all.

mod cold_storage;
mod concat_tars;
mod error;
mod extract;
mod fetch;
mod index_buffer;
pub mod open;
mod plan;
mod read_index;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::Stamp;
use crate::base::openat::Dir;
use crate::base::progress::{Progress, ProgressEvent, Silent, Stage};
use crate::format::chain::Chain;
use crate::format::index::{ArchiveStream, EntryList, IndexHeader};
use crate::format::manifest::ArchiveRow;
use crate::format::signature::Trust;
use crate::repository::HostFolder;
use cold_storage::NeededArchives;
use extract::{Destination, Extracted, Extraction};
use open::Identities;
use plan::{ArchiveJob, Contents};
use read_index::fetch_index;

pub use cold_storage::{Frozen, Thawing, thaw};
pub use concat_tars::{ConcatError, concat_tars};
pub use error::RestoreError;
pub use extract::{Aspect, DestinationError, ExtractError, NotKept, Resumed, StagingError, resume};
pub use fetch::{ArchiveError, Damaged};
pub use plan::{PlanError, RestoreRequest};
pub use read_index::read_index;
pub use report::RestoreReport;

/// Everything decided, nothing done.
pub struct RestorePlan {
    pub snapshot: String,
    pub stamp: Stamp,
    pub sequence: u64,
    /// `SHA256:…`
    pub signer: String,
    pub to: PathBuf,
    /// What is at the destination will be moved aside.
    pub replaces: bool,
    pub entries: u64,
    pub files: u64,
    /// Of all files, as they will be on disk.
    pub bytes: u64,
    pub archives: u64,
    /// Ciphertext still to fetch.
    pub fetch_bytes: u64,
    /// What is odd about the folder without forbidding this restore.
    pub findings: Vec<String>,
    index_bytes: u64,
    devices: bool,
    contents: Contents,
    destination: Destination,
    folder: HostFolder,
    identities: Arc<Identities>,
}

impl std::fmt::Debug for RestorePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (snapshot, to) = (&self.snapshot, self.to.display());
        write!(f, "RestorePlan({snapshot} to {to}, {} files)", self.files)
    }
}

impl RestorePlan {
    /// What will be restored, by path.
    pub fn contents(&self) -> &EntryList {
        &self.contents.entries
    }

    pub fn header(&self) -> &IndexHeader {
        &self.contents.header
    }

    /// The data archives that it reads, and what the tar stream of each is.
    pub fn streams(&self) -> impl Iterator<Item = (&ArchiveRow, &ArchiveStream)> {
        let jobs = self.contents.jobs.iter();
        jobs.filter_map(|job| Some((&job.row, job.stream.as_ref()?)))
    }

    /// What of it must be thawed first, if anything.
    pub async fn frozen(&self) -> Option<Frozen> {
        let needed = NeededArchives::by(&self.contents.jobs);
        needed.frozen_by_the_ends(&self.folder).await
    }
}

/// Verifies the chain, reads the index and decides everything; leaves nothing written.
pub async fn plan(
    folder: &HostFolder,
    request: &RestoreRequest,
    identities: Arc<Identities>,
    trust: &Trust,
) -> Result<RestorePlan, RestoreError> {
    let chain = folder.chain(trust).await;
    let chain = chain.map_err(|source| RestoreError::Repository {
        host: folder.host.clone(),
        source,
    })?;
    plan_from(folder, chain, request, identities).await
}

/// The same with a chain that was read before.
pub async fn plan_from(
    folder: &HostFolder,
    chain: Chain,
    request: &RestoreRequest,
    identities: Arc<Identities>,
) -> Result<RestorePlan, RestoreError> {
    let destination = Destination::inspect(&request.to, request.overwrite)?;
    plan_to(destination, folder, chain, request, identities).await
}

/// [`plan_from`] of a restore into a new directory in `dir`, which is ours alone; `request.to` is its name.
pub async fn plan_within(
    dir: &Dir,
    folder: &HostFolder,
    chain: Chain,
    request: &RestoreRequest,
    identities: Arc<Identities>,
) -> Result<RestorePlan, RestoreError> {
    let destination = Destination::within(dir, request.to.as_os_str());
    plan_to(destination, folder, chain, request, identities).await
}

async fn plan_to(
    destination: Destination,
    folder: &HostFolder,
    mut chain: Chain,
    request: &RestoreRequest,
    identities: Arc<Identities>,
) -> Result<RestorePlan, RestoreError> {
    let unreadable = |source| RestoreError::Repository {
        host: folder.host.clone(),
        source,
    };
    let chosen = plan::choose(&chain, request)?.manifest.clone();
    if chosen.core.sequence < chain.latest_sequence() {
        let checked = folder.check_lineage(&mut chain, &chosen).await;
        checked.map_err(unreadable)?;
    }
    let snapshot = plan::choose(&chain, request)?;
    let table = folder.table(&snapshot.manifest).await.map_err(unreadable)?;
    // What the restore decrypts stays where it will restore to.
    let near = Some(destination.near());
    let (index, index_bytes) =
        fetch_index(folder, &snapshot.manifest, &table, &identities, near).await?;
    let contents = plan::contents(index, &table, &request.paths)?;
    Ok(RestorePlan {
        snapshot: snapshot.manifest.name().to_string(),
        stamp: snapshot.stamp(),
        sequence: snapshot.sequence(),
        signer: snapshot.signer.clone(),
        to: destination.path.clone(),
        replaces: destination.full,
        entries: contents.entries.len() as u64,
        files: contents.files,
        bytes: contents.bytes,
        archives: contents.jobs.len() as u64,
        fetch_bytes: contents.fetch_bytes(),
        findings: chain.findings.iter().map(ToString::to_string).collect(),
        index_bytes,
        devices: request.devices,
        contents,
        destination,
        folder: folder.clone(),
        identities,
    })
}

/// Does what the plan says. After an error the destination is as it was.
pub async fn execute(
    plan: RestorePlan,
    progress: Arc<dyn Progress>,
) -> Result<RestoreReport, RestoreError> {
    if let Some(frozen) = plan.frozen().await {
        return Err(RestoreError::Frozen(frozen));
    }
    plan.destination.require_room(plan.contents.stored_bytes)?;
    progress.report(&ProgressEvent::BytesExpected {
        bytes: plan.fetch_bytes,
    });
    let Contents {
        header,
        entries,
        jobs,
        ..
    } = plan.contents;
    let entries = Arc::new(entries);
    let (destination, shared) = (plan.destination, Arc::clone(&entries));
    let (extraction, header) = blocking(move || {
        let begun = Extraction::begin(destination, shared, &header);
        begun.map(|extraction| (extraction, header))
    })
    .await??;
    let archives = ArchiveSource {
        folder: &plan.folder,
        identities: &plan.identities,
        progress: &progress,
    };
    let (extraction, damaged) = archives.fetch_into(extraction, jobs, &plan.to).await?;
    progress.report(&ProgressEvent::StageStarted {
        stage: Stage::Finishing,
    });
    let (devices, all, to) = (plan.devices, Arc::clone(&entries), plan.to.clone());
    let extracted = blocking(move || complete(extraction, damaged, &all, devices, to)).await??;
    Ok(RestoreReport {
        snapshot: plan.snapshot,
        stamp: plan.stamp,
        sequence: plan.sequence,
        signer: plan.signer,
        to: plan.to,
        entries: plan.entries,
        files: plan.files,
        bytes: plan.bytes,
        fetched_bytes: plan.fetch_bytes.saturating_add(plan.index_bytes),
        databases: extracted.databases,
        unchecked: extracted.unchecked,
        findings: plan.findings,
        skipped_in_snapshot: header.skipped,
        torn: extract::torn(&entries),
        problems: extracted.problems,
        not_kept: extracted.not_kept,
        moved_aside: extracted.moved_aside,
    })
}

/// Where the archives of a restore come from.
struct ArchiveSource<'a> {
    folder: &'a HostFolder,
    identities: &'a Arc<Identities>,
    progress: &'a Arc<dyn Progress>,
}

impl ArchiveSource<'_> {
    /// Fetches the archives of `jobs` into `extraction`, which goes to `to`. Returns it with the
    /// archives that could not be read.
    async fn fetch_into(
        &self,
        extraction: Extraction,
        mut jobs: Vec<ArchiveJob>,
        to: &Path,
    ) -> Result<(Extraction, Vec<Damaged>), RestoreError> {
        let needed = NeededArchives::by(&jobs);
        // The sooner a database is complete, the more of its check runs beside the other archives.
        jobs.sort_by_key(|job| !extraction.has_database(job));
        let sink = || extraction.sink();
        let damaged = fetch::fetch(self.folder, jobs, self.identities, self.progress, &sink).await;
        let error = if damaged.iter().any(Damaged::is_frozen) {
            RestoreError::Frozen(needed.frozen(self.folder).await)
        } else {
            match fetch::without_local_failures(damaged) {
                Ok(damaged) => return Ok((extraction, damaged)),
                Err(source) => RestoreError::NotMade {
                    to: to.to_path_buf(),
                    source,
                },
            }
        };
        // Removing the half-filled tree is disk work.
        blocking(move || drop(extraction)).await?;
        Err(error)
    }
}

/// Proves the content of `extraction`, makes everything that is not content, and puts the tree in
/// its place.
fn complete(
    extraction: Extraction,
    damaged: Vec<Damaged>,
    entries: &EntryList,
    devices: bool,
    to: PathBuf,
) -> Result<Extracted, RestoreError> {
    if !damaged.is_empty() {
        drop(extraction);
        return Err(incomplete(entries, damaged, BTreeMap::new()));
    }
    let (proof, filled) = extraction.prove();
    if !proof.wrong.is_empty() {
        return Err(incomplete(entries, damaged, proof.wrong));
    }
    let now = Stamp::at(chrono::Utc::now()).map_err(io::Error::other);
    let now = now.map_err(|source| RestoreError::NotMade { to, source })?;
    Ok(filled.finish(proof, devices, now)?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| RestoreError::Stopped)
}

/// Returns the error that names every archive that could not be read and every file that lacks bytes
/// or has `wrong` ones.
fn incomplete(
    entries: &EntryList,
    damaged: Vec<Damaged>,
    wrong: BTreeMap<u32, String>,
) -> RestoreError {
    let path = |number: u32| entries.get(number as usize).path_lossy().into_owned();
    let wrong = wrong.into_iter();
    let mut files: BTreeMap<String, String> =
        wrong.map(|(number, what)| (path(number), what)).collect();
    for one in &damaged {
        for number in &one.entries {
            let why = || format!("it needs archive {}", one.archive);
            files.entry(path(*number)).or_insert_with(why);
        }
    }
    RestoreError::Incomplete {
        archives: damaged,
        files,
    }
}
