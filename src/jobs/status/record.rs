//! Records what a push or a verification saw of the targets as looks at them.

use chrono::{DateTime, Utc};

use super::look::chain_problems;
use super::open_records;
use super::remembered_target::RememberedTarget;
use super::shown::{
    LookBook, ReadingCycle, RecipientAccess, ShownProblem, ShownSnapshot, TargetShown,
};
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::push::{PushReport, TargetAnswer, TargetReport, TargetState};
use crate::jobs::verdict::FindingCode;
use crate::state::catalog::Catalog;

/// A push that ended.
pub(crate) struct EndedPush<'a> {
    pub(crate) report: &'a PushReport,
    /// When the new snapshot says that the next one is due.
    pub(crate) next_by: Option<DateTime<Utc>>,
    /// Everyone to whom it is sealed.
    pub(crate) recipients: &'a [String],
}

/// Records what a push saw of each target.
pub(crate) fn record_push(
    config: &Config,
    catalog: &Catalog,
    push: &EndedPush<'_>,
    now: DateTime<Utc>,
) -> Result<(), JobError> {
    let (history, mut looks) = open_records(config)?;
    let history = history.as_ref();
    for target in &push.report.targets {
        let name = &target.name;
        let before = looks.shown(name).unwrap_or_default();
        let seen = match (&target.answer, &target.state) {
            (TargetAnswer::None, TargetState::Behind(cause)) => Err(cause.as_str()),
            _ => Ok(shown_by_push(config, catalog, push, target, before, now)?),
        };
        looks.add(history, name, now, seen.as_ref().map_err(|cause| *cause))?;
    }
    Ok(())
}

fn shown_by_push(
    config: &Config,
    catalog: &Catalog,
    push: &EndedPush<'_>,
    target: &TargetReport,
    before: TargetShown,
    now: DateTime<Utc>,
) -> Result<TargetShown, JobError> {
    let name = &target.name;
    let remembered = RememberedTarget::read(config, Some(catalog), name)?;
    let mut shown = before;
    if let TargetAnswer::Seen(findings) = &target.answer {
        // A snapshot that was published now has all its archives.
        let is_whole = target.state == TargetState::Published;
        let is_open =
            |problem: &ShownProblem| problem.code == FindingCode::LostArchives && !is_whole;
        shown.problems.retain(is_open);
        let found = chain_problems(findings, &remembered.given_up);
        shown.problems.extend(found);
    }
    let (archives, bytes) = stored(catalog, name)?;
    (shown.archives, shown.stored_bytes) = (Some(archives.len() as u64), Some(bytes));
    let reading = shown.reading.take();
    shown.reading = Some(reading.unwrap_or_else(|| ReadingCycle::begin(now, archives.into_iter())));
    shown.push_error = match &target.state {
        TargetState::Published => None,
        TargetState::Behind(cause) => Some(cause.clone()),
    };
    if target.state == TargetState::Published {
        let name = &push.report.manifest;
        shown.newest = Some(ShownSnapshot {
            stamp: name.stamp,
            sequence: name.sequence,
            next_by: push.next_by,
        });
        shown.recipients = access(catalog, push.recipients)?;
    } else if let Some(newest) = remembered.newest
        && shown
            .newest
            .as_ref()
            .is_none_or(|shown| shown.sequence < newest.sequence)
    {
        shown.newest = Some(ShownSnapshot {
            stamp: newest.stamp,
            sequence: newest.sequence,
            next_by: None,
        });
    }
    let newest = shown.newest.as_ref().map_or(0, |newest| newest.sequence);
    let mut waiting = remembered.waiting.iter();
    shown.lacks_older = waiting.any(|(sequence, ..)| *sequence <= newest);
    Ok(shown)
}

/// Returns the numbers of the archives on a target, and their bytes, as the catalog knows them.
fn stored(catalog: &Catalog, target: &str) -> Result<(Vec<i64>, u64), JobError> {
    let placed = catalog.placed_on(target)?;
    let archives = catalog.archives()?;
    let there = archives
        .iter()
        .filter(|archive| placed.contains(&archive.n));
    let bytes = there.map(|archive| archive.row.bytes).sum();
    Ok((placed.into_iter().collect(), bytes))
}

/// Returns who can decrypt the newest snapshot.
fn access(catalog: &Catalog, recipients: &[String]) -> Result<Vec<RecipientAccess>, JobError> {
    let sets = catalog.recipient_sets()?;
    let used = catalog.archives_in_use()?;
    let access = recipients.iter().map(|recipient| {
        let opens = |set: &String| {
            sets.get(set)
                .is_some_and(|members| members.contains(recipient))
        };
        RecipientAccess {
            recipient: recipient.clone(),
            opens_in_full: used.iter().all(|archive| opens(&archive.row.recipient_set)),
        }
    });
    Ok(access.collect())
}

/// What a verification of all snapshots found on one target.
pub(crate) struct VerifiedLook {
    pub(crate) target: String,
    /// An error: it could not be verified.
    pub(crate) found: Result<VerifiedContent, String>,
}

/// The content of a target that was verified.
pub(crate) struct VerifiedContent {
    /// `None`: there is no snapshot.
    pub(crate) newest: Option<ShownSnapshot>,
    /// Problems that `status` sees, too.
    pub(crate) problems: Vec<ShownProblem>,
    /// Problems that only a verification sees.
    pub(crate) verified: Vec<ShownProblem>,
    /// Archives that are complete, and their bytes.
    pub(crate) stored: (u64, u64),
}

/// Records what a verification that began at `began` found.
pub(crate) fn record_verify(
    config: &Config,
    catalog: Option<&Catalog>,
    looks: Vec<VerifiedLook>,
    began: DateTime<Utc>,
) -> Result<(), JobError> {
    let (history, mut book): (_, LookBook) = open_records(config)?;
    for look in looks {
        let before = book.shown(&look.target).unwrap_or_default();
        let seen = match look.found {
            Err(error) => Err(error),
            Ok(found) => Ok(TargetShown {
                newest: found.newest,
                archives: Some(found.stored.0),
                stored_bytes: Some(found.stored.1),
                problems: found.problems,
                verified: found.verified,
                reading: reading(catalog, &look.target, before.reading, began)?,
                ..before
            }),
        };
        let seen = seen.as_ref().map_err(String::as_str);
        book.add(history.as_ref(), &look.target, began, seen)?;
    }
    Ok(())
}

fn reading(
    catalog: Option<&Catalog>,
    target: &str,
    before: Option<ReadingCycle>,
    began: DateTime<Utc>,
) -> Result<Option<ReadingCycle>, JobError> {
    let Some(catalog) = catalog else {
        return Ok(before);
    };
    let (checks, placed) = (catalog.checks(target)?, catalog.placed_on(target)?);
    let archives = catalog.archives()?;
    let there = archives
        .iter()
        .filter(|archive| placed.contains(&archive.n));
    let read = there.map(|archive| {
        let check = checks.get(&archive.row.blake3);
        let sound = check.filter(|check| check.whole == Some(true));
        (archive.n, sound.map(|check| check.at))
    });
    let read: Vec<_> = read.collect();
    let numbers = read.iter().map(|(n, _)| *n);
    let cycle = before.unwrap_or_else(|| ReadingCycle::begin(began, numbers));
    Ok(Some(cycle.advance(began, &read)))
}
