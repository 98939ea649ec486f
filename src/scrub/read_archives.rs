//! Chooses archives, reads them to their ends and compares each with its row.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Datelike as _, Utc};
use futures::StreamExt as _;

use super::problem::{Needed, Problem};
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::repository::HostFolder;
use crate::repository::read_archive::{ReadArchiveError, read_archive};
use crate::state::catalog::ArchiveCheck;
use crate::storage::{ErrorKind, TargetError};

/// The part of all archives' bytes to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(1.0);

    /// Parses `all`, `5%` or `0.5%`. The error is for the operator.
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
            .ok_or_else(|| {
                format!("{text:?} is not a share like 5% or all; a snapshot goes before --data")
            })
    }
}

/// Chooses archives to read by the `memory` of earlier readings.
///
/// Archives that were damaged come first and do not count into the share, so that they do not delay
/// the others. Then come those that were never read, then those that were read longest ago, until
/// the share of all bytes is reached. If a reading of everything began at `begun` and broke off,
/// the archives that it found whole are left out.
pub fn choose(
    whole: &BTreeMap<Hash, Needed>,
    share: Share,
    memory: &HashMap<Hash, ArchiveCheck>,
    begun: Option<DateTime<Utc>>,
) -> Vec<Needed> {
    let all_bytes: u64 = whole.values().map(|needed| needed.row.bytes).sum();
    let wanted = (all_bytes as f64 * share.0).ceil() as u64;
    let is_bad = |hash: &Hash| memory.get(hash).is_some_and(|c| c.whole == Some(false));
    let is_done = |hash: &Hash| {
        let check = memory.get(hash).filter(|check| check.whole == Some(true));
        check.is_some_and(|check| begun.is_some_and(|begun| check.at >= begun))
    };
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for (hash, needed) in whole {
        match is_bad(hash) {
            true => chosen.push(needed.clone()),
            false if is_done(hash) => {}
            false => rest.push((memory.get(hash).map(|check| check.at), needed)),
        }
    }
    rest.sort_by_key(|(at, _)| *at);
    let mut bytes = 0;
    let within = rest.into_iter().take_while(|(_, needed)| {
        let before = bytes;
        bytes += needed.row.bytes;
        before < wanted
    });
    chosen.extend(within.map(|(_, needed)| needed.clone()));
    chosen
}

/// Chooses archives to read without a memory.
///
/// Each archive has a place on a circle, by its hash, and each week reads the next part of the
/// circle. So every archive is read within as many weeks as the share takes, also while others come
/// and go. The bytes of a week are the share only on average.
pub fn choose_by_week(
    whole: &BTreeMap<Hash, Needed>,
    share: Share,
    now: DateTime<Utc>,
) -> Vec<Needed> {
    let week = f64::from(now.date_naive().num_days_from_ce().div_euclid(7));
    let is_due = |hash: &Hash| {
        let mut first = [0; 8];
        first.copy_from_slice(&hash.0[..8]);
        // 53 bits, which a float has.
        let place = (u64::from_be_bytes(first) >> 11) as f64 / (1u64 << 53) as f64;
        (place - week * share.0).rem_euclid(1.0) < share.0
    };
    let due = whole
        .iter()
        .filter(|(hash, _)| share == Share::ALL || is_due(hash));
    due.map(|(_, needed)| needed.clone()).collect()
}

/// The result of reading one archive.
#[derive(Debug)]
pub enum Reading {
    /// It is that of its row.
    Whole,
    /// It is in cold storage and cannot be read now.
    Frozen,
    /// It is missing, damaged or unreadable.
    Wrong(Box<Problem>),
}

