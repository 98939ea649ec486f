//! How much time the checks of databases may take: each by its size, and all of a run together.
//!
//! A check's fair share grows with the database and costs nothing. What it takes beyond comes out of one
//! reserve for the run, of which a single check may take half of what is left. So sound databases of any
//! number and size are checked in full, one that is slow for good reasons has the time it needs, and many
//! that were made to be slow end the checks, not the backup.

use std::sync::Mutex;
use std::time::Duration;

use super::inspection::Depth;
use crate::base::lock::lock;

/// A check's fair share: time of the processor for the child's start, and bytes that it looks at in a second.
const START: Duration = Duration::from_millis(25);
const STRUCTURE_BYTES_PER_SECOND: u64 = 20_000_000;
/// Also comparing indexes with their tables takes some four times as long.
const INDEXES_BYTES_PER_SECOND: u64 = 5_000_000;
/// The most that one check may take beyond its share, and the least that is worth a try.
const MOST_BEYOND: Duration = Duration::from_secs(30);
const LEAST_BEYOND: Duration = Duration::from_millis(250);
/// What all checks of a run may take beyond their shares.
const RESERVE: Duration = Duration::from_secs(90);
/// The part of the reserve that is kept for checks that take [`LEAST_BEYOND`].
const KEPT: Duration = Duration::from_secs(30);
/// What a check of the operator's own database may take beyond ten times its share.
const OWN_BEYOND: Duration = Duration::from_secs(300);

/// The time that the checks of one run share.
#[derive(Debug)]
pub struct Budget {
    reserve: Option<Mutex<Duration>>,
}

/// The time that one check has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    fair: Duration,
    beyond: Duration,
}

impl Grant {
    /// After this time the check is ended.
    pub fn deadline(self) -> Duration {
        self.fair + self.beyond
    }
}

impl Budget {
    /// For databases from anywhere: those of a tree, or of a restore.
    pub fn of_run() -> Self {
        Self::with_reserve(RESERVE)
    }

    /// As [`Budget::of_run`], with another reserve.
    pub fn with_reserve(reserve: Duration) -> Self {
        Self {
            reserve: Some(Mutex::new(reserve)),
        }
    }

    /// For a database that the operator declared as a source: each has five minutes and ten times its share.
    pub fn of_own() -> Self {
        Self { reserve: None }
    }

    /// Takes the time for a check of a database that occupies `bytes`; `None` if the reserve is spent.
    pub fn take(&self, bytes: u64, depth: Depth) -> Option<Grant> {
        let rate = match depth {
            Depth::Structure => STRUCTURE_BYTES_PER_SECOND,
            Depth::Indexes => INDEXES_BYTES_PER_SECOND,
        };
        let fair = START + Duration::from_millis(bytes.saturating_mul(1000) / rate);
        let Some(reserve) = &self.reserve else {
            return Some(Grant {
                fair: fair * 10,
                beyond: OWN_BEYOND,
            });
        };
        let mut left = lock(reserve);
        if *left < LEAST_BEYOND {
            return None;
        }
        let half = left.saturating_sub(KEPT) / 2;
        let beyond = half.clamp(LEAST_BEYOND, MOST_BEYOND);
        *left -= beyond;
        Some(Grant { fair, beyond })
    }

    /// Puts back what a check did not take beyond its share.
    pub fn settle(&self, grant: Grant, used: Duration) {
        if let Some(reserve) = &self.reserve {
            let beyond = used.saturating_sub(grant.fair).min(grant.beyond);
            *lock(reserve) += grant.beyond - beyond;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a check that uses up all it may; returns how long that was.
    fn exhaust(budget: &Budget, bytes: u64) -> Option<Duration> {
        let grant = budget.take(bytes, Depth::Structure)?;
        budget.settle(grant, grant.deadline() + Duration::from_secs(1));
        Some(grant.deadline())
    }

    #[test]
    fn sound_databases_of_any_number_cost_nothing() {
        let budget = Budget::of_run();
        for bytes in [4096, 1 << 20, 1 << 40].into_iter().cycle().take(10_000) {
            let grant = budget.take(bytes, Depth::Structure).unwrap();
            assert_eq!(grant.beyond, MOST_BEYOND);
            budget.settle(grant, grant.fair);
        }
    }

    #[test]
    fn one_slow_database_has_thirty_seconds_and_a_second_for_each_20_mb() {
        let grant = Budget::of_run().take(2_000_000_000, Depth::Structure);
        let seconds = grant.unwrap().deadline().as_secs();
        assert_eq!(seconds, 130);
        let own = Budget::of_own().take(2_000_000_000, Depth::Indexes);
        assert!(own.unwrap().deadline() > Duration::from_secs(4000));
    }

    #[test]
    fn all_slow_databases_of_a_run_share_its_reserve() {
        let budget = Budget::of_run();
        let taken: Vec<Duration> = std::iter::from_fn(|| exhaust(&budget, 8192)).collect();
        assert!(taken.len() > 100, "{taken:?}");
        let beyond: Duration = taken.iter().map(|time| *time - START).sum();
        assert!(beyond <= RESERVE, "{beyond:?}");
        assert!(taken[0] >= MOST_BEYOND && taken[1] > MOST_BEYOND / 3);
        // Then there is no more, not even for a small one.
        assert_eq!(budget.take(1, Depth::Structure), None);
    }
}
