//! Whether each target is up to date and complete, as the catalog and the target itself show it.

mod checks;
pub(crate) mod hosts;
mod last_run;
pub(crate) mod proof;

use std::collections::HashSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::context::{FrontEnd, open_catalog, runtime};
use super::error::JobError;
use super::push::{PresentSigner, Target, resealing};
use super::receipts::look_at_receipts;
use super::restore_in_place;
use super::shrunk::{self, ShrinkFinding};
use super::signer_change::present_signer;
use super::targets::{open_target, own_trust};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::panics::caught;
use crate::base::progress::Stage;
use crate::base::units::count;
use crate::config::{Config, TargetConfig};
use crate::format::chain::{Chain, ChainError, Finding};
use crate::format::signature::Trust;
use crate::keys::recipients::Recipients;
use crate::repository::{HostFolder, RepositoryError};
use crate::scrub::Problem;
use crate::state::catalog::{Catalog, PublicationState};
use crate::state::history::History;
use crate::state::restores::{self, RestoreStep};
use crate::storage::TargetSpec;
use checks::{STALE, incomplete, stale};
pub(crate) use last_run::{LastRun, RUNNING, UNFINISHED};
use proof::{ProofFacts, proof_facts};

/// A stamp may be this far ahead of the clock: several snapshots within one second get such stamps,
/// and clocks differ.
pub(crate) const SAME_TIME_SECONDS: i64 = 600;

/// The state of this host's backups.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    pub(crate) host: HostName,
    /// The newest run of `backup` or `push`. `None` before the first.
    pub(crate) last_run: Option<LastRun>,
    /// When the newest run that was complete began, in RFC 3339. `None` if there was none.
    pub(crate) last_complete_run: Option<DateTime<Utc>>,
    /// When the schedule runs next. `None` without a schedule.
    pub(crate) next_run: Option<DateTime<Utc>>,
    /// Why the next backup would be refused. `None` if it would not.
    pub(crate) refusal: Option<String>,
    /// What the next backup does out of the ordinary. Needs no attention.
    pub(crate) notes: Vec<String>,
    pub(crate) targets: Vec<TargetHealth>,
    pub(crate) findings: Vec<ShrinkFinding>,
    /// The restore in place that has begun and not ended. `None`: there is none.
    pub(crate) restore_open: Option<RestoreOpenFinding>,
    /// Safety copies of restores in place that may be deleted. They need no attention.
    pub(crate) safety_copies: Vec<SafetyCopyReminder>,
    /// Which snapshots were restored for proof, and which keys are known to exist. `None`: the
    /// history of this host cannot be read, or there is none yet.
    pub(crate) proof: Option<ProofFacts>,
}

/// A restore in place that has begun and not ended: the data may be between two states.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreOpenFinding {
    /// The restore's id. Empty: it cannot be read.
    pub(crate) id: String,
    /// The step that it is at. `None`: it cannot be read.
    pub(crate) step: Option<RestoreStep>,
    /// A sentence without its final period.
    pub(crate) text: String,
    pub(crate) next: String,
}

/// A safety copy that is older than `keep_preserved`.
#[derive(Debug, Serialize)]
pub(crate) struct SafetyCopyReminder {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Since when it may be deleted.
    pub(crate) deletable_from: DateTime<Utc>,
}

/// Returns what `status` says about restores in place.
fn restores_in_place(config: &Config) -> (Option<RestoreOpenFinding>, Vec<SafetyCopyReminder>) {
    let is_running = restores::is_running(&config.state);
    let open = match restores::open_restore(&config.state) {
        Ok(None) => None,
        Ok(Some(open)) => Some(RestoreOpenFinding {
            text: match is_running {
                true => "a restore in place is running".to_owned(),
                false => open.to_string(),
            },
            id: open.id,
            step: Some(open.step),
            next: match is_running {
                true => "wait for it to end".to_owned(),
                false => "sealift restore --resume".to_owned(),
            },
        }),
        Err(error) => Some(RestoreOpenFinding {
            id: String::new(),
            step: None,
            text: format!("it cannot be seen whether a restore in place is open: {error}"),
            next: format!(
                "look at {}",
                config.state.join(restores::RESTORES).display()
            ),
        }),
    };
    let old = restore_in_place::list(config)
        .map(|found| found.restores)
        .unwrap_or_default()
        .into_iter();
    let old = old.filter(|one| one.is_deletable).filter_map(|one| {
        Some(SafetyCopyReminder {
            path: one.safety_copy.or(one.failed_copy)?,
            bytes: one.kept_bytes,
            deletable_from: one.deletable_from?,
        })
    });
    (open, old.collect())
}

