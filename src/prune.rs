//! Deletes from a target the snapshots that retention does not keep, without a key that could read
//! any of them.
//!
//! A snapshot goes with its manifest. Archives go by **marks**, because a prune cannot see which
//! archives a push is about to name. In order: sweep the archives that earlier marks name and no
//! manifest needs any more; mark the archives that only the snapshots to be deleted need; then, per
//! snapshot, put a tombstone and delete manifest and signature.
//!
//! *Why nothing is lost that a push is about to name.* A packer relies on archives that it saw on a
//! target. Say push P saw archive A, and mark M names A afterwards; P may publish a month later. A
//! goes only once a manifest Q that lists M in `marks_seen` is here and no manifest names A. Q's
//! packer had read M, so Q does not name A, nor does any later push. P ran before Q: one process
//! holds a state directory, so P ended before Q began. If P's manifest still waited in the spool,
//! Q's run put it here before Q's own, or gave it up (`publish_all` keeps that order across marks,
//! and a snapshot that does not follow what Q follows waits no longer). So when Q is seen, P is
//! seen or never comes, and the archives that P names stay. Until a push lists the mark nothing
//! goes: the target of a host that is away for a month keeps it all. If A is gone nevertheless (two
//! machines under one name, which do not wait for each other), `publish` finds it missing when it
//! lists the target before the manifest, and stores it again or does not publish.
//!
//! *Signed marks, and marks that are ignored, change nothing in this.* A mark that no manifest
//! lists has no force. A packer ignores the marks that it does not believe, and those that name
//! archives of its newest snapshot (`jobs::push::marks`). It lists only the others, and for these
//! the argument above holds word for word. Each target is a case of its own: Q, M and the manifests
//! that are looked at are on it, and other targets do not matter.
//!
//! *Why no page of earlier snapshots is lost that a manifest is about to name.* Such pages are
//! marked too, and packers need not look: a page K that is here and that Q does not name was named
//! by manifests of one writer in a row (`packer::history`), and that row ended before Q. If Q's
//! writer made K later than Q, then K was put here by a push that began after Q's and so after M
//! was written; but M names only pages that were here before. M holds back the manifests that a
//! sync copies.
//!
//! *Why a dead run does no harm.* A mark names only objects that the snapshots that stay do not
//! need, and is written before the first manifest goes. If the run dies in between, the archives
//! are marked and still named, and so stay until the next run has deleted the manifests. A
//! tombstone whose manifest is still there has no effect. A mark is removed last, after its
//! archives and the table pages that name them.
//!
//! *Beside a sync*, which copies manifests that no host plans: it puts a manifest's signature
//! first, then reads marks and archives, then puts the manifest. A sweep looks for signatures
//! without their manifest after its marks were written and before it deletes; if there is one, it
//! leaves the sweep to another run. Whichever looks last sees the other.
//!
//! Pages of the archive table need no marks: a page that no manifest names is deleted only with an
//! archive that it names, so no manifest that could come would have it. Objects that cannot be
//! deleted (credentials, object lock) are reported and left.

mod error;
mod inventory;
mod named;
mod room;
mod run;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::base::ids::{Hash, ObjectKey, Stamp};
use crate::format::chain::Finding;
use crate::format::manifest::{Manifest, ManifestName};
use crate::format::signature::Trust;
use crate::format::statement::{MarkName, Vouched};
use crate::repository::{HostFolder, SeenMark};
use crate::retention::{
    Candidate, Guard, KeptTags, Pins, Policy, Reason, Reasons, Refusal, decide,
};

pub use error::PruneError;
use inventory::Inventory;
pub use run::PruneReport;

/// After this many days, an archive that no manifest names was left by a push that died.
const STRAY_DAYS: i64 = 7;

/// What to prune, and what has to stay.
#[derive(Debug)]
pub struct PruneRequest {
    /// The host's folder on the target.
    pub folder: HostFolder,
    /// The signers whose manifests, tombstones and marks count.
    pub trust: Trust,
    /// Which snapshots stay.
    pub policy: Policy,
    /// Stamps, sequences or hashes of the snapshots to delete, whatever the policy says, and no
    /// others. Empty: the policy decides.
    pub forget: Vec<String>,
    /// The time of the prune.
    pub now: DateTime<Utc>,
    /// Snapshots that stay whatever the policy says.
    pub pins: Pins,
    /// The tags that keep their snapshots.
    pub tags: KeptTags,
    /// The host will never push again, so no manifest will ever list a mark.
    pub gone: bool,
    /// The operator saw the plan and confirmed its extent.
    pub confirmed: bool,
    /// The recovery documents, which may have to go to make room and are put back.
    pub recovery: Vec<(ObjectKey, Bytes)>,
}

