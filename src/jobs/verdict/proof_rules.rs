//! Findings about proof: whether snapshots were restored, and whether keys exist. Without `[proof]`
//! in the configuration there are none.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::observed::{
    Observed, ObservedKey, ObservedReceipt, ProofLimits, ProofScope, ReceiptResult,
};
use super::raised::Raised;
use super::words::{joined, span};
use super::{FindingCode, ProvenSnapshot, Severity};
use crate::keys::recipients::short;

/// For how long a new host may be without proof before that is red.
const FIRST_PROOF: TimeDelta = TimeDelta::days(30);

pub(super) fn all(observed: &Observed) -> Vec<Raised> {
    let Some(limits) = observed.proof.limits else {
        return Vec::new();
    };
    let mut raised: Vec<Raised> = match limits.scope {
        ProofScope::AnyTarget => overdue(observed, limits, None).into_iter().collect(),
        ProofScope::EachTarget => {
            let names = observed.targets.iter().map(|target| target.name.as_str());
            names
                .filter_map(|name| overdue(observed, limits, Some(name)))
                .collect()
        }
    };
    raised.extend(failed(observed));
    raised.extend(observed.proof.receipts.iter().filter_map(foreign));
    raised.extend(silent_keys(observed, limits));
    raised
}

/// Returns the newest snapshot that was proven.
pub(super) fn newest(observed: &Observed) -> Option<&ProvenSnapshot> {
    newest_from(observed, None)
}

/// Returns the good receipts, of `target` if that is given.
fn good_from<'a>(
    observed: &'a Observed,
    target: Option<&'a str>,
) -> impl Iterator<Item = &'a ObservedReceipt> {
    let receipts = observed.proof.receipts.iter();
    let good = receipts.filter(|receipt| receipt.result == ReceiptResult::Good);
    good.filter(move |receipt| target.is_none_or(|target| receipt.proven.target == target))
}

/// Returns the newest snapshot that was proven, on `target` if that is given.
fn newest_from<'a>(observed: &'a Observed, target: Option<&'a str>) -> Option<&'a ProvenSnapshot> {
    good_from(observed, target)
        .map(|receipt| &receipt.proven)
        .max_by_key(|proven| proven.proven_at)
}

/// Returns since when no proven snapshot has the tables of today, whenever it was proven. `None`:
/// one has them.
fn schema_changed_at(observed: &Observed, target: Option<&str>) -> Option<DateTime<Utc>> {
    let mut latest = None;
    for receipt in good_from(observed, target) {
        latest = latest.max(Some(receipt.schema_changed_at?));
    }
    latest
}

/// Returns the finding that a proof is overdue, one of `target` if that is given.
fn overdue(observed: &Observed, limits: ProofLimits, target: Option<&str>) -> Option<Raised> {
    let now = observed.now;
    let next = "on the key holder's machine: sealift drill";
    let raised = |severity, text: String| {
        let raised = Raised::new(FindingCode::ProofOverdue, severity, text).next(next);
        match target {
            Some(target) => raised.about_target(target),
            None => raised,
        }
    };
    let of_target = target.map_or_else(String::new, |target| format!(" from {target}"));
    let Some(proven) = newest_from(observed, target) else {
        let first = observed.proof.first_snapshot?;
        let red = first + FIRST_PROOF;
        let severity = if now > red {
            Severity::Red
        } else {
            Severity::Amber
        };
        let text = format!("no backup of this host was ever restored for proof{of_target}");
        let is_red = severity == Severity::Red;
        return Some(
            raised(severity, text)
                .since(Some(first))
                .became_red(is_red.then_some(red)),
        );
    };
    let at = proven.proven_at;
    let red = at + limits.max_age * 2;
    let incident = observed.incident.as_ref().map(|mark| mark.made_at);
    let (since, why) = overdue_since(
        at,
        limits.max_age,
        now,
        incident,
        schema_changed_at(observed, target),
    )?;
    let is_red = now > red;
    let severity = if is_red {
        Severity::Red
    } else {
        Severity::Amber
    };
    let text = format!("the newest proof{of_target} is {} old{why}", span(now - at));
    Some(
        raised(severity, text)
            .since(Some(since))
            .became_red(is_red.then_some(red))
            .brief("a restore for proof is overdue"),
    )
}

