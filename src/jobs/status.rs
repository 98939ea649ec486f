//! Whether this host's backups are safe: the verdict, and the state of each target.
//!
//! [`run`] looks at the targets and records what they show; [`remembered_verdict`] makes the same
//! verdict from what was recorded, without any network.

mod checks;
mod facts;
pub(crate) mod hosts;
mod last_run;
mod look;
mod observed_proof;
pub(crate) mod proof;
pub(crate) mod record;
mod remembered;
pub(crate) mod remembered_target;
mod restores;
mod runs;
mod session;
pub(crate) mod shown;

use std::collections::HashSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::push::resealing;
use super::shrunk::{self, ShrinkFinding};
use super::signer_change::present_signer;
use super::targets::no_such_target;
use super::verdict::{self, Severity, Verdict, VerdictFinding};
use crate::base::clock;
use crate::base::ids::{Hash, HostName, Stamp};
use crate::config::Config;
use crate::keys::recipients::Recipients;
use crate::state::catalog::Catalog;
use crate::state::history::History;
pub(crate) use checks::STALE;
use facts::FactSources;
pub(crate) use last_run::{LastRun, RUNNING, UNFINISHED};
use proof::{ProofFacts, proof_facts};
pub(crate) use remembered::remembered_judgement;
pub(crate) use remembered::remembered_verdict;
use restores::{RestoreOpenFinding, SafetyCopyReminder, open_restore, safety_copies};
use session::Session;
use shown::{LookBook, RecipientAccess, open_history};

/// The state of this host's backups.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    pub(crate) host: HostName,
    pub(crate) verdict: Verdict,
    /// Findings that the operator acknowledged.
    pub(crate) acknowledged: Vec<VerdictFinding>,
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
    pub(crate) recipients: Vec<RecipientAccess>,
    pub(crate) problems: Vec<String>,
    /// Messages that need no attention.
    pub(crate) notes: Vec<String>,
}

fn as_count<S: Serializer>(hashes: &HashSet<Hash>, s: S) -> Result<S::Ok, S::Error> {
    hashes.len().serialize(s)
}

/// Whether to ask the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Look at each target.
    Targets,
    /// Report what the catalog and the history remember.
    Catalog,
}

/// Which targets to look at and report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatusRequest<'a> {
    pub(crate) asking: Asking,
    /// Only this target. The verdict is about all of them. `None`: all.
    pub(crate) target: Option<&'a str>,
}

/// Examines the state of this host's backups.
pub(crate) fn run(
    config: &Config,
    request: StatusRequest<'_>,
    front: &dyn FrontEnd,
) -> Result<StatusReport, JobError> {
    if let Some(name) = request.target.filter(|name| config.target(name).is_none()) {
        return Err(no_such_target(config, name));
    }
    let now = clock::now();
    // On a full disk neither the catalog nor the history can be opened; the rest is reported.
    let (catalog, unreadable) = match open_catalog(config) {
        Ok(catalog) => (catalog, None),
        Err(error) => (None, Some(error.with_causes())),
    };
    let (history, mut looks) = match open_records(config) {
        Ok(records) => records,
        Err(error) => {
            // The catalog beside it says the same.
            if unreadable.is_none() {
                let error = error.with_causes();
                front.warn(&format!(
                    "only what is seen now counts for the verdict: {error}"
                ));
            }
            (None, LookBook::default())
        }
    };
    let signer = present_signer(config, &|text| front.warn(text));
    let refusal = unreadable.or_else(|| facts::refusal(config, &signer, catalog.as_ref()));
    let mut session = Session {
        config,
        now,
        catalog: catalog.as_ref(),
        history: history.as_ref(),
        signer: signer.as_ref().ok(),
        front,
    };
    let targets = session.targets(request, &mut looks)?;
    let last_run = facts::read_last_run(config, catalog.as_ref())?;
    let shrunk = shrunk::read(config, catalog.as_ref(), now);
    let sources = FactSources {
        config,
        now,
        catalog: catalog.as_ref(),
        history: history.as_ref(),
        looks: &looks,
        last_run: last_run.as_ref(),
        refusal: refusal.clone(),
        shrunk: &shrunk,
    };
    let observed = match facts::gather(&sources) {
        Err(error) if history.is_some() => {
            let error = error.with_causes();
            front.warn(&format!("the verdict is without the history: {error}"));
            facts::gather(&sources.without_history())?
        }
        gathered => gathered?,
    };
    let judged = verdict::judge(&observed);
    if let Some(history) = &history {
        session.warn_of(facts::remember(history, &observed, &judged.first_seen));
    }
    let last_complete = catalog.as_ref().map(Catalog::last_complete_run);
    let last_complete = last_complete.transpose()?.flatten();
    Ok(StatusReport {
        host: config.host.clone(),
        verdict: judged.verdict,
        acknowledged: judged.acknowledged,
        last_run,
        last_complete_run: last_complete
            .and_then(|run| last_run::time(run.started_at))
            .or_else(|| last_run::last_complete(config)),
        next_run: config.schedule.next(now),
        refusal,
        notes: catalog
            .as_ref()
            .map(|catalog| resealing_note(config, catalog))
            .transpose()?
            .flatten()
            .into_iter()
            .collect(),
        targets,
        findings: shrunk,
        restore_open: open_restore(config),
        safety_copies: safety_copies(config),
        proof: remembered_proof(config, history.as_ref(), catalog.as_ref(), front),
    })
}

/// Returns what is known of proofs. If it cannot be read, that is a warning.
fn remembered_proof(
    config: &Config,
    history: Option<&History>,
    catalog: Option<&Catalog>,
    front: &dyn FrontEnd,
) -> Option<ProofFacts> {
    let facts = history.map(|history| proof_facts(config, history, catalog));
    facts.transpose().unwrap_or_else(|error: JobError| {
        front.warn(&error.with_causes());
        None
    })
}

/// Opens the history, and reads the looks that it has.
fn open_records(config: &Config) -> Result<(Option<History>, LookBook), JobError> {
    let history = open_history(config)?;
    let looks = history.as_ref().map(LookBook::read).transpose()?;
    Ok((history, looks.unwrap_or_default()))
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
        self.verdict.state == Severity::Green
    }
}
