//! What a target stores held against its manifests: no identity is needed for it.
//!
//! First by looking ([`examine`]): the chain of signed manifests, every page of the archive table, every archive
//! that is named with its size. Then, for as much as is asked for, by reading ([`read_archives`]): every byte
//! of an archive is hashed and compared with its row, which the host signed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use chrono::{DateTime, Datelike as _, Utc};
use futures::StreamExt as _;

use crate::error::with_causes;
use crate::ids::{Hash, ObjectKey, Stamp, TABLES};
use crate::manifest::ArchiveRow;
use crate::manifest::chain::{Chain, Finding};
use crate::manifest::signature::Trust;
use crate::repository::{HostFolder, RepositoryError};
use crate::shipper::copy::{CopyError, copy_archive, read_archive};
use crate::target::{ErrorKind, PutMode, TargetError};

/// Something that keeps a target from giving back what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Chain(Finding),
    #[error("the next snapshot was due by {} UTC and is not here: does the host still push?", .0.format("%Y-%m-%d %H:%M"))]
    Overdue(DateTime<Utc>),
    #[error("the archive table of snapshot {stamp} cannot be read: {why}")]
    Table { stamp: Stamp, why: String },
    #[error("{} is missing: {} cannot be restored in full", .0.row.key(), stamps(&.0.snapshots))]
    Missing(Needed),
    #[error(
        "{} has {found} bytes, its row says {}: {} cannot be restored in full",
        .needed.row.key(), .needed.row.bytes, stamps(&.needed.snapshots)
    )]
    Size { needed: Needed, found: u64 },
    #[error("{} is damaged ({what}): {} cannot be restored in full", .needed.row.key(), stamps(&.needed.snapshots))]
    Damaged { needed: Needed, what: String },
    #[error("{key} could not be read: {why}")]
    Unread { key: ObjectKey, why: String },
}

impl Problem {
    /// The archive that is not what it should be, and could be brought from elsewhere.
    pub fn lost(&self) -> Option<&ArchiveRow> {
        match self {
            Self::Missing(needed) | Self::Size { needed, .. } | Self::Damaged { needed, .. } => {
                Some(&needed.row)
            }
            _ => None,
        }
    }
}

fn stamps(snapshots: &[Stamp]) -> String {
    match snapshots {
        [] => "nothing".to_owned(),
        [only] => format!("snapshot {only}"),
        [first, .., last] => format!("{} snapshots ({first} to {last})", snapshots.len()),
    }
}

/// What looking at a target brought.
#[derive(Debug)]
pub struct Examined {
    pub chain: Chain,
    /// Archives that are there in full, with the snapshots that need them.
    pub whole: BTreeMap<Hash, Needed>,
    pub problems: Vec<Problem>,
    /// Archives and pages that no manifest names, and their bytes: of pushes that broke off.
    pub stray: (u64, u64),
}

/// An archive, and the snapshots that need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub row: ArchiveRow,
    pub snapshots: Vec<Stamp>,
}

/// Looks at everything, reads what is small.
pub async fn examine(
    folder: &HostFolder,
    trust: &Trust,
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
    let mut needed: BTreeMap<Hash, Needed> = BTreeMap::new();
    for snapshot in &chain.snapshots {
        let stamp = snapshot.stamp();
        for page in &snapshot.manifest.pages {
            tables.remove(ObjectKey::table(page).as_str());
        }
        let table = match folder.table(&snapshot.manifest).await {
            Ok(table) => table,
            Err(RepositoryError::Target(error)) if error.kind != ErrorKind::NotFound => {
                return Err(error.into());
            }
            Err(error) => {
                let why = with_causes(&error);
                problems.push(Problem::Table { stamp, why });
                continue;
            }
        };
        for row in table.rows.into_values() {
            let one = needed.entry(row.blake3).or_insert_with(|| Needed {
                row,
                snapshots: Vec::new(),
            });
            one.snapshots.push(stamp);
        }
    }
    let mut whole = BTreeMap::new();
    for (hash, one) in needed {
        match archives.remove(&hash) {
            Some(bytes) if bytes == one.row.bytes => drop(whole.insert(hash, one)),
            Some(found) => problems.push(Problem::Size { needed: one, found }),
            None => problems.push(Problem::Missing(one)),
        }
    }
    let left = archives.values().chain(tables.values());
    let stray = left.fold((0, 0), |(count, bytes), more| (count + 1, bytes + more));
    Ok(Examined {
        chain,
        whole,
        problems,
        stray,
    })
}

/// How much of the archives to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    pub const ALL: Self = Self(1.0);

    /// `all`, `5%`, `0.5%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let percent = match text {
            "all" => return Ok(Self::ALL),
            text => text
                .strip_suffix('%')
                .and_then(|n| n.trim().parse::<f64>().ok()),
        };
        percent
            .filter(|percent| *percent > 0.0 && *percent <= 100.0)
            .map(|percent| Self(percent / 100.0))
            .ok_or_else(|| format!("{text:?} is not a share like \"5%\" or \"all\""))
    }
}

