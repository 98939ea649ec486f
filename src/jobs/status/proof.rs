//! What is known of proofs: which snapshots drills restored, and which keys are known to exist.
//!
//! Facts only, from the receipts that looks at the targets showed; the verdict judges their age.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::base::ids::{Hash, Stamp};
use crate::config::{Config, ProofPart, ProofSettings};
use crate::format::manifest::ManifestName;
use crate::format::receipt::{
    JudgedReceipt, Receipt, ReceiptKey, ReceiptKind, ReceiptOutcome, WitnessState, target_id,
};
use crate::jobs::error::JobError;
use crate::jobs::receipts::{TargetReceipts, remembered_receipts};
use crate::jobs::targets::spec;
use crate::jobs::verdict::ProvenSnapshot;
use crate::keys::recipients::Recipients;
use crate::state::catalog::Catalog;
use crate::state::history::History;
use crate::storage;

/// What a receipt of a drill is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "why")]
pub(crate) enum ProofResult {
    /// The snapshot was restored and passed, with all parts that `[proof]` requires.
    Good,
    /// It passed, without a part that is required.
    Incomplete(String),
    /// It did not pass: the codes.
    Failed(String),
    /// The drill ended early.
    Aborted,
    /// The host's own key signed it: it proves nothing about another machine.
    ByHost,
    /// It is not believed.
    Foreign(String),
}

impl ProofResult {
    /// Returns the result in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Good => "passed".to_owned(),
            Self::Incomplete(lacks) => format!("passed, {lacks}: it does not count"),
            Self::Failed(codes) => format!("failed: {codes}"),
            Self::Aborted => "ended early".to_owned(),
            Self::ByHost => "signed by the host's own key: it does not count".to_owned(),
            Self::Foreign(why) => format!("not believed: {why}"),
        }
    }
}

/// A receipt of a drill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ProofReceipt {
    /// The name of its object.
    pub(crate) name: String,
    /// The target on which it was seen.
    pub(crate) seen_on: String,
    /// The snapshot. Of one that is not believed it is what its name says.
    pub(crate) proven: ProvenSnapshot,
    /// When the first later snapshot was made whose databases have other tables or columns. `None`:
    /// none has, or it is not known.
    #[serde(skip)]
    pub(crate) schema_changed_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    pub(crate) result: ProofResult,
    /// Whether the witness shows that the signer opened the snapshot. `None`: it is not believed.
    pub(crate) witness: Option<WitnessState>,
}

/// A recipient of this host, and when its identity was last known to exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct KeyProof {
    pub(crate) recipient: String,
    /// The stamp of the newest snapshot that it opened. `None`: never proven.
    pub(crate) alive_after: Option<DateTime<Utc>>,
    /// When that was. `None` as above.
    pub(crate) proven_at: Option<DateTime<Utc>>,
    /// The principal that signed that. `None` as above.
    pub(crate) by: Option<String>,
}

/// What is known of proofs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct ProofFacts {
    /// Receipts of drills, the newest first.
    pub(crate) receipts: Vec<ProofReceipt>,
    /// The newest good proof.
    pub(crate) newest: Option<ProvenSnapshot>,
    /// The newest good proof of each target of the configuration.
    pub(crate) targets: BTreeMap<String, Option<ProvenSnapshot>>,
    /// When the first snapshot was made after the newest proven one whose databases have other
    /// tables or columns. `None`: none has, or it is not known.
    pub(crate) schema_changed_at: Option<DateTime<Utc>>,
    /// When the oldest snapshot was made that this host knows.
    pub(crate) first_snapshot: Option<DateTime<Utc>>,
    /// One for each recipient.
    pub(crate) keys: Vec<KeyProof>,
    /// Number of receipts that are not believed.
    pub(crate) refused: usize,
    /// Number of receipts that were not read because there are too many.
    pub(crate) unread: usize,
}

