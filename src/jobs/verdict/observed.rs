//! The facts from which the verdict is made, as plain values.
//!
//! `None` and empty lists mean: not known, or not the case. The caller gathers them; nothing here
//! reads a file, a target or the clock.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{FindingCode, ProvenSnapshot};
use crate::base::ids::Stamp;
use crate::state::history::{Acknowledgement, OperatorMark};

/// Everything that the verdict depends on.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) now: DateTime<Utc>,
    pub(crate) schedule: ObservedSchedule,
    pub(crate) targets: Vec<ObservedTarget>,
    /// The newest `backup` that ended. `None`: none did.
    pub(crate) last_backup: Option<ObservedRun>,
    pub(crate) open_runs: Vec<ObservedOpenRun>,
    /// Why the next backup would be refused.
    pub(crate) refusal: Option<String>,
    pub(crate) shrunk: Vec<ObservedShrink>,
    pub(crate) restore_open: Option<ObservedRestore>,
    pub(crate) pause: Option<OperatorMark>,
    pub(crate) incident: Option<OperatorMark>,
    /// The clock went back; the note says by how much. It ends when the clock has caught up.
    pub(crate) clock_set_back: Option<OperatorMark>,
    /// The agent could not read the configuration again; the note says why.
    pub(crate) config_refused: Option<OperatorMark>,
    pub(crate) spool: Option<ObservedSpool>,
    pub(crate) disks: Vec<ObservedDisk>,
    /// Within what time every archive must be read back. `None`: it need not.
    pub(crate) verify_max_age: Option<TimeDelta>,
    pub(crate) channels: Vec<ObservedChannel>,
    pub(crate) proof: ObservedProof,
    pub(crate) acknowledgements: Vec<Acknowledgement>,
    /// Since when each open finding is known whose beginning no other fact tells.
    pub(crate) first_seen: BTreeMap<SeenKey, DateTime<Utc>>,
}

/// What identifies an open finding: its code, the target or source, and what exactly is wrong.
pub(crate) type SeenKey = (String, String, String);

impl Observed {
    /// Returns the facts of a host of which nothing is known.
    pub(crate) fn nothing(now: DateTime<Utc>) -> Self {
        Self {
            now,
            schedule: ObservedSchedule {
                interval: None,
                grace: TimeDelta::zero(),
            },
            targets: Vec::new(),
            last_backup: None,
            open_runs: Vec::new(),
            refusal: None,
            shrunk: Vec::new(),
            restore_open: None,
            pause: None,
            incident: None,
            clock_set_back: None,
            config_refused: None,
            spool: None,
            disks: Vec::new(),
            verify_max_age: None,
            channels: Vec::new(),
            proof: ObservedProof::default(),
            acknowledgements: Vec::new(),
            first_seen: BTreeMap::new(),
        }
    }
}

/// The schedule of backups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedSchedule {
    /// The time between two backups. `None`: there is no schedule.
    pub(crate) interval: Option<TimeDelta>,
    /// How long after a snapshot was due it is not late yet.
    pub(crate) grace: TimeDelta,
}

/// Whether this host can look at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetReach {
    Readable,
    /// All is as this host remembers it.
    WriteOnly,
}

/// One configured target.
#[derive(Debug, Clone)]
pub(crate) struct ObservedTarget {
    pub(crate) name: String,
    pub(crate) access: TargetReach,
    /// For how long its newest snapshot may age without a finding: a laptop may be away.
    pub(crate) max_age: Option<TimeDelta>,
    /// The newest snapshot there.
    pub(crate) newest: Option<ObservedSnapshot>,
    /// Snapshots that it lacks and gets.
    pub(crate) waiting: Option<ObservedWaiting>,
    /// The last successful look, or publication.
    pub(crate) looked_at: Option<DateTime<Utc>>,
    /// The last look failed.
    pub(crate) failing: Option<ObservedFailure>,
    pub(crate) problems: Vec<ObservedProblem>,
    /// Recipients who open the newest snapshot only in part.
    pub(crate) partial_recipients: Vec<String>,
    /// Every archive there was read back after this time.
    pub(crate) read_since: Option<DateTime<Utc>>,
}

impl ObservedTarget {
    /// Returns the facts of a target of which nothing is known.
    pub(crate) fn unknown(name: &str, access: TargetReach) -> Self {
        Self {
            name: name.to_owned(),
            access,
            max_age: None,
            newest: None,
            waiting: None,
            looked_at: None,
            failing: None,
            problems: Vec::new(),
            partial_recipients: Vec::new(),
            read_since: None,
        }
    }
}

