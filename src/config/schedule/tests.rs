use std::collections::BTreeSet;

use chrono::{NaiveDate, NaiveTime, TimeZone as _};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn schedule(zone: &str, lines: &[&str]) -> Schedule {
    let lines = lines.iter().map(|line| CronLine::parse(line).unwrap());
    Schedule {
        zone: zone.parse().unwrap(),
        backup: lines.collect(),
        ..Schedule::default()
    }
}

/// All occurrences from `from` until `to`.
fn all(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
    let (mut last, end) = (at(from), at(to));
    let mut found = Vec::new();
    while let Some(next) = schedule.next(last).filter(|next| *next < end) {
        let local = next.with_timezone(&schedule.zone);
        found.push(local.format("%d %H:%M %Z").to_string());
        last = next;
    }
    found
}

#[test]
fn a_fixed_time_comes_once_a_day_through_both_changes_of_the_clock() {
    let nightly = schedule("Europe/Berlin", &["30 2 * * *"]);
    let spring = all(&nightly, "2026-03-27T12:00:00Z", "2026-03-31T00:00:00Z");
    assert_eq!(spring, ["28 02:30 CET", "29 03:00 CEST", "30 02:30 CEST"]);
    let autumn = all(&nightly, "2026-10-23T12:00:00Z", "2026-10-27T00:00:00Z");
    assert_eq!(autumn, ["24 02:30 CEST", "25 02:30 CEST", "26 02:30 CET"]);
    // Between the first 02:30 of that night and the second there is no other.
    let within = at("2026-10-25T00:45:00Z");
    assert_eq!(nightly.next(within), Some(at("2026-10-26T01:30:00Z")));
}

#[test]
fn several_lines_are_one_schedule() {
    let twice = schedule("UTC", &["0 6 * * *", "30 18 * * 1-5"]);
    let week = all(&twice, "2026-04-03T05:00:00Z", "2026-04-06T05:00:00Z");
    let expected = ["03 06:00", "03 18:30", "04 06:00", "05 06:00"];
    assert_eq!(week, expected.map(|time| format!("{time} UTC")));
    assert_eq!(Schedule::default().next(at("2026-04-03T05:00:00Z")), None);
}

#[test]
fn a_backup_is_late_after_its_grace_in_any_zone() {
    let mut nightly = schedule("Europe/Berlin", &["0 6 * * *"]);
    let next_by = |schedule: &Schedule, now| schedule.next_by(at(now)).unwrap();
    // 06:00 in Berlin is 04:00 UTC in summer; a quarter of a day is six hours.
    let made = "2026-07-01T04:00:20Z";
    assert_eq!(next_by(&nightly, made), at("2026-07-02T10:00:00Z"));
    nightly.grace = Some(Duration::from_secs(7200));
    assert_eq!(next_by(&nightly, made), at("2026-07-02T06:00:00Z"));
    // The day after the clock went back has 25 hours.
    let made = "2026-10-24T04:00:20Z";
    assert_eq!(next_by(&nightly, made), at("2026-10-25T07:00:00Z"));
}

#[test]
fn the_jitter_is_the_same_each_time_and_differs_between_hosts_and_days() {
    let daily = schedule("UTC", &["0 6 * * *"]);
    let host: HostName = "dalidou".parse().unwrap();
    let other: HostName = "laptop".parse().unwrap();
    let mut drawn = BTreeSet::new();
    for day in 1..=28 {
        let occurrence = Utc.with_ymd_and_hms(2026, 4, day, 6, 0, 0).unwrap();
        let jitter = daily.jitter_at(&host, occurrence);
        assert_eq!(jitter, daily.jitter_at(&host, occurrence));
        assert!(jitter >= chrono::Duration::zero() && jitter < chrono::Duration::minutes(1));
        assert_ne!(jitter, daily.jitter_at(&other, occurrence));
        drawn.insert(jitter);
    }
    let spread = *drawn.last().unwrap() - *drawn.first().unwrap();
    assert!(drawn.len() > 25 && spread > chrono::Duration::seconds(40));
}

proptest! {
    /// Whatever the minute: each day of the year has it once, also the two on which the clock
    /// changes, and where it is looked for does not matter.
    #[test]
    fn each_day_has_each_fixed_time_once(hour in 0u32..24, minute in 0u32..60, from in 0u32..2880) {
        let line = format!("{minute} {hour} * * *");
        let nightly = schedule("Europe/Berlin", &[&line]);
        for change in ["2026-03-29", "2026-10-25"] {
            let change: NaiveDate = change.parse().unwrap();
            let start = change.and_time(NaiveTime::MIN).and_utc() - chrono::Duration::days(2);
            let mut last = start + chrono::Duration::minutes(from.into());
            let mut days = Vec::new();
            for _ in 0..5 {
                let next = nightly.next(last).unwrap();
                prop_assert!(next > last);
                let local = next.with_timezone(&nightly.zone);
                let time = local.time();
                let wanted = NaiveTime::from_hms_opt(hour, minute, 0).unwrap();
                let is_in_gap = local.date_naive() == change && time.format("%H:%M").to_string() == "03:00";
                prop_assert!(time == wanted || is_in_gap, "{local}");
                days.push(local.date_naive());
                last = next;
            }
            for pair in days.windows(2) {
                prop_assert_eq!(pair[1], pair[0].succ_opt().unwrap());
            }
        }
    }
}
