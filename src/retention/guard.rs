//! Refuses a decision that is not plausible: the clock looks wrong, or too much would be deleted.

use chrono::{DateTime, Duration, Utc};

use super::{Candidate, Reasons, newest};

/// How far the newest stamp may be ahead of the clock: several snapshots within one second get
/// stamps ahead of it, and clocks differ a little.
const TOLERANCE: Duration = Duration::minutes(10);
/// A time without snapshots that is longer than this, and than [`SILENT_INTERVALS`], may as well be
/// a wrong clock.
const SILENCE: Duration = Duration::days(365);
/// The same as a multiple of the usual time between two snapshots.
const SILENT_INTERVALS: i32 = 10;

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
    /// The newest snapshot came far later than usual after the one before.
    #[error(
        "the newest snapshot is stamped {days} days after the one before it ({newest}), far more than the usual time \
         between two: was the clock right?"
    )]
    ClockJumped {
        /// The newest snapshot's stamp.
        newest: DateTime<Utc>,
        /// The time since the one before.
        days: i64,
    },
    /// Too many snapshots would be deleted.
    #[error(
        "{forgotten} of {total} snapshots would be deleted, more than half, and more than came since the last \
         prune ({arrived})"
    )]
    Outsized {
        /// Number of snapshots that would be deleted.
        forgotten: usize,
        /// Number of all snapshots.
        total: usize,
        /// Number of snapshots that came since the last prune; zero before the first.
        arrived: usize,
    },
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
    /// The operator confirmed the decision.
    pub confirmed: bool,
}

impl Guard {
    /// Refuses a decision if the clock looks wrong or too many snapshots would go. `decided`: the
    /// reasons for which each of `snapshots` stays.
    pub fn check(&self, snapshots: &[Candidate], decided: &[Reasons]) -> Result<(), Refusal> {
        let all = [
            self.check_clock(snapshots),
            self.check_extent(snapshots, decided),
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
        match self.check_extent(snapshots, decided) {
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
        let mut gaps = gaps(snapshots);
        let last = gaps.pop();
        let is_silence = |silent: Duration, gaps: &[Duration]| {
            silent > SILENCE && median(gaps).is_some_and(|usual| silent > usual * SILENT_INTERVALS)
        };
        // A snapshot made a moment ago by a clock that is ahead is no evidence for that clock.
        if let Some(jump) = last
            && is_silence(jump, &gaps)
        {
            let days = jump.num_days();
            return Err(Refusal::ClockJumped { newest, days });
        }
        gaps.extend(last);
        let age = now - newest;
        if is_silence(age, &gaps) {
            let days = age.num_days();
            return Err(Refusal::ClockAhead { now, days });
        }
        Ok(())
    }

    /// A prune forgets about as many snapshots as came since the one before. If it would forget
    /// more than those, and more than half of all, something is wrong: the policy, the target, or a
    /// flood of snapshots.
    fn check_extent(&self, snapshots: &[Candidate], decided: &[Reasons]) -> Result<(), Refusal> {
        let forgotten = decided.iter().filter(|reasons| reasons.is_empty()).count();
        let total = snapshots.len();
        let arrived = self.pruned_at.map_or(0, |at| {
            let since = snapshots.iter().filter(|one| one.sequence > at);
            since.count()
        });
        if 2 * forgotten > total && forgotten > arrived {
            return Err(Refusal::Outsized {
                forgotten,
                total,
                arrived,
            });
        }
        Ok(())
    }
}

/// Returns the times between each snapshot and the next, oldest first; negative if a stamp is
/// before its predecessor's.
fn gaps(snapshots: &[Candidate]) -> Vec<Duration> {
    let mut ordered: Vec<_> = snapshots
        .iter()
        .map(|one| (one.sequence, one.stamp))
        .collect();
    ordered.sort_unstable();
    let pairs = ordered.windows(2);
    pairs
        .map(|pair| pair[1].1.time() - pair[0].1.time())
        .collect()
}

/// Returns the median of the lengths of `gaps`; `None` if there are none.
fn median(gaps: &[Duration]) -> Option<Duration> {
    let mut lengths: Vec<Duration> = gaps.iter().map(Duration::abs).collect();
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied()
}
