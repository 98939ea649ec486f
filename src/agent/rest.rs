//! The archives that a push did not look at at first, once the new snapshot could lean on one of them: content came
//! back that the newest snapshot does not have. Then all of them are looked at, as every push does on a target of few.

use std::collections::{HashMap, HashSet};

use tokio::runtime::Runtime;

use super::AgentError;
use super::donors::Donor;
use super::stock::Needs;
use super::survey::{Seen, Survey};
use crate::catalog::{Catalog, CatalogArchive};
use crate::ids::Hash;
use crate::spool::Spool;
use crate::target::TargetError;

/// Looks at every archive on the targets that answered; returns those that a new snapshot may lean on. If a target
/// fails now there are none, and the content is stored again.
pub(super) fn look_at_all(
    runtime: &Runtime,
    catalog: &Catalog,
    spool: &Spool,
    surveys: &[Survey],
    asked: &[Donor],
    recipients: &[String],
) -> Result<Vec<CatalogArchive>, AgentError> {
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
    let mut on_donors = HashSet::new();
    let archives = catalog.archives()?;
    for ((survey, look), donor) in surveys.iter().zip(looks).zip(asked) {
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
                if *donor != Donor::No {
                    on_donors.extend(there);
                }
                placed
            }
        };
        on_all = Some(match on_all {
            Some(all) => all.intersection(&placed).copied().collect(),
            None => placed,
        });
    }
    // As at first: if no target answers, memory must do.
    let on_all = on_all.unwrap_or(anywhere);
    let needs = Needs::of(catalog, spool, on_donors, recipients)?;
    let usable = archives
        .iter()
        .filter(|archive| needs.are_met(archive, on_all.contains(&archive.n)));
    Ok(usable.cloned().collect())
}

/// The archives that are on the target now; `None`: nothing but memory says so.
async fn present(survey: &Survey) -> Result<Option<HashMap<Hash, u64>>, TargetError> {
    match &survey.seen {
        Err(_) => Ok(None),
        Ok(_) if survey.write_only => Ok(None),
        Ok(Seen {
            scope, archives, ..
        }) if scope.is_whole() => Ok(Some(archives.clone())),
        Ok(_) => survey.folder.archives_present().await.map(Some),
    }
}
