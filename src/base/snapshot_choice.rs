//! What an operator writes to choose a snapshot, for every command that takes one.
//!
//! A choice is `latest`, an exact name ([`SnapshotName`]), or a date or time ([`date`]): then it
//! means the newest snapshot of that day, or the newest at or before that time, by stamps. `latest`
//! is the highest sequence, never the newest stamp; with a bound it goes by stamps too.

pub mod date;

use std::fmt;

use chrono::{DateTime, TimeZone, Utc};

use self::date::{BadDate, TimeSpan};
use super::ids::Stamp;
use super::{clock, local_time, units};

/// Why a text chooses no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChoice {
    /// It has none of the shapes.
    #[error(
        "{0:?} names no snapshot: write latest, a sequence (42), a stamp (20260407T060000Z), the last 16 digits of a \
         manifest's name, or a time: 2026-11-29, \"2026-11-29 18:00\", yesterday, \"3 days ago\""
    )]
    Unknown(String),
    /// It reads like a date.
    #[error(transparent)]
    Date(#[from] BadDate),
    /// It is no time, where only a time can be.
    #[error(
        "{0:?} is no time: write 2026-11-29, \"2026-11-29 18:00\", yesterday, \"3 days ago\", or a stamp"
    )]
    NoTime(String),
    /// A command that deletes takes exact names only.
    #[error(
        "{0:?} is no exact name: name a snapshot to delete by its sequence, its stamp, or the last 16 digits of its \
         manifest's name, as `sealift list` shows them"
    )]
    NotExact(String),
    /// An exact name cannot be narrowed.
    #[error("--before and --tag narrow latest and dates, and {0} names one snapshot: omit them")]
    Narrowed(String),
}

/// An exact name of a snapshot: its stamp, its sequence, or the last 16 digits of its manifest's
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Returns the name, if `text` has the shape of one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hash = text.len() == 16
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_name = is_hash || text.parse::<u64>().is_ok() || text.parse::<Stamp>().is_ok();
        is_name.then(|| Self(text.to_owned()))
    }

    /// Returns whether it is the name of a snapshot with this stamp, this sequence (if it is
    /// known), and manifests whose names end with `hashes`.
    pub fn is(
        &self,
        stamp: Stamp,
        sequence: Option<u64>,
        mut hashes: impl Iterator<Item = String>,
    ) -> bool {
        let text = self.0.as_str();
        // Sequences may have leading zeros, as in manifests' names, but a hash is not one.
        let may_be_sequence = text.len() != 16 || !text.starts_with('0');
        (may_be_sequence && sequence.is_some_and(|sequence| text.parse() == Ok(sequence)))
            || stamp.to_string() == text
            || hashes.any(|hash| hash == text)
    }
}

/// A choice of one snapshot among those of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChoice {
    /// As the operator wrote it.
    text: String,
    wanted: Wanted,
    /// Only snapshots with earlier stamps.
    before: Option<Bound>,
    /// Only snapshots with all of these tags.
    tags: Vec<String>,
}

/// What a text means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Latest,
    Name(SnapshotName),
    Time(TimeSpan),
}

/// The time of `--before`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    text: String,
    time: DateTime<Utc>,
    /// Whether the text was read in the local zone.
    is_local: bool,
}

/// The order of preference among snapshots; the highest is chosen.
type Rank = (Option<Stamp>, Option<u64>);

impl SnapshotChoice {
    /// Returns the choice of the highest sequence.
    pub fn latest() -> Self {
        Self::of("latest", Wanted::Latest)
    }

    /// Returns the choice of the snapshot whose manifest's name ends with `hash16`.
    pub fn by_hash(hash16: &str) -> Self {
        Self::of(hash16, Wanted::Name(SnapshotName(hash16.to_owned())))
    }

    /// Reads `text`, with dates in the local zone and relative to the time now.
    pub fn parse(text: &str) -> Result<Self, BadChoice> {
        Self::parse_at(text, &local_time::now())
    }

    /// Reads `text`, with dates in the zone of `now` and relative to it.
    pub fn parse_at<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Result<Self, BadChoice> {
        if text == "latest" {
            return Ok(Self::latest());
        }
        if let Some(name) = SnapshotName::parse(text) {
            return Ok(Self::of(text, Wanted::Name(name)));
        }
        match date::parse(text, now)? {
            Some(span) => Ok(Self::of(text, Wanted::Time(span))),
            None => Err(BadChoice::Unknown(text.to_owned())),
        }
    }

    fn of(text: &str, wanted: Wanted) -> Self {
        Self {
            text: text.to_owned(),
            wanted,
            before: None,
            tags: Vec::new(),
        }
    }

    /// Narrows the choice to snapshots before the time `before` and with all of `tags`. An exact
    /// name cannot be narrowed.
    pub fn narrowed(mut self, before: Option<&str>, tags: &[String]) -> Result<Self, BadChoice> {
        if (before.is_some() || !tags.is_empty()) && self.is_exact() {
            return Err(BadChoice::Narrowed(self.text));
        }
        if let Some(text) = before {
            self.before = Some(bound(text, &local_time::now())?);
        }
        self.tags = tags.to_vec();
        Ok(self)
    }

    /// Returns the text as the operator wrote it, without what narrows it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the tags that the snapshot must have.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Whether it is an exact name.
    pub fn is_exact(&self) -> bool {
        matches!(self.wanted, Wanted::Name(_))
    }

