//! The look at all archives, once the new snapshot could reuse one that the push did not look at:
//! content came back that the newest snapshot does not have. A target of few archives is looked at
//! like this in every push.

use std::collections::{HashMap, HashSet};

use tokio::runtime::Runtime;

use super::copy_sources::CopySource;
use super::error::PushError;
use super::inspect_targets::{InspectedTarget, TargetInventory};
use super::inventory::ReuseCondition;
use crate::base::ids::Hash;
use crate::state::catalog::{Catalog, CatalogArchive};
use crate::state::spool::Spool;
use crate::storage::TargetError;

/// Looks at every archive on the targets that answered; returns those that a new snapshot may
/// reuse. If a target fails now, it returns none, and the content is stored again.
pub(super) fn look_at_all(
    runtime: &Runtime,
    (catalog, spool): (&Catalog, &Spool),
    surveys: &[InspectedTarget],
    copy_sources: &[CopySource],
    recipients: &[String],
) -> Result<Vec<CatalogArchive>, PushError> {
    let looks = surveys.iter().map(present);
    let looks = runtime.block_on(futures::future::join_all(looks));
    let looks: Vec<Option<HashMap<Hash, u64>>> = match looks.into_iter().collect() {
        Ok(looks) => looks,
        Err(error) => {
            tracing::info!(%error, "not every archive can be looked at now");
            return Ok(Vec::new());
        }
    };
    let mut on_all: Option<HashSet<i64>> = None;
    let mut anywhere = HashSet::new();
    let mut on_copy_sources = HashSet::new();
    let archives = catalog.archives()?;
    for ((survey, look), source) in surveys.iter().zip(looks).zip(copy_sources) {
        let remembered = catalog.placed_on(&survey.name)?;
        let placed: HashSet<i64> = match look {
            None => {
                anywhere.extend(&remembered);
                if survey.seen.is_err() {
                    continue;
                }
                remembered
            }
            Some(there) => {
                let complete = |a: &&CatalogArchive| there.get(&a.row.blake3) == Some(&a.row.bytes);
                let placed = archives.iter().filter(complete).map(|a| a.n).collect();
                if *source != CopySource::No {
                    on_copy_sources.extend(there);
                }
                placed
            }
        };
        on_all = Some(match on_all {
            Some(all) => all.intersection(&placed).copied().collect(),
            None => placed,
        });
    }
    // If no target answers, memory must do.
    let on_all = on_all.unwrap_or(anywhere);
    let condition = ReuseCondition::read(catalog, spool, on_copy_sources, recipients)?;
    let usable = archives
        .iter()
        .filter(|archive| condition.is_met(archive, on_all.contains(&archive.n)));
    Ok(usable.cloned().collect())
}

/// Returns the sizes of the archives that are on the target now. `None`: only memory is available.
async fn present(survey: &InspectedTarget) -> Result<Option<HashMap<Hash, u64>>, TargetError> {
    match &survey.seen {
        Err(_) => Ok(None),
        Ok(_) if survey.write_only => Ok(None),
        Ok(TargetInventory {
            scope, archives, ..
        }) if scope.is_whole() => Ok(Some(archives.clone())),
        Ok(_) => survey.folder.archives_present().await.map(Some),
    }
}
