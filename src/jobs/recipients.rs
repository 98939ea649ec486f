//! Who opens which snapshots on a target, as the archive tables there say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::error::JobError;
use crate::base::ids::{Hash, HostName, Stamp};
use crate::format::archive_table::TablePage;
use crate::format::chain::{Chain, VerifiedSnapshot};
use crate::format::signature::Trust;
use crate::repository::{HostFolder, RepositoryError};

/// Pages that are fetched at a time.
const CONCURRENT_GETS: usize = 16;

/// The recipients of one host's snapshots on one target.
#[derive(Debug, Serialize)]
pub(crate) struct RecipientsReport {
    /// The target's label.
    pub(crate) target: String,
    pub(crate) host: HostName,
    /// Number of snapshots that were looked at.
    pub(crate) snapshots: u64,
    /// Those of the newest snapshot first.
    pub(crate) recipients: Vec<RecipientReach>,
}

/// How much of a snapshot a recipient opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Opens {
    /// All of it.
    Full,
    /// Some archives of it.
    Part,
    /// None of it.
    Nothing,
}

/// What one recipient opens.
#[derive(Debug, Serialize)]
pub(crate) struct RecipientReach {
    pub(crate) recipient: String,
    /// Whether the newest snapshot was made for it.
    pub(crate) is_current: bool,
    /// How much of the newest snapshot it opens.
    pub(crate) latest: Opens,
    /// The oldest snapshot that it opens in full. `None`: it opens none.
    pub(crate) oldest: Option<SnapshotId>,
    /// Number of snapshots that it opens in full.
    pub(crate) full_snapshots: u64,
    /// Number of snapshots of which it opens some archives only.
    pub(crate) part_snapshots: u64,
    /// Bytes of the archives that no other recipient opens.
    pub(crate) only_bytes: u64,
}

/// A snapshot's stamp and sequence.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct SnapshotId {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
}

/// Looks at every snapshot of `chain`, which is that of `folder`.
pub(crate) async fn survey(
    folder: &HostFolder,
    chain: &Chain,
) -> Result<RecipientsReport, JobError> {
    let pages = read_pages(folder, chain).await?;
    let mut recipients: BTreeMap<String, RecipientReach> = BTreeMap::new();
    let mut only: BTreeMap<Hash, (String, u64)> = BTreeMap::new();
    for (at, snapshot) in chain.snapshots.iter().enumerate() {
        let is_latest = at + 1 == chain.snapshots.len();
        let (mut all, mut some) = (None::<BTreeSet<&String>>, BTreeSet::new());
        for (hash, bytes, members) in rows(snapshot, &pages) {
            let members: BTreeSet<&String> = members.iter().collect();
            if let [single] = members.iter().copied().collect::<Vec<_>>()[..] {
                only.insert(hash, (single.clone(), bytes));
            }
            some.extend(members.iter().copied());
            all = Some(match all {
                Some(all) => all.intersection(&members).copied().collect(),
                None => members,
            });
        }
        let all = all.unwrap_or_default();
        let core = &snapshot.manifest.core;
        let id = SnapshotId {
            stamp: core.stamp,
            sequence: core.sequence,
        };
        for recipient in some.into_iter().chain(&core.recipients) {
            let reach = recipients.entry(recipient.clone());
            let reach = reach.or_insert_with(|| RecipientReach::new(recipient));
            let opens = match (
                all.contains(recipient),
                opens_any(recipient, snapshot, &pages),
            ) {
                (true, _) => Opens::Full,
                (false, true) => Opens::Part,
                (false, false) => Opens::Nothing,
            };
            reach.note(id, opens, is_latest);
            if is_latest {
                reach.is_current = core.recipients.contains(recipient);
            }
        }
    }
    for (recipient, bytes) in only.into_values() {
        if let Some(reach) = recipients.get_mut(&recipient) {
            reach.only_bytes += bytes;
        }
    }
    let mut recipients: Vec<RecipientReach> = recipients.into_values().collect();
    recipients.sort_by_key(|reach| !reach.is_current);
    Ok(RecipientsReport {
        target: folder.target.label().to_owned(),
        host: folder.host.clone(),
        snapshots: chain.snapshots.len() as u64,
        recipients,
    })
}

/// The snapshots on a target that a recipient opens.
pub(crate) struct SealedTo {
    /// The last 16 digits of their manifests' names.
    pub(crate) names: Vec<String>,
    /// Everybody to whom any archive there is sealed.
    pub(crate) known: BTreeSet<String>,
}

/// Finds the snapshots that `recipient` opens, in full or in part.
pub(crate) async fn sealed_to(
    folder: &HostFolder,
    trust: &Trust,
    recipient: &str,
) -> Result<SealedTo, JobError> {
    let chain = folder.chain(trust).await?;
    let pages = read_pages(folder, &chain).await?;
    let sets = pages.values().flat_map(|page| page.sets.values());
    let opened = chain
        .snapshots
        .iter()
        .filter(|snapshot| opens_any(recipient, snapshot, &pages));
    Ok(SealedTo {
        names: opened
            .map(|snapshot| snapshot.manifest.name().hash16)
            .collect(),
        known: sets.flatten().cloned().collect(),
    })
}

impl RecipientReach {
    fn new(recipient: &str) -> Self {
        Self {
            recipient: recipient.to_owned(),
            is_current: false,
            latest: Opens::Nothing,
            oldest: None,
            full_snapshots: 0,
            part_snapshots: 0,
            only_bytes: 0,
        }
    }

    fn note(&mut self, snapshot: SnapshotId, opens: Opens, is_latest: bool) {
        match opens {
            Opens::Full => {
                self.full_snapshots += 1;
                self.oldest = self.oldest.or(Some(snapshot));
            }
            Opens::Part => self.part_snapshots += 1,
            Opens::Nothing => {}
        }
        if is_latest {
            self.latest = opens;
        }
    }
}

/// Reads each page of the archive tables that a manifest of `chain` names, once.
async fn read_pages(
    folder: &HostFolder,
    chain: &Chain,
) -> Result<HashMap<Hash, TablePage>, RepositoryError> {
    let named = chain.snapshots.iter();
    let named: BTreeSet<Hash> = named
        .flat_map(|snapshot| snapshot.manifest.pages.iter().copied())
        .collect();
    futures::stream::iter(named)
        .map(async |page| Ok((page, folder.page(&page).await?)))
        .buffer_unordered(CONCURRENT_GETS)
        .try_collect()
        .await
}

/// Returns the archives of `snapshot`: hash, bytes and recipients of each.
fn rows<'a>(
    snapshot: &'a VerifiedSnapshot,
    pages: &'a HashMap<Hash, TablePage>,
) -> impl Iterator<Item = (Hash, u64, &'a [String])> {
    let named = snapshot.manifest.pages.iter();
    named.filter_map(|page| pages.get(page)).flat_map(|page| {
        page.rows.iter().map(|row| {
            let members = page.sets.get(&row.recipient_set);
            let members = members.map_or(&[][..], Vec::as_slice);
            (row.blake3, row.bytes, members)
        })
    })
}

fn opens_any(
    recipient: &str,
    snapshot: &VerifiedSnapshot,
    pages: &HashMap<Hash, TablePage>,
) -> bool {
    rows(snapshot, pages).any(|(_, _, members)| members.iter().any(|one| one == recipient))
}
