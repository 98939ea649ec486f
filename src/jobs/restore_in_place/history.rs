//! The restores in place of this host: what they did, where their safety copies are, and the
//! deletion of those that are old enough.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::digest;
use super::plan::{InPlacePlan, PlannedPlace};
use super::slot::Slot;
use crate::base::clock::{self, in_seconds};
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::sqlite::SIDECARS;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::state::StateLock;
use crate::state::restores::{self, RecordPhase, RestoreLog, RestoreStep, Restores};

/// One restore in place.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PastRestore {
    /// A ULID.
    pub(crate) id: String,
    /// The snapshot.
    pub(crate) stamp: Stamp,
    /// Where the content came from.
    pub(crate) origin: String,
    /// Names of the sources that it replaced.
    pub(crate) sources: Vec<String>,
    pub(crate) began_at: DateTime<Utc>,
    /// `None`: it is open.
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// Its last step.
    pub(crate) state: RestoreStep,
    /// The directory of the old content, or its first part. `None`: there is none any more.
    pub(crate) safety_copy: Option<String>,
    /// The directory of new content that a rollback kept. `None`: there is none.
    pub(crate) failed_copy: Option<String>,
    /// Size of both in bytes.
    pub(crate) kept_bytes: u64,
    /// When they may be deleted. `None`: there is nothing to delete, or the restore is open.
    pub(crate) deletable_from: Option<DateTime<Utc>>,
    /// Whether that time has come.
    pub(crate) is_deletable: bool,
}

/// A restore whose plan cannot be used.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DamagedRestore {
    /// Its ULID.
    pub(crate) id: String,
    /// Why.
    pub(crate) why: String,
    /// Its directory.
    pub(crate) directory: String,
}

/// The restores in place of this host.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PastRestores {
    /// Oldest first.
    pub(crate) restores: Vec<PastRestore>,
    /// Those of which nothing else is known.
    pub(crate) damaged: Vec<DamagedRestore>,
}

/// What `rollback --clean` deleted.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CleanReport {
    /// The restores whose copies were deleted.
    pub(crate) cleaned: Vec<PastRestore>,
    pub(crate) freed_bytes: u64,
    /// The restores whose copies stay for now.
    pub(crate) kept: Vec<PastRestore>,
}

/// Returns the restores in place of this host.
pub(crate) fn list(config: &Config) -> Result<PastRestores, JobError> {
    let logs = restores::logs(&config.state)?;
    let mut found = PastRestores::default();
    for log in logs.iter().filter(|log| log.step().is_some()) {
        match InPlacePlan::of(log) {
            Ok(plan) => found.restores.push(past(config, log, &plan)?),
            Err(error) => found.damaged.push(DamagedRestore {
                id: log.id.clone(),
                why: with_causes(&error),
                directory: log.dir.path().display().to_string(),
            }),
        }
    }
    Ok(found)
}

fn past(config: &Config, log: &RestoreLog, plan: &InPlacePlan) -> Result<PastRestore, JobError> {
    let (safety, failed) = places(plan);
    let safety = kept_at(&safety)?;
    let failed = kept_at(&failed)?;
    let is_open = log.is_open();
    let ended_at = log
        .records
        .last()
        .filter(|_| !is_open)
        .map(|last| in_seconds(last.at));
    // The end of the restore itself, and not of its clean-up.
    let end = |step| {
        log.find(step, None, RecordPhase::Done)
            .map(|record| in_seconds(record.at))
    };
    let ended = end(RestoreStep::RolledBack).or_else(|| end(RestoreStep::Committed));
    let kept_bytes =
        safety.as_ref().map_or(0, |one| one.1) + failed.as_ref().map_or(0, |one| one.1);
    let keep = chrono::Duration::from_std(config.restore.keep_preserved).unwrap_or_default();
    let deletable_from = ended
        .or(ended_at)
        .filter(|_| kept_bytes > 0 || safety.is_some());
    let deletable_from = deletable_from
        .map(|ended| ended + keep)
        .filter(|_| !is_open);
    Ok(PastRestore {
        id: log.id.clone(),
        stamp: plan.stamp,
        origin: plan.origin.clone(),
        sources: plan.items.iter().map(|item| item.name.clone()).collect(),
        began_at: plan.made_at,
        ended_at,
        state: log.step().unwrap_or(RestoreStep::Planned),
        safety_copy: safety.map(|one| one.0),
        failed_copy: failed.map(|one| one.0),
        kept_bytes,
        deletable_from,
        is_deletable: deletable_from.is_some_and(|from| from <= clock::now()),
    })
}

/// Returns the places of the old and of the failed content.
fn places(plan: &InPlacePlan) -> (Vec<&PlannedPlace>, Vec<&PlannedPlace>) {
    let replaced = plan.items.iter().filter(|item| item.old.is_some());
    let failed = plan.items.iter();
    (
        replaced.map(|item| &item.safety).collect(),
        failed
            .flat_map(|item| [&item.failed, &item.discarded])
            .collect(),
    )
}

/// Returns where content is kept, and its size. `None`: nowhere.
fn kept_at(places: &[&PlannedPlace]) -> std::io::Result<Option<(String, u64)>> {
    let mut found: Option<(String, u64)> = None;
    for place in places {
        for slot in slots(place)? {
            let Some(meta) = slot.meta()? else {
                continue;
            };
            let mut bytes = 0;
            match meta.is_dir() {
                false => bytes = meta.size(),
                true => {
                    for entry in digest::entries(&slot.open_dir()?)? {
                        let (_, meta) = entry?;
                        bytes += if meta.is_file() { meta.size() } else { 0 };
                    }
                }
            }
            let shown = match place.rel.split_once('/') {
                Some((dir, _)) => place.base.join(dir),
                None => place.path(),
            };
            found.get_or_insert((shown.display().to_string(), 0)).1 += bytes;
        }
    }
    Ok(found)
}

/// Returns the name of a place and those of a database's sidecars there.
fn slots(place: &PlannedPlace) -> std::io::Result<Vec<Slot>> {
    let Some(main) = place.find()? else {
        return Ok(Vec::new());
    };
    let sidecars = SIDECARS.iter().map(|ending| main.with(ending));
    Ok(sidecars.chain([main.clone()]).collect())
}

/// Deletes the safety copies, and the content that rollbacks kept, of restores that ended long
/// enough ago.
pub(crate) fn clean(config: &Config) -> Result<CleanReport, JobError> {
    let _locked = StateLock::take(&config.state)?;
    let restores = Restores::lock(&config.state)?;
    let mut report = CleanReport::default();
    for one in list(config)?.restores {
        if one.kept_bytes == 0 && one.safety_copy.is_none() && one.failed_copy.is_none() {
            continue;
        }
        if !one.is_deletable {
            report.kept.push(one);
            continue;
        }
        let Some(mut log) = restores.open(&one.id)? else {
            continue;
        };
        let plan = InPlacePlan::of(&log)?;
        let (safety, failed) = places(&plan);
        for place in safety.into_iter().chain(failed) {
            for slot in slots(place)? {
                if slot.is_taken()? {
                    slot.remove()?;
                }
            }
            place.remove_empty();
        }
        log.append(
            RestoreStep::Cleaned,
            None,
            RecordPhase::Done,
            serde_json::Value::Null,
        )?;
        report.freed_bytes += one.kept_bytes;
        report.cleaned.push(one);
    }
    Ok(report)
}
