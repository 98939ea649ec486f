//! The look at all archives, once the new snapshot could reuse one that the push did not look at:
//! content came back that the newest snapshot does not have. A target of few archives is looked at
//! like this in every push.

use std::collections::{HashMap, HashSet};

use tokio::runtime::Runtime;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::copy_sources::CopySource;
use super::error::PushError;
use super::inspect_targets::{InspectedTarget, PATIENCE, TargetInventory};
use super::inventory::ReuseCondition;
use crate::base::ids::Hash;
use crate::state::catalog::{Catalog, CatalogArchive};
use crate::state::spool::Spool;
use crate::storage::TargetError;

/// Looks at every archive on the targets that answered; returns those that a new snapshot may
/// reuse. A target that fails now, or takes longer than [`PATIENCE`], counts like one that did not
/// answer at all. If none that can be listed is left, it returns none, and the content is stored
/// again: memory alone is not enough.
pub(super) fn look_at_all(
    runtime: &Runtime,
    (catalog, spool): (&Catalog, &Spool),
    inspected_targets: &[InspectedTarget],
    copy_sources: &[CopySource],
    recipients: &[String],
) -> Result<Vec<CatalogArchive>, PushError> {
    let looks = async {
        let looks = inspected_targets
            .iter()
            .map(|one| timeout(PATIENCE, present(one)));
        futures::future::join_all(looks).await
    };
    let looks = runtime.block_on(looks).into_iter();
    let looks: Vec<Look> = looks.map(Look::from).collect();
    let is_any = |wanted: fn(&Look) -> bool| looks.iter().any(wanted);
    if is_any(|look| matches!(look, Look::Failed)) && !is_any(|look| matches!(look, Look::Seen(_)))
    {
        return Ok(Vec::new());
    }
    let mut on_all: Option<HashSet<i64>> = None;
    let mut anywhere = HashSet::new();
    let mut on_copy_sources = HashSet::new();
    let archives = catalog.archives()?;
    for ((inspected, look), source) in inspected_targets.iter().zip(looks).zip(copy_sources) {
        let remembered = catalog.placed_on(&inspected.name)?;
        let placed: HashSet<i64> = match look {
            Look::Failed => {
                anywhere.extend(&remembered);
                continue;
            }
            Look::FromMemory => {
                anywhere.extend(&remembered);
                if inspected.seen.is_err() {
                    continue;
                }
                remembered
            }
            Look::Seen(there) => {
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

/// The outcome of the look at one target.
enum Look {
    /// The sizes of the archives that are there now.
    Seen(HashMap<Hash, u64>),
    /// The target did not answer before, or cannot be listed: only memory is available.
    FromMemory,
    /// The target answered before, and does not now.
    Failed,
}

impl From<Result<Result<Option<HashMap<Hash, u64>>, TargetError>, Elapsed>> for Look {
    fn from(looked: Result<Result<Option<HashMap<Hash, u64>>, TargetError>, Elapsed>) -> Self {
        match looked {
            Ok(Ok(Some(there))) => Self::Seen(there),
            Ok(Ok(None)) => Self::FromMemory,
            Ok(Err(error)) => {
                tracing::info!(%error, "not every archive can be looked at now");
                Self::Failed
            }
            Err(_) => {
                tracing::info!("a target takes too long to list its archives");
                Self::Failed
            }
        }
    }
}

/// Returns the sizes of the archives that are on the target now. `None`: only memory is available.
async fn present(inspected: &InspectedTarget) -> Result<Option<HashMap<Hash, u64>>, TargetError> {
    match &inspected.seen {
        Err(_) => Ok(None),
        Ok(_) if inspected.write_only => Ok(None),
        Ok(TargetInventory {
            scope, archives, ..
        }) if scope.is_whole() => Ok(Some(archives.clone())),
        Ok(_) => inspected.folder.archives_present().await.map(Some),
    }
}
