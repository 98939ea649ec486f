//! From sealed archives on a target to a verified tree on disk: plan, fetch, open, extract.
//!
//! [`plan`] reads and verifies manifest, table and index and writes nothing; [`execute`] does what the
//! plan says. Every byte is proven on the way: the manifest by its signature, the table by hash, each
//! archive by BLAKE3 and SHA-256, its tar stream and each file by BLAKE3, each database by its own
//! integrity check. The destination changes in one step, after all of that, or not at all.

mod cold_storage;
mod extract;
mod fetch;
mod index_buffer;
pub mod open;
mod plan;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::ids::{HostName, Stamp};
use crate::base::openat::Dir;
use crate::base::progress::{Progress, ProgressEvent, Silent, Stage};
use crate::format::chain::Chain;
use crate::format::index::{
    ArchiveStream, EntryList, Extent, IndexError, IndexHeader, IndexReader, MAX_TAR_BYTES, Skipped,
};
use crate::format::manifest::{ArchiveRow, Manifest, WIDE_TIMES};
use crate::format::signature::Trust;
use crate::repository::{ArchiveTable, HostFolder, RepositoryError};
use cold_storage::Needed;
pub use cold_storage::{Frozen, Thawing, thaw};
pub use extract::{Aspect, DestinationError, ExtractError, NotKept, Resumed, StagingError, resume};
use extract::{Destination, Extraction};
use fetch::{ArchiveError, Damaged};
use index_buffer::RawIndex;
use open::{Identities, OpenError};
use plan::{Contents, Index};
pub use plan::{PlanError, RestoreRequest};

