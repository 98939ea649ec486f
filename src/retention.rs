//! Which snapshots stay: a pure decision, by policy, signed order and calendar.
//!
//! *Order* is the signed sequence's alone: the highest one is the newest and always stays, and so does the highest of
//! which nothing is missing, or there might be none left that restores; of two
//! snapshots of a day the later is the one with the higher sequence. *Places in the calendar* come from
//! stamps, UTC. A stamp after the newest snapshot's is a clock that ran ahead once. Such a snapshot holds no
//! place, or it would hold a day that has not been yet; `within` takes it for as old as the next by sequence
//! whose stamp is no such one, or it would be young for ever.
//!
//! A day and an hour stay by their last snapshot. A week, a month and a year stay by the snapshot of their
//! first day: Sunday, the 1st, January 1st; of the first later day that has one where that is missing. For
//! that a week runs from Sunday to Saturday: had it ended on Sunday (ISO 8601), nothing later in the week could
//! stand in for a Sunday that is missing. It also makes the choice final: what stands for a week today does
//! so tomorrow, so pruning every day forgets nothing that a rarer prune would have kept.
//!
//! Stamps are the host's word, and an intruder's who owns it: forged ones of past days, pushed today, must not have
//! the true ones of those days deleted. So what arrived long after its stamp (`late`) displaces nothing: of a period
//! that stays both the first that was in time and the first that was late do.
//!
//! What speaks for a period goes on to do so whatever else is forgotten, so deciding twice forgets nothing
//! more; and a larger policy keeps all that a smaller one keeps. The tests hold both.

mod guard;
mod named;
mod pins;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};

use crate::base::ids::Stamp;

pub use guard::{Guard, Refusal};
pub use named::{Nameable, NamedError, find, may_go};
pub use pins::Pins;

/// How many places of each kind stay, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    /// Sunday's.
    pub weekly: u32,
    /// The 1st's.
    pub monthly: u32,
    /// January 1st's.
    pub yearly: u32,
    /// Everything younger than this.
    pub within: Option<Duration>,
}

/// A policy of days leaves one snapshot of today's; to whoever just made two that is a loss.
const YOUNG: Duration = Duration::from_secs(86_400);

impl Policy {
    /// The same, where what is younger than a day stays besides: for what is done without being asked.
    pub fn and_young(self) -> Self {
        let within = self.within.unwrap_or_default().max(YOUNG);
        Self {
            within: Some(within),
            ..self
        }
    }
}

/// A snapshot to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub sequence: u64,
    pub stamp: Stamp,
    /// Somebody wants it kept.
    pub pinned: bool,
    /// A drill restored it.
    pub proven: bool,
    /// It came to the target long after its stamp: the host could not reach it, or lies.
    pub late: bool,
    /// All that it needs is there, as far as listings show.
    pub whole: bool,
}

/// Why a snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Newest,
    /// The newest of which nothing is missing.
    Whole,
    Pinned,
    /// A source shrank after it, and nobody acknowledged that.
    BeforeShrink,
    /// A source failed after it, and does still.
    BeforeFailure,
    /// The newest that a drill restored.
    Proven,
    Within,
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    /// Others are to go by name, and this one is not among them.
    NotNamed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "newest",
            Self::Whole => "newest that is whole",
            Self::Pinned => "pinned",
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

/// Why one snapshot stays; no reason: it is to be forgotten.
pub type Reasons = BTreeSet<Reason>;

/// For each of `snapshots`, in their order, why it stays at `now`. Says nothing of whether the clock and the
/// extent of it are plausible: see [`Guard`].
pub fn decide(snapshots: &[Candidate], policy: &Policy, now: DateTime<Utc>) -> Vec<Reasons> {
    let mut reasons = vec![Reasons::new(); snapshots.len()];
    let Some(newest) = newest(snapshots) else {
        return reasons;
    };
    let made = made(snapshots, newest.stamp);
    let placed: Vec<Option<Placed>> = snapshots
        .iter()
        .map(|one| {
            (one.stamp <= newest.stamp).then(|| Placed {
                sequence: one.sequence,
                time: one.stamp.time(),
                late: one.late,
            })
        })
        .collect();
    let proven = snapshots.iter().filter(|one| one.proven);
    let proven = proven.map(|one| one.sequence).max();
    let whole = snapshots.iter().filter(|one| one.whole);
    let whole = whole.map(|one| one.sequence).max();
    let sequences: BTreeSet<u64> = snapshots.iter().map(|one| one.sequence).collect();
    let last: BTreeSet<u64> = newest_of(&sequences, policy.last);
    // What reaches back beyond all time keeps everything.
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
    for (reason, count, period) in calendar(policy) {
        let speakers = speakers(&placed, count, period);
        for (place, reasons) in placed.iter().zip(&mut reasons) {
            let Some(place) = place else { continue };
            let (period, day) = period(&place.time);
            let speaker = speakers.get(&period);
            let speaker = speaker.and_then(|speaker| speaker[usize::from(place.late)]);
            if speaker == Some((day, place.sequence)) {
                reasons.insert(reason);
            }
        }
    }
    reasons
}

/// The one with the highest sequence.
fn newest(snapshots: &[Candidate]) -> Option<&Candidate> {
    snapshots.iter().max_by_key(|one| (one.sequence, one.stamp))
}

/// Returns when each snapshot was made, as far as stamps say: one that is after the newest's says nothing, and
/// the next by sequence that says something was made later.
fn made(snapshots: &[Candidate], newest: Stamp) -> Vec<Stamp> {
    let says = snapshots.iter().filter(|one| one.stamp <= newest);
    let mut by_sequence: BTreeMap<u64, Stamp> = BTreeMap::new();
    for one in says {
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

struct Placed {
    sequence: u64,
    time: DateTime<Utc>,
    late: bool,
}

/// A period of the calendar, and the day (or hour) within it: the first of these speaks for the period.
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

fn day(time: &DateTime<Utc>) -> i64 {
    let date: NaiveDate = time.date_naive();
    i64::from(date.num_days_from_ce())
}

/// The day and the sequence that speak for a period: of the snapshots that were in time, and of those that were late.
type Speaker = [Option<(i64, u64)>; 2];

/// Returns what speaks for the newest `count` periods that have a snapshot: of the period's first day the last.
fn speakers(placed: &[Option<Placed>], count: u32, period: Period) -> BTreeMap<i64, Speaker> {
    let mut periods: BTreeMap<i64, Speaker> = BTreeMap::new();
    for one in placed.iter().flatten() {
        let (period, day) = period(&one.time);
        let speaker = &mut periods.entry(period).or_default()[usize::from(one.late)];
        let is_it = speaker
            .is_none_or(|(first, sequence)| day < first || day == first && one.sequence > sequence);
        if is_it {
            *speaker = Some((day, one.sequence));
        }
    }
    let newest = periods.into_iter().rev().take(count as usize);
    newest.collect()
}

fn newest_of(sequences: &BTreeSet<u64>, count: u32) -> BTreeSet<u64> {
    sequences
        .iter()
        .rev()
        .take(count as usize)
        .copied()
        .collect()
}