/// Returns since when a proof of `at` is not enough, and why. `None`: it is.
fn overdue_since(
    at: DateTime<Utc>,
    max_age: TimeDelta,
    now: DateTime<Utc>,
    incident: Option<DateTime<Utc>>,
    schema_changed_at: Option<DateTime<Utc>>,
) -> Option<(DateTime<Utc>, &'static str)> {
    let reasons = [
        (Some(at + max_age).filter(|due| *due < now), ""),
        (
            incident.filter(|made| *made > at),
            ", from before the incident",
        ),
        // Not by time: an old snapshot may be proven after it.
        (
            schema_changed_at,
            ", or of a snapshot from before the tables of a database changed",
        ),
    ];
    let reasons = reasons.into_iter();
    // The latest: each incident asks for another proof.
    reasons
        .filter_map(|(since, why)| Some((since?, why)))
        .max_by_key(|(since, _)| *since)
}

/// Returns a finding for each target whose newest receipt says that the restore failed.
fn failed(observed: &Observed) -> Vec<Raised> {
    let mut newest: BTreeMap<&str, &ObservedReceipt> = BTreeMap::new();
    for receipt in &observed.proof.receipts {
        if matches!(receipt.result, ReceiptResult::Foreign(_)) {
            continue;
        }
        let one = newest.entry(&receipt.proven.target).or_insert(receipt);
        if one.proven.proven_at < receipt.proven.proven_at {
            *one = receipt;
        }
    }
    let failed = newest.into_iter().filter_map(|(target, receipt)| {
        let ReceiptResult::Failed(why) = &receipt.result else {
            return None;
        };
        let sequence = receipt.proven.sequence;
        let text = format!("snapshot {sequence} could not be restored from {target}: {why}");
        let raised = Raised::new(FindingCode::ProofFailed, Severity::Red, text)
            .about_target(target)
            .since(Some(receipt.proven.proven_at))
            .brief(format!("the last restore for proof from {target} failed"))
            .next("mend the cause, then sealift drill on the key holder's machine");
        Some(raised)
    });
    failed.collect()
}

fn foreign(receipt: &ObservedReceipt) -> Option<Raised> {
    let ReceiptResult::Foreign(why) = &receipt.result else {
        return None;
    };
    let target = &receipt.proven.target;
    let text = format!("a receipt on {target} is not believed: {why}");
    let raised = Raised::new(FindingCode::ForeignReceipt, Severity::Amber, text)
        .about_target(target)
        .since(Some(receipt.proven.proven_at))
        .identity(why.clone())
        .brief(format!("a receipt on {target} is not believed"))
        .next("see who can write there");
    Some(raised)
}

fn silent_keys(observed: &Observed, limits: ProofLimits) -> Option<Raised> {
    let silent_for = |key: &ObservedKey| {
        let last = key.alive_after.max(key.added_at);
        last.map(|last| observed.now - last)
    };
    let is_silent =
        |key: &&ObservedKey, most: TimeDelta| silent_for(key).is_none_or(|silent| silent > most);
    let keys = &observed.proof.keys;
    let silent = keys
        .iter()
        .filter(|key| is_silent(key, limits.keys_max_age));
    let silent: Vec<&ObservedKey> = silent.collect();
    if silent.is_empty() {
        return None;
    }
    let most = limits.keys_max_age * 2;
    let severity = match keys.iter().all(|key| is_silent(&key, most)) {
        true => Severity::Red,
        false => Severity::Amber,
    };
    let names: Vec<String> = silent.iter().map(|key| short(&key.recipient)).collect();
    let names = joined(names.iter().map(String::as_str));
    let (was, its) = match silent.len() {
        1 => ("was", "its holder runs"),
        _ => ("were", "their holders run"),
    };
    let within = span(limits.keys_max_age);
    let text = format!("{names} {was} not proven to exist within {within}");
    let identity = silent.iter().map(|key| key.recipient.as_str());
    let raised = Raised::new(FindingCode::KeySilent, severity, text)
        .identity(identity.collect::<Vec<_>>().join("\n"))
        .brief("a key was not proven to exist for too long")
        .next(format!("{its}: sealift key prove"));
    Some(raised)
}
