//! When retention raises an alarm: never on an ordinary history under one policy, always when the
//! policy is cut or the clock jumps.

use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use sealift::retention::{Candidate, Guard, Policy, Refusal, decide};

use super::{at, time};

/// A host whose backups prune a target, as `prune = true` does.
struct PruningHost {
    present: Vec<Candidate>,
    sequence: u64,
    pruned_at: Option<u64>,
}

impl PruningHost {
    fn new() -> Self {
        Self {
            present: Vec::new(),
            sequence: 0,
            pruned_at: None,
        }
    }

    fn back_up(&mut self, now: DateTime<Utc>) {
        self.sequence += 1;
        self.present.push(at(self.sequence, now));
    }

    /// Prunes as a backup does. A prune that deletes leaves tombstones, which say when it was.
    fn prune(&mut self, policy: &Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
        self.prune_by(policy.and_young(), now)
    }

    /// Prunes as the operator does, who lets young snapshots go, too.
    fn prune_by(&mut self, policy: Policy, now: DateTime<Utc>) -> Result<(), Refusal> {
        let decided = decide(&self.present, &policy, now);
        let guard = Guard {
            now,
            pruned_at: self.pruned_at,
            policy,
            confirmed: false,
        };
        guard.check(&self.present, &decided)?;
        let mut stays = decided.iter().map(|reasons| !reasons.is_empty());
        let before = self.present.len();
        self.present.retain(|_| stays.next().unwrap());
        if self.present.len() < before {
            self.pruned_at = Some(self.sequence);
        }
        Ok(())
    }

    /// One backup a day at 06:00, each with its prune.
    fn run_daily(&mut self, policy: &Policy, from: DateTime<Utc>, days: i64) -> DateTime<Utc> {
        for day in 0..days {
            let now = from + chrono::Duration::days(day);
            self.back_up(now);
            self.prune(policy, now).unwrap();
        }
        from + chrono::Duration::days(days)
    }
}

/// The trial backups of one day, and the minute after 06:00 at which that day's backup runs.
type Day = (usize, i64);

/// Mostly days without trial backups.
fn a_month() -> impl Strategy<Value = Vec<Day>> {
    let trials = prop_oneof![3 => Just(0usize), 1 => 1..14usize];
    prop::collection::vec((trials, 0..40i64), 1..30)
}

fn begin() -> DateTime<Utc> {
    time("2026-03-01T06:00:00Z")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn trial_backups_and_daily_runs_under_one_policy_raise_no_alarm(
        policy in super::policies(),
        days in a_month(),
        trial_minutes in 1..90i64,
    ) {
        let mut host = PruningHost::new();
        for (day, (trials, minute)) in (0i64..).zip(days) {
            let due = begin() + chrono::Duration::days(day) + chrono::Duration::minutes(minute);
            host.back_up(due);
            prop_assert_eq!(host.prune(&policy, due), Ok(()));
            for trial in 1..=trials as i64 {
                let now = due + chrono::Duration::hours(1) + chrono::Duration::minutes(trial * trial_minutes);
                host.back_up(now);
                prop_assert_eq!(host.prune(&policy, now), Ok(()), "trial {} of day {}", trial, day);
            }
        }
    }

    /// The target was away, so the first prune comes some days after the trials.
    #[test]
    fn a_first_prune_some_days_after_the_trials_raises_no_alarm(
        trials in 1..20i64,
        days in 2..7i64,
    ) {
        let mut host = PruningHost::new();
        for trial in 0..trials {
            host.back_up(begin() + chrono::Duration::minutes(trial * 7));
        }
        for day in 1..=days {
            host.back_up(begin() + chrono::Duration::days(day));
        }
        let now = begin() + chrono::Duration::days(days);
        prop_assert_eq!(host.prune(&super::atocore(), now), Ok(()));
        prop_assert!(host.present.len() <= days as usize + 1);
    }

    #[test]
    fn a_cut_of_the_policy_raises_it(daily in 9..40u32, share in 3..9u32) {
        let mut host = PruningHost::new();
        let only = |daily| Policy { daily, ..Policy::default() };
        let now = host.run_daily(&only(daily), begin(), i64::from(daily) + 10);
        host.back_up(now);
        let refused = host.prune(&only(daily / share), now);
        prop_assert!(matches!(refused, Err(Refusal::Outsized { .. })), "{refused:?}");
    }
}

/// Each of them is in a day that keeps another one; but the prunes before had kept them.
#[test]
fn a_policy_that_loses_its_hours_raises_it() {
    let mut host = PruningHost::new();
    let policy = Policy {
        hourly: 72,
        daily: 7,
        ..Policy::default()
    };
    let mut now = begin();
    for _ in 0..240 {
        now += chrono::Duration::hours(1);
        host.back_up(now);
        host.prune(&policy, now).unwrap();
    }
    let cut = Policy {
        hourly: 0,
        ..policy
    };
    let refused = host.prune(&cut, now);
    assert!(
        matches!(refused, Err(Refusal::Outsized { .. })),
        "{refused:?}"
    );
    assert_eq!(host.prune(&policy, now), Ok(()));
}

/// A clock that is ahead makes everything too old for `within` at once, and it goes on being ahead: each further backup
/// is as little evidence for it as the first.
#[test]
fn a_jump_of_the_clock_raises_it_at_each_backup_after_it() {
    let within = |days: u64| Policy {
        within: Some(Duration::from_secs(days * 86_400)),
        ..Policy::default()
    };
    for (policy, days) in [(within(30), 40), (within(30), 730), (super::atocore(), 730)] {
        let mut host = PruningHost::new();
        let mut now = host.run_daily(&policy, begin(), 60) + chrono::Duration::days(days);
        for backup in 1..=5 {
            host.back_up(now);
            let refused = host.prune(&policy, now);
            assert!(refused.is_err(), "{days} days, backup {backup}");
            now += chrono::Duration::hours(1);
        }
    }
}

/// Twelve trial backups of one day are explained, so they do not stand for nine days that go.
#[test]
fn a_flood_of_explained_snapshots_hides_no_cut_of_the_policy() {
    for flood in [1, 12, 40] {
        let mut host = PruningHost::new();
        let only = |daily| Policy {
            daily,
            ..Policy::default()
        };
        let now = host.run_daily(&only(10), begin(), 20);
        for minute in 0..flood {
            host.back_up(now + chrono::Duration::minutes(minute));
        }
        let refused = host.prune_by(only(2), now + chrono::Duration::hours(1));
        assert!(
            matches!(refused, Err(Refusal::Outsized { .. })),
            "{flood}: {refused:?}"
        );
    }
}