/// The state of one target.
#[derive(Debug, Serialize)]
pub(crate) struct TargetHealth {
    pub(crate) name: String,
    pub(crate) url: String,
    /// The newest snapshot there. `None` if there is none.
    pub(crate) newest: Option<Stamp>,
    /// The sequence of that snapshot.
    pub(crate) sequence: Option<u64>,
    /// The age of that snapshot. Negative: its stamp is in the future.
    pub(crate) age_seconds: Option<i64>,
    /// Snapshots of this host that the target lacks.
    #[serde(serialize_with = "as_count")]
    pub(crate) behind: HashSet<Hash>,
    /// Snapshots that the target never gets: it was added later, or their archives were lost.
    #[serde(skip)]
    given_up: HashSet<Hash>,
    pub(crate) recipients: Vec<RecipientAccess>,
    pub(crate) problems: Vec<String>,
    /// Messages that need no attention.
    pub(crate) notes: Vec<String>,
}

/// How much of the newest snapshot one recipient can decrypt.
#[derive(Debug, Serialize)]
pub(crate) struct RecipientAccess {
    pub(crate) recipient: String,
    /// All of it; else a part only.
    pub(crate) opens_in_full: bool,
}

fn as_count<S: Serializer>(hashes: &HashSet<Hash>, s: S) -> Result<S::Ok, S::Error> {
    hashes.len().serialize(s)
}

/// Whether to ask the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Look at each target.
    Targets,
    /// Report what the catalog remembers.
    Catalog,
}

/// Examines the state of this host's backups.
pub(crate) fn run(
    config: &Config,
    asking: Asking,
    front: &dyn FrontEnd,
) -> Result<StatusReport, JobError> {
    let now = clock::now();
    // On a full disk the catalog cannot be opened; the rest is reported.
    let (catalog, unreadable) = match open_catalog(config) {
        Ok(catalog) => (catalog, None),
        Err(error) => (None, Some(error.with_causes())),
    };
    let runtime = runtime()?;
    let signer = present_signer(config, front);
    let refusal = unreadable.clone();
    let refusal = refusal.or_else(|| refused_recipients(config));
    let refusal = refusal.or_else(|| match (&signer, &catalog) {
        (Err(error), _) => Some(error.with_causes()),
        (Ok(signer), Some(catalog)) => {
            let refused = signer.require_introduced(catalog).err();
            refused.map(|error| error.to_string())
        }
        (Ok(_), None) => None,
    });
    let signer = signer.ok();
    let resealing = match &catalog {
        Some(catalog) => resealing_note(config, catalog)?,
        None => None,
    };
    let remembered = |target| remembered(config, catalog.as_ref(), target, now);
    let mut targets: Vec<_> = config
        .targets
        .iter()
        .map(remembered)
        .collect::<Result<_, _>>()?;
    // At the same time: each that does not answer takes some seconds.
    let looks = config.targets.iter().zip(&mut targets);
    let looks = looks.map(async |(target, health)| {
        if unreadable.is_some() {
            health.problems.clear();
            let text = "the catalog of this host cannot be read";
            health.notes.push(text.to_owned());
        }
        if target.write_only {
            let text = "write-only: this host cannot look there; this is what it remembers";
            health.notes.push(text.to_owned());
        } else if asking == Asking::Targets {
            front.stage(Stage::InspectingTargets, Some(&target.name));
            match open_target(target) {
                Ok(target) => look(config, &target, signer.as_ref(), now, health, front).await?,
                Err(error) => health.problems.push(error.to_string()),
            }
        }
        report_behind(health);
        Ok::<_, JobError>(())
    });
    runtime.block_on(futures::future::try_join_all(looks))?;
    let (restore_open, safety_copies) = restores_in_place(config);
    let last_complete = catalog.as_ref().map(Catalog::last_complete_run);
    let last_complete = last_complete.transpose()?.flatten();
    Ok(StatusReport {
        host: config.host.clone(),
        last_run: last_run::read(config, catalog.as_ref())?,
        last_complete_run: last_complete
            .and_then(|run| last_run::time(run.started_at))
            .or_else(|| last_run::last_complete(config)),
        next_run: config.schedule.next(now),
        refusal,
        notes: resealing.into_iter().collect(),
        targets,
        findings: shrunk::read(config, catalog.as_ref(), now),
        restore_open,
        safety_copies,
        proof: remembered_proof(config, catalog.as_ref(), front),
    })
}