/// An index beyond this is refused.
const MAX_INDEX_BYTES: u64 = 8 << 30;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("cannot read the backup of {host}")]
    Repository {
        host: HostName,
        #[source]
        source: RepositoryError,
    },
    #[error("cannot plan the restore")]
    Plan(#[from] PlanError),
    #[error("cannot restore there")]
    Destination(#[from] DestinationError),
    #[error("cannot read the index of snapshot {stamp}: {what}")]
    Index { stamp: Stamp, what: String },
    #[error("cannot keep the index of snapshot {stamp} while it is read")]
    KeepIndex {
        stamp: Stamp,
        #[source]
        source: io::Error,
    },
    #[error("the index of snapshot {stamp} is not acceptable")]
    IndexContent {
        stamp: Stamp,
        #[source]
        source: IndexError,
    },
    #[error("{}", incomplete(archives, files))]
    Incomplete {
        /// `archive …: what is wrong with it`
        archives: Vec<String>,
        /// Paths that cannot be restored, by path, and why where the archive was good.
        files: BTreeMap<String, String>,
    },
    #[error("cannot make what is to stand in {}; nothing was changed", to.display())]
    NotMade {
        to: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Frozen(Frozen),
    #[error("cannot build the restored tree")]
    Extract(#[from] ExtractError),
    #[error("the restore was stopped")]
    Stopped,
}

/// Shown in a message; the error has all of them.
const MOST_SHOWN: usize = 20;

fn incomplete(archives: &[String], files: &BTreeMap<String, String>) -> String {
    let mut lines = vec!["the snapshot cannot be restored in full; nothing was changed".to_owned()];
    let more = |all: usize| match all > MOST_SHOWN {
        true => format!("\n  and {} more", all - MOST_SHOWN),
        false => String::new(),
    };
    lines.extend(
        archives
            .iter()
            .take(MOST_SHOWN)
            .map(|text| format!("  {text}")),
    );
    let mut text = lines.join("\n") + &more(archives.len());
    if !files.is_empty() {
        text += &format!("\n{} files are missing or damaged:", files.len());
        for (path, why) in files.iter().take(MOST_SHOWN) {
            text += &format!("\n  {path}: {why}");
        }
        text += &more(files.len());
    }
    text
}

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
        let needed = Needed::by(&self.contents.jobs);
        needed.frozen_by_the_ends(&self.folder).await
    }
}

/// What a restore did.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The manifest's name.
    pub snapshot: String,
    pub stamp: Stamp,
    pub sequence: u64,
    pub signer: String,
    pub to: PathBuf,
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
    /// Ciphertext, the index's archives included.
    pub fetched_bytes: u64,
    /// Databases that passed their checks.
    pub databases: Vec<String>,
    /// `path: why`, of databases that are proven by hash, but whose check took too much time or memory.
    pub unchecked: Vec<String>,
    pub findings: Vec<String>,
    /// What the snapshot lacks, as it says itself.
    pub skipped_in_snapshot: Vec<Skipped>,
    /// Files that changed while the snapshot was made.
    pub torn: Vec<String>,
    /// What went wrong without harm to content: devices, damaged databases.
    pub problems: Vec<String>,
    /// What the destination did not keep: owners, attributes, times. One per kind.
    pub not_kept: Vec<NotKept>,
    pub moved_aside: Option<PathBuf>,
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
        mut jobs,
        ..
    } = plan.contents;
    let entries = Arc::new(entries);
    let (destination, shared) = (plan.destination, Arc::clone(&entries));
    let (extraction, header) = blocking(move || {
        let begun = Extraction::begin(destination, shared, &header);
        begun.map(|extraction| (extraction, header))
    })
    .await??;
    let needed = Needed::by(&jobs);
    // The sooner a database is there, the more of its check goes on beside the rest.
    jobs.sort_by_key(|job| !extraction.has_database(job));
    let sink = || extraction.sink();
    let damaged = fetch::fetch(&plan.folder, jobs, &plan.identities, &progress, &sink).await;
    if damaged.iter().any(Damaged::is_frozen) {
        // What was begun is removed where files are written.
        blocking(move || drop(extraction)).await?;
        return Err(RestoreError::Frozen(needed.frozen(&plan.folder).await));
    }
    let damaged = match not_for_want(damaged) {
        Ok(damaged) => damaged,
        Err(source) => {
            blocking(move || drop(extraction)).await?;
            return Err(RestoreError::NotMade {
                to: plan.to,
                source,
            });
        }
    };
    progress.report(&ProgressEvent::StageStarted {
        stage: Stage::Finishing,
    });
    let skipped_in_snapshot = header.skipped.clone();
    let (devices, all) = (plan.devices, Arc::clone(&entries));
    let to = plan.to.clone();
    let extracted = blocking(move || {
        if !damaged.is_empty() {
            drop(extraction);
            return Err(incomplete_by(&all, &damaged, &BTreeMap::new()));
        }
        let (proof, filled) = extraction.prove();
        if !proof.wrong.is_empty() {
            return Err(incomplete_by(&all, &damaged, &proof.wrong));
        }
        let now = Stamp::at(chrono::Utc::now()).map_err(io::Error::other);
        let now = now.map_err(|source| RestoreError::NotMade { to, source })?;
        Ok::<_, RestoreError>(filled.finish(proof, devices, now)?)
    })
    .await??;
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
        skipped_in_snapshot,
        torn: extract::torn(&entries),
        problems: extracted.problems,
        not_kept: extracted.not_kept,
        moved_aside: extracted.moved_aside,
    })
}

/// Fetches, verifies and parses a snapshot's whole index: its header and its entries, by path.
pub async fn read_index(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
) -> Result<(IndexHeader, EntryList), RestoreError> {
    let (index, _) = fetch_index(folder, manifest, table, identities, None).await?;
    Ok((index.header, index.entries))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| RestoreError::Stopped)
}

