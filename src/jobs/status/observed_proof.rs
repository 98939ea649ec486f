//! What is known of proofs, as facts of the verdict.

use chrono::TimeDelta;

use super::proof::{KeyProof, ProofFacts, ProofReceipt, ProofResult, proof_facts};
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::verdict::observed::{
    ObservedKey, ObservedProof, ObservedReceipt, ProofLimits, ProofScope, ReceiptResult,
};
use crate::state::catalog::Catalog;
use crate::state::history::History;

/// Gathers the facts.
pub(super) fn observed_proof(
    config: &Config,
    history: Option<&History>,
    catalog: Option<&Catalog>,
) -> Result<ObservedProof, JobError> {
    let facts = match history {
        Some(history) => proof_facts(config, history, catalog)?,
        None => ProofFacts::default(),
    };
    let first_snapshot = facts.first_snapshot;
    let key = |key: KeyProof| ObservedKey {
        recipient: key.recipient,
        alive_after: key.alive_after,
        added_at: first_snapshot,
    };
    Ok(ObservedProof {
        limits: limits(config),
        first_snapshot,
        receipts: facts.receipts.into_iter().filter_map(receipt).collect(),
        keys: facts.keys.into_iter().map(key).collect(),
    })
}

fn limits(config: &Config) -> Option<ProofLimits> {
    let settings = config.proof.as_ref()?;
    Some(ProofLimits {
        max_age: TimeDelta::from_std(settings.max_age).ok()?,
        keys_max_age: TimeDelta::from_std(settings.keys_max_age).ok()?,
        scope: match settings.per_target {
            true => ProofScope::EachTarget,
            false => ProofScope::AnyTarget,
        },
    })
}

/// Returns the receipt, if it says anything for or against a proof.
fn receipt(receipt: ProofReceipt) -> Option<ObservedReceipt> {
    let result = match receipt.result {
        ProofResult::Good => ReceiptResult::Good,
        ProofResult::Failed(codes) => ReceiptResult::Failed(codes),
        ProofResult::Foreign(why) => ReceiptResult::Foreign(why),
        ProofResult::Incomplete(_) | ProofResult::Aborted | ProofResult::ByHost => return None,
    };
    Some(ObservedReceipt {
        proven: receipt.proven,
        schema_changed_at: receipt.schema_changed_at,
        result,
    })
}
