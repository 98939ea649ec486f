//! Deletes from a target what retention lets go, without a key that could read any of it.
//!
//! A snapshot goes by its manifest; archives go by **marks**, since who prunes cannot see who is about to
//! name one. In order: sweep what earlier marks name and nothing needs any more; mark the archives that only
//! the snapshots to be forgotten need; then, per snapshot, tombstone, manifest, signature.
//!
//! *Why nothing is lost that somebody is about to name.* A packer leans on archives that it saw on a target.
//! Say push P saw archive A, and A is marked by M afterwards; P may publish a month later. A goes only once a
//! manifest Q that lists M in `marks_seen` is here and no manifest names A. Q's packer had read M, so Q does not
//! name A, nor does any later push. P ran before Q: one state directory is held by one process, so P ended before
//! Q began; and if P's manifest still waited in the spool, Q's run put it here before Q's own, or gave it up
//! (`publish_all` keeps that order across marks, and lets none wait any longer that does not heed what Q heeds). So when Q is seen, P is seen or never comes, and what P names stays. Until
//! a push lists the mark nothing goes: a host that is away for a month keeps it all. If A is gone all the same
//! (two machines under one name, where neither waits for the other), `publish` finds it missing when it lists
//! what is there before the manifest, and stores it again or does not publish.
//!
//! *That marks are signed, and some ignored, changes nothing of it.* A mark that no manifest lists has no force. A packer
//! ignores those that it does not believe, and those that name what its newest snapshot needs (`agent::marks`); it
//! lists only the others, and for these the argument above holds word for word. Each target is a case of its own: Q, M, and the
//! manifests that are looked at are on it, and it does not matter what other targets have or mark.
//!
//! *Why no page of earlier snapshots is lost that a manifest is about to name.* Such pages are marked too, and packers
//! need not look: a page K that is here and that Q does not name was named by manifests of one writer in a row (`packer::history`), and
//! that row ended before Q. If Q's writer made K later than Q, then K was put here by a push that began after Q's
//! and so after M was written; but M names only what was here before. Manifests that a sync brings are held back by M.
//!
//! *Why a dead run does no harm.* A mark names only what the snapshots that stay do not need, and is written
//! before the first manifest goes: if the run dies in between, the archives are marked and still named, and so
//! stay until the next run has deleted the manifests. A tombstone whose manifest is still there says nothing:
//! what is there counts. A mark is removed last, after its archives and the table pages that name them.
//!
//! *Beside a sync*, which brings manifests that no host plans: it puts a manifest's signature first, then looks for
//! marks and at the archives, then puts the manifest. A sweep looks for signatures without their manifest after
//! its marks were written and before it deletes; where there is one, it waits for another run. Whichever looks last
//! sees the other.
//!
//! Pages of the archive table need no marks: one that no manifest names is deleted only with an archive that it names, so
//! no manifest that could come would have it. What cannot be deleted (credentials, object lock) is told of and left.

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
use crate::format::signature::{SignatureError, Trust};
use crate::format::statement::{MarkName, Vouched};
use crate::repository::{HostFolder, RepositoryError, SeenMark};
use crate::retention::{Candidate, Guard, NamedError, Pins, Policy, Reasons, Refusal, decide};
use crate::storage::TargetError;

use inventory::Inventory;
pub use run::PruneReport;

/// An archive that no manifest ever named was left by a push that died, once it has lain this long.
const STRAY_DAYS: i64 = 7;