/// The index and the ciphertext bytes it took. A large one is in a file in `near` until it is parsed.
async fn fetch_index(
    folder: &HostFolder,
    manifest: &Manifest,
    table: &ArchiveTable,
    identities: &Arc<Identities>,
    near: Option<&Dir>,
) -> Result<(Index, u64), RestoreError> {
    let (stamp, reference) = (manifest.core.stamp, &manifest.core.index);
    let broken = |what: String| RestoreError::Index { stamp, what };
    let promised: Option<u64> = reference
        .extents
        .iter()
        .try_fold(0u64, |sum, extent| sum.checked_add(extent.length));
    let too_far = |extent: &Extent| extent.offset + extent.length > MAX_TAR_BYTES;
    let is_impossible = promised != Some(reference.bytes) || reference.extents.iter().any(too_far);
    if is_impossible || reference.bytes > MAX_INDEX_BYTES {
        return Err(broken("the manifest states an impossible size".to_owned()));
    }
    let jobs = plan::index_jobs(&reference.extents, table)?;
    let fetched_bytes = plan::fetch_bytes(&jobs);
    let unkept = move |source| RestoreError::KeepIndex { stamp, source };
    let raw = RawIndex::new(reference.bytes, near).map_err(unkept)?;
    let sink = || raw.sink();
    let silent: Arc<dyn Progress> = Arc::new(Silent);
    let needed = Needed::by(&jobs);
    let damaged = fetch::fetch(folder, jobs, identities, &silent, &sink).await;
    if damaged.iter().any(Damaged::is_frozen) {
        return Err(RestoreError::Frozen(needed.frozen(folder).await));
    }
    let damaged = match not_for_want(damaged) {
        Ok(damaged) => damaged,
        Err(source) => return Err(unkept(source)),
    };
    if !damaged.is_empty() {
        let texts: Vec<String> = damaged.iter().map(describe).collect();
        return Err(broken(texts.join("; ")));
    }
    let (expected, host) = (reference.blake3, manifest.core.host.clone());
    let announces_wide_times = manifest.core.requires.iter().any(|one| one == WIDE_TIMES);
    let index = blocking(move || {
        let Some(lines) = raw.verified(expected).map_err(unkept)? else {
            let what = "its BLAKE3 is not the manifest's".to_owned();
            return Err(RestoreError::Index { stamp, what });
        };
        let unacceptable = |source| RestoreError::IndexContent { stamp, source };
        let mut reader = IndexReader::new(lines).map_err(unacceptable)?;
        plan::check_header(&reader.header, &host, stamp)?;
        let entries = reader.read_rest().map_err(unacceptable)?;
        if entries.has_wide_times() && !announces_wide_times {
            let what = "a time is beyond 64 bits, and its manifest does not say so".to_owned();
            return Err(RestoreError::Index { stamp, what });
        }
        Ok(Index {
            entries,
            header: reader.header,
            archives: reader.archives,
        })
    });
    Ok((index.await??, fetched_bytes))
}

fn describe(damaged: &Damaged) -> String {
    let (archive, key) = (damaged.archive, &damaged.key);
    format!("archive {archive} ({key}): {}", damaged.error)
}

/// What kept any archive from being opened and written by this machine, if that is what failed: no other target
/// and no older snapshot helps.
fn not_for_want(damaged: Vec<Damaged>) -> Result<Vec<Damaged>, io::Error> {
    let (mut rest, mut cause) = (Vec::new(), None);
    for one in damaged {
        match one.error {
            ArchiveError::Write(source) => cause = Some(source),
            ArchiveError::Open(error @ OpenError::NoMemory) => {
                cause = Some(io::Error::new(io::ErrorKind::OutOfMemory, error));
            }
            error => rest.push(Damaged { error, ..one }),
        }
    }
    cause.map_or(Ok(rest), Err)
}

/// Names every archive that failed and every file that lacks bytes or has `wrong` ones.
fn incomplete_by(
    entries: &EntryList,
    damaged: &[Damaged],
    wrong: &BTreeMap<u32, String>,
) -> RestoreError {
    let path = |number: u32| entries.get(number as usize).path_lossy().into_owned();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (number, what) in wrong {
        files.insert(path(*number), what.clone());
    }
    for one in damaged {
        for number in &one.entries {
            let why = || format!("it needs archive {}", one.archive);
            files.entry(path(*number)).or_insert_with(why);
        }
    }
    RestoreError::Incomplete {
        archives: damaged.iter().map(describe).collect(),
        files,
    }
}
