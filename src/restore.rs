//! Restores a snapshot: from sealed archives on a target to a verified tree on disk.
//!
//! [`plan`] reads and verifies manifest, table and index, and writes nothing. [`execute`] fetches,
//! opens and extracts what the plan names. Every byte is verified: the manifest by its signature,
//! the table by hash, each archive by BLAKE3 and its head by SHA-256, each file by BLAKE3, each
//! database by its own integrity check: when the host sealed it, and again if the caller asks. The
//! destination changes in one step after all of that, or not at all.

mod check_record;
mod cold_storage;
mod concat_tars;
mod error;
mod extract;
mod fetch;
mod fetch_parts;
mod index_buffer;
mod index_search;
pub mod open;
mod pack_restored;
mod plan;
mod range_reader;
mod read_index;
mod report;
mod split_jobs;
mod wrong_identity;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::openat::Dir;
use crate::base::progress::{Progress, ProgressEvent, Silent, Stage};
use crate::format::chain::Chain;
use crate::format::index::{ArchiveStream, EntryList, IndexHeader};
use crate::format::manifest::ArchiveRow;
use crate::format::restored::RestoredFrom;
use crate::format::signature::Trust;
use crate::repository::HostFolder;
use cold_storage::NeededArchives;
use extract::{Destination, Extracted, Extraction};
use fetch_parts::{fetch_parts, parts_reader};
use open::Identities;
use plan::{ArchiveJob, Contents};
use read_index::{fetch_entries, fetch_index};
use split_jobs::{SplitJobs, planned_bytes};
use wrong_identity::NeededRecipients;

pub use check_record::{RecordDifferences, check_record};
pub use cold_storage::{Frozen, Thawing, thaw};
pub use concat_tars::{ConcatError, concat_tars};
pub use error::RestoreError;
pub use extract::{Aspect, DestinationError, ExtractError, NotKept, Resumed, StagingError, resume};
pub(crate) use extract::{UnpackError, Unpacked, mode_without, read_record, unpack};
pub use fetch::{ArchiveError, Damaged};
pub use index_search::WantedPaths;
pub(crate) use pack_restored::{PackRestoredError, pack_restored, written_bytes};
pub use plan::{DatabaseCheck, PlanError, RestoreRequest};
pub use range_reader::{RangeError, RangeReader, RangeReaderOptions};
pub use read_index::{read_entries_by, read_header, read_index};
pub use report::RestoreReport;
pub use wrong_identity::WrongIdentity;

/// A restore that is decided and has not begun.
pub struct RestorePlan {
    /// The manifest's name.
    pub snapshot: String,
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The snapshot's sequence number.
    pub sequence: u64,
    /// The fingerprint of the signer's key, `SHA256:…`.
    pub signer: String,
    /// The real path of the destination.
    pub to: PathBuf,
    /// The destination has content, which will be moved aside.
    pub replaces: bool,
    /// Entries of all kinds.
    pub entries: u64,
    /// Entries that are files.
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Archives to fetch.
    pub archives: u64,
    /// Ciphertext to fetch, about.
    pub fetch_bytes: u64,
    /// Oddities of the folder that do not forbid this restore.
    pub findings: Vec<String>,
    /// Ciphertext that was fetched for the index.
    index_bytes: u64,
    /// Make device nodes.
    devices: bool,
    database_check: DatabaseCheck,
    /// The snapshot, as the record of the restore names it.
    from: RestoredFrom,
    contents: Contents,
    /// The recipients of the archives, by the names of their sets.
    recipient_sets: BTreeMap<String, Vec<String>>,
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
    /// Returns the entries to restore, by path.
    pub fn contents(&self) -> &EntryList {
        &self.contents.entries
    }

    /// Returns the index's header.
    pub fn header(&self) -> &IndexHeader {
        &self.contents.header
    }

    /// Returns the data archives to fetch, each with the size and the hash of its tar stream.
    pub fn streams(&self) -> impl Iterator<Item = (&ArchiveRow, &ArchiveStream)> {
        let jobs = self.contents.jobs.iter();
        jobs.filter_map(|job| Some((&job.row, job.stream.as_ref()?)))
    }

    /// Returns the archives that are in cold storage. `None`: as far as a look at two of them
    /// shows, there are none.
    pub async fn frozen(&self) -> Option<Frozen> {
        let needed = NeededArchives::by(&self.contents.jobs);
        needed.frozen_by_the_ends(&self.folder).await
    }
}

/// Verifies the chain, reads the index and decides everything. Writes nothing to the destination.
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

/// [`plan`] with a chain that the caller has read.
pub async fn plan_from(
    folder: &HostFolder,
    chain: Chain,
    request: &RestoreRequest,
    identities: Arc<Identities>,
) -> Result<RestorePlan, RestoreError> {
    let destination = Destination::inspect(&request.to, request.overwrite)?;
    plan_to(destination, folder, chain, request, identities).await
}

