//! What a look at a target showed, as the history keeps it.
//!
//! `status`, `push` and `verify` look at targets, and each sees something else. So a look replaces
//! only the members that it is about, and keeps the others of the look before.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::ids::Stamp;
use crate::config::Config;
use crate::format::chain::Finding;
use crate::jobs::verdict::FindingCode;
use crate::jobs::verdict::observed::ObservedProblem;
use crate::scrub::Problem;
use crate::state::history::{History, HistoryError, TargetLook};

/// What is known of a target from looks at it. The JSON of the history's `looks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TargetShown {
    /// The newest snapshot there. `None`: there is none.
    pub(crate) newest: Option<ShownSnapshot>,
    /// Archives there. `None`, as for the next one: they were not counted.
    pub(crate) archives: Option<u64>,
    pub(crate) stored_bytes: Option<u64>,
    /// It lacks snapshots that are older than its newest.
    pub(crate) lacks_older: bool,
    /// Why the last push to it failed. `None`: it did not.
    pub(crate) push_error: Option<String>,
    pub(crate) recipients: Vec<RecipientAccess>,
    /// What `status` or `push` found wrong there.
    pub(crate) problems: Vec<ShownProblem>,
    /// What the last `verify` of all snapshots found wrong there.
    pub(crate) verified: Vec<ShownProblem>,
    pub(crate) reading: Option<ReadingCycle>,
}

/// A snapshot on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownSnapshot {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// When its manifest promises the next one. `None`: it does not.
    pub(crate) next_by: Option<DateTime<Utc>>,
}

/// How much of the newest snapshot one recipient can decrypt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecipientAccess {
    pub(crate) recipient: String,
    /// All of it; else a part only.
    pub(crate) opens_in_full: bool,
}

/// Something wrong with what a target stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownProblem {
    pub(crate) code: FindingCode,
    pub(crate) text: String,
    pub(crate) next: String,
}

impl ShownProblem {
    /// Returns a finding of the chain as a problem.
    pub(crate) fn of_chain(finding: &Finding) -> Self {
        Self::of(&Problem::Chain(finding.clone())).unwrap_or_else(|| Self {
            code: FindingCode::Chain,
            text: finding.to_string(),
            next: String::new(),
        })
    }

    /// Returns the problem as the verdict needs it. `None`: the target was not examined in full, or
    /// is late, which other facts tell.
    pub(crate) fn of(problem: &Problem) -> Option<Self> {
        Some(Self {
            code: code_of(problem)?,
            text: problem.to_string(),
            next: problem.next().to_owned(),
        })
    }

    pub(super) fn observed(&self) -> ObservedProblem {
        ObservedProblem {
            code: self.code,
            text: self.text.clone(),
            next: self.next.clone(),
        }
    }
}

fn code_of(problem: &Problem) -> Option<FindingCode> {
    Some(match problem {
        Problem::Chain(Finding::Fork { .. }) => FindingCode::Fork,
        Problem::Chain(Finding::Stranger(_)) => FindingCode::ForeignManifest,
        Problem::Diverged(crate::scrub::Divergence::Parted { .. }) => FindingCode::Fork,
        Problem::Chain(_)
        | Problem::History { .. }
        | Problem::TooShort { .. }
        | Problem::Gone { .. }
        | Problem::SignerChange(_)
        | Problem::Diverged(_) => FindingCode::Chain,
        Problem::Page { .. }
        | Problem::Table { .. }
        | Problem::Missing(_)
        | Problem::Size { .. }
        | Problem::Damaged { .. }
        | Problem::KnownDamaged { .. }
        | Problem::Content { .. } => FindingCode::LostArchives,
        Problem::Overdue(_)
        | Problem::Behind { .. }
        | Problem::Unread { .. }
        | Problem::BrokeOff(_)
        | Problem::NotHere(_)
        | Problem::NotRestored { .. } => return None,
    })
}

/// How far `verify` is with reading every archive of a target back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadingCycle {
    /// When the present cycle began.
    pub(crate) began: DateTime<Utc>,
    /// The number of the newest archive that was there then.
    pub(crate) through: i64,
    /// When the last cycle that is done began. `None`: none is.
    pub(crate) completed: Option<DateTime<Utc>>,
}

impl ReadingCycle {
    /// Begins the first cycle of a target whose archives are `there`.
    pub(crate) fn begin(now: DateTime<Utc>, there: impl Iterator<Item = i64>) -> Self {
        Self {
            began: clock::in_seconds(now),
            through: there.max().unwrap_or(0),
            completed: None,
        }
    }

