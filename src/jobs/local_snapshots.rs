//! The snapshots in this host's snapshots directory: their order, and how the operator names one.

use std::path::PathBuf;

use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::push::{OrderedSnapshot, in_order};
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::config::Config;
use crate::producer::{self, LocalSnapshot};
use crate::state::catalog::{Catalog, SnapshotAbout};

/// Returns the snapshots of this host in the order in which they were made, oldest first.
pub(crate) fn ordered(
    config: &Config,
    front: &dyn FrontEnd,
) -> Result<Vec<OrderedSnapshot>, JobError> {
    let present = producer::list(&config.snapshots_dir)?;
    let catalog = open_catalog(config);
    let ordered =
        catalog.and_then(|catalog| Ok(in_order(present.clone(), catalog.as_ref(), clock::now())?));
    ordered.or_else(|error| by_stamps(present, &error, front))
}

/// Returns the same list for a job that has the state directory locked.
pub(crate) fn ordered_by(
    config: &Config,
    catalog: &Catalog,
    front: &dyn FrontEnd,
) -> Result<Vec<OrderedSnapshot>, JobError> {
    let present = producer::list(&config.snapshots_dir)?;
    let ordered = in_order(present.clone(), Some(catalog), clock::now());
    ordered.or_else(|error| by_stamps(present, &error.into(), front))
}

/// Orders `present` by stamps, and warns why.
fn by_stamps(
    present: Vec<LocalSnapshot>,
    error: &JobError,
    front: &dyn FrontEnd,
) -> Result<Vec<OrderedSnapshot>, JobError> {
    front.warn(&format!(
        "snapshots are ordered by their stamps, because the catalog does not show in which order they were made: {}",
        error.with_causes()
    ));
    Ok(in_order(present, None, clock::now())?)
}

/// Returns the directory of the local snapshot that `choice` means, and notes which one a time or
/// a tag chose.
pub(crate) fn find(
    config: &Config,
    choice: &SnapshotChoice,
    front: &dyn FrontEnd,
) -> Result<PathBuf, JobError> {
    let snapshots = ordered(config, front)?;
    let catalog = open_catalog(config).ok().flatten();
    let rows = catalog.and_then(|catalog| catalog.snapshots().ok());
    let hashes = |stamp: Stamp| {
        let rows = rows.iter().flat_map(|rows| rows.iter());
        let of_it = rows.filter(move |row| row.known.stamp == stamp);
        of_it.map(|row| row.name.hash16.clone())
    };
    let has_tags = |one: &OrderedSnapshot| {
        let tags = tags(one.snapshot.metadata.as_ref());
        choice.tags().iter().all(|tag| tags.contains(&tag.as_str()))
    };
    let is_meant = |one: &&OrderedSnapshot| {
        let stamp = one.snapshot.stamp;
        choice.admits(stamp, one.sequence, hashes(stamp)) && has_tags(one)
    };
    let mut meant = snapshots.iter().filter(is_meant);
    // The last of equals: `latest` is the last that was made, packed or not.
    let found = match choice.is_by_time() {
        true => meant.max_by_key(|one| one.snapshot.stamp),
        false => meant.next_back(),
    };
    let Some(found) = found else {
        return Err(not_here(config, choice, &snapshots));
    };
    if let Some(text) = choice.explain(found.snapshot.stamp) {
        front.note(&text);
    }
    Ok(found.snapshot.path.clone())
}

fn not_here(config: &Config, choice: &SnapshotChoice, there: &[OrderedSnapshot]) -> JobError {
    let dir = config.snapshots_dir.display();
    let nearest = choice.nearest(there.iter().map(|one| one.snapshot.stamp));
    JobError::work(format!("no snapshot {choice} in {dir}{nearest}"))
        .with_next("`sealift list` shows the snapshots of this host")
}

/// Returns tags and sources in a snapshot's `backup-metadata.json`. `None`: another tool wrote it.
pub(crate) fn about(metadata: &serde_json::Value) -> Option<SnapshotAbout> {
    let section = &metadata["sealift"];
    section.is_object().then(|| {
        let sources = section["sources"].as_array().into_iter().flatten();
        let present = sources.filter(|source| source["present"] == true);
        let tags = tags(Some(metadata)).into_iter();
        SnapshotAbout {
            tags: tags.map(str::to_owned).collect(),
            sources: present
                .filter_map(|source| Some(source["to"].as_str()?.to_owned()))
                .collect(),
        }
    })
}

/// Returns the tags in a snapshot's `backup-metadata.json`.
pub(crate) fn tags(metadata: Option<&serde_json::Value>) -> Vec<&str> {
    let tags = metadata.and_then(|all| all["sealift"]["tags"].as_array());
    let tags = tags.into_iter().flatten();
    tags.filter_map(serde_json::Value::as_str).collect()
}