/// Returns what is known of proofs. If it cannot be read, that is a warning.
fn remembered_proof(
    config: &Config,
    catalog: Option<&Catalog>,
    front: &dyn FrontEnd,
) -> Option<ProofFacts> {
    let read = || {
        let history = History::open_existing(&config.state)?;
        let facts = history.map(|history| proof_facts(config, &history, catalog));
        facts.transpose()
    };
    read().unwrap_or_else(|error: JobError| {
        front.warn(&error.with_causes());
        None
    })
}

/// Returns a note if the next backup must encrypt content again for a new recipient.
fn resealing_note(config: &Config, catalog: &Catalog) -> Result<Option<String>, JobError> {
    let base = config.file.parent().unwrap_or(Path::new("."));
    let loaded = config.read_recipients().ok();
    let loaded = loaded.and_then(|lines| Recipients::load(&lines, base).ok());
    // A wrong recipient is the next backup's error.
    let Some(recipients) = loaded else {
        return Ok(None);
    };
    Ok(resealing(catalog, recipients.texts())?)
}

impl StatusReport {
    /// Whether nothing needs attention.
    pub(crate) fn is_well(&self) -> bool {
        let is_well = |health: &TargetHealth| health.problems.is_empty() && health.newest.is_some();
        let has_failed = self.last_run.as_ref().is_some_and(LastRun::has_failed);
        !self.targets.is_empty()
            && self.targets.iter().all(is_well)
            && self.findings.is_empty()
            && self.restore_open.is_none()
            && self.refusal.is_none()
            && !has_failed
    }
}

/// Returns why the next backup would refuse the recipients; `None` if it would not.
fn refused_recipients(config: &Config) -> Option<String> {
    let base = config.file.parent().unwrap_or(Path::new("."));
    match config.read_recipients() {
        Ok(lines) => {
            let refused = Recipients::load(&lines, base).err();
            refused.map(|error| with_causes(&error))
        }
        Err(error) => Some(with_causes(&error)),
    }
}