    /// Returns the cycle after a verification that began at `now`: a new one if each archive of the
    /// present one was read. `read`: the archives that are there, by number, and when each was last
    /// found sound.
    pub(crate) fn advance(self, now: DateTime<Utc>, read: &[(i64, Option<DateTime<Utc>>)]) -> Self {
        let is_due = |(n, _): &&(i64, Option<DateTime<Utc>>)| *n <= self.through;
        let mut due = read.iter().filter(is_due);
        let is_done = due.all(|(_, at)| at.is_some_and(|at| clock::in_seconds(at) >= self.began));
        match is_done {
            false => self,
            true => Self {
                completed: Some(self.began),
                ..Self::begin(now, read.iter().map(|(n, _)| *n))
            },
        }
    }

    /// Returns the time since when every archive was read, or else since when that is counted.
    pub(crate) fn read_since(&self) -> DateTime<Utc> {
        self.completed.unwrap_or(self.began)
    }
}

/// The looks at the targets of a configuration: those of the history, and those of this process.
#[derive(Debug, Default)]
pub(crate) struct LookBook {
    looks: BTreeMap<String, TargetLook>,
}

impl LookBook {
    /// Reads the looks of the history.
    pub(crate) fn read(history: &History) -> Result<Self, HistoryError> {
        let looks = history.looks()?.into_iter();
        Ok(Self {
            looks: looks.map(|look| (look.target.clone(), look)).collect(),
        })
    }

    /// Returns the last look at `target`.
    pub(crate) fn look(&self, target: &str) -> Option<&TargetLook> {
        self.looks.get(target)
    }

    /// Returns what is known of `target`. `None`: nothing was ever seen of it.
    pub(crate) fn shown(&self, target: &str) -> Option<TargetShown> {
        let text = self.look(target)?.shown.as_deref()?;
        // A text that no version wrote counts as no look.
        serde_json::from_str(text).ok()
    }

    /// Adds a look, and records it in the history if there is one.
    pub(crate) fn add(
        &mut self,
        history: Option<&History>,
        target: &str,
        at: DateTime<Utc>,
        seen: Result<&TargetShown, &str>,
    ) -> Result<(), HistoryError> {
        let before = self.looks.remove(target);
        let at = clock::in_seconds(at);
        let text = seen.map(|shown| serde_json::to_string(shown).unwrap_or_default());
        let look = match &text {
            Ok(text) => TargetLook {
                target: target.to_owned(),
                looked_at: at,
                succeeded_at: Some(at),
                shown: Some(text.clone()),
                error: None,
                failing_since: None,
            },
            Err(error) => TargetLook {
                target: target.to_owned(),
                looked_at: at,
                succeeded_at: before.as_ref().and_then(|before| before.succeeded_at),
                failing_since: before
                    .as_ref()
                    .and_then(|before| before.failing_since)
                    .or(Some(at)),
                shown: before.and_then(|before| before.shown),
                error: Some((*error).to_owned()),
            },
        };
        self.looks.insert(target.to_owned(), look);
        match history {
            Some(history) => {
                history.record_look(target, at, text.as_deref().map_err(|error| *error))
            }
            None => Ok(()),
        }
    }
}

/// Opens the history of `config`, if its state directory exists.
pub(crate) fn open_history(config: &Config) -> Result<Option<History>, HistoryError> {
    match config.state.is_dir() {
        true => History::open(&config.state).map(Some),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_775_541_600 + number * 86_400, 0).unwrap()
    }

    #[test]
    fn a_cycle_is_done_once_each_archive_that_was_there_was_read() {
        let cycle = ReadingCycle::begin(day(0), [1, 2].into_iter());
        assert_eq!(cycle.read_since(), day(0));
        let half = [(1, Some(day(1))), (2, Some(day(-1))), (3, None)];
        let cycle = cycle.advance(day(1), &half);
        assert_eq!((cycle.began, cycle.completed), (day(0), None));
        let rest = [(1, Some(day(1))), (2, Some(day(2))), (3, None)];
        let cycle = cycle.advance(day(2), &rest);
        assert_eq!((cycle.began, cycle.completed), (day(2), Some(day(0))));
        assert_eq!((cycle.through, cycle.read_since()), (3, day(0)));
    }

    #[test]
    fn a_failed_look_keeps_what_was_seen() {
        let mut book = LookBook::default();
        let shown = TargetShown {
            archives: Some(7),
            ..TargetShown::default()
        };
        book.add(None, "s3", day(0), Ok(&shown)).unwrap();
        book.add(None, "s3", day(1), Err("away")).unwrap();
        book.add(None, "s3", day(2), Err("away")).unwrap();
        let look = book.look("s3").unwrap();
        assert_eq!(
            (look.succeeded_at, look.failing_since),
            (Some(day(0)), Some(day(1)))
        );
        assert_eq!(book.shown("s3"), Some(shown));
        assert_eq!(book.shown("disk"), None);
    }
}
