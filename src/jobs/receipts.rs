//! The receipts of drills and keys on one target, judged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::context::{FrontEnd, open_catalog};
use super::error::JobError;
use super::targets::own_trust;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::{Hash, Stamp};
use crate::config::Config;
use crate::format::chain::Chain;
use crate::format::manifest::ManifestName;
use crate::format::receipt::{
    JudgedReceipt, MAX_RECEIPTS, ReceiptContext, ReceiptFile, ReceiptKey, ReceiptRefusal, judge,
};
use crate::format::signature::{Signer, Trust};
use crate::repository::{HostFolder, RepositoryError};
use crate::state::history::{History, HistoryError};

/// Refused receipts that are named; of the others only their number is kept.
const MOST_REFUSED: usize = 20;

/// What the judge of receipts knows in addition to the chain.
pub(crate) struct ReceiptKnowledge<'a> {
    /// Who may sign receipts, and manifests.
    pub(crate) trust: &'a Trust,
    /// Fingerprints of keys that sign the host's manifests; those of the chain are known.
    pub(crate) host_signers: &'a [String],
    /// The salt and the schemas of the snapshots that this host made, by core.
    pub(crate) keys: &'a HashMap<Hash, ReceiptKey>,
    pub(crate) now: DateTime<Utc>,
}

/// A receipt that is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedReceipt {
    /// The name of its object.
    pub(crate) name: String,
    /// The reason, a sentence without its final period.
    pub(crate) reason: String,
}

/// A receipt that is believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BelievedReceipt {
    /// The name of its object.
    pub(crate) name: String,
    /// The receipt.
    pub(crate) judged: JudgedReceipt,
}

/// The receipts of a target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TargetReceipts {
    /// Those that are believed; of duplicates the newest.
    pub(crate) believed: Vec<BelievedReceipt>,
    /// Those that are not, the first ones.
    pub(crate) refused: Vec<RefusedReceipt>,
    /// Number of all that are not believed.
    pub(crate) refused_count: usize,
    /// Number of receipts that were not read because there are too many.
    pub(crate) unread: usize,
}

impl TargetReceipts {
    /// Returns the stamps of the snapshots that were restored.
    pub(crate) fn proven(&self) -> impl Iterator<Item = Stamp> {
        let proving = self.believed.iter();
        let proving = proving.filter(|one| one.judged.proves_restore());
        proving.map(|one| one.judged.receipt.stamp)
    }

    fn refuse(&mut self, name: &ManifestName, reason: &ReceiptRefusal) {
        self.refused_count += 1;
        if self.refused.len() < MOST_REFUSED {
            self.refused.push(RefusedReceipt {
                name: name.to_string(),
                reason: reason.to_string(),
            });
        }
    }

    /// Keeps of those about one snapshot and the same keys, by one principal from one target, the
    /// newest.
    fn drop_duplicates(&mut self) {
        self.believed
            .sort_by_key(|one| std::cmp::Reverse(one.judged.receipt.finished_at));
        let mut seen = HashSet::new();
        self.believed.retain(|one| {
            let receipt = &one.judged.receipt;
            let (target, by) = (receipt.target.id.clone(), receipt.by.clone());
            // One signer may prove several keys with one snapshot.
            let keys = receipt.recipients.clone();
            seen.insert((receipt.kind, receipt.core, target, by, keys))
        });
    }
}

