//! Growth of the backups, by day, week or month.

use std::collections::BTreeMap;

use chrono::{Datelike as _, Days, NaiveDate};
use serde::Serialize;

use super::SnapshotSizes;

/// Longest history in days that is shown by day.
const MOST_DAYS: i64 = 14;
/// Longest history in days that is shown by week.
const MOST_DAYS_OF_WEEKS: i64 = 26 * 7;

/// Length of the periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrowthUnit {
    Day,
    /// From Sunday to Saturday, as for retention.
    Week,
    Month,
}

/// The snapshots of one period that are still there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct GrowthPeriod {
    /// Its first day, in UTC.
    pub(crate) from: NaiveDate,
    pub(crate) snapshots: u64,
    /// Bytes of files that no archive held before.
    pub(crate) new_bytes: u64,
    /// Bytes of the archives that the last of its snapshots and all earlier ones need.
    pub(crate) stored_bytes: Option<u64>,
}

impl GrowthUnit {
    fn begin(self, day: NaiveDate) -> NaiveDate {
        let days_back = match self {
            Self::Day => 0,
            Self::Week => day.weekday().num_days_from_sunday(),
            Self::Month => day.day0(),
        };
        day.checked_sub_days(Days::new(days_back.into()))
            .unwrap_or(day)
    }
}

/// Groups `snapshots`, which are in the order of their sequences, into periods of a length that
/// keeps the table short.
pub(super) fn growth(snapshots: &[SnapshotSizes]) -> (GrowthUnit, Vec<GrowthPeriod>) {
    let days = || snapshots.iter().map(|one| one.stamp.time().date_naive());
    let span = match (days().min(), days().max()) {
        (Some(first), Some(last)) => (last - first).num_days(),
        _ => 0,
    };
    let unit = if span < MOST_DAYS {
        GrowthUnit::Day
    } else if span < MOST_DAYS_OF_WEEKS {
        GrowthUnit::Week
    } else {
        GrowthUnit::Month
    };
    let mut periods: BTreeMap<NaiveDate, GrowthPeriod> = BTreeMap::new();
    for (snapshot, day) in snapshots.iter().zip(days()) {
        let from = unit.begin(day);
        let period = periods.entry(from).or_insert(GrowthPeriod {
            from,
            snapshots: 0,
            new_bytes: 0,
            stored_bytes: None,
        });
        period.snapshots += 1;
        period.new_bytes += snapshot.new_bytes;
        period.stored_bytes = snapshot.stored_bytes;
    }
    (unit, periods.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(days: &[&str]) -> Vec<SnapshotSizes> {
        let one = |(sequence, day): (u64, &&str)| SnapshotSizes {
            stamp: format!("{day}T060000Z").parse().unwrap(),
            sequence,
            bytes: 100,
            new_bytes: 10 * sequence,
            unique_bytes: None,
            stored_bytes: Some(1000 * sequence),
        };
        (1..).zip(days).map(one).collect()
    }

    fn table(days: &[&str]) -> (GrowthUnit, Vec<String>) {
        let (unit, periods) = growth(&snapshots(days));
        let row = |one: &GrowthPeriod| {
            let stored = one.stored_bytes.unwrap();
            format!("{} {} {} {stored}", one.from, one.snapshots, one.new_bytes)
        };
        (unit, periods.iter().map(row).collect())
    }

    #[test]
    fn a_short_history_is_shown_by_day_and_a_long_one_by_month() {
        let (unit, rows) = table(&["20260401", "20260401", "20260403"]);
        assert_eq!(unit, GrowthUnit::Day);
        assert_eq!(rows, ["2026-04-01 2 30 2000", "2026-04-03 1 30 3000"]);
        // The 5th of April 2026 is a Sunday.
        let (unit, rows) = table(&["20260404", "20260405", "20260411", "20260501"]);
        assert_eq!(unit, GrowthUnit::Week);
        let expected = [
            "2026-03-29 1 10 1000",
            "2026-04-05 2 50 3000",
            "2026-04-26 1 40 4000",
        ];
        assert_eq!(rows, expected);
        let (unit, rows) = table(&["20250404", "20260405", "20260430"]);
        assert_eq!(unit, GrowthUnit::Month);
        assert_eq!(rows, ["2025-04-01 1 10 1000", "2026-04-01 2 50 3000"]);
        assert!(growth(&[]).1.is_empty());
    }
}