/// A snapshot, and why it stays; without a reason it goes.
#[derive(Debug, Clone)]
pub struct PlannedSnapshot {
    /// Its sequence.
    pub sequence: u64,
    /// Its stamp.
    pub stamp: Stamp,
    /// Hash of its manifest's core.
    pub core: Hash,
    /// Its manifest, and revisions of it.
    pub names: Vec<ManifestName>,
    /// By the target's clock it arrived long after its stamp.
    pub late: bool,
    /// The target has all archives that it names, in their sizes.
    pub whole: bool,
    /// Why it stays; empty: it goes.
    pub reasons: Reasons,
}

impl PlannedSnapshot {
    /// Returns whether there is a reason to keep it.
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// A mark of an earlier prune.
#[derive(Debug, Clone)]
pub struct PlannedMark {
    /// Its name on the target.
    pub name: MarkName,
    /// The archives that it names, that are here and that no manifest needs, with their sizes.
    pub archives: BTreeMap<Hash, u64>,
    /// The archives that it names and no manifest needs, including those that are gone: a run may
    /// have died before it deleted the pages.
    dead: Vec<Hash>,
    /// Pages of earlier snapshots, and directories of such pages, that it names and no manifest
    /// needs.
    pages: Vec<Hash>,
    /// A later manifest lists it, so its archives can go.
    pub ripe: bool,
    /// No packer will follow it as it is, so it is replaced: its archives are marked again, and it
    /// is removed.
    stale: bool,
    /// It names pages, and it is unknown whether a manifest needs them.
    is_unclear: bool,
}

/// What a prune will delete and mark.
#[derive(Debug)]
pub struct PrunePlan {
    /// Oldest first.
    pub snapshots: Vec<PlannedSnapshot>,
    /// The marks of earlier prunes.
    pub marks: Vec<PlannedMark>,
    /// Archives to mark now, with their sizes.
    pub to_mark: BTreeMap<Hash, u64>,
    /// Pages of earlier snapshots, and directories of such pages, to mark now.
    to_mark_pages: BTreeSet<Hash>,
    /// Number of marks that were not read, because there are too many or they are too large.
    pub unread_marks: usize,
    /// Findings that do not stop a prune.
    pub findings: Vec<Finding>,
    /// Why the plan is not carried out, with or without `--yes`; `None`: it may be.
    pub refusal: Option<Refusal>,
    /// Names of snapshots to delete that no snapshot here has.
    pub not_here: Vec<String>,
    /// Manifests of deleted snapshots that no longer verify.
    remains: Vec<ManifestName>,
    /// Table pages that no manifest names.
    pages: Vec<Hash>,
    /// All manifests that were there when the plan was made.
    manifests: Vec<ManifestName>,
    /// Fingerprints of the keys that signed them.
    signers: Vec<String>,
}

impl PrunePlan {
    /// Returns the snapshots that go.
    pub fn forgotten(&self) -> impl Iterator<Item = &PlannedSnapshot> {
        self.snapshots.iter().filter(|one| !one.stays())
    }

    /// Returns the number of snapshots that stay only because their tags are not known.
    pub fn kept_for_unknown_tags(&self) -> u64 {
        let only = Reasons::from([Reason::TagsUnknown]);
        let kept = self.snapshots.iter().filter(|one| one.reasons == only);
        kept.count() as u64
    }

    fn ripe(&self) -> impl Iterator<Item = &PlannedMark> {
        self.marks.iter().filter(|mark| mark.ripe)
    }

    fn stale(&self) -> impl Iterator<Item = &PlannedMark> {
        self.marks.iter().filter(|mark| mark.stale)
    }

    /// Returns the archives that can go now, with their sizes.
    pub fn to_sweep(&self) -> BTreeMap<Hash, u64> {
        let archives = self.ripe().flat_map(|mark| &mark.archives);
        archives.map(|(hash, bytes)| (*hash, *bytes)).collect()
    }

