//! Which snapshots stay: the year of a host, and what holds for every history and policy.

mod alarms;
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use proptest::prelude::*;
use sealift::base::ids::Stamp;
use sealift::retention::{Candidate, Guard, Policy, Reason, Refusal, TagMatch, decide};

const DAY: i64 = 86_400;

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn at(sequence: u64, time: DateTime<Utc>) -> Candidate {
    Candidate {
        sequence,
        stamp: Stamp::at(time).unwrap(),
        pinned: false,
        tags: TagMatch::None,
        proven: false,
        late: false,
        whole: true,
    }
}

fn atocore() -> Policy {
    Policy {
        daily: 7,
        weekly: 4,
        monthly: 6,
        ..Policy::default()
    }
}

/// One a day at 06:00, but for the days that `missing` says.
fn days(from: &str, to: &str, missing: impl Fn(NaiveDate) -> bool) -> Vec<Candidate> {
    let from: NaiveDate = from.parse().unwrap();
    let to: NaiveDate = to.parse().unwrap();
    let days = from.iter_days().take_while(|day| *day <= to);
    let there = days.filter(|day| !missing(*day));
    let at_six = |day: NaiveDate| day.and_hms_opt(6, 0, 0).unwrap().and_utc();
    there
        .zip(1..)
        .map(|(day, sequence)| at(sequence, at_six(day)))
        .collect()
}

/// The days that stay, with the first letters of their reasons.
fn kept(snapshots: &[Candidate], policy: &Policy, now: DateTime<Utc>) -> Vec<String> {
    let decided = decide(snapshots, policy, now);
    let kept = snapshots.iter().zip(decided);
    kept.filter(|(_, reasons)| !reasons.is_empty())
        .map(|(one, reasons)| {
            let letters = reasons.iter().filter(|r| **r != Reason::Newest);
            let letters: String = letters.map(|r| r.to_string().remove(0)).collect();
            format!("{} {letters}", one.stamp.time().format("%m-%d"))
        })
        .collect()
}

/// 2026-12-31 is a Thursday.
#[test]
fn a_year_of_days_by_the_procedure() {
    let year = days("2026-01-01", "2026-12-31", |_| false);
    let now = time("2026-12-31T07:00:00Z");
    assert_eq!(
        kept(&year, &atocore(), now),
        [
            "07-01 m", "08-01 m", "09-01 m", "10-01 m", "11-01 m", "12-01 m", "12-06 w", "12-13 w",
            "12-20 w", "12-25 d", "12-26 d", "12-27 dw", "12-28 d", "12-29 d", "12-30 d",
            "12-31 d",
        ]
    );
}

/// Then Monday's stands for its week, the 2nd's for its month; a week without any gives its place away.
#[test]
fn missing_sundays_and_firsts_fall_to_the_nearest_later_day() {
    let is_sunday = |day: NaiveDate| day.weekday() == chrono::Weekday::Sun;
    let missing = |day: NaiveDate| {
        let in_silent_week = (13..=19).contains(&day.day()) && day.month() == 12;
        is_sunday(day) || day.day() == 1 || in_silent_week
    };
    let year = days("2026-01-01", "2026-12-31", missing);
    let now = time("2026-12-31T07:00:00Z");
    assert_eq!(
        kept(&year, &atocore(), now),
        [
            "07-02 m", "08-03 m", "09-02 m", "10-02 m", "11-02 m", "11-30 w", "12-02 m", "12-07 w",
            "12-21 w", "12-24 d", "12-25 d", "12-26 d", "12-28 dw", "12-29 d", "12-30 d",
            "12-31 d",
        ]
    );
}

#[test]
fn of_a_day_the_last_stays_and_of_a_sunday_too() {
    let hours = [
        "2026-04-05T06:00:00Z",
        "2026-04-05T18:00:00Z",
        "2026-04-06T06:00:00Z",
    ];
    let snapshots: Vec<Candidate> = hours.iter().zip(1..).map(|(t, n)| at(n, time(t))).collect();
    let policy = Policy {
        weekly: 1,
        ..Policy::default()
    };
    let decided = decide(&snapshots, &policy, time("2026-04-06T07:00:00Z"));
    let reasons: Vec<Vec<Reason>> = decided
        .into_iter()
        .map(|r| r.into_iter().collect())
        .collect();
    assert_eq!(
        reasons,
        [vec![], vec![Reason::Weekly], vec![Reason::Newest]]
    );
}

#[test]
fn a_clock_that_ran_ahead_once_holds_no_place() {
    let mut snapshots = days("2026-04-01", "2026-04-20", |_| false);
    snapshots[9].stamp = Stamp::at(time("2099-01-01T06:00:00Z")).unwrap();
    let stays = kept(&snapshots, &atocore(), time("2026-04-20T07:00:00Z"));
    assert!(
        !stays.iter().any(|day| day.starts_with("01-01")),
        "{stays:?}"
    );
    assert_eq!(stays.iter().filter(|day| day.contains('d')).count(), 7);
}

