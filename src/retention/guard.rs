//! Refuses a decision that is not plausible: the clock looks wrong, or too much would be deleted.
//!
//! Too much is measured by what the policy explains. A snapshot that went because another one
//! stays for its day (or for the smallest period that the policy counts) is explained, and so is
//! one that has just grown too old for `within`: several trial backups on the first day are no
//! reason for an alarm. Neither explains a snapshot that an earlier prune kept although it had the
//! chance to delete it: then the policy is another one.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Duration, Utc};

use crate::base::ids::Stamp;

use super::{Candidate, Period, Policy, Reason, Reasons, calendar, made, newest};

/// How far the newest stamp may be ahead of the clock: several snapshots within one second get
/// stamps ahead of it, and clocks differ a little.
const TOLERANCE: Duration = Duration::minutes(10);
/// A time without snapshots that is longer than this, and than [`SILENT_INTERVALS`], may as well be
/// a wrong clock.
const SILENCE: Duration = Duration::days(365);
/// The same as a multiple of the usual time between two snapshots.
const SILENT_INTERVALS: i32 = 10;
/// The longest time between the two newest snapshots that is never taken for a wrong clock when
/// snapshots grow too old.
const USUAL_GAP: Duration = Duration::days(2);

/// Why a decision is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The newest stamp is in the future.
    #[error(
        "nothing is deleted, since the clock looks wrong: it says {now}, but the newest snapshot is stamped {newest}. \
         If the clock is right now and was ahead then, run `sealift backup` first: order goes by sequence, and a newer \
         snapshot settles this"
    )]
    ClockBehind {
        /// The clock's time.
        now: DateTime<Utc>,
        /// The newest snapshot's stamp.
        newest: DateTime<Utc>,
    },
    /// The newest snapshot is far older than usual.
    #[error(
        "the newest snapshot is {days} days old, far more than the usual time between two: is the clock right ({now})?"
    )]
    ClockAhead {
        /// The clock's time.
        now: DateTime<Utc>,
        /// The newest snapshot's age.
        days: i64,
    },
    /// A snapshot that no prune has seen came far later than usual after the one before.
    #[error(
        "the snapshot of {newest} is stamped {days} days after the one before it, far more than the usual time between \
         two: was the clock right?"
    )]
    ClockJumped {
        /// That snapshot's stamp.
        newest: DateTime<Utc>,
        /// The time since the one before.
        days: i64,
    },
    /// Too many snapshots would be deleted.
    #[error(
        "{forgotten} of {total} snapshots would be deleted{}, more than half, and more than came since the last \
         prune ({arrived})", beside(*explained)
    )]
    Outsized {
        /// Number of snapshots that would be deleted, without the explained ones.
        forgotten: usize,
        /// Number of all snapshots, without the explained ones.
        total: usize,
        /// Number of snapshots that would be deleted and that the policy explains.
        explained: usize,
        /// Number of snapshots that came since the last prune; zero before the first.
        arrived: usize,
    },
}

fn beside(explained: usize) -> String {
    match explained {
        0 => String::new(),
        n => format!(" (and {n} more, of periods that keep another one)"),
    }
}

impl Refusal {
    /// Returns whether the operator may confirm the decision in spite of it.
    pub fn may_be_confirmed(&self) -> bool {
        !matches!(self, Self::ClockBehind { .. })
    }
}

/// Checks whether a decision is plausible.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// The clock's time.
    pub now: DateTime<Utc>,
    /// The highest sequence at the last prune; `None` before the first.
    pub pruned_at: Option<u64>,
    /// The policy by which the decision was made.
    pub policy: Policy,
    /// The operator confirmed the decision.
    pub confirmed: bool,
}

