//! Publishing on one target what it lacks, oldest first, once its archives are there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;

use super::donors::{damaged, note_damaged};
use super::lanes::EndedLane;
use super::push::{PushRequest, TargetReport, TargetState};
use super::stock::record_shipped;
use super::survey::Survey;
use super::{AgentError, Reporter, State};
use crate::catalog::SnapshotRow;
use crate::error::with_causes;
use crate::ids::{Hash, ObjectKey};
use crate::manifest::signature::{self, MANIFEST_NAMESPACE};
use crate::manifest::{Manifest, ManifestName};
use crate::packer::Packed;
use crate::repository::{HostFolder, parse_page};
use crate::shipper::{Publication, Published, Support, Watcher, publish_all, publish_recovery};

/// A version of the recovery documents; a target gets them once per version.
const RECOVERY_VERSION: &str = "1";

/// One target after its uploads: what it lacks is published on it, oldest first.
pub(super) struct Finishing<'a> {
    pub runtime: &'a Runtime,
    pub request: &'a PushRequest<'a>,
    pub survey: &'a Survey,
    /// Other targets, to copy from.
    pub donors: Vec<HostFolder>,
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
}

impl Finishing<'_> {
    /// Gives the target's report, and what its owner should hear besides.
    pub fn finish(
        self,
        state: &mut State,
        lane: EndedLane,
    ) -> Result<(TargetReport, Vec<String>), AgentError> {
        let label = self.survey.folder.target.label();
        let mut report = TargetReport {
            name: self.survey.name.clone(),
            label: label.to_owned(),
            state: TargetState::Published,
            shipped_objects: 0,
            shipped_bytes: 0,
            copied_archives: 0,
        };
        if let Some(cause) = lane.unreachable {
            report.state = TargetState::Behind(cause);
            return Ok((report, Vec::new()));
        }
        let (shipped, failure) = match lane.end {
            Some(end) => (
                end.shipped,
                end.result.err().map(|error| with_causes(&error)),
            ),
            None => (Vec::new(), Some("its uploads ended early".to_owned())),
        };
        let put = Put {
            name: &self.survey.name,
            reporter: &**self.reporter,
            shipped: Mutex::new(shipped),
            damaged: Mutex::default(),
        };
        let mut progress = match failure {
            None => self.publish_pending(state, &put)?,
            failure => Progress {
                failure,
                ..Progress::default()
            },
        };
        let shipped = put.shipped.into_inner().unwrap_or_default();
        record_shipped(state, &self.survey.name, &shipped)?;
        report.shipped_objects = shipped.len() as u64;
        report.shipped_bytes = shipped.iter().map(|(_, bytes)| bytes).sum();
        report.copied_archives = progress.copied;
        if let Some(cause) = progress.failure {
            report.state = TargetState::Behind(cause);
        }
        if !progress.given_up.is_empty() {
            progress.warnings.push(format!(
                "{label} will not have {}: what they need is no longer in the spool, nor on another target that can be \
                 read. It begins again with the newest",
                snapshots(&progress.given_up)
            ));
        }
        Ok((report, progress.warnings))
    }

    fn publish_pending(&self, state: &mut State, put: &Put<'_>) -> Result<Progress, AgentError> {
        let mut progress = Progress::default();
        if let Err(error) = self.runtime.block_on(self.put_recovery(state)) {
            progress.failure = Some(error);
            return Ok(progress);
        }
        let pending = self.pending(state, &mut progress)?;
        if progress.failure.is_some() {
            return Ok(progress);
        }
        let support = self.support(state, put)?;
        let (folder, spool) = (&self.survey.folder, &state.spool);
        let work = publish_all(folder, spool, &pending, &support, put);
        match self.runtime.block_on(work) {
            Ok(published) => self.note(state, published, &mut progress)?,
            Err(error) => progress.failure = Some(with_causes(&error)),
        }
        let met = put.damaged.lock();
        let met = met.map_or_else(|_| Vec::new(), |keys| keys.clone());
        note_damaged(&state.catalog, &met)?;
        Ok(progress)
    }

    /// The snapshots that the target still waits for, oldest first.
    fn pending(
        &self,
        state: &State,
        progress: &mut Progress,
    ) -> Result<Vec<Publication>, AgentError> {
        let mut pending = Vec::new();
        for row in state.catalog.snapshots()? {
            let core = &row.known.core;
            let publication = state.catalog.publication(&self.survey.name, core)?;
            if publication.is_some() {
                continue;
            }
            if !state.spool.contains(&row.name.key()) {
                self.settle_unshippable(state, &row)?;
                continue;
            }
            if let Some(publication) = pending_publication(state, &row.name) {
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
        let rows = state.catalog.snapshots()?;
        let cores: HashMap<&ManifestName, &Hash> = rows
            .iter()
            .map(|row| (&row.name, &row.known.core))
            .collect();
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
        if !published.siblings.is_empty() {
            let warning = fork_warning(self.survey, &published.siblings);
            progress.warnings.push(warning);
        }
        Ok(())
    }

    fn support(&self, state: &State, put: &Put<'_>) -> Result<Support, AgentError> {
        let shipped = put.shipped.lock();
        let confirmed = shipped.map_or_else(
            |_| HashSet::new(),
            |shipped| {
                let hashes = shipped.iter();
                let hashes = hashes.filter_map(|(key, _)| ObjectKey::archive_hash(key.as_str()));
                hashes.collect()
            },
        );
        let seen = self.survey.seen.as_ref().ok();
        Ok(Support {
            donors: self.donors.clone(),
            damaged: damaged(&state.catalog)?,
            scratch: state.spool.scratch(),
            confirmed,
            remembered: seen
                .filter(|_| self.survey.write_only)
                .map(|seen| seen.archives.clone()),
        })
    }

    /// A snapshot that the spool lacks is on the target already (another state directory put it there), or
    /// will never be: a target that is new gets no history.
    fn settle_unshippable(&self, state: &State, row: &SnapshotRow) -> Result<(), AgentError> {
        let seen = self.survey.seen.as_ref();
        let is_there = seen.is_ok_and(|seen| seen.manifests.contains(&row.name));
        let outcome = match is_there {
            true => "published",
            false => "given up",
        };
        self.settle(state, &row.known.core, outcome)
    }

    async fn put_recovery(&self, state: &State) -> Result<(), String> {
        let key = format!("recovery:{}", self.survey.name);
        let there = state.catalog.meta(&key).map_err(|e| with_causes(&e))?;
        let seen = self.survey.seen.as_ref();
        let emptied = seen.is_ok_and(|seen| seen.manifests.is_empty());
        if there.as_deref() == Some(RECOVERY_VERSION) && !emptied {
            return Ok(());
        }
        publish_recovery(&self.survey.folder, &self.request.recovery)
            .await
            .map_err(|e| with_causes(&e))?;
        state
            .catalog
            .set_meta(&key, RECOVERY_VERSION)
            .map_err(|e| with_causes(&e))
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
fn pending_publication(state: &State, name: &ManifestName) -> Option<Publication> {
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
    Some(Publication { manifest, archives })
}
