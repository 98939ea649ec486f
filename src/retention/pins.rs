//! Snapshots that stay whatever the policy says, and why.

use std::collections::BTreeSet;

use super::{Reason, Reasons};
use crate::ids::Stamp;

/// By stamp.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// The operator wants them kept.
    pub by_hand: BTreeSet<Stamp>,
    /// The last ones before a source shrank.
    pub before_shrink: BTreeSet<Stamp>,
    /// The last ones that have a source which fails now.
    pub last_with_source: BTreeSet<Stamp>,
}

impl Pins {
    pub fn holds(&self, stamp: &Stamp) -> bool {
        let mut all = [&self.by_hand, &self.before_shrink, &self.last_with_source].into_iter();
        all.any(|stamps| stamps.contains(stamp))
    }

    /// Names the reason for which a snapshot that is held stays, in the place of [`Reason::Pinned`].
    pub fn explain(&self, stamp: &Stamp, reasons: &mut Reasons) {
        let kept = [
            (&self.before_shrink, Reason::BeforeShrink),
            (&self.last_with_source, Reason::LastWithSource),
        ];
        for (stamps, reason) in kept {
            if !stamps.contains(stamp) {
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
            by_hand: BTreeSet::from([stamp(1), stamp(2)]),
            before_shrink: BTreeSet::from([stamp(2), stamp(3)]),
            last_with_source: BTreeSet::from([stamp(5)]),
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
            Reasons::from([Reason::LastWithSource, Reason::Daily])
        );
        assert!(
            [1, 2, 3, 5].into_iter().all(|day| pins.holds(&stamp(day))) && !pins.holds(&stamp(4))
        );
    }
}