/// [`plan_from`] for a restore into a new directory in `dir`, a private directory; `request.to` is
/// the new directory's name.
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
    let manifest = &snapshot.manifest;
    let wanted = WantedPaths::trees(&request.paths);
    let (found, mut index_bytes) =
        fetch_entries(folder, manifest, &table, &identities, &wanted).await?;
    let index = match found {
        Some(index) => index,
        None => {
            // Decrypted data stays on the file system that the restore will fill.
            let near = Some(destination.near());
            let whole = fetch_index(folder, manifest, &table, &identities, near).await?;
            index_bytes = index_bytes.saturating_add(whole.1);
            whole.0
        }
    };
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
        fetch_bytes: planned_bytes(&contents.jobs, folder.target.has_ranges()),
        findings: chain.findings.iter().map(ToString::to_string).collect(),
        index_bytes,
        devices: request.devices,
        database_check: request.databases,
        from: RestoredFrom {
            host: folder.host.clone(),
            stamp: snapshot.stamp(),
            sequence: snapshot.sequence(),
            signer: snapshot.signer.clone(),
            core: snapshot.manifest.core_hash,
            paths: request.paths.clone(),
        },
        contents,
        recipient_sets: table.sets,
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
    let is_new = plan.destination.is_absent();
    let (destination, shared) = (plan.destination, Arc::clone(&entries));
    let database_check = plan.database_check;
    let (extraction, header) = blocking(move || {
        let begun = Extraction::begin(destination, shared, &header, database_check);
        begun.map(|extraction| (extraction, header))
    })
    .await??;
    let archives = ArchiveSource {
        stamp: plan.stamp,
        recipient_sets: &plan.recipient_sets,
        folder: &plan.folder,
        identities: &plan.identities,
        progress: &progress,
    };
    let (extraction, fetched) = archives.fetch_into(extraction, jobs, &plan.to).await?;
    progress.report(&ProgressEvent::StageStarted {
        stage: Stage::Finishing,
        subject: None,
    });
    let goal = RestoreGoal {
        entries: Arc::clone(&entries),
        devices: plan.devices,
        from: plan.from,
        to: plan.to.clone(),
    };
    let damaged = fetched.damaged;
    let extracted = blocking(move || complete(extraction, damaged, goal)).await??;
    Ok(RestoreReport {
        snapshot: plan.snapshot,
        stamp: plan.stamp,
        sequence: plan.sequence,
        signer: plan.signer,
        to: plan.to,
        is_new,
        entries: plan.entries,
        files: plan.files,
        bytes: plan.bytes,
        fetched_bytes: fetched.bytes.saturating_add(plan.index_bytes),
        databases: extracted.databases,
        databases_as_sealed: extracted.databases_as_sealed,
        unchecked: extracted.unchecked,
        findings: plan.findings,
        skipped_in_snapshot: header.skipped,
        torn: extract::torn(&entries),
        problems: extracted.problems,
        not_kept: extracted.not_kept,
        has_record: extracted.has_record,
        moved_aside: extracted.moved_aside,
    })
}

/// Where the archives of a restore come from.
struct ArchiveSource<'a> {
    /// The snapshot's stamp.
    stamp: Stamp,
    recipient_sets: &'a BTreeMap<String, Vec<String>>,
    folder: &'a HostFolder,
    identities: &'a Arc<Identities>,
    progress: &'a Arc<dyn Progress>,
}

impl ArchiveSource<'_> {
    /// Fetches the archives of `jobs` into `extraction`, which goes to `to`: of those of which
    /// little is needed, only that. Returns it with what was fetched.
    async fn fetch_into(
        &self,
        extraction: Extraction,
        mut jobs: Vec<ArchiveJob>,
        to: &Path,
    ) -> Result<(Extraction, FetchedArchives), RestoreError> {
        let needed = NeededArchives::by(&jobs);
        let recipients = NeededRecipients::of(&jobs, self.recipient_sets);
        // The sooner a database is complete, the more of its check runs beside the other archives.
        jobs.sort_by_key(|job| !extraction.has_database(job));
        let sink = || extraction.sink();
        let split = SplitJobs::of(jobs, self.folder.target.has_ranges());
        let whole_bytes = plan::fetch_bytes(&split.whole);
        let reader = parts_reader(self.folder, self.identities);
        let parts = fetch_parts(&reader, split.parts, &**self.progress, &sink);
        let whole = fetch::fetch(
            self.folder,
            split.whole,
            self.identities,
            self.progress,
            &sink,
        );
        let (mut damaged, more) = futures::future::join(whole, parts).await;
        damaged.extend(more);
        let bytes = whole_bytes.saturating_add(reader.fetched_bytes());
        let error = if damaged.iter().any(Damaged::is_frozen) {
            RestoreError::Frozen(needed.frozen(self.folder).await)
        } else if let Some(wrong) = recipients.explain(self.stamp, &damaged, self.identities) {
            RestoreError::WrongIdentity(wrong)
        } else {
            match fetch::without_local_failures(damaged) {
                Ok(damaged) => return Ok((extraction, FetchedArchives { damaged, bytes })),
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

/// What became of the archives of a restore.
struct FetchedArchives {
    /// Those that could not be read.
    damaged: Vec<Damaged>,
    /// Ciphertext that was fetched.
    bytes: u64,
}

/// What is to become of an extraction.
struct RestoreGoal {
    entries: Arc<EntryList>,
    /// Make device nodes.
    devices: bool,
    from: RestoredFrom,
    /// The destination.
    to: PathBuf,
}

/// Proves the content of `extraction`, makes everything that is not content, and puts the tree in
/// its place.
fn complete(
    extraction: Extraction,
    damaged: Vec<Damaged>,
    goal: RestoreGoal,
) -> Result<Extracted, RestoreError> {
    if !damaged.is_empty() {
        drop(extraction);
        return Err(incomplete(&goal.entries, damaged, BTreeMap::new()));
    }
    let (proof, filled) = extraction.prove();
    if !proof.wrong.is_empty() {
        return Err(incomplete(&goal.entries, damaged, proof.wrong));
    }
    let now = Stamp::at(clock::now()).map_err(io::Error::other);
    let now = now.map_err(|source| RestoreError::NotMade {
        to: goal.to,
        source,
    })?;
    Ok(filled.finish(proof, goal.devices, &goal.from, now)?)
}

/// Runs disk work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| RestoreError::Stopped)
}

/// Returns the error that names every archive that could not be read and every file that lacks
/// bytes or has `wrong` ones.
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