/// Which archives to read: those that were read longest ago first, never before all others, until so much of
/// all bytes is reached. Without a memory the week decides: as many weeks as it takes cover everything.
pub fn choose(
    whole: &BTreeMap<Hash, Needed>,
    share: Share,
    checked: Option<&HashMap<Hash, DateTime<Utc>>>,
    now: DateTime<Utc>,
) -> Vec<Needed> {
    let all_bytes: u64 = whole.values().map(|needed| needed.row.bytes).sum();
    let wanted = (all_bytes as f64 * share.0).ceil() as u64;
    let week = now.date_naive().num_days_from_ce() / 7;
    let turn = |hash: &Hash| {
        let at = u64::from_be_bytes([
            hash.0[0], hash.0[1], hash.0[2], hash.0[3], hash.0[4], hash.0[5], hash.0[6], hash.0[7],
        ]);
        let at = at as f64 / u64::MAX as f64;
        // What lies behind this week's place comes first.
        (at - f64::from(week) * share.0).rem_euclid(1.0)
    };
    let mut order: Vec<(&Hash, &Needed)> = whole.iter().collect();
    match checked {
        Some(checked) => order.sort_by_key(|(hash, _)| checked.get(*hash).copied()),
        None => order.sort_by(|(a, _), (b, _)| turn(a).total_cmp(&turn(b))),
    }
    let mut bytes = 0;
    let within = |(_, needed): &(&Hash, &Needed)| {
        let before = bytes;
        bytes += needed.row.bytes;
        before < wanted
    };
    let chosen = order.into_iter().take_while(within);
    chosen.map(|(_, needed)| needed.clone()).collect()
}

/// Reads `archives` and compares them with their rows. `on_read` hears of each as soon as it is known, with its
/// problem if it has one; a target that fails for good ends the reading.
pub async fn read_archives(
    folder: &HostFolder,
    archives: Vec<Needed>,
    concurrency: usize,
    mut on_read: impl FnMut(&Needed, Option<&Problem>),
) -> Result<Vec<Problem>, TargetError> {
    let mut problems = Vec::new();
    let reads = futures::stream::iter(archives).map(|needed| async move {
        let read = read_archive(folder, &needed.row, &mut tokio::io::sink()).await;
        (needed, read)
    });
    let mut reads = reads.buffer_unordered(concurrency.max(1));
    while let Some((needed, read)) = reads.next().await {
        let key = needed.row.key();
        let problem = match read {
            Ok(()) => None,
            Err(CopyError::Damaged { what, .. }) => Some(Problem::Damaged {
                needed: needed.clone(),
                what,
            }),
            Err(CopyError::Target(error)) => match error.kind {
                ErrorKind::Unavailable => return Err(error),
                _ => Some(Problem::Unread {
                    key,
                    why: with_causes(&error),
                }),
            },
            Err(error) => Some(Problem::Unread {
                key,
                why: with_causes(&error),
            }),
        };
        on_read(&needed, problem.as_ref());
        problems.extend(problem);
    }
    Ok(problems)
}

/// How the heads of several targets stand to each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    #[error("it ends at sequence {its}, {other} at {others}: it was set back, or is behind")]
    Shorter {
        its: u64,
        other: String,
        others: u64,
    },
    #[error(
        "its sequence {sequence} is another snapshot than that of {other}: their histories parted"
    )]
    Parted { sequence: u64, other: String },
}

/// Compares `chains`, each with its target's name; gives what is odd, by place in the list.
pub fn compare_heads(chains: &[(&str, &Chain)]) -> Vec<(usize, Divergence)> {
    let head = |chain: &Chain| chain.snapshots.last().map_or(0, |s| s.sequence());
    let longest = chains.iter().max_by_key(|(_, chain)| head(chain));
    let Some((longest_name, longest)) = longest else {
        return Vec::new();
    };
    let known: HashSet<(u64, Hash)> = longest
        .snapshots
        .iter()
        .flat_map(|s| s.manifest.core.known.iter().map(|k| (k.sequence, k.core)))
        .chain(
            longest
                .snapshots
                .iter()
                .map(|s| (s.sequence(), s.manifest.core_hash)),
        )
        .collect();
    let mut odd = Vec::new();
    for (at, (_, chain)) in chains.iter().enumerate() {
        let strange = chain.snapshots.iter().find(|s| {
            let same = |(sequence, _): &&(u64, Hash)| *sequence == s.sequence();
            let is_known = known.contains(&(s.sequence(), s.manifest.core_hash));
            !is_known && known.iter().any(|k| same(&k))
        });
        if let Some(strange) = strange {
            let (sequence, other) = (strange.sequence(), (*longest_name).to_owned());
            odd.push((at, Divergence::Parted { sequence, other }));
        } else if head(chain) < head(longest) {
            odd.push((
                at,
                Divergence::Shorter {
                    its: head(chain),
                    other: (*longest_name).to_owned(),
                    others: head(longest),
                },
            ));
        }
    }
    odd
}

/// Brings `row` to `folder` from the first of `donors` that has it whole; gives that one's place, or why none
/// could.
pub async fn repair(
    folder: &HostFolder,
    row: &ArchiveRow,
    donors: &[&HostFolder],
    scratch: &Path,
) -> Result<usize, Vec<String>> {
    let mut why = Vec::new();
    for (at, donor) in donors.iter().enumerate() {
        match copy_archive(donor, folder, row, PutMode::Replace, scratch).await {
            Ok(_) => return Ok(at),
            Err(CopyError::Target(error)) if error.kind == ErrorKind::NotFound => {}
            Err(error) => why.push(with_causes(&error)),
        }
    }
    Err(why)
}
