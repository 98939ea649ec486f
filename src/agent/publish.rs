//! Publishing on one target what it lacks, oldest first, once its archives are there.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::donors::{damaged, note_damaged};
use super::lanes::EndedLane;
use super::push::{PushRequest, TargetReport, TargetState};
use super::stock::{known_objects, record_shipped};
use super::survey::{Names, Survey};
use super::{AgentError, Reporter, State};
use crate::catalog::SnapshotRow;
use crate::error::with_causes;
use crate::ids::{Hash, ObjectKey};
use crate::manifest::signature::{self, MANIFEST_NAMESPACE};
use crate::manifest::{Manifest, ManifestName};
use crate::packer::Packed;
use crate::panics::caught;
use crate::repository::{HostFolder, parse_page};
use crate::shipper::{
    Publication, Published, ShipError, Support, Watcher, publish_all, publish_recovery,
};
use crate::spool::Spool;
use crate::target::{is_full, panicked};

/// A version of the recovery documents; a target gets them once per version.
const RECOVERY_VERSION: &str = "3";

/// One target after its uploads: what it lacks is published on it, oldest first.
pub(super) struct Finishing<'a> {
    pub request: &'a PushRequest<'a>,
    pub survey: &'a Survey,
    /// Other targets, to copy from.
    pub donors: Vec<HostFolder>,
    /// Others might be copied from, but do not answer now.
    pub donors_away: bool,
    pub packed: &'a Packed,
    pub reporter: &'a Arc<dyn Reporter>,
}

/// What is put on the target, as it happens.
struct Put<'a> {
    name: &'a str,
    reporter: &'a dyn Reporter,
    shipped: Mutex<Vec<(ObjectKey, u64)>>,
    damaged: Mutex<Vec<ObjectKey>>,
}

impl Watcher for Put<'_> {
    fn shipped(&self, key: &ObjectKey, bytes: u64) {
        self.reporter.shipped(self.name, bytes);
        if let Ok(mut shipped) = self.shipped.lock() {
            shipped.push((key.clone(), bytes));
        }
    }

    fn damaged(&self, key: &ObjectKey) {
        if let Ok(mut damaged) = self.damaged.lock() {
            damaged.push(key.clone());
        }
    }
}

/// How far publishing came.
#[derive(Default)]
struct Progress {
    failure: Option<String>,
    warnings: Vec<String>,
    /// Archives that came from other targets.
    copied: u64,
    /// Stamps of snapshots that the target will never have.
    given_up: Vec<String>,
    /// Of those that it may have later.
    postponed: Vec<String>,
    /// Of those that it has no room for.
    crowded_out: Vec<String>,
    /// Of those between its own that the spool knows nothing of.
    forgotten: Vec<String>,
}

/// What is to be put on a target. It takes its time, and needs no state: the targets do not wait for each other.
pub(super) struct Publishing<'a> {
    pub at: usize,
    finishing: Finishing<'a>,
    put: Put<'a>,
    progress: Progress,
    work: Option<Work>,
    recovery_is_put: bool,
    reserve_is_kept: bool,
    published: Option<Result<Published, ShipError>>,
}

struct Work {
    spool: Spool,
    pending: Vec<Publication>,
    support: Support,
    recovery_is_due: bool,
    reserve_is_due: bool,
}