/// Returns what is known, without a look at any target. `catalog` is `None` before the first
/// backup.
pub(crate) fn proof_facts(
    config: &Config,
    history: &History,
    catalog: Option<&Catalog>,
) -> Result<ProofFacts, JobError> {
    let seen = remembered_receipts(config, history)?;
    let keys = match catalog {
        Some(catalog) => catalog.receipt_keys()?,
        None => HashMap::new(),
    };
    let settings = config.proof.clone().unwrap_or_default();
    let reader = FactReader {
        settings: &settings,
        keys: &keys,
        targets: target_ids(config),
    };
    let mut facts = ProofFacts {
        receipts: reader.receipts(&seen),
        keys: key_proofs(config, &seen),
        refused: seen.values().map(|one| one.refused_count).sum(),
        unread: seen.values().map(|one| one.unread).sum(),
        ..ProofFacts::default()
    };
    facts.newest = newest_of(facts.receipts.iter());
    for target in &config.targets {
        let of_target = facts.receipts.iter();
        let of_target = of_target.filter(|one| one.proven.target == target.name);
        let newest = newest_of(of_target);
        facts.targets.insert(target.name.clone(), newest);
    }
    if let Some(catalog) = catalog {
        let rows = catalog.snapshots()?;
        let made: Vec<(u64, Stamp, Hash)> = rows
            .iter()
            .map(|row| (row.known.sequence, row.known.stamp, row.known.core))
            .collect();
        facts.first_snapshot = made.first().map(|(_, stamp, _)| stamp.time());
        let change =
            |proven: &ProvenSnapshot| schema_change(&made, &keys, proven.sequence, proven.stamp);
        facts.schema_changed_at = facts.newest.as_ref().and_then(change);
        let mut known = HashMap::new();
        for receipt in &mut facts.receipts {
            if receipt.result == ProofResult::Good {
                let proven = &receipt.proven;
                let changed = known.entry((proven.sequence, proven.stamp));
                receipt.schema_changed_at = *changed.or_insert_with(|| change(proven));
            }
        }
    }
    Ok(facts)
}

/// Returns the good proof of the newest snapshot; of several the one that was made last.
fn newest_of<'a>(receipts: impl Iterator<Item = &'a ProofReceipt>) -> Option<ProvenSnapshot> {
    let good = receipts.filter(|one| one.result == ProofResult::Good);
    let newest = good.max_by_key(|one| (one.proven.stamp, one.proven.proven_at));
    newest.map(|one| one.proven.clone())
}

/// Returns the configured targets by the ids that receipts have for them.
fn target_ids(config: &Config) -> HashMap<String, String> {
    let named = config.targets.iter().filter_map(|target| {
        let place = storage::place_without_user(&spec(target)).ok()?;
        Some((target_id(&place), target.name.clone()))
    });
    named.collect()
}

impl ProvenSnapshot {
    /// Returns what the receipt of a drill says, whose target is named `target` here.
    pub(super) fn of(receipt: &Receipt, target: &str) -> Self {
        let times = receipt.milliseconds;
        Self {
            stamp: receipt.stamp,
            sequence: receipt.sequence,
            proven_at: receipt.finished_at,
            by: receipt.by.clone(),
            target: target.to_owned(),
            seconds: (times.fetch + times.restore + times.checks) as f64 / 1000.0,
            bytes: receipt.restored.map_or(0, |restored| restored.bytes),
        }
    }
}

struct FactReader<'a> {
    settings: &'a ProofSettings,
    /// What this host remembers of its snapshots.
    keys: &'a HashMap<Hash, ReceiptKey>,
    /// Names of targets by their ids.
    targets: HashMap<String, String>,
}