/// Reads `archives` and compares them with their rows. Calls `on_read` with each result as it
/// comes. Fails if the target does not answer.
pub async fn read_archives(
    folder: &HostFolder,
    archives: Vec<Needed>,
    concurrency: usize,
    mut on_read: impl FnMut(&Needed, Reading),
) -> Result<(), TargetError> {
    let reads = futures::stream::iter(archives).map(|needed| async move {
        let read = read_archive(folder, &needed.row, &mut tokio::io::sink()).await;
        (needed, read)
    });
    let mut reads = reads.buffer_unordered(concurrency.max(1));
    while let Some((needed, read)) = reads.next().await {
        let reading = match read {
            Ok(()) => Reading::Whole,
            Err(ReadArchiveError::Damaged(what)) => wrong(Problem::Damaged {
                needed: needed.clone(),
                what,
            }),
            Err(ReadArchiveError::Target(error)) => match error.kind {
                ErrorKind::Unavailable => return Err(error),
                ErrorKind::Frozen => Reading::Frozen,
                ErrorKind::NotFound => wrong(Problem::Missing(needed.clone())),
                _ => unread(&needed, &error),
            },
            Err(error) => unread(&needed, &error),
        };
        on_read(&needed, reading);
    }
    Ok(())
}

fn wrong(problem: Problem) -> Reading {
    Reading::Wrong(Box::new(problem))
}

fn unread(needed: &Needed, error: &(dyn std::error::Error + 'static)) -> Reading {
    wrong(Problem::Unread {
        key: needed.row.key(),
        why: with_causes(error),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::Stamps;
    use super::*;
    use crate::base::ids::{ArchiveId, Stamp, WriterId};
    use crate::format::manifest::{ArchiveKind, ArchiveRow};

    fn archives(count: u64) -> BTreeMap<Hash, Needed> {
        let one = |n: u64| {
            let blake3 = Hash::blake3(&n.to_le_bytes());
            let row = ArchiveRow {
                id: ArchiveId {
                    writer: WriterId([1; 8]),
                    counter: n + 1,
                },
                kind: ArchiveKind::Data,
                blake3,
                sha256: blake3,
                bytes: 1 + n * 7919 % 64,
                recipient_set: String::new(),
                head_sha256: blake3,
            };
            let snapshots = Stamps::one(Stamp::at(DateTime::UNIX_EPOCH).unwrap());
            (blake3, Needed { row, snapshots })
        };
        (0..count).map(one).collect()
    }

    fn day(n: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::Duration::days(20_000 + n)
    }

    /// However unevenly bytes lie on the circle.
    #[test]
    fn by_week_everything_has_its_turn() {
        for (count, percent) in [(50, 2.0), (200, 2.0), (20, 30.0), (7, 3.5), (3, 100.0)] {
            let (whole, share) = (archives(count), Share(percent / 100.0));
            let weeks = (100.0 / percent).ceil() as i64;
            for start in [0, 3, 1000] {
                let read: HashSet<Hash> = (0..weeks)
                    .flat_map(|week| choose_by_week(&whole, share, day(start + 7 * week)))
                    .map(|needed| needed.row.blake3)
                    .collect();
                assert_eq!(read.len(), whole.len(), "{count} archives, {percent} %");
            }
        }
    }

    #[test]
    fn with_a_memory_everything_has_its_turn_beside_what_is_damaged() {
        let (whole, share) = (archives(100), Share(0.05));
        let mut memory = HashMap::new();
        // More than a share of them is damaged, and nobody mends it.
        for hash in whole.keys().take(10) {
            let (at, whole) = (day(0), Some(false));
            memory.insert(*hash, ArchiveCheck { at, whole });
        }
        for week in 0..25 {
            let chosen = choose(&whole, share, &memory, None);
            assert!(chosen.len() < 30, "{}", chosen.len());
            for needed in chosen {
                let hash = needed.row.blake3;
                let bad = memory.get(&hash).is_some_and(|c| c.whole == Some(false));
                let (at, whole) = (day(7 * week), Some(!bad));
                memory.insert(hash, ArchiveCheck { at, whole });
            }
        }
        assert_eq!(memory.len(), whole.len());
    }

    #[test]
    fn a_reading_of_everything_goes_on_where_it_broke_off() {
        let whole = archives(10);
        let memory = whole.keys().enumerate().map(|(n, hash)| {
            let whole = Some(n != 4);
            (
                *hash,
                ArchiveCheck {
                    at: day(n as i64),
                    whole,
                },
            )
        });
        let memory: HashMap<Hash, ArchiveCheck> = memory.collect();
        let left = choose(&whole, Share::ALL, &memory, Some(day(3)));
        // Three from before it began, and the one that was damaged.
        assert_eq!(left.len(), 4);
        assert_eq!(choose(&whole, Share::ALL, &memory, None).len(), 10);
    }
}