/// Kind: a stamp from a wrong clock decides. It stayed young: `within` went by the newest's stamp.
#[test]
fn a_clock_that_ran_ahead_once_is_as_old_as_the_next_snapshot() {
    let mut snapshots = days("2026-04-01", "2026-04-20", |_| false);
    snapshots[9].stamp = Stamp::at(time("2099-01-01T06:00:00Z")).unwrap();
    let policy = Policy {
        last: 1,
        ..Policy::default()
    };
    let within = |days: i64| Policy {
        within: Some(Duration::from_secs((days * DAY) as u64)),
        ..policy
    };
    let stays = |policy| {
        let stays = stays(&snapshots, &policy, time("2026-04-20T07:00:00Z"));
        stays.iter().any(|one| one.sequence == 10)
    };
    // The next one is of April 11th.
    assert!(stays(within(10)) && !stays(within(9)));
}

/// What a run whose clock is ahead pushes is the newest itself: by its own clock nothing is wrong.
#[test]
fn a_jump_of_the_newest_is_refused_and_may_be_confirmed() {
    let mut snapshots = days("2026-04-01", "2026-04-20", |_| false);
    let newest = time("2099-01-01T06:00:00Z");
    snapshots[19].stamp = Stamp::at(newest).unwrap();
    let mut guard = Guard {
        now: newest,
        pruned_at: Some(0),
        policy: atocore(),
        confirmed: false,
    };
    let refused = checked(&snapshots, guard);
    assert!(
        matches!(refused, Err(Refusal::ClockJumped { .. })),
        "{refused:?}"
    );
    guard.confirmed = true;
    assert_eq!(checked(&snapshots, guard), Ok(()));
    // Once it is right again, what was ahead is no reason to refuse.
    guard.confirmed = false;
    guard.now = time("2026-04-21T07:00:00Z");
    snapshots.push(at(21, time("2026-04-21T06:00:00Z")));
    assert_eq!(checked(&snapshots, guard), Ok(()));
}

#[test]
fn pins_and_the_last_proof_stay_and_within_keeps_all() {
    let mut snapshots = days("2026-01-01", "2026-04-20", |_| false);
    snapshots[2].pinned = true;
    snapshots[3].proven = true;
    snapshots[4].proven = true;
    let policy = Policy {
        last: 1,
        within: Some(Duration::from_secs(3 * DAY as u64)),
        ..Policy::default()
    };
    assert_eq!(
        kept(&snapshots, &policy, time("2026-04-20T05:00:00Z")),
        [
            "01-03 p", "01-05 p", "04-17 w", "04-18 w", "04-19 w", "04-20 wl"
        ]
    );
}

fn checked(snapshots: &[Candidate], guard: Guard) -> Result<(), Refusal> {
    let decided = decide(snapshots, &atocore(), guard.now);
    guard.check(snapshots, &decided)
}

#[test]
fn an_implausible_clock_or_extent_is_refused() {
    let snapshots = days("2026-04-01", "2026-05-30", |_| false);
    let mut guard = Guard {
        now: time("2026-05-30T07:00:00Z"),
        pruned_at: None,
        policy: atocore(),
        confirmed: false,
    };
    assert_eq!(
        checked(&snapshots, guard),
        Err(Refusal::Outsized {
            forgotten: 48,
            total: 60,
            explained: 0,
            arrived: 0
        })
    );
    guard.confirmed = true;
    assert_eq!(checked(&snapshots, guard), Ok(()));
    // As many came since the last prune.
    guard.confirmed = false;
    guard.pruned_at = Some(12);
    assert_eq!(checked(&snapshots, guard), Ok(()));
    guard.confirmed = true;
    guard.now = time("2026-05-30T05:00:00Z");
    let behind = checked(&snapshots, guard);
    assert!(
        matches!(behind, Err(Refusal::ClockBehind { .. })),
        "{behind:?}"
    );
    guard.confirmed = false;
    guard.now = time("2036-05-30T05:00:00Z");
    let ahead = checked(&snapshots, guard);
    assert!(
        matches!(ahead, Err(Refusal::ClockAhead { .. })),
        "{ahead:?}"
    );
    guard.confirmed = true;
    assert_eq!(checked(&snapshots, guard), Ok(()));
}

fn policies() -> impl Strategy<Value = Policy> {
    let within =
        prop::option::of((0..400i64).prop_map(|days| Duration::from_secs((days * DAY) as u64)));
    (0..4u32, 0..4u32, 0..9u32, 0..6u32, 0..8u32, 0..3u32, within).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

/// Stamps in any order, clocks gone mad, forks.
fn histories() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        1..60u64,
        0..(800 * DAY),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        any::<bool>(),
    );
    let one = one.prop_map(
        |(sequence, seconds, pinned, proven, late, whole)| Candidate {
            sequence,
            stamp: Stamp::at(time("2025-01-01T00:00:00Z") + chrono::Duration::seconds(seconds))
                .unwrap(),
            pinned,
            tags: TagMatch::None,
            proven,
            late,
            whole,
        },
    );
    prop::collection::vec(one, 1..60)
}

fn stays(snapshots: &[Candidate], policy: &Policy, now: DateTime<Utc>) -> Vec<Candidate> {
    let decided = decide(snapshots, policy, now);
    let kept = snapshots.iter().zip(decided).filter(|(_, r)| !r.is_empty());
    kept.map(|(one, _)| *one).collect()
}