#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "what {0} names cannot be told, so nothing is deleted: {1}. `verify` shows all that is wrong"
    )]
    Unreadable(ManifestName, String),
    #[error("{0} changed while it was looked at; run it again")]
    Changed(String),
    #[error(
        "a tombstone by {0} would not be believed: list that key for the host in allowed_signers, with the namespace \
         sealift-prune"
    )]
    Signer(String),
    #[error(transparent)]
    Named(#[from] NamedError),
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// One host's folder on one target, and what is to stay there.
#[derive(Debug)]
pub struct PruneRequest {
    pub folder: HostFolder,
    pub trust: Trust,
    pub policy: Policy,
    /// Snapshots to forget by stamp, sequence or hash, and no other, whatever the policy says. Empty: the policy
    /// decides.
    pub forget: Vec<String>,
    pub now: DateTime<Utc>,
    pub pins: Pins,
    /// The host will never push again: nobody is left to heed a mark.
    pub gone: bool,
    /// Somebody looked at the plan and said yes to its extent.
    pub confirmed: bool,
    /// The recovery documents, which may have to go to make room, and are put back.
    pub recovery: Vec<(ObjectKey, Bytes)>,
}

/// A snapshot, and why it stays; without a reason it goes.
#[derive(Debug, Clone)]
pub struct PlannedSnapshot {
    pub sequence: u64,
    pub stamp: Stamp,
    pub core: Hash,
    /// Its manifest and the revisions of it.
    pub names: Vec<ManifestName>,
    /// By the target's clock it came long after its stamp.
    pub late: bool,
    /// All archives that it names are there, with their sizes.
    pub whole: bool,
    pub reasons: Reasons,
}

impl PlannedSnapshot {
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// A mark of an earlier prune.
#[derive(Debug, Clone)]
pub struct PlannedMark {
    pub name: MarkName,
    /// Of those it names, what is here and needed by nothing, with its bytes.
    pub archives: BTreeMap<Hash, u64>,
    /// The same with what is here no more: a run may have died before it came to the pages.
    dead: Vec<Hash>,
    /// Pages of earlier snapshots, and directories of them, that it names and no manifest does.
    pages: Vec<Hash>,
    /// A later manifest heeded it.
    pub ripe: bool,
    /// No packer will heed it as it is: what it names and nothing needs is marked again, and it is removed.
    stale: bool,
    /// It names pages of which nobody can tell now whether a manifest needs them.
    is_unclear: bool,
}

#[derive(Debug)]
pub struct PrunePlan {
    /// Oldest first.
    pub snapshots: Vec<PlannedSnapshot>,
    pub marks: Vec<PlannedMark>,
    /// Archives to mark now, and their bytes.
    pub to_mark: BTreeMap<Hash, u64>,
    /// Pages of earlier snapshots to mark now, and directories of them.
    to_mark_pages: BTreeSet<Hash>,
    /// Marks that could not be read: there are too many, or they are too large.
    pub unread_marks: usize,
    /// Strange, but no reason not to prune.
    pub findings: Vec<Finding>,
    /// What deleting it would be refused for, without `--yes`.
    pub refusal: Option<Refusal>,
    /// Names to forget that no snapshot here has.
    pub not_here: Vec<String>,
    /// Manifests of deleted snapshots that nobody believes any more.
    remains: Vec<ManifestName>,
    /// Table pages that no manifest names.
    pages: Vec<Hash>,
    /// All that was there when the plan was made.
    manifests: Vec<ManifestName>,
    signers: Vec<String>,
}

impl PrunePlan {
    pub fn forgotten(&self) -> impl Iterator<Item = &PlannedSnapshot> {
        self.snapshots.iter().filter(|one| !one.stays())
    }

    fn ripe(&self) -> impl Iterator<Item = &PlannedMark> {
        self.marks.iter().filter(|mark| mark.ripe)
    }

    fn stale(&self) -> impl Iterator<Item = &PlannedMark> {
        self.marks.iter().filter(|mark| mark.stale)
    }

    /// Archives that can go now, and their bytes.
    pub fn to_sweep(&self) -> BTreeMap<Hash, u64> {
        let archives = self.ripe().flat_map(|mark| &mark.archives);
        archives.map(|(hash, bytes)| (*hash, *bytes)).collect()
    }

    pub fn is_empty(&self) -> bool {
        let nothing_goes = self.forgotten().next().is_none() && self.ripe().next().is_none();
        let nothing_to_mark = self.to_mark.is_empty() && self.to_mark_pages.is_empty();
        nothing_goes && nothing_to_mark && self.remains.is_empty() && self.stale().next().is_none()
    }
}

/// What manifests need: archives, and the pages and directories that tell of earlier snapshots.
#[derive(Default)]
struct Needed {
    of_any: HashSet<Hash>,
    of_stays: HashSet<Hash>,
    history_of_any: HashSet<Hash>,
    history_of_stays: HashSet<Hash>,
}

impl Needed {
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
    /// Looks at the target and decides. Deletes nothing.
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
            if let Finding::Refused(name, why) = finding
                && !seen.remains.contains(name)
            {
                return Err(PruneError::Unreadable(name.clone(), why.clone()));
            }
        }
        let mut snapshots = self.decide(&seen);
        let not_here = self.choose_named(&mut snapshots)?;
        let refusal = self.check(&snapshots, seen.pruned_at);
        let mut needed = Needed::default();
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
        let heeded: HashSet<&str> = chain
            .snapshots
            .iter()
            .flat_map(|one| one.manifest.core.marks_seen.iter().map(String::as_str))
            .collect();
        let marks = seen.marks.seen.iter();
        let marks: Vec<PlannedMark> = marks
            .map(|one| {
                let ripe = self.gone || heeded.contains(one.name.as_str());
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

    /// What only snapshots that go need, and what was left by pushes that died, unless a mark names it already.
    async fn to_mark(
        &self,
        seen: &Inventory,
        marks: &[PlannedMark],
        needed: &Needed,
    ) -> Result<(BTreeMap<Hash, u64>, BTreeSet<Hash>), PruneError> {
        let (mut waiting, mut waiting_pages) = (HashSet::<Hash>::new(), HashSet::<Hash>::new());
        for (one, planned) in seen.marks.seen.iter().zip(marks) {
            if planned.stale {
                continue;
            }
            // What a ripe mark names and a manifest still needed is free to be marked again.
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
            proven: false,
            late: one.late,
            whole: one.whole,
        };
        planned.iter().map(candidate).collect()
    }

    fn check(&self, planned: &[PlannedSnapshot], pruned_at: Option<u64>) -> Option<Refusal> {
        let guard = Guard {
            now: self.now,
            pruned_at,
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
