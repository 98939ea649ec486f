//! The snapshots in this host's snapshots directory: their order, and how the operator names one.

use std::path::PathBuf;

use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::push::{OrderedSnapshot, in_order};
use crate::base::clock;
use crate::config::{Config, Source, SourceKind};
use crate::producer::{self, LocalSnapshot};
use crate::state::catalog::Catalog;

/// Whether `source` is read in place, so that snapshot directories do not hold it.
pub(crate) fn is_in_place(source: &Source) -> bool {
    matches!(&source.kind, SourceKind::Tree(tree) if !tree.stage)
}

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

/// Returns the directory of the local snapshot with this stamp or sequence, or of the `latest`.
pub(crate) fn find(config: &Config, text: &str, front: &dyn FrontEnd) -> Result<PathBuf, JobError> {
    let snapshots = ordered(config, front)?;
    let is_named = |one: &&OrderedSnapshot| {
        let sequence = one.sequence.map(|sequence| sequence.to_string());
        one.snapshot.stamp.to_string() == text || sequence.as_deref() == Some(text)
    };
    let found = match text {
        "latest" => snapshots.last(),
        _ => snapshots.iter().find(is_named),
    };
    found.map(|one| one.snapshot.path.clone()).ok_or_else(|| {
        let dir = config.snapshots_dir.display();
        JobError::work(format!("no snapshot {text} in {dir}"))
            .with_next("`sealift list` shows the snapshots of this host")
    })
}
