//! Decides which snapshots stay, by policy, signed order and calendar. The decision is pure.
//!
//! **Order** comes from the signed sequence only. The snapshot with the highest sequence is the
//! newest and always stays. The highest complete one always stays, too, or no restorable one might
//! be left. Of two snapshots of a day the later is the one with the higher sequence.
//!
//! **Places in the calendar** come from stamps, in UTC. A stamp after the newest snapshot's shows
//! that a clock ran ahead once. Such a snapshot gets no place, or it would occupy a day that is
//! still to come. `within` gives it the age of the next snapshot by sequence that has a credible
//! stamp, or it would never grow old.
//!
//! **Periods**: a day and an hour are represented by their last snapshot; a week, a month and a
//! year by the snapshot of their first day (Sunday, the 1st, January 1st), or of the first later
//! day that has one. Therefore a week runs from Sunday to Saturday: if it ended on Sunday (ISO
//! 8601), no later day could replace a missing Sunday. It also makes the choice final: the snapshot
//! that represents a week today does so tomorrow, so pruning every day forgets nothing that a rarer
//! prune would have kept.
//!
//! **Late snapshots**: the host writes the stamps, and an intruder on the host can forge them.
//! Forged snapshots of past days, pushed today, must not cause the deletion of the true ones. So a
//! snapshot that arrived long after its stamp (`late`) displaces no other: a period keeps both its
//! first snapshot that was in time and its first that was late.
//!
//! A snapshot represents its period whatever else is forgotten, so deciding twice forgets nothing
//! more; and a larger policy keeps everything that a smaller one keeps. The tests verify both.

mod guard;
mod named;
mod pins;
mod tags;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};

use crate::base::ids::Stamp;

pub use guard::{Guard, Refusal};
pub use named::{Nameable, NamedError, find, may_go};
pub use pins::Pins;
pub use tags::{KeptTags, TagMatch};

/// How many periods of each kind keep a snapshot, beginning with the newest. Zero keeps none for
/// this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Number of newest snapshots, by sequence.
    pub last: u32,
    /// Number of hours.
    pub hourly: u32,
    /// Number of days.
    pub daily: u32,
    /// Number of weeks, from Sunday to Saturday.
    pub weekly: u32,
    /// Number of months.
    pub monthly: u32,
    /// Number of years.
    pub yearly: u32,
    /// Keeps every snapshot younger than this. `None`: keeps none for its age.
    pub within: Option<Duration>,
}

/// The age up to which [`Policy::and_young`] keeps everything. A policy of days keeps one snapshot
/// of today, which is a loss for an operator who has just made two.
const YOUNG: Duration = Duration::from_secs(86_400);

impl Policy {
    /// Returns a policy that also keeps everything younger than a day: for pruning without a
    /// request.
    pub fn and_young(self) -> Self {
        let within = self.within.unwrap_or_default().max(YOUNG);
        Self {
            within: Some(within),
            ..self
        }
    }
}

/// A snapshot about which to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its signed sequence.
    pub sequence: u64,
    /// The time of its creation, as the host states it.
    pub stamp: Stamp,
    /// The operator or an alarm keeps it, see [`Pins`].
    pub pinned: bool,
    /// Whether it has a tag that keeps it.
    pub tags: TagMatch,
    /// A drill restored it.
    pub proven: bool,
    /// It came to the target long after its stamp: the host could not reach the target, or its
    /// stamp is forged.
    pub late: bool,
    /// Everything that it needs is on the target, as far as listings show.
    pub whole: bool,
}

/// Why a snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It has the highest sequence.
    Newest,
    /// It is the newest complete one.
    Whole,
    /// The operator pinned it.
    Pinned,
    /// It has a tag that keeps it.
    Tagged,
    /// Its tags are not known, and some tag keeps its snapshots.
    TagsUnknown,
    /// A source shrank after it, and the operator has not acknowledged that.
    BeforeShrink,
    /// A source failed after it, and still fails.
    BeforeFailure,
    /// It is the newest that a drill restored.
    Proven,
    /// It is younger than [`Policy::within`].
    Within,
    /// It is one of the last ones.
    Last,
    /// It represents an hour.
    Hourly,
    /// It represents a day.
    Daily,
    /// It represents a week.
    Weekly,
    /// It represents a month.
    Monthly,
    /// It represents a year.
    Yearly,
    /// Snapshots are deleted by name, and this one is not named.
    NotNamed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "newest",
            Self::Whole => "newest complete one",
            Self::Pinned => "pinned",
            Self::Tagged => "has a kept tag",
            Self::TagsUnknown => "tags not known",
            Self::BeforeShrink => "last before a source shrank",
            Self::BeforeFailure => "last before a source failed",
            Self::Proven => "proven by a drill",
            Self::Within => "within",
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::NotNamed => "not named",
        })
    }
}

/// The reasons for which a snapshot stays; without any it is to be forgotten.
pub type Reasons = BTreeSet<Reason>;

