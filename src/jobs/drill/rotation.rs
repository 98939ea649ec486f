//! Whose turn it is: over the drills, each place and an older snapshot.
//!
//! A pure function of the receipts that this signer left, so that no machine has to remember
//! anything. The place without a drill for the longest time comes next. An older snapshot comes
//! when none of the last N - 1 drills restored one: over N drills in a row, one did.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::format::chain::Chain;
use crate::format::receipt::Receipt;

/// A drill that left a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PastDrill {
    /// The target's id.
    pub(super) target: String,
    pub(super) started_at: DateTime<Utc>,
    /// There was a newer snapshot by then.
    pub(super) was_older: bool,
}

impl PastDrill {
    /// Returns the drill of `receipt`; `chain` is that of the place on which it is.
    pub(super) fn of(receipt: &Receipt, chain: &Chain) -> Self {
        let is_newer = |sequence: u64, made: DateTime<Utc>| {
            sequence > receipt.sequence && made <= receipt.started_at
        };
        let mut live = chain.snapshots.iter();
        let mut known = chain.known.iter();
        Self {
            target: receipt.target.id.clone(),
            started_at: receipt.started_at,
            was_older: live.any(|one| is_newer(one.sequence(), one.stamp().time()))
                || known.any(|one| is_newer(one.sequence, one.stamp.time())),
        }
    }
}

/// Returns which of the places with these ids comes next: the one without a drill for the longest
/// time, of several that never had one the first.
pub(super) fn next_place(ids: &[&str], past: &[PastDrill]) -> usize {
    let mut last: HashMap<&str, DateTime<Utc>> = HashMap::new();
    for drill in past {
        let at = last.entry(&drill.target).or_insert(drill.started_at);
        *at = drill.started_at.max(*at);
    }
    let places = ids.iter().enumerate();
    let next = places.min_by_key(|(index, id)| (last.get(*id).copied(), *index));
    next.map_or(0, |(index, _)| index)
}

/// Whether an older snapshot comes next, which has its turn once in `every` drills. `past` is in
/// the order of time.
pub(super) fn is_older_due(past: &[PastDrill], every: u32) -> bool {
    let before = every.saturating_sub(1) as usize;
    let last = past.iter().rev().take(before);
    past.len() >= before && last.clone().all(|drill| !drill.was_older)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(target: &str, day: i64, was_older: bool) -> PastDrill {
        PastDrill {
            target: target.to_owned(),
            started_at: DateTime::from_timestamp(day * 86_400, 0).unwrap(),
            was_older,
        }
    }

    #[test]
    fn over_four_drills_each_place_and_an_older_snapshot_had_their_turn() {
        let ids = ["a", "b", "c"];
        let mut past = Vec::new();
        for day in 0..40 {
            let place = ids[next_place(&ids, &past)];
            let is_older = is_older_due(&past, 4);
            past.push(drill(place, day, is_older));
        }
        for window in past.windows(4) {
            assert!(window.iter().any(|one| one.was_older), "{window:?}");
            for id in ids {
                assert!(window.iter().any(|one| one.target == id), "{window:?}");
            }
        }
        assert!(past[..3].iter().all(|one| !one.was_older));
    }

    #[test]
    fn with_one_in_one_every_drill_is_of_an_older_snapshot() {
        assert!(is_older_due(&[], 1));
        assert!(is_older_due(&[drill("a", 0, true)], 1));
        assert!(!is_older_due(&[], 2));
    }
}
