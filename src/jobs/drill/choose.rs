//! Chooses the place and the snapshot of a drill.

use super::rotation::{PastDrill, is_older_due, next_place};
use super::{DrillPlace, DrillRequest};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::DrillSnapshot;
use crate::format::chain::VerifiedSnapshot;
use crate::jobs::error::JobError;

/// What is drilled.
pub(super) struct Choice {
    /// The number of the place in the request.
    pub(super) place: usize,
    pub(super) snapshot: VerifiedSnapshot,
}

impl Choice {
    /// `past` are the earlier drills, in the order of time.
    pub(super) fn make(request: &DrillRequest, past: &[PastDrill]) -> Result<Self, JobError> {
        let ids = request.places.iter().map(|place| place.target.id.as_str());
        let ids: Vec<&str> = ids.collect();
        let place = match request.turn.every_target {
            true => next_place(&ids, past),
            false => 0,
        };
        let there = request
            .places
            .get(place)
            .ok_or_else(|| JobError::request("there is no place of backups to drill"))?;
        let snapshot = match &request.turn.snapshot {
            DrillSnapshot::Random => random(there, &there.chain.snapshots)?,
            DrillSnapshot::Chosen(choice) => {
                let every = request.turn.random_older;
                let is_older = every.is_some_and(|every| is_older_due(past, every));
                let older = older(there);
                match is_older && *choice == SnapshotChoice::latest() && !older.is_empty() {
                    true => random(there, older)?,
                    false => there.chain.resolve(choice)?.clone(),
                }
            }
        };
        Ok(Self { place, snapshot })
    }
}

/// Returns the snapshots of the place before the latest.
fn older(place: &DrillPlace) -> &[VerifiedSnapshot] {
    let latest = place.chain.latest_sequence();
    let all = &place.chain.snapshots;
    let end = all.partition_point(|one| one.sequence() < latest);
    &all[..end]
}

/// Returns one of `snapshots`, drawn by lot.
fn random(
    place: &DrillPlace,
    snapshots: &[VerifiedSnapshot],
) -> Result<VerifiedSnapshot, JobError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| JobError::work(format!("no random numbers from the system: {error}")))?;
    let drawn = u64::from_le_bytes(bytes) % (snapshots.len() as u64).max(1);
    let drawn = usize::try_from(drawn).unwrap_or(0);
    let found = snapshots.get(drawn).cloned();
    found.ok_or_else(|| {
        let label = place.folder.target.label();
        JobError::work(format!("no snapshot of {} is on {label}", place.chain.host))
    })
}