    /// Whether stamps decide it.
    pub fn is_by_time(&self) -> bool {
        self.before.is_some() || matches!(self.wanted, Wanted::Time(_))
    }

    /// Returns whether a snapshot can be the chosen one, except for its tags.
    pub fn admits(
        &self,
        stamp: Stamp,
        sequence: Option<u64>,
        hashes: impl Iterator<Item = String>,
    ) -> bool {
        let is_wanted = match &self.wanted {
            Wanted::Latest => true,
            Wanted::Name(name) => name.is(stamp, sequence, hashes),
            Wanted::Time(span) => span.contains(stamp.time()),
        };
        is_wanted
            && self
                .before
                .as_ref()
                .is_none_or(|bound| stamp.time() < bound.time)
    }

    /// Returns the place of an admitted snapshot in the order of preference. All snapshots that
    /// have an exact name have the same rank.
    pub fn rank(&self, stamp: Stamp, sequence: Option<u64>) -> Rank {
        match (&self.wanted, self.is_by_time()) {
            (Wanted::Name(_), _) => (None, None),
            (_, true) => (Some(stamp), sequence),
            (_, false) => (None, sequence),
        }
    }

    /// Returns whether the choice would prefer a snapshot `other` over the `chosen` one, or could
    /// not decide, if `other` could be read.
    pub fn could_be(&self, other: (Stamp, u64), chosen: (Stamp, u64)) -> bool {
        let rank = |(stamp, sequence): (Stamp, u64)| self.rank(stamp, Some(sequence));
        !self.is_exact()
            && self.admits(other.0, Some(other.1), std::iter::empty())
            && rank(other) >= rank(chosen)
    }

    /// Returns a sentence on the snapshot that was chosen, if the text did not name it exactly.
    pub fn explain(&self, stamp: Stamp) -> Option<String> {
        if !self.is_by_time() && self.tags.is_empty() {
            return None;
        }
        let age = (clock::now() - stamp.time()).to_std();
        let age = age.map_or_else(
            |_| "in the future".to_owned(),
            |age| format!("{} old", units::duration(age)),
        );
        Some(format!(
            "{self}: snapshot {stamp}, made {} ({age})",
            shown_local(stamp)
        ))
    }

    /// Returns the stamps nearest to what the text means, before and after.
    pub fn nearest(&self, stamps: impl Iterator<Item = Stamp>) -> Nearest {
        let (from, until) = match (&self.wanted, &self.before) {
            (Wanted::Time(span), _) if span.is_day => (span.begin, span.until),
            (Wanted::Time(span), _) => (span.until, span.until),
            (_, Some(bound)) => (bound.time, bound.time),
            _ => return Nearest::default(),
        };
        let mut nearest = Nearest::default();
        for stamp in stamps {
            if stamp.time() < from {
                nearest.before = nearest.before.max(Some(stamp));
            } else if stamp.time() >= until {
                nearest.after = Some(nearest.after.map_or(stamp, |after| after.min(stamp)));
            }
        }
        nearest
    }
}

/// The choice as the operator wrote it, with the local zone if a date in it was read in that.
impl fmt::Display for SnapshotChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(bound) = &self.before {
            write!(f, " before {}", bound.text)?;
        }
        for tag in &self.tags {
            write!(f, " with tag {tag}")?;
        }
        let span = match &self.wanted {
            Wanted::Time(span) if span.is_local => Some(span.begin),
            _ => None,
        };
        let bound = self.before.as_ref().filter(|bound| bound.is_local);
        match span.or(bound.map(|bound| bound.time)) {
            Some(time) => write!(f, " (local time, {})", local_time::offset(time)),
            None => Ok(()),
        }
    }
}

/// The snapshots before and after a time that has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nearest {
    /// The newest before. `None`: there is none.
    pub before: Option<Stamp>,
    /// The oldest after. `None`: there is none.
    pub after: Option<Stamp>,
}

/// `; the nearest are …`, or nothing if there is none.
impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |stamp: Stamp| format!("{stamp} ({})", shown_local(stamp));
        match (self.before, self.after) {
            (None, None) => Ok(()),
            (Some(before), None) => write!(f, "; the newest before is {}", shown(before)),
            (None, Some(after)) => write!(f, "; the oldest after is {}", shown(after)),
            (Some(before), Some(after)) => write!(
                f,
                "; the nearest are {} before and {} after",
                shown(before),
                shown(after)
            ),
        }
    }
}

fn shown_local(stamp: Stamp) -> String {
    format!("{} local time", local_time::minute(stamp.time()))
}

/// Reads the time of `--before`: a day means its begin.
fn bound<Z: TimeZone>(text: &str, now: &DateTime<Z>) -> Result<Bound, BadChoice> {
    let (time, is_local) = match text.parse::<Stamp>() {
        Ok(stamp) => (stamp.time(), false),
        Err(_) => {
            let span = date::parse(text, now)?;
            let span = span.ok_or_else(|| BadChoice::NoTime(text.to_owned()))?;
            (span.begin, span.is_local)
        }
    };
    let text = text.to_owned();
    Ok(Bound {
        text,
        time,
        is_local,
    })
}

/// Reads the name of a snapshot for a command that deletes: neither a date nor `latest`, whose
/// meaning depends on the time at which it is read.
pub fn exact_name(text: &str) -> Result<String, BadChoice> {
    let is_relative =
        text == "latest" || !matches!(date::parse(text, &local_time::now()), Ok(None));
    match is_relative {
        true => Err(BadChoice::NotExact(text.to_owned())),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