impl Publishing<'_> {
    pub async fn run(mut self) -> Self {
        let done = caught(self.put_all()).await;
        if let (Err(error), None) = (done, &self.published) {
            let folder = &self.finishing.survey.folder;
            let (host, label) = (folder.host.as_str(), folder.target.label());
            self.published = Some(Err(panicked("publish on", host, label, error).into()));
        }
        self
    }

    async fn put_all(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        let folder = &self.finishing.survey.folder;
        if work.recovery_is_due {
            let recovery = &self.finishing.request.recovery;
            if let Err(error) = publish_recovery(folder, recovery).await {
                self.progress.failure = Some(with_causes(&error));
                return;
            }
            self.recovery_is_put = true;
        }
        let (pending, support) = (&work.pending, &work.support);
        let published = publish_all(folder, &work.spool, pending, support, &self.put).await;
        let is_published = published.is_ok();
        self.published = Some(published);
        // Last: it must not take the room of a snapshot. Where there is none for it, the next run tries again.
        if work.reserve_is_due && is_published {
            let kept = folder.target.keep_reserve(folder.host.as_str()).await;
            self.reserve_is_kept = kept.is_ok();
        }
    }

    /// Remembers what became of it. Gives the target's report, and what its owner should hear besides.
    pub fn conclude(self, state: &mut State) -> Result<(TargetReport, Vec<String>), AgentError> {
        let (finishing, mut progress) = (self.finishing, self.progress);
        let name = &finishing.survey.name;
        let label = finishing.survey.folder.target.label();
        if self.recovery_is_put {
            let key = recovery_key(name);
            state.catalog.set_meta(&key, RECOVERY_VERSION)?;
        }
        if self.reserve_is_kept {
            state.catalog.set_meta(&reserve_key(name), "1")?;
        }
        match self.published {
            Some(Ok(published)) => finishing.note(state, published, &mut progress)?,
            Some(Err(error)) => progress.failure = Some(with_way_out(&error)),
            None => {}
        }
        let damaged = self.put.damaged.into_inner().unwrap_or_default();
        note_damaged(&state.catalog, &damaged)?;
        let shipped = self.put.shipped.into_inner().unwrap_or_default();
        let seen = finishing.survey.seen.as_ref().ok();
        let next_shard = seen.and_then(|seen| seen.scope.next_shard());
        record_shipped(state, name, &shipped, next_shard)?;
        let report = TargetReport {
            name: name.clone(),
            label: label.to_owned(),
            state: match progress.failure {
                Some(cause) => TargetState::Behind(cause),
                None => TargetState::Published,
            },
            shipped_objects: shipped.len() as u64,
            shipped_bytes: shipped.iter().map(|(_, bytes)| bytes).sum(),
            copied_archives: progress.copied,
        };
        if !progress.given_up.is_empty() {
            progress.warnings.push(format!(
                "{label} will not have {}: what they need is no longer in the spool, nor on another target that can be \
                 read. It begins again with the newest",
                snapshots(&progress.given_up)
            ));
        }
        if !progress.postponed.is_empty() {
            progress.warnings.push(format!(
                "{label} lacks {}: what they need is no longer in the spool, and a target that may have it does not \
                 answer now. The next backup tries again",
                snapshots(&progress.postponed)
            ));
        }
        if !progress.crowded_out.is_empty() {
            progress.warnings.push(format!(
                "{label} lacks {}: there is no room for what they need. {MAKE_ROOM}; the next backup tries again",
                snapshots(&progress.crowded_out)
            ));
        }
        if !progress.forgotten.is_empty() {
            progress.warnings.push(format!(
                "{label} lacks {}, which the spool no longer has: `sealift sync FROM {name}` brings what another target has",
                snapshots(&progress.forgotten)
            ));
        }
        Ok((report, progress.warnings))
    }
}

const MAKE_ROOM: &str = "`sealift prune` makes room there";

/// In one line, with the way out where the target is full.
fn with_way_out(error: &ShipError) -> String {
    let text = with_causes(error);
    match is_full(error) {
        true => format!("{text}. {MAKE_ROOM}"),
        false => text,
    }
}

fn reserve_key(target: &str) -> String {
    format!("reserve:{target}")
}

fn recovery_key(target: &str) -> String {
    format!("recovery:{target}")
}