/// Returns what the catalog remembers of a target.
fn remembered(
    config: &Config,
    catalog: Option<&Catalog>,
    target: &TargetConfig,
    now: DateTime<Utc>,
) -> Result<TargetHealth, JobError> {
    let mut health = TargetHealth {
        name: target.name.clone(),
        url: TargetSpec::from_url(&target.url).label(),
        newest: None,
        sequence: None,
        age_seconds: None,
        behind: HashSet::new(),
        given_up: HashSet::new(),
        recipients: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    let Some(catalog) = catalog else {
        let text = "nothing was ever pushed from here";
        health.problems.push(text.to_owned());
        return Ok(health);
    };
    for snapshot in catalog.snapshots()?.iter() {
        let state = catalog.publication(&target.name, &snapshot.known.core)?;
        match state {
            None => drop(health.behind.insert(snapshot.known.core)),
            Some(PublicationState::GivenUp) => drop(health.given_up.insert(snapshot.known.core)),
            Some(_) => {}
        }
    }
    if let Some(newest) = catalog.last_published(&target.name)? {
        note_age(config, &mut health, newest.stamp.time(), None, now);
        (health.newest, health.sequence) = (Some(newest.stamp), Some(newest.sequence));
    }
    Ok(health)
}

/// Adds the problem that the target lacks snapshots, after the target had the chance to show them.
fn report_behind(health: &mut TargetHealth) {
    if !health.behind.is_empty() {
        let number = health.behind.len() as u64;
        let (snapshots, them) = (
            count(number, "snapshot"),
            if number == 1 { "it" } else { "them" },
        );
        let text = format!("{snapshots} behind; the next backup sends {them}");
        health.problems.insert(0, text);
    }
}

/// Notes the age of the newest snapshot, and a problem if the next one is overdue: by the time that
/// it `promised`, else by the schedule.
fn note_age(
    config: &Config,
    health: &mut TargetHealth,
    made: DateTime<Utc>,
    promised: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) {
    health.age_seconds = Some((now - made).num_seconds());
    let is_stale = |problem: &String| problem.starts_with(STALE);
    health.problems.retain(|problem| !is_stale(problem));
    let due = promised.or_else(|| config.schedule.next_by(made));
    health.problems.extend(stale(due, now));
}

/// Looks at the target itself.
async fn look(
    config: &Config,
    target: &Target,
    signer: Option<&PresentSigner>,
    now: DateTime<Utc>,
    health: &mut TargetHealth,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    let folder = HostFolder::new(target.target.clone(), config.host.clone());
    let trust = own_trust(config, front)?;
    match caught(examine(config, &folder, (&trust, signer), now, health)).await {
        Ok(Ok(chain)) => {
            let place = (target.name.as_str(), &folder);
            if let Err(error) = look_at_receipts(config, place, &chain, front).await {
                let text = format!("its receipts cannot be read: {}", error.with_causes());
                health.notes.push(text);
            }
        }
        Ok(Err(error)) => {
            if let RepositoryError::Chain(ChainError::Empty(_)) = error {
                // The catalog remembers snapshots, and the target has none.
                (health.newest, health.sequence, health.age_seconds) = (None, None, None);
            }
            health.problems.push(with_causes(&error));
        }
        Err(panicked) => health.problems.push(panicked.to_string()),
    }
    Ok(())
}

async fn examine(
    config: &Config,
    folder: &HostFolder,
    (trust, signer): (&Trust, Option<&PresentSigner>),
    now: DateTime<Utc>,
    health: &mut TargetHealth,
) -> Result<Chain, RepositoryError> {
    let chain = folder.chain(trust).await?;
    // `sync` brings snapshots that this host's catalog does not know to be there.
    for snapshot in &chain.snapshots {
        health.behind.remove(&snapshot.manifest.core_hash);
    }
    for finding in &chain.findings {
        match finding {
            Finding::Missing(known) if health.given_up.contains(&known.core) => {}
            _ => health.problems.push(finding.to_string()),
        }
    }
    if let Some(change) = chain.signer_change() {
        let text = Problem::SignerChange(change.clone()).to_string();
        match signer.is_some_and(|signer| signer.is_unknown(&change)) {
            true => health.problems.push(text),
            false => health.notes.push(text),
        }
    }
    let Some(newest) = chain.snapshots.last() else {
        return Ok(chain);
    };
    let core = &newest.manifest.core;
    if let (Some(stamp), Some(sequence)) = (health.newest, health.sequence)
        && sequence > core.sequence
    {
        let text = format!("snapshot {stamp} was published there and is gone");
        health.problems.push(text);
    }
    (health.newest, health.sequence) = (Some(core.stamp), Some(core.sequence));
    note_age(config, health, core.stamp.time(), core.next_by, now);
    let table = folder.table(&newest.manifest).await?;
    let present = folder.archives_present().await?;
    health.problems.extend(incomplete(&table, &present));
    for recipient in &core.recipients {
        let opens = |set: &String| {
            let set = table.sets.get(set);
            set.is_some_and(|set| set.contains(recipient))
        };
        health.recipients.push(RecipientAccess {
            recipient: recipient.clone(),
            opens_in_full: table.rows.values().all(|row| opens(&row.recipient_set)),
        });
    }
    Ok(chain)
}