impl FactReader<'_> {
    /// Returns the receipts, the newest first. One that `sync` copied is there once.
    fn receipts(&self, seen: &BTreeMap<String, TargetReceipts>) -> Vec<ProofReceipt> {
        let mut found: Vec<ProofReceipt> = Vec::new();
        let mut named = HashSet::new();
        for (target, receipts) in seen {
            for one in &receipts.believed {
                let is_drill = one.judged.receipt.kind == ReceiptKind::Drill;
                if is_drill && named.insert(one.name.clone()) {
                    found.push(self.believed(&one.name, target, &one.judged));
                }
            }
            for one in &receipts.refused {
                if let Ok(name) = one.name.parse::<ManifestName>() {
                    found.push(refused(&name, target, &one.reason));
                }
            }
        }
        found.sort_by_key(|one| std::cmp::Reverse(one.proven.proven_at));
        found
    }

    fn believed(&self, name: &str, seen_on: &str, judged: &JudgedReceipt) -> ProofReceipt {
        let receipt = &judged.receipt;
        let named = self.targets.get(&receipt.target.id);
        let target = named.unwrap_or(&receipt.target.name);
        ProofReceipt {
            name: name.to_owned(),
            seen_on: seen_on.to_owned(),
            proven: ProvenSnapshot::of(receipt, target),
            schema_changed_at: None,
            result: self.result(judged),
            witness: Some(judged.witness),
        }
    }

    fn result(&self, judged: &JudgedReceipt) -> ProofResult {
        let receipt = &judged.receipt;
        if judged.is_by_host {
            return ProofResult::ByHost;
        }
        match receipt.outcome {
            ReceiptOutcome::Failed => ProofResult::Failed(receipt.errors.join(", ")),
            ReceiptOutcome::Aborted => ProofResult::Aborted,
            ReceiptOutcome::Passed => {
                let lacks = self.settings.require.iter();
                let lacks = lacks.filter(|part| !self.has(receipt, **part));
                let lacks: Vec<&str> = lacks.map(|part| part.name()).collect();
                match lacks.is_empty() {
                    true => ProofResult::Good,
                    false => ProofResult::Incomplete(format!("without {}", lacks.join(", "))),
                }
            }
        }
    }

    /// Whether the drill did this part.
    fn has(&self, receipt: &Receipt, part: ProofPart) -> bool {
        let restored = receipt.restored.unwrap_or_default();
        match part {
            ProofPart::Restore => receipt.restored.is_some(),
            ProofPart::Databases => match self.keys.get(&receipt.core) {
                Some(key) => restored.databases >= key.databases.len() as u64,
                // A drill fails if one of the databases does.
                None => receipt.restored.is_some(),
            },
            ProofPart::Checks => {
                let mut checks = receipt.checks.iter();
                !receipt.checks.is_empty()
                    && checks.all(|check| check.outcome == ReceiptOutcome::Passed)
            }
        }
    }
}

fn refused(name: &ManifestName, seen_on: &str, reason: &str) -> ProofReceipt {
    ProofReceipt {
        name: name.to_string(),
        seen_on: seen_on.to_owned(),
        proven: ProvenSnapshot {
            stamp: name.stamp,
            sequence: name.sequence,
            proven_at: name.stamp.time(),
            by: String::new(),
            target: seen_on.to_owned(),
            seconds: 0.0,
            bytes: 0,
        },
        schema_changed_at: None,
        result: ProofResult::Foreign(reason.to_owned()),
        witness: None,
    }
}

/// Returns when the first snapshot after the proven one was made whose databases have other tables
/// or columns.
fn schema_change(
    made: &[(u64, Stamp, Hash)],
    keys: &HashMap<Hash, ReceiptKey>,
    sequence: u64,
    stamp: Stamp,
) -> Option<DateTime<Utc>> {
    let is_proven = |one: &&(u64, Stamp, Hash)| (one.0, one.1) == (sequence, stamp);
    let proven = made.iter().find(is_proven)?;
    let proven = &keys.get(&proven.2)?.databases;
    let later = made.iter().filter(|(later, ..)| *later > sequence);
    let mut changed = later.filter(|(_, _, core)| {
        let now = keys.get(core).map(|key| &key.databases);
        now.is_some_and(|now| {
            let has_other = proven.iter().any(|(path, schema)| match now.get(path) {
                Some(now) => now.is_some() && schema.is_some() && now != schema,
                None => true,
            });
            has_other || now.keys().any(|path| !proven.contains_key(path))
        })
    });
    changed.next().map(|(_, stamp, _)| stamp.time())
}

/// Returns for each recipient of this host when its identity last opened a snapshot.
fn key_proofs(config: &Config, seen: &BTreeMap<String, TargetReceipts>) -> Vec<KeyProof> {
    let base = config.file.parent().unwrap_or(Path::new("."));
    let lines = config.read_recipients().ok();
    let recipients = lines.and_then(|lines| Recipients::load(&lines, base).ok());
    let Some(recipients) = recipients else {
        return Vec::new();
    };
    let of_recipient = |recipient: &String| {
        let all = seen.values().flat_map(|one| &one.believed);
        let proving = all.filter(|one| {
            one.judged.proves_keys() && one.judged.receipt.recipients.contains(recipient)
        });
        let newest = proving
            .map(|one| &one.judged.receipt)
            .max_by_key(|receipt| (receipt.stamp, receipt.finished_at));
        KeyProof {
            recipient: recipient.clone(),
            alive_after: newest.map(|receipt| receipt.stamp.time()),
            proven_at: newest.map(|receipt| receipt.finished_at),
            by: newest.map(|receipt| receipt.by.clone()),
        }
    };
    recipients.texts().iter().map(of_recipient).collect()
}
