//! Whether this host's backups are safe: the verdict, and the state of each target.
//!
//! [`run`] looks at the targets and records what they show; [`remembered_verdict`] makes the same
//! verdict from what was recorded, without any network.

mod checks;
mod facts;
pub(crate) mod hosts;
mod last_run;
mod look;
pub(crate) mod record;
mod remembered;
mod runs;
pub(crate) mod shown;

use std::collections::HashSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::context::{FrontEnd, open_catalog, runtime};
use super::error::JobError;
use super::push::{PresentSigner, resealing};
use super::restore_in_place;
use super::shrunk::{self, ShrinkFinding};
use super::signer_change::present_signer;
use super::targets::{no_such_target, open_target, own_trust};
use super::verdict::{self, Severity, Verdict, VerdictFinding};
use crate::base::clock;
use crate::base::ids::{Hash, HostName, Stamp};
use crate::base::progress::Stage;
use crate::base::units::{count, duration};
use crate::config::{Config, TargetConfig};
use crate::format::signature::Trust;
use crate::keys::recipients::Recipients;
use crate::state::catalog::Catalog;
use crate::state::history::History;
use crate::state::restores::{self, RestoreStep};
use crate::storage::TargetSpec;
use checks::stale;
use facts::{FactSources, RememberedTarget};
pub(crate) use last_run::{LastRun, RUNNING, UNFINISHED};
use look::{Expected, Seen};
pub(crate) use remembered::remembered_judgement;
#[allow(unused_imports, reason = "the agent's parts use it")]
pub(crate) use remembered::remembered_verdict;
use shown::{LookBook, RecipientAccess, ShownSnapshot, open_history};

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

/// Returns the restore in place that has begun and not ended.
fn open_restore(config: &Config) -> Option<RestoreOpenFinding> {
    let is_running = restores::is_running(&config.state);
    match restores::open_restore(&config.state) {
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
    }
}

fn safety_copies(config: &Config) -> Vec<SafetyCopyReminder> {
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
    old.collect()
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
            let error = error.with_causes();
            front.warn(&format!(
                "only what is seen now counts for the verdict: {error}"
            ));
            (None, LookBook::default())
        }
    };
    let signer = present_signer(config, &|text| front.warn(text));
    let refusal = unreadable.clone();
    let refusal = refusal.or_else(|| facts::refusal(config, &signer, catalog.as_ref()));
    let mut session = Session {
        config,
        now,
        catalog: catalog.as_ref(),
        history: history.as_ref(),
        signer: signer.as_ref().ok(),
        is_unreadable: unreadable.is_some(),
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
    let observed = facts::gather(&sources)?;
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

/// One run of `status`.
struct Session<'a> {
    config: &'a Config,
    now: DateTime<Utc>,
    catalog: Option<&'a Catalog>,
    history: Option<&'a History>,
    signer: Option<&'a PresentSigner>,
    /// The catalog is there and cannot be read.
    is_unreadable: bool,
    front: &'a dyn FrontEnd,
}