impl<'a> Finishing<'a> {
    /// Finds out what the target lacks, once its uploads have ended.
    pub fn begin(self, state: &State, lane: EndedLane) -> Result<Publishing<'a>, AgentError> {
        let (shipped, failure) = match (lane.unreachable, lane.end) {
            (Some(cause), _) => (Vec::new(), Some(cause)),
            (None, Some(end)) => {
                // What a full target still takes is found out below.
                let failure = end.result.err().filter(|error| !is_full(error));
                (end.shipped, failure.map(|error| with_causes(&error)))
            }
            (None, None) => (Vec::new(), Some("its uploads ended early".to_owned())),
        };
        let put = Put {
            name: &self.survey.name,
            reporter: &**self.reporter,
            shipped: Mutex::new(shipped),
            damaged: Mutex::default(),
        };
        let mut progress = Progress {
            failure,
            ..Progress::default()
        };
        let mut work = None;
        let name = &self.survey.name;
        if progress.failure.is_none() {
            let pending = self.pending(state, &mut progress)?;
            if progress.failure.is_none() {
                work = Some(Work {
                    spool: state.spool.clone(),
                    support: self.support(state, &put, &pending)?,
                    pending,
                    recovery_is_due: self.is_due(state, &recovery_key(name), RECOVERY_VERSION)?,
                    reserve_is_due: self.is_due(state, &reserve_key(name), "1")?,
                });
            }
        }
        Ok(Publishing {
            at: lane.at,
            finishing: self,
            put,
            progress,
            work,
            recovery_is_put: false,
            reserve_is_kept: false,
            published: None,
        })
    }

    /// The snapshots that the target still waits for, oldest first.
    fn pending(
        &self,
        state: &State,
        progress: &mut Progress,
    ) -> Result<Vec<Publication>, AgentError> {
        let mut pending = Vec::new();
        let publications = state.catalog.publications(&self.survey.name)?;
        let knows_target = publications.values().any(|state| state == "published");
        let seen = self.survey.seen.as_ref();
        let shown = LazyCell::new(|| -> Names<'_> {
            seen.map_or_else(|_| Names::default(), |seen| seen.manifests.iter().collect())
        });
        for row in state.catalog.snapshots()?.iter() {
            let core = &row.known.core;
            if let Some(publication) = publications.get(core) {
                // `sync`, or a repair, may have brought what this host had given up.
                let is_back = publication == "given up" || publication == "lost";
                if is_back && shown.contains(&row.name) {
                    self.settle(state, core, "published")?;
                }
                continue;
            }
            if !state.spool.contains(&row.name.key()) {
                // What a lost state directory has forgotten may have been pruned there: nobody knows.
                if self.settle_unshippable(state, row)? && knows_target {
                    progress.forgotten.push(row.name.stamp.to_string());
                }
                continue;
            }
            if let Some(publication) = pending_publication(state, self.packed, &row.name) {
                pending.push(publication);
                continue;
            }
            let cause = format!("what the spool holds of {} is damaged", row.name);
            if self.is_newest(&row.name) {
                progress.failure = Some(cause);
                break;
            }
            self.settle(state, core, "given up")?;
            let label = self.survey.folder.target.label();
            let text = format!("{cause}: {label} will not have that one");
            progress.warnings.push(text);
        }
        Ok(pending)
    }

    fn is_newest(&self, name: &ManifestName) -> bool {
        *name == self.packed.manifest.name()
    }

    fn settle(&self, state: &State, core: &Hash, outcome: &str) -> Result<(), AgentError> {
        let now = crate::clock::now();
        Ok(state
            .catalog
            .set_publication(&self.survey.name, core, outcome, now)?)
    }

    fn note(
        &self,
        state: &State,
        published: Published,
        progress: &mut Progress,
    ) -> Result<(), AgentError> {
        progress.copied = published.copied;
        let incomplete = published.incomplete.iter().map(|(name, _)| name);
        let crowded_out = published.crowded_out.iter().map(|(name, ..)| name);
        let named = published.done.iter().chain(incomplete).chain(crowded_out);
        let named: Names<'_> = named.collect();
        let rows = state.catalog.snapshots()?;
        let rows = rows.iter().filter(|row| named.contains(&row.name));
        let cores: HashMap<&ManifestName, &Hash> =
            rows.map(|row| (&row.name, &row.known.core)).collect();
        for name in &published.done {
            if let Some(core) = cores.get(name) {
                self.settle(state, core, "published")?;
            }
        }
        for (name, error) in &published.incomplete {
            // An older snapshot that this target can never have whole: the newer one stands alone.
            if self.is_newest(name) {
                progress.failure = Some(with_causes(error));
            } else if let Some(core) = cores.get(name) {
                self.settle(state, core, "given up")?;
                progress.given_up.push(name.stamp.to_string());
            }
        }
        for (name, error) in &published.postponed {
            match self.is_newest(name) {
                true => progress.failure = Some(with_causes(error)),
                false => progress.postponed.push(name.stamp.to_string()),
            }
        }
        for (name, error, is_passed_by) in &published.crowded_out {
            let stamp = name.stamp.to_string();
            if self.is_newest(name) {
                progress.failure = Some(with_way_out(error));
            } else if let (true, Some(core)) = (*is_passed_by, cores.get(name)) {
                self.settle(state, core, "given up")?;
                let label = self.survey.folder.target.label();
                progress.warnings.push(format!(
                    "{label} will not have snapshot {stamp}: there was no room for what it needs, and a later one \
                     that took notice of a prune is there"
                ));
            } else {
                progress.crowded_out.push(stamp);
            }
        }
        if !published.siblings.is_empty() {
            let warning = fork_warning(self.survey, &published.siblings);
            progress.warnings.push(warning);
        }
        Ok(())
    }

    fn support(
        &self,
        state: &State,
        put: &Put<'_>,
        pending: &[Publication],
    ) -> Result<Support, AgentError> {
        let shipped = put.shipped.lock();
        let confirmed = shipped.map_or_else(
            |_| HashSet::new(),
            |shipped| {
                let hashes = shipped.iter();
                let hashes = hashes.filter_map(|(key, _)| ObjectKey::archive_hash(key.as_str()));
                hashes.collect()
            },
        );
        let can_only_remember = self.survey.write_only && self.survey.seen.is_ok();
        let remembered = can_only_remember.then(|| self.remembered(state, pending));
        Ok(Support {
            donors: self.donors.clone(),
            donors_away: self.donors_away,
            damaged: damaged(&state.catalog)?,
            scratch: state.spool.scratch(),
            confirmed,
            remembered: remembered.transpose()?,
        })
    }

    /// Those of the archives that `pending` needs which this host remembers to have put on the target.
    fn remembered(
        &self,
        state: &State,
        pending: &[Publication],
    ) -> Result<HashMap<Hash, u64>, AgentError> {
        let needed = pending.iter().flat_map(|one| &one.archives);
        let needed: HashSet<Hash> = needed.map(|row| row.blake3).collect();
        let known = state.catalog.archives_named(needed)?;
        let placed = state
            .catalog
            .placed_among(&self.survey.name, known.iter().map(|one| one.n))?;
        let there = known.iter().filter(|one| placed.contains(&one.n));
        Ok(there.map(|one| (one.row.blake3, one.row.bytes)).collect())
    }

    /// A snapshot that the spool lacks is on the target already (another state directory put it there), or
    /// will not be by itself: a target that is new gets no history. Whether its owner may miss it there.
    fn settle_unshippable(&self, state: &State, row: &SnapshotRow) -> Result<bool, AgentError> {
        let core = &row.known.core;
        let Ok(seen) = &self.survey.seen else {
            self.settle(state, core, "given up")?;
            return Ok(false);
        };
        if seen.manifests.contains(&row.name) {
            self.settle(state, core, "published")?;
            return Ok(false);
        }
        self.settle(state, core, "given up")?;
        let mut there = seen.manifests.iter();
        let is_between = there.any(|name| name.sequence < row.name.sequence);
        Ok(is_between && !seen.pruned.contains(core))
    }

    /// Whether what the catalog remembers under `key` is another version, or went with everything else.
    fn is_due(&self, state: &State, key: &str, version: &str) -> Result<bool, AgentError> {
        let there = state.catalog.meta(key)?;
        let seen = self.survey.seen.as_ref();
        let emptied = seen.is_ok_and(|seen| seen.manifests.is_empty());
        Ok(there.as_deref() != Some(version) || emptied)
    }
}

