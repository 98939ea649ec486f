//! What is known of the tags of snapshots, for the retention that keeps some of them.
//!
//! The catalog has the tags of the snapshots that this host packed, and `backup-metadata.json`
//! those of the copies on this host. On targets they are encrypted, so those of a lost catalog, or
//! of another host, are not known without an identity. A snapshot whose tags are not known stays.

use std::collections::HashMap;
use std::sync::Arc;

use super::choose::read_header;
use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::local_snapshots;
use crate::base::ids::{Hash, Stamp};
use crate::config::Config;
use crate::format::signature::Trust;
use crate::producer::{self, LocalSnapshot};
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use crate::retention::{KeptTags, TagMatch};
use crate::state::catalog::{Catalog, CatalogError, SnapshotAbout};

/// Adds to `kept` the tags of this host's snapshots, as far as it knows them.
pub(crate) fn learn_own(kept: &mut KeptTags, config: &Config) -> Result<(), JobError> {
    if kept.is_empty() {
        return Ok(());
    }
    let Some(catalog) = open_catalog(config)? else {
        return Ok(());
    };
    // Programs may write into a directory; the catalog has what was packed.
    for (core, about) in of_directories(config, &catalog)? {
        kept.learn(core, about.tags);
    }
    for (core, about) in catalog.all_about()? {
        kept.learn(core, about.tags);
    }
    Ok(())
}

/// Returns tags and sources of the packed snapshots whose directories are still on this host.
pub(crate) fn of_directories(
    config: &Config,
    catalog: &Catalog,
) -> Result<HashMap<Hash, SnapshotAbout>, JobError> {
    // A directory belongs to the last snapshot of its stamp.
    let rows = catalog.snapshots()?;
    let last: HashMap<Stamp, Hash> = rows
        .iter()
        .map(|row| (row.known.stamp, row.known.core))
        .collect();
    let here = producer::list(&config.snapshots_dir)?;
    let known = here.iter().filter_map(|local| {
        let about = local_snapshots::about(local.metadata.as_ref()?)?;
        Some((*last.get(&local.stamp)?, about))
    });
    Ok(known.collect())
}

/// Returns whether a directory of this host has a tag that keeps it.
pub(crate) fn of_local(
    kept: &KeptTags,
    local: &LocalSnapshot,
    catalog: &Catalog,
) -> Result<TagMatch, CatalogError> {
    if kept.is_empty() {
        return Ok(TagMatch::None);
    }
    let of_directory = local.metadata.as_ref().map(|metadata| {
        let about = local_snapshots::about(metadata);
        about.map(|about| kept.of_tags(Some(&about.tags)))
    });
    let rows = catalog.snapshots()?;
    let mut rows = rows.iter().rev();
    let row = rows.find(|row| row.known.stamp == local.stamp);
    let about = row.map(|row| catalog.about(&row.known.core)).transpose()?;
    let about = about.flatten();
    let of_catalog = kept.of_tags(about.as_ref().map(|about| about.tags.as_slice()));
    Ok(match (of_directory, of_catalog) {
        (Some(Some(TagMatch::Kept)), _) | (_, TagMatch::Kept) => TagMatch::Kept,
        (Some(Some(found)), _) => found,
        // That of another tool, which was never packed, has no tags.
        (Some(None), _) if row.is_none() => TagMatch::None,
        (_, found) => found,
    })
}

/// Adds to `kept` the tags in the indexes of those snapshots in `folder` whose tags are not known.
pub(crate) async fn learn_encrypted(
    kept: &mut KeptTags,
    folder: &HostFolder,
    trust: &Trust,
    identities: &Arc<Identities>,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    let chain = folder.chain(trust).await?;
    for snapshot in &chain.snapshots {
        let core = snapshot.manifest.core_hash;
        if kept.of(&core) != TagMatch::Unknown {
            continue;
        }
        match read_header(folder, snapshot, identities).await {
            Ok(header) => kept.learn(core, header.tags),
            Err(error) => front.warn(&format!(
                "the tags of snapshot {} cannot be read, so it stays: {}",
                snapshot.stamp(),
                error.with_causes()
            )),
        }
    }
    Ok(())
}
