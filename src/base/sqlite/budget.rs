//! The time that checks of databases may take: each by its size, and all of a run together.
//!
//! Each check has a fair share of time that grows with the database and is not limited in sum. Time
//! beyond the share is taken from one reserve of the run; a single check may use half of what is
//! left of it. So any number of sound databases of any size is checked in full, a database that is
//! slow for good reasons gets the time it needs, and many databases that were made to be slow end
//! the checks, but not the backup.

use std::sync::Mutex;
use std::time::Duration;

use super::inspection::Depth;
use crate::base::lock::lock;

/// The part of a fair share that does not depend on the size: processor time for the start of the
/// child.
const START: Duration = Duration::from_millis(25);
/// Bytes of a database that [`Depth::Structure`] checks in a second of a fair share.
const STRUCTURE_BYTES_PER_SECOND: u64 = 20_000_000;
/// The same for [`Depth::Indexes`], which takes about four times as long.
const INDEXES_BYTES_PER_SECOND: u64 = 5_000_000;
/// The most that one check may take beyond its share.
const MOST_BEYOND: Duration = Duration::from_secs(30);
/// The least time beyond its share that a check needs: without it, none is begun.
const LEAST_BEYOND: Duration = Duration::from_millis(250);
/// The reserve: the time that all checks of a run together may take beyond their shares.
const RESERVE: Duration = Duration::from_secs(90);
/// The part of the reserve that is kept for checks that get only [`LEAST_BEYOND`].
const KEPT: Duration = Duration::from_secs(30);
/// The time that the check of a database which the operator declared may take beyond ten times its
/// share.
const OWN_BEYOND: Duration = Duration::from_secs(300);

/// The time that the checks of one run share.
#[derive(Debug)]
pub struct Budget {
    /// What is left of the reserve. `None`: there is no common limit.
    reserve: Option<Mutex<Duration>>,
}

/// The time that one check has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    fair: Duration,
    beyond: Duration,
}

impl Grant {
    /// Returns the time after which the check is ended.
    pub fn deadline(self) -> Duration {
        self.fair + self.beyond
    }
}

impl Budget {
    /// Returns the budget for databases that anyone may have written: those of a tree, or of a
    /// restore.
    pub fn of_run() -> Self {
        Self::with_reserve(RESERVE)
    }

    /// Returns a budget as [`Budget::of_run`] does, but with another reserve.
    pub fn with_reserve(reserve: Duration) -> Self {
        Self {
            reserve: Some(Mutex::new(reserve)),
        }
    }

    /// Returns the budget for databases that the operator declared as sources: each check has five
    /// minutes and ten times its share.
    pub fn of_own() -> Self {
        Self { reserve: None }
    }

    /// Takes the time for a check of a database that occupies `bytes`; `None` if the reserve is
    /// spent.
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

    /// Returns the time beyond its share that a check did not use to the reserve. `used`: the time
    /// that it took.
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

    /// Takes a check that uses all of its time; returns how long that is.
    fn exhaust(budget: &Budget, bytes: u64) -> Option<Duration> {
        let grant = budget.take(bytes, Depth::Structure)?;
        budget.settle(grant, grant.deadline() + Duration::from_secs(1));
        Some(grant.deadline())
    }

    #[test]
    fn any_number_of_sound_databases_leaves_the_reserve_whole() {
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
        // Then nothing is left, not even for a small database.
        assert_eq!(budget.take(1, Depth::Structure), None);
    }
}
