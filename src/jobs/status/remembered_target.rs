//! What the catalog remembers of one target.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use crate::base::ids::Hash;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::verdict::observed::ObservedSnapshot;
use crate::state::catalog::{Catalog, PublicationState};

/// What the catalog knows of one target.
pub(crate) struct RememberedTarget {
    /// The newest snapshot that was published there.
    pub(crate) newest: Option<ObservedSnapshot>,
    /// Snapshots that it lacks and gets: sequence, time, core.
    pub(crate) waiting: Vec<(u64, DateTime<Utc>, Hash)>,
    /// Snapshots that it never gets.
    pub(crate) given_up: HashSet<Hash>,
}

impl RememberedTarget {
    /// Reads what the catalog knows of the target `name`; nothing without a catalog.
    pub(crate) fn read(
        config: &Config,
        catalog: Option<&Catalog>,
        name: &str,
    ) -> Result<Self, JobError> {
        let mut remembered = Self {
            newest: None,
            waiting: Vec::new(),
            given_up: HashSet::new(),
        };
        let Some(catalog) = catalog else {
            return Ok(remembered);
        };
        let publications = catalog.publications(name)?;
        for snapshot in catalog.snapshots()?.iter() {
            let known = &snapshot.known;
            match publications.get(&known.core) {
                None => {
                    let one = (known.sequence, known.stamp.time(), known.core);
                    remembered.waiting.push(one);
                }
                Some(PublicationState::GivenUp) => drop(remembered.given_up.insert(known.core)),
                Some(_) => {}
            }
        }
        remembered.newest = catalog.last_published(name)?.map(|known| ObservedSnapshot {
            stamp: known.stamp,
            sequence: known.sequence,
            due: config.schedule.next_by(known.stamp.time()),
        });
        Ok(remembered)
    }
}
