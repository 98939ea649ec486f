//! The snapshots that stay whatever the policy says, and why.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reason, Reasons};
use crate::base::ids::Stamp;

/// The stamps of pinned snapshots, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// The operator pinned them.
    pub by_hand: BTreeSet<Stamp>,
    /// The last ones before a source shrank, with their sequences (`None`: not known).
    pub before_shrink: BTreeMap<Stamp, Option<u64>>,
    /// The last ones before a source failed that still fails, with their sequences (`None`: not
    /// known).
    pub before_failure: BTreeMap<Stamp, Option<u64>>,
    /// Drills restored them. They are no pins by themselves: of those in one place the newest
    /// stays.
    pub proven: BTreeSet<Stamp>,
}

impl Pins {
    /// Returns whether a snapshot of this stamp is pinned for any reason.
    pub fn holds(&self, stamp: &Stamp) -> bool {
        let mut by_themselves = [&self.before_shrink, &self.before_failure].into_iter();
        self.by_hand.contains(stamp) || by_themselves.any(|stamps| stamps.contains_key(stamp))
    }

    /// Returns the pins for a place that holds the snapshots `there` (stamp and sequence). If an
    /// alarm keeps a snapshot that is not in this place, the newest one there with an earlier
    /// sequence is kept instead.
    pub fn among(&self, there: &[(Stamp, u64)]) -> Self {
        let instead = |(stamp, sequence): (&Stamp, &Option<u64>)| {
            let is_there = there.iter().any(|(other, _)| other == stamp);
            let earlier = there
                .iter()
                .filter(|(_, n)| sequence.is_some_and(|last| *n < last));
            match (is_there, earlier.max_by_key(|(_, n)| *n)) {
                (false, Some((earlier, n))) => (*earlier, Some(*n)),
                _ => (*stamp, *sequence),
            }
        };
        Self {
            by_hand: self.by_hand.clone(),
            proven: self.proven.clone(),
            before_shrink: self.before_shrink.iter().map(instead).collect(),
            before_failure: self.before_failure.iter().map(instead).collect(),
        }
    }

    /// Replaces [`Reason::Pinned`] in `reasons` by the alarm that keeps the snapshot, unless the
    /// operator pinned it, too.
    pub fn explain(&self, stamp: &Stamp, reasons: &mut Reasons) {
        let kept = [
            (&self.before_shrink, Reason::BeforeShrink),
            (&self.before_failure, Reason::BeforeFailure),
        ];
        for (stamps, reason) in kept {
            if !stamps.contains_key(stamp) {
                continue;
            }
            if !self.by_hand.contains(stamp) {
                reasons.remove(&Reason::Pinned);
            }
            reasons.insert(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_an_alarm_keeps_says_so() {
        let stamp = |day: u32| format!("202611{day:02}T060000Z").parse().unwrap();
        let pins = Pins {
            proven: BTreeSet::new(),
            by_hand: BTreeSet::from([stamp(1), stamp(2)]),
            before_shrink: BTreeMap::from([(stamp(2), Some(2)), (stamp(3), None)]),
            before_failure: BTreeMap::from([(stamp(5), Some(5))]),
        };
        let explained = |day: u32| {
            let mut reasons = Reasons::from([Reason::Pinned, Reason::Daily]);
            pins.explain(&stamp(day), &mut reasons);
            reasons
        };
        let (pinned, before) = (Reason::Pinned, Reason::BeforeShrink);
        assert_eq!(explained(1), Reasons::from([pinned, Reason::Daily]));
        assert_eq!(explained(2), Reasons::from([pinned, before, Reason::Daily]));
        assert_eq!(explained(3), Reasons::from([before, Reason::Daily]));
        assert_eq!(
            explained(5),
            Reasons::from([Reason::BeforeFailure, Reason::Daily])
        );
        assert!(
            [1, 2, 3, 5].into_iter().all(|day| pins.holds(&stamp(day))) && !pins.holds(&stamp(4))
        );
    }

    /// Kind: a pin keeps nothing in a place that never had the pinned snapshot.
    #[test]
    fn if_a_pinned_snapshot_is_not_in_a_place_an_earlier_one_stays_there() {
        let stamp = |day: u64| format!("202611{day:02}T060000Z").parse().unwrap();
        let pins = Pins {
            proven: BTreeSet::new(),
            by_hand: BTreeSet::from([stamp(7)]),
            before_shrink: BTreeMap::from([(stamp(4), Some(4))]),
            before_failure: BTreeMap::from([(stamp(6), Some(6)), (stamp(1), Some(1))]),
        };
        let there = |days: &[u64]| {
            let there: Vec<(Stamp, u64)> = days.iter().map(|day| (stamp(*day), *day)).collect();
            let pins = pins.among(&there);
            let held = days.iter().copied().filter(|day| pins.holds(&stamp(*day)));
            held.collect::<Vec<u64>>()
        };
        assert_eq!(there(&[1, 2, 3, 4, 5, 6, 7]), [1, 4, 6, 7]);
        assert_eq!(there(&[2, 3, 5, 7, 8]), [3, 5, 7]);
        assert_eq!(there(&[8, 9]), [0; 0]);
    }
}