/// Returns the reasons for which each of `snapshots`, in their order, stays at `now`. [`Guard`]
/// checks whether the clock and the extent of the decision are plausible.
pub fn decide(snapshots: &[Candidate], policy: &Policy, now: DateTime<Utc>) -> Vec<Reasons> {
    let mut reasons = vec![Reasons::new(); snapshots.len()];
    let Some(newest) = newest(snapshots) else {
        return reasons;
    };
    let made = made(snapshots, newest.stamp);
    let proven = snapshots.iter().filter(|one| one.proven);
    let proven = proven.map(|one| one.sequence).max();
    let whole = snapshots.iter().filter(|one| one.whole);
    let whole = whole.map(|one| one.sequence).max();
    let sequences: BTreeSet<u64> = snapshots.iter().map(|one| one.sequence).collect();
    let last: BTreeSet<u64> = newest_of(&sequences, policy.last);
    // An age that reaches back beyond the calendar keeps everything.
    let since = policy.within.map(|within| {
        let within = chrono::Duration::from_std(within).ok();
        let since = within.and_then(|within| now.checked_sub_signed(within));
        since.unwrap_or(DateTime::<Utc>::MIN_UTC)
    });
    for ((one, made), reasons) in snapshots.iter().zip(made).zip(&mut reasons) {
        let stays = [
            (Reason::Newest, one.sequence == newest.sequence),
            (
                Reason::Whole,
                whole != Some(newest.sequence) && whole == Some(one.sequence) && one.whole,
            ),
            (Reason::Pinned, one.pinned),
            (Reason::Tagged, one.tags == TagMatch::Kept),
            (Reason::TagsUnknown, one.tags == TagMatch::Unknown),
            (Reason::Proven, one.proven && proven == Some(one.sequence)),
            (Reason::Last, last.contains(&one.sequence)),
            (
                Reason::Within,
                since.is_some_and(|since| made.time() >= since),
            ),
        ];
        let stays = stays.into_iter().filter(|(_, stays)| *stays);
        reasons.extend(stays.map(|(reason, _)| reason));
    }
    add_calendar(snapshots, newest.stamp, policy, &mut reasons);
    reasons
}

/// Adds the reasons that come from the calendar. Snapshots with a stamp after `newest` get none.
fn add_calendar(snapshots: &[Candidate], newest: Stamp, policy: &Policy, reasons: &mut [Reasons]) {
    let placed: Vec<Option<Placed>> = snapshots
        .iter()
        .map(|one| {
            (one.stamp <= newest).then(|| Placed {
                sequence: one.sequence,
                time: one.stamp.time(),
                late: one.late,
            })
        })
        .collect();
    for (reason, count, period) in calendar(policy) {
        let representatives = representatives(&placed, count, period);
        for (place, reasons) in placed.iter().zip(reasons.iter_mut()) {
            let Some(place) = place else { continue };
            let (period, day) = period(&place.time);
            let both = representatives.get(&period);
            let representative = both.and_then(|both| both[usize::from(place.late)]);
            if representative == Some((day, place.sequence)) {
                reasons.insert(reason);
            }
        }
    }
}

/// Returns the snapshot with the highest sequence.
fn newest(snapshots: &[Candidate]) -> Option<&Candidate> {
    snapshots.iter().max_by_key(|one| (one.sequence, one.stamp))
}

/// Returns the time at which each snapshot counts as made: its stamp or, if that is after the
/// newest's, the stamp of the next snapshot by sequence with a credible one, which was made later.
fn made(snapshots: &[Candidate], newest: Stamp) -> Vec<Stamp> {
    let credible = snapshots.iter().filter(|one| one.stamp <= newest);
    let mut by_sequence: BTreeMap<u64, Stamp> = BTreeMap::new();
    for one in credible {
        let stamp = by_sequence.entry(one.sequence).or_insert(one.stamp);
        *stamp = one.stamp.max(*stamp);
    }
    let made = |one: &Candidate| match one.stamp <= newest {
        true => one.stamp,
        false => {
            let next = by_sequence.range(one.sequence..).next();
            next.map_or(newest, |(_, stamp)| *stamp)
        }
    };
    snapshots.iter().map(made).collect()
}

/// A snapshot with a credible stamp.
struct Placed {
    sequence: u64,
    time: DateTime<Utc>,
    late: bool,
}

/// Maps a time to its period and to the day within the period; the first day that has a snapshot
/// represents it.
type Period = fn(&DateTime<Utc>) -> (i64, i64);

fn calendar(policy: &Policy) -> [(Reason, u32, Period); 5] {
    [
        (Reason::Hourly, policy.hourly, |time| {
            (time.timestamp().div_euclid(3600), 0)
        }),
        (Reason::Daily, policy.daily, |time| (day(time), 0)),
        (Reason::Weekly, policy.weekly, |time| {
            let from_sunday = i64::from(time.weekday().num_days_from_sunday());
            (day(time) - from_sunday, day(time))
        }),
        (Reason::Monthly, policy.monthly, |time| {
            let month = i64::from(time.year()) * 12 + i64::from(time.month0());
            (month, day(time))
        }),
        (Reason::Yearly, policy.yearly, |time| {
            (i64::from(time.year()), day(time))
        }),
    ]
}

/// Returns the number of the day of `time`.
fn day(time: &DateTime<Utc>) -> i64 {
    let date: NaiveDate = time.date_naive();
    i64::from(date.num_days_from_ce())
}

/// Day and sequence of the snapshots that represent a period: the first of those in time, and the
/// first late one.
type Representatives = [Option<(i64, u64)>; 2];

/// Returns the representatives of the newest `count` periods that have a snapshot: the last
/// snapshot of a period's first day.
fn representatives(
    placed: &[Option<Placed>],
    count: u32,
    period: Period,
) -> BTreeMap<i64, Representatives> {
    let mut periods: BTreeMap<i64, Representatives> = BTreeMap::new();
    for one in placed.iter().flatten() {
        let (period, day) = period(&one.time);
        let representative = &mut periods.entry(period).or_default()[usize::from(one.late)];
        let is_first = representative
            .is_none_or(|(first, sequence)| day < first || day == first && one.sequence > sequence);
        if is_first {
            *representative = Some((day, one.sequence));
        }
    }
    let newest = periods.into_iter().rev().take(count as usize);
    newest.collect()
}

/// Returns the `count` highest sequences.
fn newest_of(sequences: &BTreeSet<u64>, count: u32) -> BTreeSet<u64> {
    sequences
        .iter()
        .rev()
        .take(count as usize)
        .copied()
        .collect()
}