    /// Returns whether nothing is to be deleted or marked.
    pub fn is_empty(&self) -> bool {
        let nothing_goes = self.forgotten().next().is_none() && self.ripe().next().is_none();
        let nothing_to_mark = self.to_mark.is_empty() && self.to_mark_pages.is_empty();
        nothing_goes && nothing_to_mark && self.remains.is_empty() && self.stale().next().is_none()
    }
}

/// The objects that manifests need.
#[derive(Default)]
struct NeededObjects {
    /// Archives of any manifest.
    of_any: HashSet<Hash>,
    /// Archives of the snapshots that stay.
    of_stays: HashSet<Hash>,
    /// Pages of earlier snapshots, and directories of such pages, of any manifest.
    history_of_any: HashSet<Hash>,
    /// The same of the snapshots that stay.
    history_of_stays: HashSet<Hash>,
}

impl NeededObjects {
    fn add(&mut self, seen: &Inventory, manifest: &Manifest, stays: bool) {
        self.of_any.extend(seen.named_by(manifest));
        self.history_of_any.extend(seen.history_of(manifest));
        if stays {
            self.of_stays.extend(seen.named_by(manifest));
            self.history_of_stays.extend(seen.history_of(manifest));
        }
    }

    fn plan_mark(&self, seen: &Inventory, one: &SeenMark, ripe: bool) -> PlannedMark {
        let unnamed = one
            .mark
            .archives
            .iter()
            .filter(|a| !self.of_any.contains(*a));
        let dead: Vec<Hash> = unnamed.copied().collect();
        let unnamed = one
            .mark
            .pages
            .iter()
            .filter(|page| !self.history_of_any.contains(*page));
        let is_needed = one.mark.archives.iter().any(|a| self.of_stays.contains(a));
        PlannedMark {
            name: one.name.clone(),
            archives: seen.present(dead.iter()),
            dead,
            pages: match seen.history_is_unclear {
                true => Vec::new(),
                false => unnamed.copied().collect(),
            },
            ripe,
            is_unclear: seen.history_is_unclear && !one.mark.pages.is_empty(),
            stale: !ripe && (one.vouched != Vouched::Signer || is_needed),
        }
    }
}

impl PruneRequest {
    /// Looks at the target and decides what goes. Deletes nothing.
    pub async fn plan(&self) -> Result<PrunePlan, PruneError> {
        let before = self.folder.manifest_names().await?;
        let planned = self.look_and_decide().await;
        let is_odd = matches!(
            planned,
            Err(PruneError::Repository(_) | PruneError::Unreadable(..))
        );
        if is_odd && self.folder.manifest_names().await? != before {
            let label = self.folder.target.label().to_owned();
            return Err(PruneError::Changed(label));
        }
        planned
    }

    async fn look_and_decide(&self) -> Result<PrunePlan, PruneError> {
        let seen = Inventory::take(&self.folder, &self.trust).await?;
        let chain = &seen.chain;
        for finding in &chain.findings {
            let unread = match finding {
                Finding::Refused(name, _) if seen.remains.contains(name) => None,
                Finding::Refused(name, why) => Some((name, why.clone())),
                Finding::Stranger(manifests) => {
                    let last = manifests.names.last();
                    last.map(|name| (name, manifests.to_string()))
                }
                _ => None,
            };
            if let Some((name, why)) = unread {
                return Err(PruneError::Unreadable(name.clone(), why));
            }
        }
        let mut snapshots = self.decide(&seen);
        let not_here = self.choose_named(&mut snapshots)?;
        let refusal = self.check(&snapshots, seen.pruned_at);
        let mut needed = NeededObjects::default();
        let staying: HashSet<Hash> = snapshots
            .iter()
            .filter(|one| one.stays())
            .map(|one| one.core)
            .collect();
        for one in &chain.snapshots {
            needed.add(
                &seen,
                &one.manifest,
                staying.contains(&one.manifest.core_hash),
            );
        }
        let followed: HashSet<&str> = chain
            .snapshots
            .iter()
            .flat_map(|one| one.manifest.core.marks_seen.iter().map(String::as_str))
            .collect();
        let marks = seen.marks.seen.iter();
        let marks: Vec<PlannedMark> = marks
            .map(|one| {
                let ripe = self.gone || followed.contains(one.name.as_str());
                needed.plan_mark(&seen, one, ripe)
            })
            .collect();
        let (to_mark, to_mark_pages) = self.to_mark(&seen, &marks, &needed).await?;
        Ok(PrunePlan {
            to_mark,
            to_mark_pages,
            unread_marks: seen.marks.unread,
            pages: seen.unnamed_pages(&needed.history_of_any),
            manifests: seen.names(),
            signers: chain.signers(),
            findings: chain.findings.clone(),
            remains: seen.remains,
            snapshots,
            marks,
            refusal,
            not_here,
        })
    }

