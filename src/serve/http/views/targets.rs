//! Targets as the API shows them: what this host remembers of each.

use chrono::{DateTime, Duration, Utc};
use serde::Serialize;

use super::super::problem::HttpProblem;
use super::history;
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::config::{Config, TargetConfig};
use crate::jobs::context::look_into_catalog;
use crate::jobs::credentials::{self, TriedCredentials};
use crate::jobs::error::JobError;
use crate::state::catalog::Catalog;
use crate::state::history::{History, TargetLook};
use crate::storage::TargetSpec;

/// Days within which an archive counts as read back.
const READ_WITHIN_DAYS: i64 = 90;
/// Days of the errors that are shown.
const ERROR_DAYS: i64 = 30;
/// Errors that are shown.
const ERRORS: u32 = 20;

/// One target.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct TargetView {
    pub(in super::super) name: String,
    /// Without secrets.
    pub(in super::super) url: String,
    /// This host can neither list nor read there, so it shows what it remembers.
    pub(in super::super) write_only: bool,
    /// The newest snapshot there; `None`: there is none.
    pub(in super::super) newest: Option<NewestThere>,
    /// Snapshots that the target lacks.
    pub(in super::super) behind: u64,
    pub(in super::super) archives: u64,
    /// Bytes of those archives.
    pub(in super::super) bytes: u64,
    /// The storage classes; `None`: the bucket's own.
    pub(in super::super) classes: StorageClasses,
    /// The last look; `None`: there was none.
    pub(in super::super) look: Option<LookView>,
    /// What its credentials may do. `None`: this host has not tried them.
    pub(in super::super) credentials: Option<TriedCredentials>,
    /// The newest errors of the last 30 days.
    pub(in super::super) errors: Vec<TargetErrorView>,
    pub(in super::super) verify: VerifyCoverage,
}

/// The newest snapshot on a target.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct NewestThere {
    pub(in super::super) stamp: Stamp,
    pub(in super::super) sequence: u64,
    /// Negative: its stamp is in the future.
    pub(in super::super) age_seconds: i64,
}

/// Storage classes of a target.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct StorageClasses {
    /// Of data archives.
    pub(in super::super) data: Option<String>,
    /// Of everything else.
    pub(in super::super) other: Option<String>,
}

/// The last look at a target.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct LookView {
    pub(in super::super) at: DateTime<Utc>,
    /// `None`: none succeeded.
    pub(in super::super) succeeded_at: Option<DateTime<Utc>>,
    /// `None`: the last one succeeded.
    pub(in super::super) error: Option<String>,
    pub(in super::super) failing_since: Option<DateTime<Utc>>,
}

impl From<&TargetLook> for LookView {
    fn from(look: &TargetLook) -> Self {
        Self {
            at: look.looked_at,
            succeeded_at: look.succeeded_at,
            error: look.error.clone(),
            failing_since: look.failing_since,
        }
    }
}

/// An error of a run about a target.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct TargetErrorView {
    pub(in super::super) at: DateTime<Utc>,
    pub(in super::super) run: String,
    pub(in super::super) text: String,
}

/// How much of a target was read back.
#[derive(Debug, Clone, Serialize)]
pub(in super::super) struct VerifyCoverage {
    pub(in super::super) read_within_days: i64,
    /// Share of the archives that were read within that time and found sound, from 0 to 1. `None`:
    /// there are no archives.
    pub(in super::super) share: Option<f64>,
}

/// How much to read of each target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum TargetDetail {
    /// Without the credentials and the errors, which are in the reports of runs.
    Brief,
    /// Everything.
    Full,
}

/// Returns all targets, in the order of the configuration.
pub(in super::super) fn list(
    config: &Config,
    detail: TargetDetail,
) -> Result<Vec<TargetView>, HttpProblem> {
    let (history, catalog) = (history(config)?, look_into_catalog(config)?);
    let looks = history.as_ref().map(History::looks).transpose()?;
    let looks = looks.unwrap_or_default();
    let reports = history.as_ref().filter(|_| detail == TargetDetail::Full);
    let targets = config.targets.iter();
    let views = targets.map(|target| view(target, catalog.as_ref(), reports, &looks));
    views.collect()
}

/// Returns the target `name`.
pub(in super::super) fn find(config: &Config, name: &str) -> Result<TargetView, HttpProblem> {
    require(config, name)?;
    let mut all = list(config, TargetDetail::Full)?.into_iter();
    all.find(|target| target.name == name)
        .ok_or_else(|| unknown(config, name))
}

/// Refuses a name that no target has.
pub(in super::super) fn require(config: &Config, name: &str) -> Result<(), HttpProblem> {
    match config.target(name) {
        Some(_) => Ok(()),
        None => Err(unknown(config, name)),
    }
}

fn unknown(config: &Config, name: &str) -> HttpProblem {
    let shown: String = name.chars().take(40).collect();
    let names: Vec<&str> = config
        .targets
        .iter()
        .map(|target| target.name.as_str())
        .collect();
    HttpProblem::not_found("no_such_target", format!("no target is named {shown:?}"))
        .with_next(format!("the targets are {}", names.join(", ")))
}

fn view(
    target: &TargetConfig,
    catalog: Option<&Catalog>,
    history: Option<&History>,
    looks: &[TargetLook],
) -> Result<TargetView, HttpProblem> {
    let now = clock::now();
    let mut view = TargetView {
        name: target.name.clone(),
        url: TargetSpec::from_url(&target.url).label(),
        write_only: target.write_only,
        newest: None,
        behind: 0,
        archives: 0,
        bytes: 0,
        classes: StorageClasses {
            data: target.data_class.clone().or_else(|| target.class.clone()),
            other: target.class.clone(),
        },
        look: looks
            .iter()
            .find(|look| look.target == target.name)
            .map(LookView::from),
        credentials: None,
        errors: Vec::new(),
        verify: VerifyCoverage {
            read_within_days: READ_WITHIN_DAYS,
            share: None,
        },
    };
    if let Some(history) = history {
        view.credentials = credentials::of_target(history, &target.name)?;
        let since = now - Duration::days(ERROR_DAYS);
        let errors = history.target_errors(&target.name, since, ERRORS)?;
        let errors = errors.into_iter();
        let errors = errors.map(|(at, run, text)| TargetErrorView { at, run, text });
        view.errors = errors.collect();
    }
    if let Some(catalog) = catalog {
        fill(&mut view, catalog, now).map_err(JobError::from)?;
    }
    Ok(view)
}

fn fill(
    view: &mut TargetView,
    catalog: &Catalog,
    now: DateTime<Utc>,
) -> Result<(), crate::state::catalog::CatalogError> {
    let newest = catalog.last_published(&view.name)?;
    view.newest = newest.map(|known| NewestThere {
        stamp: known.stamp,
        sequence: known.sequence,
        age_seconds: (now - known.stamp.time()).num_seconds(),
    });
    let states = catalog.publications(&view.name)?;
    let rows = catalog.snapshots()?;
    let missing = rows
        .iter()
        .filter(|row| !states.contains_key(&row.known.core));
    view.behind = missing.count() as u64;
    let placed = catalog.placed_archives(&view.name, now - Duration::days(READ_WITHIN_DAYS))?;
    (view.archives, view.bytes) = (placed.archives, placed.bytes);
    let share = placed.read as f64 / placed.archives as f64;
    view.verify.share = (placed.archives > 0).then_some(share);
    Ok(())
}
