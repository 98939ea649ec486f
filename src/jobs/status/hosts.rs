//! The state of every host that pushes to one target, as the target shows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use serde::Serialize;

use super::super::context::runtime;
use super::super::error::JobError;
use super::super::receipts::{ReceiptKnowledge, read_receipts};
use super::super::signer_memory::RememberedPlace;
use super::super::verdict::ProvenSnapshot;
use super::checks::{incomplete, stale};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{HostName, Stamp};
use crate::base::panics::caught;
use crate::base::units::{count, duration};
use crate::format::chain::Chain;
use crate::format::signature::Trust;
use crate::repository::{self, HostFolder, RepositoryError};
use crate::storage::Storage;

/// Most hosts that are examined at once.
const MOST_AT_ONCE: usize = 4;

/// What a watcher demands of each host, beyond what the host itself promised.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WatcherLimits {
    /// Most age of the newest snapshot. `None`: any.
    pub(crate) max_age: Option<Duration>,
    /// Most age of the newest proof. `None`: no proof is demanded.
    pub(crate) proof_max_age: Option<Duration>,
}

/// The hosts on one target.
#[derive(Debug, Serialize)]
pub(crate) struct HostsReport {
    /// The target's label.
    pub(crate) target: String,
    pub(crate) hosts: Vec<Member>,
}

/// One host, as its folder shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Member {
    pub(crate) host: HostName,
    pub(crate) snapshots: usize,
    /// `None` if the host has no snapshot there, or it could not be read.
    pub(crate) newest: Option<NewestSnapshot>,
    /// Bytes of the host's archives.
    pub(crate) stored_bytes: u64,
    /// The newest proof. `None`: none was demanded, or there is none.
    pub(crate) proof: Option<ProvenSnapshot>,
    pub(crate) problems: Vec<String>,
}

/// The newest snapshot of a host.
#[derive(Debug, Serialize)]
pub(crate) struct NewestSnapshot {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// Negative: its stamp is in the future.
    pub(crate) age_seconds: i64,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Fingerprint of its signer.
    pub(crate) signer: String,
    /// When the host promised the next one. `None`: it has no schedule.
    pub(crate) next_by: Option<DateTime<Utc>>,
}

/// Examines every host on `target`. It believes the manifests that `given` accepts; without that,
/// those of the signers that are `remembered` for the place, or else of the signer of the oldest.
pub(crate) fn run(
    target: &Arc<dyn Storage>,
    given: Option<&Trust>,
    remembered: &RememberedPlace<'_>,
    limits: WatcherLimits,
) -> Result<HostsReport, JobError> {
    let runtime = runtime()?;
    let hosts = runtime.block_on(repository::hosts(target))?;
    if hosts.is_empty() {
        let text = format!("no backups found at {}", target.label());
        return Err(JobError::work(text)
            .with_next("check the URL: it is the folder that holds the hosts' folders"));
    }
    let now = clock::now();
    let looks = hosts.into_iter().map(|host| {
        let folder = HostFolder::new(target.clone(), host);
        look(folder, given, remembered, (limits, now))
    });
    let looks = futures::stream::iter(looks).buffered(MOST_AT_ONCE);
    Ok(HostsReport {
        target: target.label().to_owned(),
        hosts: runtime.block_on(looks.collect()),
    })
}

impl HostsReport {
    /// Whether no host has a problem.
    pub(crate) fn is_well(&self) -> bool {
        self.hosts.iter().all(|member| member.problems.is_empty())
    }
}

async fn look(
    folder: HostFolder,
    given: Option<&Trust>,
    remembered: &RememberedPlace<'_>,
    (limits, now): (WatcherLimits, DateTime<Utc>),
) -> Member {
    let mut member = Member {
        host: folder.host.clone(),
        snapshots: 0,
        newest: None,
        stored_bytes: 0,
        proof: None,
        problems: Vec::new(),
    };
    let trust = match given {
        Some(given) => Ok(given.clone()),
        None => remembered.trust(&folder.host),
    };
    let trust = match trust {
        Ok(trust) => trust,
        Err(error) => {
            member.problems.push(error.with_causes());
            return member;
        }
    };
    match caught(examine(&folder, &trust, (limits, now), &mut member)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let changed = match given {
                Some(_) => None,
                None => remembered.change_behind(&folder.host, &error),
            };
            member
                .problems
                .push(changed.unwrap_or_else(|| with_causes(&error)));
        }
        Err(panicked) => member.problems.push(panicked.to_string()),
    }
    member
}