/// The newest snapshot of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedSnapshot {
    pub(crate) stamp: Stamp,
    pub(crate) sequence: u64,
    /// When the next one is due: as its manifest says, or else the schedule.
    pub(crate) due: Option<DateTime<Utc>>,
}

/// Snapshots that a target lacks.
#[derive(Debug, Clone)]
pub(crate) struct ObservedWaiting {
    pub(crate) snapshots: u64,
    /// When the oldest of them was made.
    pub(crate) since: DateTime<Utc>,
    /// Why the last push to it failed.
    pub(crate) cause: Option<String>,
}

/// A look that failed.
#[derive(Debug, Clone)]
pub(crate) struct ObservedFailure {
    /// When the first of the failed looks in a row was.
    pub(crate) since: DateTime<Utc>,
    pub(crate) error: String,
}

/// Something wrong with what a target stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedProblem {
    /// `chain`, `fork`, `lost_archives` or `foreign_manifest`.
    pub(crate) code: FindingCode,
    pub(crate) text: String,
    pub(crate) next: String,
}

/// How a backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnding {
    Complete,
    /// The snapshot lacks something.
    Partial,
    /// Only targets lack something; their own findings say what.
    TargetsBehind,
    Failed,
    /// The operator or the system ended it.
    Interrupted,
    /// It was killed, or the machine went down.
    Killed,
}

/// A backup that ended.
#[derive(Debug, Clone)]
pub(crate) struct ObservedRun {
    pub(crate) ending: RunEnding,
    /// When the first of the runs in a row ended that ended like this one.
    pub(crate) since: Option<DateTime<Utc>>,
    /// Why it failed, or what is missing.
    pub(crate) message: String,
    /// The next step; `None`: the message names none.
    pub(crate) next: Option<String>,
}

/// A run that is under way.
#[derive(Debug, Clone)]
pub(crate) struct ObservedOpenRun {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) started_at: DateTime<Utc>,
    /// How long complete runs of this kind take.
    pub(crate) usual: Option<TimeDelta>,
}

/// A source that lost most of its content.
#[derive(Debug, Clone)]
pub(crate) struct ObservedShrink {
    /// Empty: it is not known which.
    pub(crate) source: String,
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) text: String,
    pub(crate) next: String,
}

/// Whether a process works on a restore in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestoreProcess {
    Running,
    Gone,
}

/// A restore in place that has begun and not ended.
#[derive(Debug, Clone)]
pub(crate) struct ObservedRestore {
    pub(crate) process: RestoreProcess,
    pub(crate) text: String,
    pub(crate) next: String,
}

/// The spool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedSpool {
    pub(crate) bytes: u64,
    pub(crate) limit: u64,
}

/// The file system of a directory that Sealift writes.
#[derive(Debug, Clone)]
pub(crate) struct ObservedDisk {
    pub(crate) path: String,
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// A notification channel.
#[derive(Debug, Clone)]
pub(crate) struct ObservedChannel {
    pub(crate) name: String,
    /// The last try failed. `None`: it did not.
    pub(crate) failing: Option<ObservedFailure>,
}

/// What is known of proofs: receipts of drills, and keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedProof {
    /// `[proof]`. `None`: it is not configured, and no finding is about proof.
    pub(crate) limits: Option<ProofLimits>,
    /// When the first snapshot was published.
    pub(crate) first_snapshot: Option<DateTime<Utc>>,
    pub(crate) receipts: Vec<ObservedReceipt>,
    /// One for each recipient.
    pub(crate) keys: Vec<ObservedKey>,
}

/// `[proof]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProofLimits {
    pub(crate) max_age: TimeDelta,
    pub(crate) keys_max_age: TimeDelta,
    pub(crate) scope: ProofScope,
}

/// Of which targets a proof is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProofScope {
    AnyTarget,
    EachTarget,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceiptResult {
    /// The snapshot was restored, and passed its checks.
    Good,
    /// It did not; why.
    Failed(String),
    /// The receipt is not believed; why.
    Foreign(String),
}

/// A receipt of a drill.
#[derive(Debug, Clone)]
pub(crate) struct ObservedReceipt {
    pub(crate) proven: ProvenSnapshot,
    /// When the first later snapshot was made whose databases have other tables or columns. `None`:
    /// none has, or it is not known.
    pub(crate) schema_changed_at: Option<DateTime<Utc>>,
    pub(crate) result: ReceiptResult,
}

/// A recipient.
#[derive(Debug, Clone)]
pub(crate) struct ObservedKey {
    pub(crate) recipient: String,
    /// The stamp of the newest snapshot that its identity opened.
    pub(crate) alive_after: Option<DateTime<Utc>>,
    /// When the recipient was added.
    pub(crate) added_at: Option<DateTime<Utc>>,
}
