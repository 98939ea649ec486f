//! Sorts this host's snapshot directories by the order in which they were made.
//!
//! Their names are stamps, which are the clock's: after one run with a clock in 2099 its directory
//! would stay the newest. The catalog numbers the snapshots that were packed, so its sequences
//! decide. A directory that was never packed has no sequence: it follows the last packed one whose
//! stamp is not after its own. If its stamp is ahead of the clock it is compared with such stamps
//! only, so a wrong stamp never makes it the newest.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Utc};

use crate::base::ids::Stamp;
use crate::producer::LocalSnapshot;
use crate::state::catalog::{Catalog, CatalogError};

/// A stamp may be this far ahead of the clock: several snapshots within one second get such stamps,
/// and clocks differ.
const TOLERANCE: Duration = Duration::minutes(10);

/// A snapshot directory of this host.
#[derive(Debug, Clone)]
pub struct OrderedSnapshot {
    /// The directory.
    pub snapshot: LocalSnapshot,
    /// Its highest sequence; `None`: it was never packed, as far as the catalog knows.
    pub sequence: Option<u64>,
}

/// Sorts the directories `there` by the order in which they were made, oldest first.
pub fn in_order(
    there: Vec<LocalSnapshot>,
    catalog: Option<&Catalog>,
    now: DateTime<Utc>,
) -> Result<Vec<OrderedSnapshot>, CatalogError> {
    let here: BTreeSet<Stamp> = there.iter().map(|snapshot| snapshot.stamp).collect();
    let mut sequences: BTreeMap<Stamp, u64> = BTreeMap::new();
    let rows = catalog.map(Catalog::snapshots).transpose()?;
    for row in rows.iter().flat_map(|rows| rows.iter()) {
        let known = row.known;
        if !here.contains(&known.stamp) {
            continue;
        }
        let newest = sequences.entry(known.stamp).or_default();
        *newest = known.sequence.max(*newest);
    }
    let ordered = there.into_iter().map(|snapshot| OrderedSnapshot {
        sequence: sequences.get(&snapshot.stamp).copied(),
        snapshot,
    });
    let mut ordered: Vec<OrderedSnapshot> = ordered.collect();
    let stamps: Vec<_> = ordered
        .iter()
        .map(|one| (one.snapshot.stamp, one.sequence))
        .collect();
    let places = places(&stamps, now);
    ordered.sort_by_key(|one| places.get(&one.snapshot.stamp).copied());
    Ok(ordered)
}

/// Returns a sort key for each stamp. A packed snapshot has its rank by sequence; one that was
/// never packed sorts before the packed one of the same rank.
fn places(
    stamps: &[(Stamp, Option<u64>)],
    now: DateTime<Utc>,
) -> BTreeMap<Stamp, (usize, bool, bool, Stamp)> {
    let is_ahead = |stamp: &Stamp| stamp.time() > now + TOLERANCE;
    let packed = stamps.iter().filter_map(|(stamp, n)| Some(((*n)?, *stamp)));
    let mut packed: Vec<(u64, Stamp)> = packed.collect();
    packed.sort_unstable();
    let rank_of = |stamp: &Stamp| {
        let before = packed
            .iter()
            .rposition(|(_, other)| other <= stamp && is_ahead(other) == is_ahead(stamp));
        before.map_or(0, |rank| rank + 1)
    };
    let unpacked = stamps.iter().filter(|(_, n)| n.is_none());
    let unpacked = unpacked.map(|(stamp, _)| {
        let place = (rank_of(stamp), false, !is_ahead(stamp), *stamp);
        (*stamp, place)
    });
    let ranked = packed.iter().enumerate();
    let ranked = ranked.map(|(rank, (_, stamp))| (*stamp, (rank, true, false, *stamp)));
    ranked.chain(unpacked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(snapshots: &[(&str, Option<u64>)], now: &str) -> Vec<String> {
        let stamp = |day: &str| format!("{day}T060000Z").parse().unwrap();
        let stamps: Vec<_> = snapshots.iter().map(|(day, n)| (stamp(day), *n)).collect();
        let places = places(&stamps, now.parse().unwrap());
        let mut sorted: Vec<_> = places.into_iter().collect();
        sorted.sort_by_key(|(_, place)| *place);
        let days = sorted.iter().map(|(stamp, _)| stamp.to_string());
        days.map(|text| text[..8].to_owned()).collect()
    }

    #[test]
    fn sequences_decide_and_not_stamps() {
        let there = [
            ("20261103", Some(3)),
            ("20261104", Some(5)),
            ("20990101", Some(4)),
        ];
        let made = ["20261103", "20990101", "20261104"];
        assert_eq!(order(&there, "2026-11-05T07:00:00Z"), made);
    }

    #[test]
    fn what_was_never_packed_follows_what_was_packed_before_it() {
        let there = [
            ("20261102", None),
            ("20261101", Some(1)),
            ("20261103", Some(2)),
            ("20990101", Some(3)),
            ("20990102", None),
            ("20261105", Some(4)),
            ("20261106", None),
        ];
        let made = [
            "20261101", "20261102", "20261103", "20990101", "20990102", "20261105", "20261106",
        ];
        assert_eq!(order(&there, "2026-11-06T07:00:00Z"), made);
    }

    #[test]
    fn a_stamp_ahead_of_the_clock_never_makes_the_newest_of_what_was_not_packed() {
        let there = [
            ("20990101", None),
            ("20261101", None),
            ("20261102", Some(1)),
        ];
        let made = ["20990101", "20261101", "20261102"];
        assert_eq!(order(&there, "2026-11-03T07:00:00Z"), made);
        // For a clock that is behind all of them, none is ahead of another.
        let there = [("20261101", None), ("20261102", None)];
        assert_eq!(
            order(&there, "1970-01-01T00:00:00Z"),
            ["20261101", "20261102"]
        );
    }
}