async fn examine(
    folder: &HostFolder,
    trust: &Trust,
    (limits, now): (WatcherLimits, DateTime<Utc>),
    member: &mut Member,
) -> Result<(), RepositoryError> {
    let chain = folder.chain(trust).await?;
    member.snapshots = chain.snapshots.len();
    let findings = chain.findings.iter().map(ToString::to_string);
    member.problems.extend(findings);
    let present = folder.archives_present().await?;
    member.stored_bytes = present.values().sum();
    let Some(newest) = chain.snapshots.last() else {
        return Ok(());
    };
    let core = &newest.manifest.core;
    member.problems.extend(stale(core.next_by, now));
    member.problems.extend(too_old(core.stamp, limits, now));
    if let Some(most) = limits.proof_max_age {
        let (proof, problem) = newest_proof(folder, &chain, trust, (most, now)).await?;
        member.proof = proof;
        member.problems.extend(problem);
    }
    member.newest = Some(NewestSnapshot {
        stamp: core.stamp,
        sequence: core.sequence,
        age_seconds: (now - core.stamp.time()).num_seconds(),
        bytes: core.totals.bytes,
        signer: newest.signer.clone(),
        next_by: core.next_by,
    });
    let table = folder.table(&newest.manifest).await?;
    member.problems.extend(incomplete(&table, &present));
    Ok(())
}

/// Returns the problem that the newest snapshot is older than the watcher allows, if it is.
fn too_old(stamp: Stamp, limits: WatcherLimits, now: DateTime<Utc>) -> Option<String> {
    let most = limits.max_age?;
    let age = now - stamp.time();
    let is_old = TimeDelta::from_std(most).is_ok_and(|most| age > most);
    is_old.then(|| {
        let age = duration(age.to_std().unwrap_or_default());
        format!(
            "the newest snapshot is {age} old; at most {} are allowed",
            duration(most)
        )
    })
}

/// Returns the newest proof, and the problem that it is older than `most`, or that there is none.
/// Only the host and the key holder know the salts of snapshots, so the signatures of receipts are
/// checked here, and their witnesses are not.
async fn newest_proof(
    folder: &HostFolder,
    chain: &Chain,
    trust: &Trust,
    (most, now): (Duration, DateTime<Utc>),
) -> Result<(Option<ProvenSnapshot>, Option<String>), RepositoryError> {
    let knowledge = ReceiptKnowledge {
        trust,
        host_signers: &[],
        keys: &HashMap::new(),
        now,
    };
    let found = read_receipts(folder, chain, &knowledge).await?;
    let proving = found.believed.iter();
    let proving = proving.filter(|one| one.judged.proves_restore());
    let newest = proving.max_by_key(|one| one.judged.receipt.finished_at);
    let Some(newest) = newest else {
        let mut text = format!("no backup of {} was ever restored for proof", folder.host);
        if let Some(first) = found.refused.first() {
            let number = count(found.refused_count as u64, "receipt");
            text += &format!("; {number} not believed: {}", first.reason);
        }
        if !matches!(trust, Trust::AllowedSigners(_)) {
            text += "; only an allowed_signers file (--signer) can say who may sign receipts";
        }
        return Ok((None, Some(text)));
    };
    let receipt = &newest.judged.receipt;
    let age = now - receipt.finished_at;
    let is_old = TimeDelta::from_std(most).is_ok_and(|most| age > most);
    let problem = is_old.then(|| {
        let age = duration(age.to_std().unwrap_or_default());
        let most = duration(most);
        format!("the newest restore for proof was {age} ago; at most {most} are allowed")
    });
    let proof = ProvenSnapshot::of(receipt, &receipt.target.name);
    Ok((Some(proof), problem))
}
