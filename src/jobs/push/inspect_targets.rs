//! What each target holds of this host right now.
//!
//! A listing says most of it, but not always all: it may lag behind what was written. So what this
//! host remembers to have put there, and the listing lacks, is asked for by name before it counts
//! as gone. A target with write-only credentials shows nothing; there memory is all there is.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use foldhash::fast::RandomState;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Duration, Instant};

use super::error::PushError;
use super::looks::{LookPlan, LookScope};
use super::request::{Target, TargetAnswer};
use crate::base::ids::{Hash, HostName, ObjectKey};
use crate::base::panics;
use crate::format::chain::{Chain, ChainError, Finding, VerifiedSnapshot};
use crate::format::manifest::ManifestName;
use crate::format::signature::Trust;
use crate::repository::{HostFolder, Marks, RepositoryError};
use crate::state::State;
use crate::state::catalog::{PublicationState, SnapshotRow};
use crate::storage::{ErrorKind, TargetError, panicked};

/// Unlisted objects asked for by name, at the most; of an emptied target there are more.
const MOST_ASKED: usize = 256;
const ASKED_AT_ONCE: usize = 16;
/// Time that the other targets have once a target has answered, and that each has for a later look.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A set of manifests' names with a fast hash function: there may be thousands of them, and a push
/// makes several such sets.
pub(super) type NameSet<'a> = HashSet<&'a ManifestName, RandomState>;

/// One target, and what it holds of this host.
#[derive(Debug)]
pub struct InspectedTarget {
    /// The target's configured name.
    pub name: String,
    /// The host's folder on it.
    pub folder: HostFolder,
    /// Most uploads at once.
    pub concurrency: usize,
    /// Its credentials can neither list nor read: `seen` is what this host remembers.
    pub write_only: bool,
    /// What it holds, or why that is unknown.
    pub seen: Result<TargetInventory, TargetError>,
}

impl InspectedTarget {
    /// Returns what the target answered.
    pub(super) fn answer(&self) -> TargetAnswer {
        match &self.seen {
            _ if self.write_only => TargetAnswer::NotAsked,
            Ok(seen) => TargetAnswer::Seen(seen.findings.clone()),
            Err(_) => TargetAnswer::None,
        }
    }

    /// Returns whether everything should be looked at, because something is not as expected.
    pub fn asks_for_more(&self) -> bool {
        self.seen.as_ref().is_ok_and(|seen| seen.is_strange)
    }
}

/// What a target holds of this host.
#[derive(Debug)]
pub struct TargetInventory {
    /// Which archives were looked at.
    pub scope: LookScope,
    /// Those of them that are there, by BLAKE3, and their sizes. The target may hold others.
    pub archives: HashMap<Hash, u64>,
    /// Something is not as this host remembers it, and not all archives were looked at.
    pub is_strange: bool,
    /// Manifests that are there.
    pub manifests: Vec<ManifestName>,
    /// Verified snapshots that the catalog does not know.
    pub foreign: Vec<VerifiedSnapshot>,
    /// Faults of the chain of manifests.
    pub findings: Vec<Finding>,
    /// Objects that are there and are not listed.
    pub unlisted: usize,
    /// Core hashes of snapshots that were published there and were deleted on purpose.
    pub pruned: HashSet<Hash>,
    /// Prune marks, and which of them to follow.
    pub marks: Marks,
}

/// What this host remembers of a target.
#[derive(Debug, Default)]
struct RememberedInventory<'a> {
    /// Published, and not known to be gone.
    manifests: Vec<&'a ManifestName>,
    /// Archives, by BLAKE3, and their sizes, of those that are looked at.
    archives: HashMap<Hash, u64>,
}

impl<'a> RememberedInventory<'a> {
    fn of(
        state: &State,
        rows: &'a [SnapshotRow],
        target: &str,
        at: usize,
        looks: &LookPlan,
    ) -> Result<Self, PushError> {
        let mut remembered = Self::default();
        let publications = state.catalog.publications(target)?;
        let is_there = |row: &&SnapshotRow| {
            let publication = publications.get(&row.known.core);
            publication == Some(&PublicationState::Published)
        };
        let there = rows.iter().filter(is_there);
        remembered.manifests = there.map(|row| &row.name).collect();
        remembered.archives = match looks.known_part(at) {
            Some((archives, part)) => {
                let there = archives.iter().filter(|one| part.placed.contains(&one.n));
                there.map(|one| (one.blake3, one.bytes)).collect()
            }
            None => {
                let placed = state.catalog.placed_on(target)?;
                let archives = state.catalog.archives()?;
                let there = archives.iter().filter(|one| placed.contains(&one.n));
                there.map(|one| (one.row.blake3, one.row.bytes)).collect()
            }
        };
        Ok(remembered)
    }
}

/// What a look at a target came to.
pub(super) type InspectionResult = Result<TargetInventory, RepositoryError>;

