//! The checks of a restore in place: on the staged content, before the stop, after the start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::because::{Because, code};
use super::super::plan::{InPlacePlan, ItemKind, PlannedItem};
use super::RestoreMachine;
use crate::checks::{CheckResult, CheckSubject, run_checks};
use crate::config::{PostCheck, SourceKind};
use crate::state::restores::{RecordPhase, RestoreStep};

/// Whether paths in checks are those of staged content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckedContent {
    Staged,
    Live,
}

impl<'a> RestoreMachine<'a> {
    pub(in crate::jobs::restore_in_place) fn checks(
        &self,
        wanted: impl Fn(&PostCheck) -> bool,
    ) -> Vec<&'a PostCheck> {
        let checks = self.config.checks.iter();
        checks
            .filter(|check| check.in_restore && wanted(check))
            .collect()
    }

    pub(super) fn run_checks(
        &self,
        checks: &[&PostCheck],
        look: CheckedContent,
        patience: Duration,
    ) -> Vec<CheckResult> {
        if checks.is_empty() {
            return Vec::new();
        }
        let place = |item: &PlannedItem| match look {
            CheckedContent::Live => item.live.clone(),
            CheckedContent::Staged => item.live.with_file_name(&item.staged),
        };
        let plan = &self.plan;
        let database = |name: &str| {
            let named = plan.items.iter().find(|item| item.name == name);
            match named.filter(|item| item.kind != ItemKind::Tree) {
                Some(item) => Some(place(item)),
                None => in_snapshot(plan, Path::new(name), place).or_else(|| self.untouched(name)),
            }
        };
        let file = |path: &Path| match path.is_absolute() {
            true => Some(path.to_owned()),
            false => in_snapshot(plan, path, place),
        };
        let subject = CheckSubject {
            base_url: self.config.restore.base_url.as_deref(),
            restored: None,
            database: &database,
            file: &file,
        };
        run_checks(checks, &subject, patience)
    }

    /// Does the same with the live content, for the rollback.
    pub(in crate::jobs::restore_in_place) fn check_live(&self) -> Vec<CheckResult> {
        let patience = self.config.restore.check_timeout;
        self.run_checks(&self.checks(|_| true), CheckedContent::Live, patience)
    }

    /// Returns the path of a database source that this restore does not replace.
    fn untouched(&self, name: &str) -> Option<PathBuf> {
        let source = self
            .config
            .sources
            .iter()
            .find(|source| source.name == name)?;
        match &source.kind {
            SourceKind::Sqlite { path } => Some(path.clone()),
            _ => None,
        }
    }

    /// Whether the check failed before the service was stopped, too.
    pub(in crate::jobs::restore_in_place) fn failed_before(&self, result: &CheckResult) -> bool {
        let before = self.log.find(RestoreStep::Staged, None, RecordPhase::Done);
        let before = before.and_then(|record| record.detail["checks"].as_array());
        let same = before.and_then(|checks| {
            let mut checks = checks.iter();
            checks.find(|check| check["name"] == result.name.as_str())
        });
        same.is_some_and(|check| check["passed"] == false)
    }
}

/// Returns where a path of the snapshot is.
fn in_snapshot(
    plan: &InPlacePlan,
    path: &Path,
    place: impl Fn(&PlannedItem) -> PathBuf,
) -> Option<PathBuf> {
    plan.items.iter().find_map(|item| {
        let rest = path.strip_prefix(&item.to).ok()?;
        Some(match rest.as_os_str().is_empty() {
            true => place(item),
            false => place(item).join(rest),
        })
    })
}

/// Makes the reason that a check failed.
pub(in crate::jobs::restore_in_place) fn check_failed(result: &CheckResult) -> Because {
    let text = format!("the check {:?} failed: {}", result.name, result.found);
    match &result.explanation {
        Some(why) if why.contains("different deployment") => {
            Because::new(code::WRONG_DEPLOYMENT, text, why.clone())
        }
        Some(why) => Because::new(code::CHECK_FAILED, text, why.clone()),
        None => Because::new(
            code::CHECK_FAILED,
            text,
            "look at the service's log, or restore another snapshot",
        ),
    }
}
