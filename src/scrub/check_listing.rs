//! The first look at a target: reads every small object and lists the large ones.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};

use super::problem::{Needed, Problem, Stamps};
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, ObjectKey, TABLES};
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::chain::{Chain, Finding, VerifiedSnapshot};
use crate::format::manifest::TablePage;
use crate::format::signature::Trust;
use crate::repository::{ArchiveTable, HostFolder, RepositoryError};
use crate::storage::ErrorKind;

/// Pages fetched at a time.
const PAGES_AT_ONCE: usize = 16;
/// On a target that changes all the time, the last of this many looks counts.
const MOST_LOOKS: usize = 5;

/// What a look at a target found.
#[derive(Debug)]
pub struct Examined {
    /// The verified snapshots.
    pub chain: Chain,
    /// Archives that are there in their size, by BLAKE3, with the snapshots that need them.
    pub whole: BTreeMap<Hash, Needed>,
    /// Problems, in the order in which they were found.
    pub problems: Vec<Problem>,
    /// Number and bytes of archives and pages that no manifest names: pushes that broke off left
    /// them. `None`: only some snapshots were looked at, so it is unknown.
    pub stray: Option<(u64, u64)>,
}

/// Looks at the chain, and at all objects of the `wanted` snapshots.
/// Empty: all.
///
/// If a push, a prune or a sync changes the target meanwhile, it looks again, so that the change is
/// no finding.
pub async fn examine(
    folder: &HostFolder,
    trust: &Trust,
    wanted: &[SnapshotChoice],
    now: DateTime<Utc>,
) -> Result<Examined, RepositoryError> {
    let mut looks = 0;
    loop {
        let before = folder.manifest_names().await?;
        let looked = look(folder, trust, wanted, now).await;
        looks += 1;
        let is_clean = looked.as_ref().is_ok_and(|seen| seen.problems.is_empty());
        if is_clean || looks == MOST_LOOKS || folder.manifest_names().await? == before {
            return looked;
        }
    }
}

async fn look(
    folder: &HostFolder,
    trust: &Trust,
    wanted: &[SnapshotChoice],
    now: DateTime<Utc>,
) -> Result<Examined, RepositoryError> {
    let chain = folder.chain(trust).await?;
    let (mut archives, mut tables) =
        futures::future::try_join(folder.archives_present(), folder.list(TABLES)).await?;
    let mut problems: Vec<Problem> = chain.findings.iter().cloned().map(Problem::Chain).collect();
    if let Some(due) = chain.snapshots.last().and_then(|s| s.manifest.core.next_by)
        && due < now
    {
        problems.push(Problem::Overdue(due));
    }
    let snapshots = choose(&chain, wanted, &mut problems);
    let pages = read_pages(folder, &snapshots, &mut problems).await?;
    let history = read_history(folder, &snapshots, &mut problems).await?;
    if problems
        .iter()
        .any(|one| matches!(one, Problem::History { .. }))
    {
        // The problem of the page is more precise, and has a next step.
        problems.retain(|one| !matches!(one, Problem::Chain(Finding::History(..))));
    }
    let needed = needed_by(&snapshots, &pages, &mut problems);
    let mut whole = BTreeMap::new();
    for (hash, one) in needed {
        match archives.remove(&hash) {
            Some(bytes) if bytes == one.row.bytes => drop(whole.insert(hash, one)),
            Some(found) => problems.push(Problem::Size { needed: one, found }),
            None => problems.push(Problem::Missing(one)),
        }
    }
    for page in pages.keys().chain(&history) {
        tables.remove(ObjectKey::table(page).as_str());
    }
    let left = archives.values().chain(tables.values());
    let stray = left.fold((0, 0), |(count, bytes), more| (count + 1, bytes + more));
    Ok(Examined {
        chain,
        whole,
        problems,
        stray: wanted.is_empty().then_some(stray),
    })
}

fn choose(
    chain: &Chain,
    wanted: &[SnapshotChoice],
    problems: &mut Vec<Problem>,
) -> Vec<VerifiedSnapshot> {
    if wanted.is_empty() {
        return chain.snapshots.clone();
    }
    let mut chosen: Vec<VerifiedSnapshot> = Vec::new();
    for choice in wanted {
        match chain.resolve(choice) {
            Ok(snapshot) => chosen.push(snapshot.clone()),
            Err(error) => problems.push(Problem::NotHere(format!(
                "snapshot {choice} to look at: {error}"
            ))),
        }
    }
    chosen.sort_by_key(|snapshot| snapshot.manifest.name());
    chosen.dedup_by_key(|snapshot| snapshot.manifest.name());
    chosen
}