/// Looks at every target at once, as `looks` says, and calls `on_answer` with the place and the
/// answer of each as it comes. A target that does not answer, or not soon after
/// another, is no error here; one that answers with manifests that cannot be read is.
pub(in crate::jobs) async fn inspect_targets(
    state: &State,
    host: &HostName,
    targets: &[Target],
    trust: &Trust,
    looks: &LookPlan,
    on_answer: &dyn Fn(usize, &InspectionResult),
) -> Result<Vec<InspectedTarget>, PushError> {
    let rows = state.catalog.snapshots()?;
    let known = LazyCell::new(|| -> NameSet<'_> { rows.iter().map(|row| &row.name).collect() });
    let mut remembered = Vec::new();
    for (at, (named, scope)) in targets.iter().zip(&looks.scopes).enumerate() {
        let one = RememberedInventory::of(state, &rows, &named.name, at, looks)?;
        remembered.push((scope, one));
    }
    let folder = |named: &Target| HostFolder::new(named.target.clone(), host.clone());
    let known = &known;
    let looks = targets.iter().zip(remembered).enumerate();
    let looks = looks.map(|(at, (named, (scope, remembered)))| async move {
        let looked = async {
            if named.write_only {
                return Ok(TargetInventory::of_memory(remembered, scope));
            }
            let folder = folder(named);
            let seen = look(&folder, known, scope, &remembered, trust).await?;
            held_still(&folder, &remembered, seen).await
        };
        let looked = panics::caught(looked).await.unwrap_or_else(|error| {
            let key = format!("{host}/");
            Err(panicked("look at", &key, named.target.label(), error).into())
        });
        (at, looked)
    });
    let mut answers: Vec<_> = targets.iter().map(|_| None).collect();
    let mut looks: FuturesUnordered<_> = looks.collect();
    let mut ends: Option<Instant> = None;
    loop {
        let next = match ends {
            Some(ends) => tokio::time::timeout_at(ends, looks.next()).await,
            None => Ok(looks.next().await),
        };
        let Ok(Some((at, looked))) = next else { break };
        if looked.is_ok() && !targets[at].write_only {
            ends.get_or_insert_with(|| Instant::now() + PATIENCE);
        }
        on_answer(at, &looked);
        answers[at] = Some(looked);
    }
    let inspected_targets = targets.iter().zip(answers).map(|(named, answer)| {
        let seen = match answer {
            None => Err(no_answer(named, host)),
            Some(Ok(seen)) => Ok(seen),
            Some(Err(RepositoryError::Target(error))) => Err(error),
            Some(Err(source)) => {
                return Err(PushError::Inspect {
                    host: host.clone(),
                    target: named.target.label().to_owned(),
                    source: Box::new(source),
                });
            }
        };
        Ok(InspectedTarget {
            name: named.name.clone(),
            folder: folder(named),
            concurrency: named.concurrency,
            write_only: named.write_only,
            seen,
        })
    });
    inspected_targets.collect()
}

/// Of a target that held snapshots, and shows nothing, not even the host's folder, the disk is most
/// likely not mounted.
async fn held_still(
    folder: &HostFolder,
    remembered: &RememberedInventory<'_>,
    seen: TargetInventory,
) -> Result<TargetInventory, RepositoryError> {
    let is_empty = seen.manifests.is_empty() && seen.archives.is_empty();
    if remembered.manifests.is_empty() || !is_empty || !folder.target.may_be_unmounted() {
        return Ok(seen);
    }
    let host = folder.host.as_str();
    if folder
        .target
        .list_folders()
        .await?
        .iter()
        .any(|name| name == host)
    {
        return Ok(seen);
    }
    let what = format!(
        "there is no folder {host} any more, where snapshots were: is the disk mounted there? If it was emptied on purpose, \
         make that folder there"
    );
    let (key, kind) = (format!("{host}/"), ErrorKind::Unavailable);
    Err(TargetError::new("list", &key, folder.target.label(), kind, what).into())
}

fn no_answer(named: &Target, host: &HostName) -> TargetError {
    let cause = named.target.trouble();
    let cause = cause.map_or(String::new(), |cause| format!("{cause}; "));
    let what = format!(
        "{cause}it did not respond within {} s after another target did",
        PATIENCE.as_secs()
    );
    let (key, label) = (format!("{host}/"), named.target.label());
    TargetError::new("list", &key, label, ErrorKind::Unavailable, what)
}

async fn look<'a>(
    folder: &HostFolder,
    known: &impl Deref<Target = NameSet<'a>>,
    scope: &LookScope,
    remembered: &RememberedInventory<'_>,
    trust: &Trust,
) -> Result<TargetInventory, RepositoryError> {
    // Marks first: a mark is removed after what it names, and the listing must not be older than
    // that.
    let marks = folder.marks(trust, &[]).await?;
    let archives = async {
        match scope {
            LookScope::Whole => folder.archives_present().await,
            LookScope::Part { named, shards } => folder.archives_among(named, shards).await,
        }
    };
    let (archives, manifests) = futures::future::join(archives, folder.manifest_names()).await;
    let (archives, manifests) = (archives?, manifests?);
    let mut seen = TargetInventory {
        scope: scope.clone(),
        is_strange: false,
        archives,
        foreign: Vec::new(),
        findings: Vec::new(),
        manifests,
        unlisted: 0,
        pruned: HashSet::new(),
        marks,
    };
    // Both are in order. Usually they are the same, and no set of them is needed.
    let is_as_remembered = seen
        .manifests
        .iter()
        .eq(remembered.manifests.iter().copied());
    let mut missing = Vec::new();
    if !is_as_remembered {
        let there: NameSet<'_> = seen.manifests.iter().collect();
        let remembered = remembered.manifests.iter().copied();
        missing.extend(remembered.filter(|name| !there.contains(name)));
    }
    ask_for_unlisted(folder, remembered, &mut missing, &mut seen).await?;
    let gone = missing.iter().map(|name| (name.sequence, name.stamp));
    seen.pruned = folder.deletions(trust, &[], &gone.collect()).await?;
    let mut manifests = seen.manifests.iter();
    let are_known = is_as_remembered || manifests.all(|name| known.contains(name));
    let mut archives = remembered.archives.iter();
    let is_any_lost = archives.any(|(hash, bytes)| seen.archives.get(hash) != Some(bytes));
    seen.is_strange = !scope.is_whole() && (!are_known || !missing.is_empty() || is_any_lost);
    if are_known {
        return Ok(seen);
    }
    let chain: Chain = match folder.chain(trust).await {
        Ok(chain) => chain,
        // A folder of manifests that are none of ours gives us no past; the report says so.
        Err(RepositoryError::Chain(ChainError::Empty(_))) => return Ok(seen),
        Err(RepositoryError::Chain(ChainError::NothingVerified { .. })) => {
            let strange = seen.manifests.iter().filter(|name| !known.contains(name));
            let refused = |name: &ManifestName| {
                let reason = "it is not signed by this host's signer".to_owned();
                Finding::Refused(name.clone(), reason)
            };
            seen.findings = strange.map(refused).collect();
            return Ok(seen);
        }
        Err(error) => return Err(error),
    };
    let foreign = |snapshot: &VerifiedSnapshot| !known.contains(&snapshot.manifest.name());
    seen.foreign = chain.snapshots.into_iter().filter(foreign).collect();
    seen.findings = chain.findings;
    Ok(seen)
}