/// `snapshot A`, `snapshots A, B and 3 more`.
fn snapshots(stamps: &[String]) -> String {
    const NAMED: usize = 8;
    let named = stamps.iter().take(NAMED).cloned().collect::<Vec<_>>();
    let more = match stamps.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let plural = if stamps.len() == 1 { "" } else { "s" };
    format!("snapshot{plural} {}{more}", named.join(", "))
}

fn fork_warning(survey: &Survey, siblings: &[ManifestName]) -> String {
    let others: Vec<String> = siblings.iter().map(ManifestName::to_string).collect();
    format!(
        "{}: {} was published beside ours, under the same sequence: two machines push under one name. \
         Stop one of them, or give it another `host`; then run `sealift adopt` on the one that stays",
        survey.folder.target.label(),
        others.join(", ")
    )
}

/// What publishing a spooled snapshot takes: its archives, read from its own pages. `None`: some of it
/// is gone or damaged.
fn pending_publication(state: &State, packed: &Packed, name: &ManifestName) -> Option<Publication> {
    let bytes = state.spool.read(&name.key()).ok()?;
    let manifest = Manifest::parse_named(name, &bytes).ok()?;
    // One that is not here is on the target already.
    if let Ok(signature) = state.spool.read(&name.signature_key()) {
        signature::verify(&signature, MANIFEST_NAMESPACE, &bytes).ok()?;
    }
    let mut archives = Vec::new();
    for hash in &manifest.pages {
        let bytes = state.spool.read(&ObjectKey::table(hash)).ok()?;
        let page = parse_page(hash, &bytes).ok()?;
        archives.extend(page.rows);
    }
    if manifest.name() == packed.manifest.name() {
        let objects = packed.known.iter();
        let at_hand = objects.map(|(name, bytes)| (*name, Bytes::copy_from_slice(bytes)));
        return Some(Publication {
            manifest,
            archives,
            known: packed.known.iter().map(|(name, _)| *name).collect(),
            at_hand: at_hand.collect(),
        });
    }
    let known = known_objects(&state.spool, &manifest)?;
    // Those that are not here were on every target when it was packed.
    let is_right = |name: &Hash| match state.spool.read(&ObjectKey::table(name)) {
        Ok(bytes) => Hash::sha256(&bytes) == *name,
        Err(_) => !state.spool.contains(&ObjectKey::table(name)),
    };
    known.iter().all(is_right).then_some(Publication {
        manifest,
        archives,
        known,
        at_hand: HashMap::new(),
    })
}
