//! Pins and unpins snapshots of this host.

use std::collections::BTreeMap;

use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::local_snapshots;
use crate::base::ids::Stamp;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::state::pins;

/// A change of the pins.
#[derive(Debug, Clone)]
pub(crate) enum PinChange {
    /// Keep this snapshot. The note replaces the one of an earlier pin; `None`: that one stays.
    Add(SnapshotChoice, Option<String>),
    /// Let the policy decide on it again. An exact name.
    Remove(SnapshotChoice),
    /// Change nothing.
    None,
}

/// Makes the change. Returns all pinned stamps with their notes.
pub(crate) fn run(
    config: &Config,
    change: &PinChange,
    front: &dyn FrontEnd,
) -> Result<BTreeMap<Stamp, Option<String>>, JobError> {
    let mut all = pins::read_noted(&config.state)?;
    match change {
        PinChange::Add(choice, note) => {
            let stamp = stamp_of(config, choice, front)?;
            if let Some(text) = choice.explain(stamp) {
                front.note(&text);
            }
            pins::add(&mut all, stamp, note.clone());
        }
        PinChange::Remove(choice) => {
            let stamp = stamp_of(config, choice, front)?;
            if all.remove(&stamp).is_none() {
                return Err(JobError::work(format!("{stamp} is not pinned")));
            }
        }
        PinChange::None => return Ok(all),
    }
    pins::write(&config.state, &all)?;
    Ok(all)
}

/// Returns the stamp of the snapshot that `choice` means. Any stamp is one: the snapshot may be on
/// a target only.
fn stamp_of(
    config: &Config,
    choice: &SnapshotChoice,
    front: &dyn FrontEnd,
) -> Result<Stamp, JobError> {
    if let Ok(stamp) = choice.text().parse() {
        return Ok(stamp);
    }
    let catalog = open_catalog(config)?;
    let rows = catalog.map(|catalog| catalog.snapshots()).transpose()?;
    let rows = rows.iter().flat_map(|rows| rows.iter());
    let packed = rows.map(|row| {
        let known = row.known;
        (
            known.stamp,
            Some(known.sequence),
            Some(row.name.hash16.clone()),
        )
    });
    let here = local_snapshots::ordered(config, front)?.into_iter();
    let here = here.map(|one| (one.snapshot.stamp, one.sequence, None));
    let known: Vec<(Stamp, Option<u64>, Option<String>)> = packed.chain(here).collect();
    let meant = known.iter().filter(|(stamp, sequence, hash)| {
        choice.admits(*stamp, *sequence, hash.clone().into_iter())
    });
    let found = meant.max_by_key(|(stamp, sequence, _)| choice.rank(*stamp, *sequence));
    found.map(|(stamp, _, _)| *stamp).ok_or_else(|| {
        let nearest = choice.nearest(known.iter().map(|(stamp, _, _)| *stamp));
        JobError::work(format!("this host knows no snapshot {choice}{nearest}"))
            .with_next("`sealift list` shows the snapshots of this host")
    })
}