impl Session<'_> {
    /// Returns the state of the requested targets, and adds the looks at them to `looks`.
    fn targets(
        &mut self,
        request: StatusRequest<'_>,
        looks: &mut LookBook,
    ) -> Result<Vec<TargetHealth>, JobError> {
        let config = self.config;
        let is_chosen =
            |target: &&TargetConfig| request.target.is_none_or(|name| name == target.name);
        let chosen: Vec<&TargetConfig> = config.targets.iter().filter(is_chosen).collect();
        let mut remembered = Vec::new();
        for target in &chosen {
            remembered.push(RememberedTarget::read(config, self.catalog, &target.name)?);
        }
        let trust = match request.asking == Asking::Targets && !chosen.is_empty() {
            true => Some(own_trust(config, self.front)?),
            false => None,
        };
        // At the same time: each that does not answer takes some seconds.
        let seen = chosen.iter().zip(&remembered).map(async |(target, known)| {
            let trust = trust.as_ref().filter(|_| !target.write_only)?;
            Some(self.look(target, known, trust, looks).await)
        });
        let seen = runtime()?.block_on(futures::future::join_all(seen));
        let mut all = Vec::new();
        for ((target, known), seen) in chosen.into_iter().zip(&remembered).zip(seen) {
            if let Some(seen) = &seen {
                let shown = seen.as_ref().map(|seen| &seen.shown);
                let shown = shown.map_err(String::as_str);
                let recorded = looks.add(self.history, &target.name, self.now, shown);
                self.warn_of(recorded);
            }
            all.push(self.health(target, known, seen));
        }
        if self.history.is_some_and(|_| request.target.is_none()) {
            let names: Vec<&str> = config.targets.iter().map(|one| one.name.as_str()).collect();
            let forgotten = self
                .history
                .map(|history| history.forget_other_looks(&names));
            forgotten.into_iter().for_each(|done| self.warn_of(done));
        }
        Ok(all)
    }

    fn warn_of(&self, done: Result<(), crate::state::history::HistoryError>) {
        if let Err(error) = done {
            let error = crate::base::error_chain::with_causes(&error);
            self.front
                .warn(&format!("what was seen now is not recorded: {error}"));
        }
    }

    async fn look(
        &self,
        target: &TargetConfig,
        known: &RememberedTarget,
        trust: &Trust,
        looks: &LookBook,
    ) -> Result<Seen, String> {
        self.front
            .stage(Stage::InspectingTargets, Some(&target.name));
        let opened = open_target(target).map_err(|error| error.to_string())?;
        let expected = Expected {
            config: self.config,
            trust,
            signer: self.signer,
            given_up: &known.given_up,
            published: known.newest.map(|newest| ShownSnapshot {
                stamp: newest.stamp,
                sequence: newest.sequence,
                next_by: None,
            }),
            before: looks.shown(&target.name).unwrap_or_default(),
        };
        let mut seen = look::look(&opened, expected).await?;
        let newest = seen
            .shown
            .newest
            .as_ref()
            .map_or(0, |newest| newest.sequence);
        let mut lacking = known
            .waiting
            .iter()
            .filter(|(.., core)| !seen.cores.contains(core));
        seen.shown.lacks_older = lacking.any(|(sequence, ..)| *sequence <= newest);
        Ok(seen)
    }

    /// Returns the state of a target: as it was `seen`, or else as it is remembered.
    fn health(
        &self,
        target: &TargetConfig,
        known: &RememberedTarget,
        seen: Option<Result<Seen, String>>,
    ) -> TargetHealth {
        let mut health = TargetHealth {
            name: target.name.clone(),
            url: TargetSpec::from_url(&target.url).label(),
            newest: None,
            sequence: None,
            age_seconds: None,
            behind: known.waiting.iter().map(|(.., core)| *core).collect(),
            recipients: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        let mut newest = known.newest;
        if self.is_unreadable {
            let text = "the catalog of this host cannot be read";
            health.notes.push(text.to_owned());
        }
        if target.write_only {
            let text = "write-only: this host cannot look there; this is what it remembers";
            health.notes.push(text.to_owned());
        }
        match seen {
            None => {}
            Some(Err(error)) => health.problems.push(error),
            Some(Ok(seen)) => {
                // `sync` brings snapshots that this host's catalog does not know to be there.
                health.behind.retain(|core| !seen.cores.contains(core));
                let problems = seen.shown.problems.into_iter();
                health.problems.extend(problems.map(|problem| problem.text));
                health.notes.extend(seen.notes);
                health.recipients = seen.shown.recipients;
                newest = seen
                    .shown
                    .newest
                    .map(|shown| verdict::observed::ObservedSnapshot {
                        stamp: shown.stamp,
                        sequence: shown.sequence,
                        due: shown
                            .next_by
                            .or_else(|| self.config.schedule.next_by(shown.stamp.time())),
                    });
            }
        }
        if let Some(newest) = newest {
            (health.newest, health.sequence) = (Some(newest.stamp), Some(newest.sequence));
            health.age_seconds = Some((self.now - newest.stamp.time()).num_seconds());
            health.problems.extend(stale(newest.due, self.now));
        }
        report_behind(&mut health);
        if let (false, Some(most)) = (health.problems.is_empty(), target.max_age) {
            let most = duration(most);
            let text = format!("may be away until its newest snapshot is {most} old (max_age)");
            health.notes.push(text);
        }
        health
    }
}

/// Adds the problem that the target lacks snapshots.
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
