//! The lines of `status` about proofs: what was restored, and which keys are known to exist.

use super::failure::Failure;
use super::output;
use super::verdict;
use crate::jobs::status::proof::{ProofFacts, ProofReceipt, ProofResult};
use crate::keys::recipients::short;

/// Receipts that are named, of those that prove nothing.
const MOST_NAMED: usize = 5;

/// Prints what is known; nothing where no receipt was ever seen.
pub(super) fn print(facts: &ProofFacts) -> Result<(), Failure> {
    if facts.receipts.is_empty() && facts.keys.iter().all(|key| key.proven_at.is_none()) {
        return Ok(());
    }
    match &facts.newest {
        Some(proven) => output::print_line(format_args!(
            "restored for proof: {} (sequence {}) from {} by {} on {}, in {:.1} s",
            proven.stamp,
            proven.sequence,
            output::printable(proven.target.as_bytes()),
            output::printable(proven.by.as_bytes()),
            proven.proven_at.format("%Y-%m-%d"),
            proven.seconds,
        ))?,
        None => output::print_line("restored for proof: never")?,
    }
    if let Some(changed) = facts.schema_changed_at {
        output::print_line(format_args!(
            "  the tables of a database changed since, on {}",
            changed.format("%Y-%m-%d")
        ))?;
    }
    for receipt in worthless(facts).take(MOST_NAMED) {
        verdict::print_line(format_args!("{}", line(receipt)))?;
    }
    if let Some(more @ 1..) = worthless(facts).count().checked_sub(MOST_NAMED) {
        output::print_line(format_args!("  and {more} more"))?;
    }
    for key in &facts.keys {
        let recipient = short(&key.recipient);
        match (key.alive_after, key.proven_at, &key.by) {
            (Some(stamp), Some(at), Some(by)) => output::print_line(format_args!(
                "key {recipient} opened the snapshot of {} (receipt of {} by {})",
                stamp.format("%Y-%m-%d"),
                at.format("%Y-%m-%d"),
                output::printable(by.as_bytes()),
            ))?,
            _ => output::print_line(format_args!("key {recipient} was never proven to exist"))?,
        }
    }
    Ok(())
}

/// Returns the receipts that are no good proof. Of those of drills only the ones that are newer
/// than the newest good one matter.
fn worthless(facts: &ProofFacts) -> impl Iterator<Item = &ProofReceipt> {
    let newest = facts.newest.as_ref().map(|proven| proven.proven_at);
    facts.receipts.iter().filter(move |one| match one.result {
        ProofResult::Good => false,
        ProofResult::Foreign(_) => true,
        _ => newest.is_none_or(|newest| one.proven.proven_at > newest),
    })
}

fn line(receipt: &ProofReceipt) -> String {
    let proven = &receipt.proven;
    let by = output::printable(proven.by.as_bytes());
    let target = output::printable(proven.target.as_bytes());
    let drill = format!("drill of {} from {target} by {by}", proven.stamp);
    match &receipt.result {
        ProofResult::Good => drill,
        ProofResult::Incomplete(what) => format!("{drill}: {what}, so it is no proof"),
        ProofResult::Failed(codes) => {
            let codes = output::printable(codes.as_bytes());
            format!("{drill}: ATTENTION: failed: {codes}")
        }
        ProofResult::Aborted => format!("{drill}: ended early"),
        ProofResult::ByHost => format!("{drill}: by the host itself, so it is no proof"),
        ProofResult::Foreign(why) => {
            let why = output::printable(why.as_bytes());
            let seen_on = &receipt.seen_on;
            format!(
                "receipt {} on {seen_on}: ATTENTION: not believed: {why}",
                receipt.name
            )
        }
    }
}
