//! The report of a drill.

use serde::Serialize;

use super::DrillPlace;
use super::failure::DrillProblem;
use super::work::Rehearsal;
use crate::base::ids::{HostName, Stamp};
use crate::checks::CheckResult;
use crate::format::receipt::{
    Receipt, ReceiptOutcome, ReceiptTarget, ReceiptTimes, RestoredTotals,
};
use crate::jobs::key_proof::SignedReceipt;

/// What a drill did.
#[derive(Debug, Serialize)]
pub(crate) struct DrillReport {
    pub(crate) host: HostName,
    pub(crate) target: ReceiptTarget,
    /// The place, for people.
    pub(crate) place: String,
    /// The manifest's name.
    pub(crate) snapshot: String,
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    pub(crate) by: String,
    pub(crate) outcome: ReceiptOutcome,
    /// `None`: it was not restored.
    pub(crate) restored: Option<RestoredTotals>,
    pub(crate) milliseconds: ReceiptTimes,
    pub(crate) checks: Vec<CheckResult>,
    pub(crate) errors: Vec<DrillProblem>,
    /// Lines that need no attention.
    pub(crate) notes: Vec<String>,
    /// The recipients whose identities opened it.
    pub(crate) recipients: Vec<String>,
    /// The key of the receipt below the host's folder.
    pub(crate) receipt: String,
    /// Whether it is on the target.
    pub(crate) uploaded: bool,
    /// The directory with the restored data. `None`: it was removed.
    pub(crate) kept: Option<String>,
    /// The signed receipt. `None`: it is not signed yet.
    #[serde(skip)]
    pub(crate) signed: Option<SignedReceipt>,
}

impl DrillReport {
    pub(super) fn of(receipt: &Receipt, rehearsal: &Rehearsal, place: &DrillPlace) -> Self {
        Self {
            host: receipt.host.clone(),
            target: receipt.target.clone(),
            place: place.folder.target.label().to_owned(),
            snapshot: receipt.manifest.clone(),
            stamp: receipt.stamp,
            sequence: receipt.sequence,
            by: receipt.by.clone(),
            outcome: receipt.outcome,
            restored: receipt.restored,
            milliseconds: receipt.milliseconds,
            checks: rehearsal.checks.clone(),
            errors: rehearsal.problems.clone(),
            notes: rehearsal.notes.clone(),
            recipients: receipt.recipients.clone(),
            receipt: String::new(),
            uploaded: false,
            kept: rehearsal.kept.clone(),
            signed: None,
        }
    }

    /// Whether everything passed, and nothing was left running.
    pub(crate) fn is_clean(&self) -> bool {
        self.outcome == ReceiptOutcome::Passed && self.errors.is_empty()
    }
}
