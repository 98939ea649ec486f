//! What keeps a decision from being carried out: a clock that cannot be right, or more deleted than makes sense.

use chrono::{DateTime, Duration, Utc};

use super::{Candidate, Reasons, newest};

/// Several snapshots within one second get stamps ahead of the clock, and clocks differ a little.
const TOLERANCE: Duration = Duration::minutes(10);
/// A host that is silent for longer than both of these may as well be a clock that is wrong.
const SILENCE: Duration = Duration::days(365);
const SILENT_INTERVALS: i32 = 10;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the clock says {now}, but the newest snapshot is stamped {newest}: nothing is deleted by a clock that \
         cannot be right. If the clock is right and was ahead then, run `sealift backup` first: order goes by \
         sequence, and a newer snapshot ends this"
    )]
    ClockBehind {
        now: DateTime<Utc>,
        newest: DateTime<Utc>,
    },
    #[error(
        "the newest snapshot is {days} days old, far more than lies between them usually: is the clock right ({now})?"
    )]
    ClockAhead { now: DateTime<Utc>, days: i64 },
    #[error(
        "the newest snapshot is stamped {days} days after the one before it ({newest}), far more than lies between \
         them usually: was the clock right?"
    )]
    ClockJumped { newest: DateTime<Utc>, days: i64 },
    #[error(
        "{forgotten} of {total} snapshots would be deleted, more than half, and more than came since the last \
         prune ({arrived})"
    )]
    Outsized {
        forgotten: usize,
        total: usize,
        arrived: usize,
    },
}

impl Refusal {
    /// Whether somebody who looked at it may have it done nevertheless.
    pub fn may_be_confirmed(&self) -> bool {
        !matches!(self, Self::ClockBehind { .. })
    }
}

/// Holds a decision against what is plausible.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    pub now: DateTime<Utc>,
    /// The highest sequence that was there at the last prune.
    pub pruned_at: Option<u64>,
    /// Somebody looked at it and said yes.
    pub confirmed: bool,
}

impl Guard {
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

    /// The same where the snapshots to go are named: no clock decides which.
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
        // What was made a moment ago by a clock that is ahead says nothing against that clock.
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

    /// A prune that follows others forgets about as many as came since. One that forgets more than that and
    /// most of all there is was mistaken by somebody: a policy, a target, a flood of snapshots.
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

/// The times between one snapshot and the next, oldest first; negative where a stamp is before its
/// predecessor's.
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

/// The median of their lengths.
fn median(gaps: &[Duration]) -> Option<Duration> {
    let mut lengths: Vec<Duration> = gaps.iter().map(Duration::abs).collect();
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied()
}