/// Reads and judges the receipts in `folder`, whose verified chain is `chain`.
pub(crate) async fn read_receipts(
    folder: &HostFolder,
    chain: &Chain,
    knowledge: &ReceiptKnowledge<'_>,
) -> Result<TargetReceipts, RepositoryError> {
    let mut snapshots: HashSet<(Hash, u64, Stamp)> = chain
        .snapshots
        .iter()
        .map(|one| (one.manifest.core_hash, one.sequence(), one.stamp()))
        .collect();
    let known = chain.known.iter();
    snapshots.extend(known.map(|known| (known.core, known.sequence, known.stamp)));
    let mut places: HashSet<(u64, Stamp)> = snapshots
        .iter()
        .map(|(_, sequence, stamp)| (*sequence, *stamp))
        .collect();
    let mut signers = chain.signers();
    let listing = folder.receipt_listing().await?;
    // Later manifests do not name a snapshot that was deleted; its tombstone does.
    let unknown = listing.snapshots().filter(|one| !places.contains(one));
    let unknown: HashSet<(u64, Stamp)> = unknown.take(MAX_RECEIPTS).collect();
    let deleted = match unknown.is_empty() {
        true => Vec::new(),
        false => {
            let is_wanted = |name: &ManifestName| unknown.contains(&(name.sequence, name.stamp));
            let trust = knowledge.trust;
            folder.tombstones(trust, &signers, is_wanted).await?
        }
    };
    for tombstone in deleted {
        places.insert((tombstone.sequence, tombstone.stamp));
        snapshots.insert((tombstone.core, tombstone.sequence, tombstone.stamp));
    }
    let stored = folder
        .receipts(listing, |sequence, stamp| {
            places.contains(&(sequence, stamp))
        })
        .await?;
    signers.extend_from_slice(knowledge.host_signers);
    let context = ReceiptContext {
        host: &folder.host,
        trust: knowledge.trust,
        host_signers: &signers,
        is_snapshot: &|core, sequence, stamp| snapshots.contains(&(*core, sequence, stamp)),
        salt: &|core| knowledge.keys.get(core).map(|key| key.salt),
        now: knowledge.now,
    };
    let mut found = TargetReceipts {
        unread: stored.unread,
        ..TargetReceipts::default()
    };
    for one in &stored.read {
        let Some(bytes) = &one.bytes else {
            found.refuse(&one.name, &ReceiptRefusal::TooLarge);
            continue;
        };
        let file = ReceiptFile {
            name: one.name.clone(),
            bytes,
            signature: one.signature.as_deref(),
        };
        match judge(&file, &context) {
            Ok(judged) => found.believed.push(BelievedReceipt {
                name: one.name.to_string(),
                judged,
            }),
            Err(reason) => found.refuse(&one.name, &reason),
        }
    }
    for name in &stored.of_unknown {
        found.refuse(name, &ReceiptRefusal::UnknownSnapshot);
    }
    found.drop_duplicates();
    Ok(found)
}

/// Looks at the receipts of this host on the target `name`, and remembers them in the history. If
/// the history cannot be written, that is a warning.
pub(crate) async fn look_at_receipts(
    config: &Config,
    (name, folder): (&str, &HostFolder),
    chain: &Chain,
    front: &dyn FrontEnd,
) -> Result<TargetReceipts, JobError> {
    let keys = match open_catalog(config)? {
        Some(catalog) => catalog.receipt_keys()?,
        None => HashMap::new(),
    };
    let own = Signer::load(&config.signer)?.fingerprint();
    let trust = own_trust(config, front)?;
    let knowledge = ReceiptKnowledge {
        trust: &trust,
        host_signers: &[own],
        keys: &keys,
        now: clock::now(),
    };
    let found = read_receipts(folder, chain, &knowledge).await?;
    if let Err(error) = remember(config, name, &found, knowledge.now) {
        let text = format!("the receipts on {name} cannot be remembered");
        front.warn(&format!("{text}: {}", with_causes(&error)));
    }
    Ok(found)
}

fn remember(
    config: &Config,
    target: &str,
    found: &TargetReceipts,
    now: DateTime<Utc>,
) -> Result<(), HistoryError> {
    let history = History::open(&config.state)?;
    // Such values always have a JSON form.
    let text = |judged: &JudgedReceipt| serde_json::to_string(judged).unwrap_or_default();
    let believed = found.believed.iter();
    let believed = believed.map(|one| (one.name.clone(), text(&one.judged)));
    let believed: Vec<(String, String)> = believed.collect();
    let disbelieved: Vec<String> = found.refused.iter().map(|one| one.name.clone()).collect();
    let rest = TargetReceipts {
        believed: Vec::new(),
        ..found.clone()
    };
    let refused = serde_json::to_string(&rest).unwrap_or_default();
    history.record_receipts(target, now, &believed, &disbelieved, &refused)
}

/// Returns the receipts that the looks at the targets of `config` showed, by the target's name.
pub(crate) fn remembered_receipts(
    config: &Config,
    history: &History,
) -> Result<BTreeMap<String, TargetReceipts>, HistoryError> {
    let mut all: BTreeMap<String, TargetReceipts> = BTreeMap::new();
    for look in history.receipt_looks()? {
        let found = serde_json::from_str(&look.refused).unwrap_or_default();
        all.insert(look.target, found);
    }
    for one in history.receipts()? {
        // One of another version is read again at the next look.
        if let Ok(judged) = serde_json::from_str(&one.judged) {
            let target = all.entry(one.target).or_default();
            target.believed.push(BelievedReceipt {
                name: one.name,
                judged,
            });
        }
    }
    all.retain(|name, _| config.target(name).is_some());
    Ok(all)
}

/// Returns the stamps of the snapshots that drills restored, as the history knows them. None if it
/// cannot be read: a prune that looks at a target learns them there.
pub(crate) fn stored_proofs(config: &Config) -> BTreeSet<Stamp> {
    let read = || {
        let history = History::open_existing(&config.state).ok()??;
        remembered_receipts(config, &history).ok()
    };
    let all = read().unwrap_or_default();
    all.values().flat_map(TargetReceipts::proven).collect()
}
