//! Which snapshots a search covers: `A..B`, the last N, or all.

use chrono::{DateTime, Utc};

use crate::base::local_time;
use crate::base::snapshot_choice::date::{self, TimeSpan};
use crate::base::snapshot_choice::{BadChoice, SnapshotChoice};
use crate::format::chain::{Chain, ChainError, VerifiedSnapshot};

/// A range of snapshots, as the operator wrote it.
// A run makes one of it.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRange {
    /// Every snapshot.
    All,
    /// This number of snapshots: those of the highest sequences.
    Last(usize),
    /// From one to another, both included; `None`: without that bound.
    Between(Option<RangeEnd>, Option<RangeEnd>),
}

/// One end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeEnd {
    /// A snapshot, whose sequence counts.
    Snapshot(SnapshotChoice),
    /// A date or a time, with which stamps are compared.
    Time(TimeSpan),
}

impl RangeEnd {
    /// Reads one end: a day includes all of its snapshots.
    pub fn parse(text: &str) -> Result<Self, BadChoice> {
        match date::parse(text, &local_time::now())? {
            Some(span) => Ok(Self::Time(span)),
            None => SnapshotChoice::parse(text).map(Self::Snapshot),
        }
    }
}

/// The bounds of one end, resolved.
enum RangeBound {
    Sequence(u64),
    Time(DateTime<Utc>),
}

impl SnapshotRange {
    /// Reads `A..B`, `A..`, `..B`, or one snapshot or day.
    pub fn parse(text: &str) -> Result<Self, BadChoice> {
        let Some((from, to)) = text.split_once("..") else {
            let end = RangeEnd::parse(text)?;
            return Ok(Self::Between(Some(end.clone()), Some(end)));
        };
        let end = |text: &str| match text.is_empty() {
            true => Ok(None),
            false => RangeEnd::parse(text).map(Some),
        };
        Ok(Self::Between(end(from)?, end(to)?))
    }

    /// Returns the snapshots of `chain` that it covers, by sequence. Of several revisions of one
    /// snapshot it returns the last.
    pub fn of<'a>(&self, chain: &'a Chain) -> Result<Vec<&'a VerifiedSnapshot>, ChainError> {
        let mut all: Vec<&VerifiedSnapshot> = Vec::new();
        for one in &chain.snapshots {
            let core = one.manifest.core_hash;
            match all
                .iter_mut()
                .rev()
                .take_while(|other| other.sequence() == one.sequence())
                .find(|other| other.manifest.core_hash == core)
            {
                Some(earlier) => *earlier = one,
                None => all.push(one),
            }
        }
        match self {
            Self::All => {}
            Self::Last(most) => drop(all.drain(..all.len().saturating_sub(*most))),
            Self::Between(from, to) => {
                let from = from.as_ref().map(|end| end.begin(chain)).transpose()?;
                let to = to.as_ref().map(|end| end.until(chain)).transpose()?;
                all.retain(|one| {
                    let is_after = match &from {
                        None => true,
                        Some(RangeBound::Sequence(first)) => one.sequence() >= *first,
                        Some(RangeBound::Time(time)) => one.stamp().time() >= *time,
                    };
                    let is_before = match &to {
                        None => true,
                        Some(RangeBound::Sequence(last)) => one.sequence() <= *last,
                        Some(RangeBound::Time(time)) => one.stamp().time() < *time,
                    };
                    is_after && is_before
                });
            }
        }
        Ok(all)
    }
}

impl RangeEnd {
    fn begin(&self, chain: &Chain) -> Result<RangeBound, ChainError> {
        match self {
            Self::Snapshot(choice) => Ok(RangeBound::Sequence(chain.resolve(choice)?.sequence())),
            Self::Time(span) => Ok(RangeBound::Time(span.begin)),
        }
    }

    fn until(&self, chain: &Chain) -> Result<RangeBound, ChainError> {
        match self {
            Self::Snapshot(choice) => Ok(RangeBound::Sequence(chain.resolve(choice)?.sequence())),
            Self::Time(span) => Ok(RangeBound::Time(span.until)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_two_ends_or_one() {
        let name = |text: &str| Some(RangeEnd::Snapshot(SnapshotChoice::parse(text).unwrap()));
        for (text, from, to) in [
            ("3..7", name("3"), name("7")),
            ("3..", name("3"), None),
            ("..latest", None, name("latest")),
            ("..", None, None),
            (
                "20260407T060000Z",
                name("20260407T060000Z"),
                name("20260407T060000Z"),
            ),
        ] {
            let range = SnapshotRange::parse(text).unwrap();
            assert_eq!(range, SnapshotRange::Between(from, to), "{text}");
        }
        let SnapshotRange::Between(Some(RangeEnd::Time(from)), Some(RangeEnd::Time(to))) =
            SnapshotRange::parse("2026-04-01..2026-04-02").unwrap()
        else {
            panic!("no times");
        };
        assert_eq!((to.until - from.begin).num_hours(), 48);
        for wrong in ["a..b", "x", "1..2..3", "2026-13-01.."] {
            assert!(SnapshotRange::parse(wrong).is_err(), "{wrong}");
        }
    }
}