/// Reads every page that the snapshots name, once. A page is `None` if it cannot be used.
async fn read_pages(
    folder: &HostFolder,
    snapshots: &[VerifiedSnapshot],
    problems: &mut Vec<Problem>,
) -> Result<HashMap<Hash, Option<TablePage>>, RepositoryError> {
    let mut named: BTreeMap<Hash, Stamps> = BTreeMap::new();
    for snapshot in snapshots {
        for page in &snapshot.manifest.pages {
            let users = named.get_mut(page).map(|users| users.add(snapshot.stamp()));
            if users.is_none() {
                named.insert(*page, Stamps::one(snapshot.stamp()));
            }
        }
    }
    let read = futures::stream::iter(named)
        .map(async |(page, snapshots)| match folder.page(&page).await {
            Ok(read) => Ok((page, Ok(read))),
            // A target that does not answer has no finding.
            Err(RepositoryError::Target(error))
                if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Denied) =>
            {
                Err(RepositoryError::from(error))
            }
            Err(error) => {
                let why = with_causes(&error);
                let problem = Problem::Page {
                    page,
                    snapshots,
                    why,
                };
                Ok((page, Err(problem)))
            }
        })
        .buffered(PAGES_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let mut pages = HashMap::new();
    for (page, read) in read {
        let read = read.map_err(|problem| problems.push(problem));
        pages.insert(page, read.ok());
    }
    Ok(pages)
}

/// Reads every directory and page of earlier snapshots that the snapshots name, once. Returns their
/// names.
async fn read_history(
    folder: &HostFolder,
    snapshots: &[VerifiedSnapshot],
    problems: &mut Vec<Problem>,
) -> Result<Vec<Hash>, RepositoryError> {
    let (mut directories, mut pages) = (BTreeMap::new(), BTreeMap::new());
    for snapshot in snapshots {
        if let Some(named) = snapshot.manifest.core.known.pages() {
            add_users(
                &mut directories,
                &named.directories,
                Stamps::one(snapshot.stamp()),
            );
            add_users(&mut pages, &named.pages, Stamps::one(snapshot.stamp()));
        }
    }
    let read = async |name: Hash, users: Stamps| {
        let read = folder.directory(&name).await.map(|read| read.directory);
        (name, users, read)
    };
    let read = futures::stream::iter(directories.clone())
        .map(|(name, users)| read(name, users))
        .buffered(PAGES_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    for (name, users, read) in read {
        match read {
            Ok(inner) => add_users(&mut pages, &inner, users),
            Err(error) => problems.push(history(name, users, error)?),
        }
    }
    let read = async |name: Hash, users: Stamps| (name, users, folder.known_page(&name).await);
    let read = futures::stream::iter(pages.clone())
        .map(|(name, users)| read(name, users))
        .buffered(PAGES_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    for (name, users, read) in read {
        if let Err(error) = read {
            problems.push(history(name, users, error)?);
        }
    }
    Ok(directories.into_keys().chain(pages.into_keys()).collect())
}

fn add_users(named: &mut BTreeMap<Hash, Stamps>, names: &[Hash], users: Stamps) {
    for name in names {
        let known = named.get_mut(name).map(|known| known.join(users));
        if known.is_none() {
            named.insert(*name, users);
        }
    }
}

/// Returns the problem with a page, or the error if the target does not answer.
fn history(
    page: Hash,
    snapshots: Stamps,
    error: RepositoryError,
) -> Result<Problem, RepositoryError> {
    match &error {
        RepositoryError::Target(target)
            if matches!(target.kind, ErrorKind::Unavailable | ErrorKind::Denied) =>
        {
            Err(error)
        }
        _ => Ok(Problem::History {
            page,
            snapshots,
            why: with_causes(&error),
        }),
    }
}

/// Returns the archives that the tables name. If a page of a snapshot is missing, its other pages
/// count.
fn needed_by(
    snapshots: &[VerifiedSnapshot],
    pages: &HashMap<Hash, Option<TablePage>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Hash, Needed> {
    let mut needed: BTreeMap<Hash, Needed> = BTreeMap::new();
    for snapshot in snapshots {
        let (manifest, stamp) = (&snapshot.manifest, snapshot.stamp());
        let its = manifest.pages.iter().filter_map(|page| pages.get(page));
        let table = ArchiveTable::join(manifest.name(), its.flatten().cloned());
        let table = match table {
            Ok(table) => table,
            Err(error) => {
                let why = with_causes(&error);
                problems.push(Problem::Table { stamp, why });
                continue;
            }
        };
        for row in table.rows.into_values() {
            match needed.get_mut(&row.blake3) {
                Some(one) => one.snapshots.add(stamp),
                None => {
                    let snapshots = Stamps::one(stamp);
                    needed.insert(row.blake3, Needed { row, snapshots });
                }
            }
        }
    }
    needed
}
