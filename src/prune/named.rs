//! Chooses named snapshots to delete.

use super::error::PruneError;
use super::{PlannedSnapshot, PruneRequest};
use crate::retention::{Nameable, Reason, Reasons, find, may_go};

impl PruneRequest {
    /// If the request names snapshots, plans to delete exactly these. Returns the names that no
    /// snapshot here has.
    pub(super) fn choose_named(
        &self,
        planned: &mut [PlannedSnapshot],
    ) -> Result<Vec<String>, PruneError> {
        if self.forget.is_empty() {
            return Ok(Vec::new());
        }
        let nameable = planned.iter().map(|one| Nameable {
            sequence: Some(one.sequence),
            stamp: one.stamp,
            hashes: one.names.iter().map(|name| name.hash16.clone()).collect(),
        });
        let nameable: Vec<Nameable> = nameable.collect();
        let mut is_named = vec![false; planned.len()];
        let mut not_here = Vec::new();
        for text in &self.forget {
            match find(text, &nameable)? {
                Some(at) => is_named[at] = true,
                None => not_here.push(text.clone()),
            }
        }
        for (one, is_named) in planned.iter_mut().zip(is_named) {
            match is_named {
                true => {
                    may_go(one.stamp, &one.reasons, self.confirmed)?;
                    one.reasons = Reasons::new();
                }
                false => drop(one.reasons.insert(Reason::NotNamed)),
            }
        }
        Ok(not_here)
    }
}
