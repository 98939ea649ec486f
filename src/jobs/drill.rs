//! A drill: restores a snapshot for real, checks and times it, removes it again, and leaves a
//! signed receipt.
//!
//! The steps: choose a place and a snapshot; plan; restore into a private directory, where every
//! file's BLAKE3 is compared; check every database in full and compare its rows with those that
//! were sealed; start the operator's service and run the checks; stop it; sign; put the signature,
//! then the receipt. A snapshot that fails leaves a receipt, too. What says nothing about the
//! snapshot (no network, no room, a wrong identity) is an error and leaves none.

mod choose;
mod databases;
mod failure;
mod left_service;
mod report;
mod rotation;
mod service;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::context::FrontEnd;
use super::error::JobError;
use super::key_proof::SignedReceipt;
use super::receipt_origin::{proven_recipients, this_machine, tool};
use super::receipts::{ReceiptKnowledge, read_receipts};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::progress::Stage;
use crate::config::{CommandLine, DrillSnapshot, PostCheck};
use crate::format::chain::Chain;
use crate::format::receipt::{
    RECEIPT_FORMAT, RECEIPT_NAMESPACE, Receipt, ReceiptKind, ReceiptTarget,
};
use crate::format::signature::{Signer, Trust};
use crate::repository::HostFolder;
use crate::restore::open::Identities;
use choose::Choice;
pub(crate) use report::DrillReport;
use rotation::PastDrill;
use work::{Rehearsal, rehearse};

/// A place of backups that may be drilled: one host's folder on it, which the front end opened.
pub(crate) struct DrillPlace {
    /// How receipts name it.
    pub(crate) target: ReceiptTarget,
    pub(crate) folder: HostFolder,
    pub(crate) chain: Chain,
}

/// Which place and which snapshot have their turn.
#[derive(Debug, Clone)]
pub(crate) struct DrillTurn {
    pub(crate) snapshot: DrillSnapshot,
    /// Each place has its turn; else the first one is drilled.
    pub(crate) every_target: bool,
    /// Number of drills of which one restores an older snapshot. `None`: none does.
    pub(crate) random_older: Option<u32>,
}

/// A service that uses the restored data.
#[derive(Debug, Clone)]
pub(crate) struct DrillService {
    pub(crate) start: CommandLine,
    /// Runs whenever `start` was run.
    pub(crate) stop: CommandLine,
    /// How long each may take.
    pub(crate) timeout: Duration,
}

/// What becomes of the restored data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterDrill {
    Remove,
    Keep,
}

/// Whether the receipt is put on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiptUpload {
    Put,
    Withhold,
}

/// Request of a drill.
pub(crate) struct DrillRequest {
    /// At least one; all of one host.
    pub(crate) places: Vec<DrillPlace>,
    pub(crate) turn: DrillTurn,
    pub(crate) identities: Arc<Identities>,
    /// Signs the receipt.
    pub(crate) signer: Signer,
    /// The principal that signs.
    pub(crate) by: String,
    /// Directory for the restored data. `None`: the system's for temporary files.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) after: AfterDrill,
    pub(crate) upload: ReceiptUpload,
    /// `None`: nothing is started.
    pub(crate) service: Option<DrillService>,
    /// The URL before the paths of HTTP checks.
    pub(crate) base_url: Option<String>,
    pub(crate) checks: Vec<PostCheck>,
    /// How long the checks are repeated until they pass.
    pub(crate) check_timeout: Duration,
    /// A larger snapshot is not restored. `None`: any.
    pub(crate) max_bytes: Option<u64>,
}

/// Does the drill.
pub(crate) fn run(
    request: &DrillRequest,
    runtime: &Runtime,
    front: &dyn FrontEnd,
) -> Result<DrillReport, JobError> {
    front.stage(Stage::InspectingTargets, None);
    let past = runtime.block_on(past_drills(request, front))?;
    let chosen = Choice::make(request, &past)?;
    let place = &request.places[chosen.place];
    let started_at = clock::in_seconds(clock::now());
    require_clock(&chosen, started_at)?;
    let rehearsal = rehearse(request, place, &chosen.snapshot, runtime, front)?;
    let receipt = receipt_of(request, place, &chosen, started_at, &rehearsal);
    let mut report = DrillReport::of(&receipt, &rehearsal, place);
    let objects = receipt.sign(&request.signer)?;
    report.receipt = objects[1].0.to_string();
    let signed = SignedReceipt { receipt, objects };
    if request.upload == ReceiptUpload::Put {
        front.stage(Stage::Publishing, Some(place.folder.target.label()));
        let put = runtime.block_on(place.folder.put_receipt(&signed.objects));
        put.map_err(|error| {
            JobError::work(error).with_next(
                "the snapshot was drilled, and its receipt could not be put there: these credentials must be able to add \
                 objects below receipts/ (docs/proof.md)",
            )
        })?;
        report.uploaded = true;
    }
    report.signed = Some(signed);
    Ok(report)
}

