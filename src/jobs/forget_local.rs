//! Deletes the named snapshot directories of this host, and no others.
//!
//! The newest valid snapshot and pinned ones stay. A snapshot that is not known to be on every
//! target is deleted only with consent.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::error::JobError;
use super::kept_tags;
use super::local_retention::{
    Deliveries, LocalPruneReport, LocalRetentionError, newest_proven, newest_valid, pins_of,
};
use super::mode::Mode;
use super::push::upload_order::{OrderedSnapshot, in_order};
use crate::base::clock;
use crate::config::Config;
use crate::producer;
use crate::retention::{KeptTags, Nameable, Pins, Reason, Reasons, TagMatch, find, may_go};
use crate::state::State;

/// Which of the directories in `dir` are deleted.
struct LocalForget<'a> {
    dir: &'a Path,
    /// Stamps, sequences, or the last 16 digits of manifests' names.
    named: &'a [String],
    pins: &'a Pins,
    tags: KeptTags,
    /// Names of all targets.
    targets: &'a [&'a str],
    now: DateTime<Utc>,
    mode: Mode,
}

/// Deletes the `named` snapshots of this host and no other.
pub(crate) fn forget_local(
    config: &Config,
    state: &State,
    named: &[String],
    mode: Mode,
) -> Result<LocalPruneReport, JobError> {
    let targets: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
    let forget = LocalForget {
        dir: &config.snapshots_dir,
        named,
        pins: &pins_of(config)?,
        tags: config.kept_tags(),
        targets: &targets,
        now: clock::now(),
        mode,
    };
    Ok(forget.apply(state)?)
}

impl LocalForget<'_> {
    /// Deletes them. If one must stay or does not exist, deletes none.
    fn apply(&self, state: &State) -> Result<LocalPruneReport, LocalRetentionError> {
        let there = in_order(producer::list(self.dir)?, Some(&state.catalog), self.now)?;
        let nameable = nameable(&there, state)?;
        let done = Deliveries::of(state, self.targets, &there)?.done;
        let newest = newest_valid(&there);
        let proven = newest_proven(self.pins, &there);
        let mut going = BTreeSet::new();
        let mut only_here = None;
        for text in self.named {
            let Some(index) = find(text, &nameable)? else {
                return Err(LocalRetentionError::NotHere {
                    text: text.clone(),
                    dir: self.dir.to_owned(),
                });
            };
            let stamp = there[index].snapshot.stamp;
            let mut reasons = Reasons::new();
            if Some(stamp) == newest {
                reasons.insert(Reason::Newest);
            }
            if Some(stamp) == proven {
                reasons.insert(Reason::Proven);
            }
            if self.pins.holds(&stamp) {
                reasons.insert(Reason::Pinned);
                self.pins.explain(&stamp, &mut reasons);
            }
            match kept_tags::of_local(&self.tags, &there[index].snapshot, &state.catalog)? {
                TagMatch::None => {}
                TagMatch::Kept => drop(reasons.insert(Reason::Tagged)),
                TagMatch::Unknown => drop(reasons.insert(Reason::TagsUnknown)),
            }
            may_go(stamp, &reasons, self.mode.is_confirmed())?;
            if !done.contains(&stamp) && !self.mode.is_confirmed() {
                only_here = only_here.or(Some(LocalRetentionError::OnlyHere(stamp)));
            }
            going.insert(stamp);
        }
        let is_going = |one: &&OrderedSnapshot| going.contains(&one.snapshot.stamp);
        let going = there.iter().filter(is_going).map(|one| &one.snapshot);
        let report = LocalPruneReport {
            forgotten: going.clone().map(|one| one.stamp).collect(),
            snapshots: there.len() as u64,
            freed_bytes: producer::freed_bytes(going.clone()),
            refusal: only_here.as_ref().map(ToString::to_string),
            leftovers: Vec::new(),
        };
        if self.mode.is_dry_run() {
            return Ok(report);
        }
        if let Some(refusal) = only_here {
            return Err(refusal);
        }
        for one in going {
            producer::delete(one)?;
        }
        Ok(report)
    }
}

fn nameable(
    there: &[OrderedSnapshot],
    state: &State,
) -> Result<Vec<Nameable>, LocalRetentionError> {
    let rows = state.catalog.snapshots()?;
    let named = there.iter().map(|one| {
        let stamp = one.snapshot.stamp;
        let rows = rows.iter().filter(|row| row.known.stamp == stamp);
        Nameable {
            sequence: one.sequence,
            stamp,
            hashes: rows.map(|row| row.name.hash16.clone()).collect(),
        }
    });
    Ok(named.collect())
}