impl Guard {
    /// Refuses a decision if the clock looks wrong or too many snapshots would go. `decided`: the
    /// reasons for which each of `snapshots` stays.
    pub fn check(&self, snapshots: &[Candidate], decided: &[Reasons]) -> Result<(), Refusal> {
        let explained = self.explained(snapshots, decided);
        let all = [
            self.check_clock(snapshots),
            self.check_extent(snapshots, decided, &explained),
        ];
        for checked in all {
            match checked {
                Err(refusal) if !(self.confirmed && refusal.may_be_confirmed()) => {
                    return Err(refusal);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Does the same for snapshots that the operator named, whatever the clock says: it did not
    /// choose them.
    pub fn check_named(&self, snapshots: &[Candidate], decided: &[Reasons]) -> Result<(), Refusal> {
        match self.check_extent(snapshots, decided, &BTreeSet::new()) {
            Err(refusal) if !self.confirmed => Err(refusal),
            _ => Ok(()),
        }
    }

    fn check_clock(&self, snapshots: &[Candidate]) -> Result<(), Refusal> {
        let Some(newest) = newest(snapshots).map(|newest| newest.stamp.time()) else {
            return Ok(());
        };
        let now = self.now;
        if newest > now + TOLERANCE {
            return Err(Refusal::ClockBehind { now, newest });
        }
        let all = gaps(snapshots);
        let lengths = |but: Option<u64>| -> Vec<Duration> {
            let others = all.iter().filter(|gap| Some(gap.sequence) != but);
            others.map(|gap| gap.length).collect()
        };
        let is_silence = |silent: Duration, but: Option<u64>| {
            let usual = median(&lengths(but));
            silent > SILENCE && usual.is_some_and(|usual| silent > usual * SILENT_INTERVALS)
        };
        // Snapshots that a clock made that is ahead are no evidence for that clock, however many
        // they are. What an earlier prune has seen was confirmed, or was right.
        let since = self.pruned_at.unwrap_or(0);
        let unseen = all.iter().filter(|gap| gap.lasts(since, newest));
        let longest = unseen.max_by_key(|gap| gap.length);
        if let Some(jump) = longest.filter(|gap| is_silence(gap.length, Some(gap.sequence))) {
            let (newest, days) = (jump.end, jump.length.num_days());
            return Err(Refusal::ClockJumped { newest, days });
        }
        let age = now - newest;
        if is_silence(age, None) {
            let days = age.num_days();
            return Err(Refusal::ClockAhead { now, days });
        }
        Ok(())
    }

    /// A prune forgets about as many snapshots as came since the one before. If it would forget
    /// more than those, and more than half of all, something is wrong: the policy, the target, or a
    /// flood of snapshots. The `explained` ones, by sequence, count nowhere.
    fn check_extent(
        &self,
        snapshots: &[Candidate],
        decided: &[Reasons],
        explained: &BTreeSet<usize>,
    ) -> Result<(), Refusal> {
        let forgotten = decided.iter().filter(|reasons| reasons.is_empty()).count();
        let arrived = self.pruned_at.map_or(0, |pruned| {
            let since = snapshots.iter().enumerate();
            let since = since.filter(|(at, one)| one.sequence > pruned && !explained.contains(at));
            since.count()
        });
        let explained = explained.len();
        let (forgotten, total) = (forgotten - explained, snapshots.len() - explained);
        if 2 * forgotten > total && forgotten > arrived {
            return Err(Refusal::Outsized {
                forgotten,
                total,
                explained,
                arrived,
            });
        }
        Ok(())
    }

    /// Returns the places of the snapshots that would be deleted and that the policy explains.
    fn explained(&self, snapshots: &[Candidate], decided: &[Reasons]) -> BTreeSet<usize> {
        let Some(newest) = newest(snapshots) else {
            return BTreeSet::new();
        };
        let made: Vec<DateTime<Utc>> = made(snapshots, newest.stamp)
            .into_iter()
            .map(|stamp| stamp.time())
            .collect();
        let past = Past::of(snapshots, &made, newest, self.pruned_at);
        let thinned = thinned(snapshots, decided, &self.policy);
        let within = self.policy.within;
        let within = within.map(|age| Duration::from_std(age).unwrap_or(Duration::MAX));
        // A jump of the clock makes everything too old at once.
        let is_gap_usual = within.is_some_and(|age| past.gap <= (age / 2).max(USUAL_GAP));
        let mut explained = BTreeSet::new();
        for (at, one) in snapshots.iter().enumerate() {
            if !decided[at].is_empty() {
                continue;
            }
            // At the last prune it was too young to be deleted.
            let was_young = within.is_some_and(|age| past.time - made[at] <= age);
            let is_new = self.pruned_at.is_none_or(|pruned| one.sequence > pruned);
            let is_thinned = thinned.contains(&at) && (is_new || was_young);
            let is_aged = one.sequence <= past.sequence && was_young && is_gap_usual;
            if is_thinned || is_aged {
                explained.insert(at);
            }
        }
        explained
    }
}

/// When the policy had its last chance: the last prune or, before the first, the snapshot before
/// the newest.
struct Past {
    sequence: u64,
    time: DateTime<Utc>,
    /// The longest time between two snapshots since then. A wrong clock may have made more than
    /// one.
    gap: Duration,
}

impl Past {
    fn of(
        snapshots: &[Candidate],
        made: &[DateTime<Utc>],
        newest: &Candidate,
        pruned_at: Option<u64>,
    ) -> Self {
        let last_until = |sequence: u64| {
            let until = snapshots.iter().zip(made);
            let until = until.filter(|(one, _)| one.sequence <= sequence);
            until.max_by_key(|(one, _)| one.sequence)
        };
        let before = last_until(newest.sequence.saturating_sub(1));
        let newest_time = newest.stamp.time();
        let last = match pruned_at {
            Some(sequence) => last_until(sequence),
            None => before,
        };
        let (sequence, time) = last.map_or((0, newest_time), |(one, time)| (one.sequence, *time));
        // Before the first prune no gap has been seen by any.
        let since = pruned_at.map_or(0, |_| sequence);
        let gaps = gaps(snapshots).into_iter();
        let unseen = gaps.filter(|gap| gap.lasts(since, newest_time));
        let gap = unseen.map(|gap| gap.length).max();
        let gap = gap.unwrap_or(Duration::zero());
        Self {
            sequence,
            time,
            gap,
        }
    }
}

/// Returns the places of the snapshots whose period keeps another one: of the smallest period that
/// the policy counts, and of the day.
fn thinned(snapshots: &[Candidate], decided: &[Reasons], policy: &Policy) -> HashSet<usize> {
    let counted = calendar(policy)
        .into_iter()
        .filter(|(_, count, _)| *count > 0);
    let mut counted = counted
        .map(|(reason, _, period)| (reason, period))
        .peekable();
    let is_hourly = counted
        .peek()
        .is_some_and(|(reason, _)| *reason == Reason::Hourly);
    let daily = |(reason, _): &(Reason, Period)| is_hourly && *reason == Reason::Daily;
    let first = counted.next();
    let periods = first.into_iter().chain(counted.next().filter(daily));
    let mut thinned = HashSet::new();
    for (reason, period) in periods {
        let number = |one: &Candidate| period(&one.stamp.time()).0;
        let both = snapshots.iter().zip(decided);
        let kept: BTreeSet<i64> = both
            .filter(|(_, reasons)| reasons.contains(&reason))
            .map(|(one, _)| number(one))
            .collect();
        let places = snapshots.iter().enumerate();
        thinned.extend(
            places
                .filter(|(_, one)| kept.contains(&number(one)))
                .map(|(at, _)| at),
        );
    }
    thinned
}

/// The time between two snapshots that follow each other.
struct Gap {
    /// The sequence of the later one.
    sequence: u64,
    /// The stamp of the later one.
    end: DateTime<Utc>,
    /// Negative if its stamp is before its predecessor's.
    length: Duration,
}

impl Gap {
    /// Whether it came after the sequence `since`, and the clock has not gone back behind it until
    /// the stamp `newest`.
    fn lasts(&self, since: u64, newest: DateTime<Utc>) -> bool {
        self.sequence > since && self.end <= newest
    }
}

/// Returns the times between each snapshot and the next, oldest first.
fn gaps(snapshots: &[Candidate]) -> Vec<Gap> {
    let mut ordered: Vec<_> = snapshots
        .iter()
        .map(|one| (one.sequence, one.stamp))
        .collect();
    ordered.sort_unstable();
    let pairs = ordered.windows(2);
    let gap = |pair: &[(u64, Stamp)]| Gap {
        sequence: pair[1].0,
        end: pair[1].1.time(),
        length: pair[1].1.time() - pair[0].1.time(),
    };
    pairs.map(gap).collect()
}

/// Returns the median of the lengths of `gaps`; `None` if there are none.
fn median(gaps: &[Duration]) -> Option<Duration> {
    let mut lengths: Vec<Duration> = gaps.iter().map(Duration::abs).collect();
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied()
}