/// Refuses a clock that is behind the snapshot: no one would believe the receipt.
fn require_clock(
    chosen: &Choice,
    started_at: chrono::DateTime<chrono::Utc>,
) -> Result<(), JobError> {
    let stamp = chosen.snapshot.stamp();
    match stamp.time() <= started_at {
        true => Ok(()),
        false => Err(JobError::work(format!(
            "the snapshot was made at {stamp}, and it is {started_at} by this machine's clock"
        ))
        .with_next("set the clock of this machine, or of the host, right")),
    }
}

/// Returns the earlier drills by this signer, of every place that can be read.
async fn past_drills(
    request: &DrillRequest,
    front: &dyn FrontEnd,
) -> Result<Vec<PastDrill>, JobError> {
    let trust = own_trust(&request.by, &request.signer)?;
    let keys = std::collections::HashMap::new();
    let knowledge = ReceiptKnowledge {
        trust: &trust,
        host_signers: &[],
        keys: &keys,
        now: clock::now(),
    };
    let looks = request
        .places
        .iter()
        .map(|place| read_receipts(&place.folder, &place.chain, &knowledge));
    let looks = futures::future::join_all(looks).await;
    let mut past = Vec::new();
    for (place, looked) in request.places.iter().zip(looks) {
        match looked {
            Ok(found) => {
                let drills = found.believed.iter().map(|one| &one.judged.receipt);
                let drills = drills.filter(|receipt| receipt.kind == ReceiptKind::Drill);
                past.extend(drills.map(|receipt| PastDrill::of(receipt, &place.chain)));
            }
            // A machine may be allowed to add receipts and not to read them.
            Err(error) => front.note(&format!(
                "the receipts on {} cannot be read, so its turn is not known: {}",
                place.folder.target.label(),
                with_causes(&error)
            )),
        }
    }
    past.sort_by_key(|one| one.started_at);
    past.dedup();
    Ok(past)
}

/// Returns the trust in receipts of this very signer.
fn own_trust(by: &str, signer: &Signer) -> Result<Trust, JobError> {
    let line = format!(
        "{by} namespaces=\"{RECEIPT_NAMESPACE}\" {}\n",
        signer.public_line()
    );
    Ok(Trust::read("this signer", line.as_bytes(), |_| {})?)
}

fn receipt_of(
    request: &DrillRequest,
    place: &DrillPlace,
    chosen: &Choice,
    started_at: chrono::DateTime<chrono::Utc>,
    rehearsal: &Rehearsal,
) -> Receipt {
    let core = &chosen.snapshot.manifest.core;
    let mut receipt = Receipt {
        format: RECEIPT_FORMAT,
        kind: ReceiptKind::Drill,
        requires: Vec::new(),
        host: core.host.clone(),
        sequence: core.sequence,
        stamp: core.stamp,
        core: chosen.snapshot.manifest.core_hash,
        manifest: chosen.snapshot.manifest.name().to_string(),
        target: place.target.clone(),
        by: request.by.clone(),
        tool: tool(),
        machine: this_machine(&core.host),
        started_at,
        finished_at: clock::in_seconds(clock::now()).max(started_at),
        milliseconds: rehearsal.times,
        outcome: rehearsal.outcome(),
        restored: rehearsal.restored,
        checks: rehearsal.receipt_checks(),
        errors: rehearsal.codes(),
        recipients: match rehearsal.salt {
            Some(_) => proven_recipients(&request.identities, &core.recipients),
            None => Vec::new(),
        },
        schema: rehearsal.schema.clone(),
        witness: String::new(),
    };
    if let Some(salt) = &rehearsal.salt {
        receipt.attest(salt);
    }
    receipt
}