fn now_of(snapshots: &[Candidate]) -> DateTime<Utc> {
    let stamps = snapshots.iter().map(|one| one.stamp.time());
    stamps.max().unwrap() + chrono::Duration::hours(1)
}

fn sorted(snapshots: &[Candidate]) -> BTreeSet<(u64, Stamp, bool, bool)> {
    let one = |c: &Candidate| (c.sequence, c.stamp, c.pinned, c.proven);
    snapshots.iter().map(one).collect()
}

proptest! {
    #[test]
    fn the_newest_the_newest_whole_and_the_pinned_stay(history in histories(), policy in policies()) {
        let kept = stays(&history, &policy, now_of(&history));
        let newest = history.iter().map(|one| one.sequence).max();
        prop_assert_eq!(kept.iter().map(|one| one.sequence).max(), newest);
        let whole = |all: &[Candidate]| {
            let whole = all.iter().filter(|one| one.whole);
            whole.map(|one| one.sequence).max()
        };
        prop_assert_eq!(whole(&kept), whole(&history));
        let pinned = |all: &[Candidate]| all.iter().filter(|one| one.pinned).count();
        prop_assert_eq!(pinned(&kept), pinned(&history));
    }

    #[test]
    fn a_second_time_nothing_more_goes(history in histories(), policy in policies()) {
        let now = now_of(&history);
        let once = stays(&history, &policy, now);
        prop_assert_eq!(stays(&once, &policy, now), once);
    }

    #[test]
    fn a_larger_policy_keeps_no_less(history in histories(), small in policies(), more in policies()) {
        let larger = Policy {
            last: small.last + more.last,
            hourly: small.hourly + more.hourly,
            daily: small.daily + more.daily,
            weekly: small.weekly + more.weekly,
            monthly: small.monthly + more.monthly,
            yearly: small.yearly + more.yearly,
            within: small.within.max(more.within),
        };
        let now = now_of(&history);
        let (few, many) = (stays(&history, &small, now), stays(&history, &larger, now));
        prop_assert!(sorted(&few).is_subset(&sorted(&many)));
    }

    /// An intruder on the host may say of any day that a snapshot is of it, as long as no other day is newer for it.
    #[test]
    fn what_comes_late_for_days_that_have_one_displaces_nothing(
        mut policy in policies(),
        missing in prop::collection::btree_set(0..90i64, 0..20),
        forged in prop::collection::vec((0..90i64, 0..DAY), 0..200),
    ) {
        policy.last = 0;
        let start = time("2025-01-01T00:00:00Z");
        let at_second = |sequence, day, second| {
            at(sequence, start + chrono::Duration::days(day) + chrono::Duration::seconds(second))
        };
        let there = |day: &i64| !missing.contains(day);
        let true_ones: Vec<Candidate> =
            (0..91i64).filter(there).map(|day| at_second(day as u64 + 1, day, 6 * 3600)).collect();
        // Hours that had none would be new ones.
        policy.hourly = 0;
        let now = now_of(&true_ones);
        let forged = forged.into_iter().filter(|(day, _)| there(day)).zip(100..);
        let mut all = true_ones.clone();
        all.extend(forged.map(|((day, second), sequence)| {
            Candidate { late: true, ..at_second(sequence, day, second) }
        }));
        // The newest of all is the host's next, in time.
        all.push(at_second(1000, 90, 7 * 3600));
        let (before, after) = (stays(&true_ones, &policy, now), stays(&all, &policy, now));
        let newest_day = |one: &&Candidate| one.stamp.time() < start + chrono::Duration::days(90);
        for one in before.iter().filter(newest_day) {
            prop_assert!(after.contains(one), "{one:?} was displaced");
        }
    }

    #[test]
    fn the_order_of_the_input_is_of_no_matter(
        (history, shuffled) in histories().prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle())),
        policy in policies(),
    ) {
        let now = now_of(&history);
        let (one, other) = (stays(&history, &policy, now), stays(&shuffled, &policy, now));
        prop_assert_eq!(sorted(&one), sorted(&other));
    }

    /// A snapshot a day, pruned every day, for two years: there are never more than the policy says (and the
    /// newest), and they are those that one prune at the end would have left.
    #[test]
    fn every_day_comes_to_the_same(mut policy in policies(), missing in prop::collection::btree_set(0..730i64, 0..200)) {
        policy.within = None;
        let start = time("2025-01-01T06:00:00Z");
        let (mut all, mut left) = (Vec::new(), Vec::new());
        let bound = policy.last + policy.hourly + policy.daily + policy.weekly + policy.monthly + policy.yearly;
        for day in (0..730i64).filter(|day| !missing.contains(day)) {
            let now = start + chrono::Duration::days(day);
            let one = at(day as u64 + 1, now);
            all.push(one);
            left.push(one);
            left = stays(&left, &policy, now);
            prop_assert!(left.len() <= bound as usize + 1);
        }
        prop_assert_eq!(&left, &stays(&all, &policy, now_of(&all)));
    }
}