impl TargetInventory {
    fn of_memory(remembered: RememberedInventory<'_>, scope: &LookScope) -> Self {
        Self {
            scope: scope.clone(),
            is_strange: false,
            archives: remembered.archives,
            manifests: remembered.manifests.into_iter().cloned().collect(),
            foreign: Vec::new(),
            findings: Vec::new(),
            unlisted: 0,
            pruned: HashSet::new(),
            marks: Marks::default(),
        }
    }
}

/// Adds what is remembered, is not listed, and is there nevertheless. Such manifests are taken out
/// of `missing`.
async fn ask_for_unlisted(
    folder: &HostFolder,
    remembered: &RememberedInventory<'_>,
    missing: &mut Vec<&ManifestName>,
    seen: &mut TargetInventory,
) -> Result<(), TargetError> {
    let unlisted = missing.iter().rev().copied();
    let keys = unlisted.map(|name| (name, folder.key(&name.key())));
    let there = futures::stream::iter(keys.take(MOST_ASKED))
        .map(async |(name, key)| {
            let got = folder.target.get_range(&key, 0..1).await;
            Ok::<_, TargetError>(is_there(got.map(drop))?.unwrap_or(false).then_some(name))
        })
        .buffer_unordered(ASKED_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let there: Vec<&ManifestName> = there
        .into_iter()
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    let listing_lags = !there.is_empty();
    seen.unlisted += there.len();
    missing.retain(|name| !there.contains(name));
    seen.manifests.extend(there.into_iter().cloned());
    let unlisted: Vec<(Hash, u64)> = remembered
        .archives
        .iter()
        .filter(|(hash, _)| !seen.archives.contains_key(*hash))
        .map(|(hash, bytes)| (*hash, *bytes))
        .collect();
    if unlisted.is_empty() || unlisted.len() > MOST_ASKED {
        return Ok(());
    }
    let asked = futures::stream::iter(unlisted)
        .map(async |(hash, bytes)| {
            let key = folder.key(&ObjectKey::archive(&hash));
            let got = folder.target.get_range(&key, 0..1).await;
            // Where archives may not be read, the manifests tell whether the listing lags.
            let there = is_there(got.map(drop))?.unwrap_or(listing_lags);
            Ok::<_, TargetError>(there.then_some((hash, bytes)))
        })
        .buffer_unordered(ASKED_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let there: Vec<(Hash, u64)> = asked
        .into_iter()
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    seen.unlisted += there.len();
    seen.archives.extend(there);
    Ok(())
}

/// What a read says of an object; `None`: nothing, for it may not be read.
fn is_there(read: Result<(), TargetError>) -> Result<Option<bool>, TargetError> {
    match read {
        Ok(()) => Ok(Some(true)),
        Err(error) => match error.kind {
            ErrorKind::NotFound => Ok(Some(false)),
            ErrorKind::Denied => Ok(None),
            ErrorKind::Frozen => Ok(Some(true)),
            _ => Err(error),
        },
    }
}