    /// Returns the archives and pages that only snapshots that go need, and those that dead pushes
    /// left, without those that a mark names already.
    async fn to_mark(
        &self,
        seen: &Inventory,
        marks: &[PlannedMark],
        needed: &NeededObjects,
    ) -> Result<(BTreeMap<Hash, u64>, BTreeSet<Hash>), PruneError> {
        let (mut waiting, mut waiting_pages) = (HashSet::<Hash>::new(), HashSet::<Hash>::new());
        for (one, planned) in seen.marks.seen.iter().zip(marks) {
            if planned.stale {
                continue;
            }
            // A ripe mark is removed, so the archives that a manifest still needs may be marked
            // again.
            match planned.ripe {
                true => waiting.extend(planned.archives.keys().copied()),
                false => waiting.extend(&one.mark.archives),
            }
            match planned.ripe {
                true => waiting_pages.extend(&planned.pages),
                false => waiting_pages.extend(&one.mark.pages),
            }
        }
        let long_ago = self.now - chrono::Duration::days(STRAY_DAYS);
        let strays = seen
            .strays(long_ago)
            .filter(|one| !needed.of_any.contains(one));
        let going = needed
            .of_any
            .difference(&needed.of_stays)
            .copied()
            .chain(strays);
        let going: HashSet<Hash> = going.filter(|one| !waiting.contains(one)).collect();
        if seen.history_is_unclear {
            return Ok((seen.present(going.iter()), BTreeSet::new()));
        }
        let mut unnamed = seen.unnamed_pages(&needed.history_of_any);
        unnamed.retain(|one| !waiting_pages.contains(one));
        let strays = seen.stray_history(&self.folder, &unnamed, long_ago).await?;
        let pages = needed
            .history_of_any
            .difference(&needed.history_of_stays)
            .copied();
        let pages: HashSet<Hash> = pages
            .chain(strays)
            .filter(|one| !waiting_pages.contains(one))
            .collect();
        Ok((seen.present(going.iter()), seen.present_pages(pages.iter())))
    }

    fn decide(&self, seen: &Inventory) -> Vec<PlannedSnapshot> {
        let snapshots = &seen.chain.snapshots;
        let mut by_core: BTreeMap<(u64, Hash), Vec<ManifestName>> = BTreeMap::new();
        let mut stamps: HashMap<Hash, Stamp> = HashMap::new();
        let mut whole: HashSet<Hash> = HashSet::new();
        for one in snapshots {
            let key = (one.sequence(), one.manifest.core_hash);
            by_core.entry(key).or_default().push(one.manifest.name());
            stamps.insert(key.1, one.stamp());
            if seen.is_whole(&one.manifest) {
                whole.insert(key.1);
            }
        }
        let planned = by_core.into_iter().filter_map(|((sequence, core), names)| {
            Some(PlannedSnapshot {
                sequence,
                stamp: *stamps.get(&core)?,
                core,
                late: seen.is_late(&names),
                whole: whole.contains(&core),
                names,
                reasons: Reasons::new(),
            })
        });
        let mut planned: Vec<PlannedSnapshot> = planned.collect();
        let policy = match self.forget.is_empty() {
            true => self.policy,
            false => Policy::default(),
        };
        let decided = decide(&self.candidates(&planned), &policy, self.now);
        let pins = self.pins_among(&planned);
        for (one, reasons) in planned.iter_mut().zip(decided) {
            one.reasons = reasons;
            pins.explain(&one.stamp, &mut one.reasons);
        }
        planned
    }

    fn pins_among(&self, planned: &[PlannedSnapshot]) -> Pins {
        let there = planned.iter().map(|one| (one.stamp, one.sequence));
        self.pins.among(&there.collect::<Vec<_>>())
    }

    fn candidates(&self, planned: &[PlannedSnapshot]) -> Vec<Candidate> {
        let pins = self.pins_among(planned);
        let candidate = |one: &PlannedSnapshot| Candidate {
            sequence: one.sequence,
            stamp: one.stamp,
            pinned: pins.holds(&one.stamp),
            tags: self.tags.of(&one.core),
            proven: pins.proven.contains(&one.stamp),
            late: one.late,
            whole: one.whole,
        };
        planned.iter().map(candidate).collect()
    }

    fn check(&self, planned: &[PlannedSnapshot], pruned_at: Option<u64>) -> Option<Refusal> {
        let guard = Guard {
            now: self.now,
            pruned_at,
            policy: self.policy,
            confirmed: self.confirmed,
        };
        let reasons: Vec<Reasons> = planned.iter().map(|one| one.reasons.clone()).collect();
        let candidates = self.candidates(planned);
        let checked = match self.forget.is_empty() {
            true => guard.check(&candidates, &reasons),
            false => guard.check_named(&candidates, &reasons),
        };
        checked.err()
    }
}
