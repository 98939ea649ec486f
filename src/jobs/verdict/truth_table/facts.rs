//! Facts of hosts, for the rows of the table.

use chrono::{DateTime, TimeDelta, Utc};

use crate::base::ids::Stamp;
use crate::jobs::verdict::observed::*;
use crate::jobs::verdict::{FindingCode, ProvenSnapshot};
use crate::state::history::OperatorMark;

pub(super) fn now() -> DateTime<Utc> {
    "2026-04-08T08:00:00Z".parse().unwrap()
}

pub(super) fn ago(hours: i64) -> DateTime<Utc> {
    now() - TimeDelta::hours(hours)
}

pub(super) fn snapshot(sequence: u64, hours: i64) -> ObservedSnapshot {
    ObservedSnapshot {
        stamp: Stamp::at(ago(hours)).unwrap(),
        sequence,
        due: Some(ago(hours) + TimeDelta::hours(26)),
    }
}

pub(super) fn target(name: &str) -> ObservedTarget {
    ObservedTarget {
        newest: Some(snapshot(43, 2)),
        looked_at: Some(ago(2)),
        ..ObservedTarget::unknown(name, TargetReach::Readable)
    }
}

/// A host with a daily schedule, whose two targets have everything.
pub(super) fn well() -> Observed {
    Observed {
        schedule: ObservedSchedule {
            interval: Some(TimeDelta::days(1)),
            grace: TimeDelta::zero(),
        },
        targets: vec![target("s3"), target("laptop")],
        last_backup: Some(run(RunEnding::Complete)),
        ..Observed::nothing(now())
    }
}

pub(super) fn run(ending: RunEnding) -> ObservedRun {
    ObservedRun {
        ending,
        since: Some(ago(2)),
        message: "why".to_owned(),
        next: None,
    }
}

pub(super) fn open_run(kind: &str, hours: i64, usual: Option<i64>) -> ObservedOpenRun {
    ObservedOpenRun {
        id: "01J".to_owned(),
        kind: kind.to_owned(),
        started_at: ago(hours),
        usual: usual.map(TimeDelta::minutes),
    }
}

pub(super) fn failure(error: &str) -> Option<ObservedFailure> {
    Some(ObservedFailure {
        since: ago(1),
        error: error.to_owned(),
    })
}

pub(super) fn problem(code: FindingCode) -> ObservedProblem {
    ObservedProblem {
        code,
        text: format!("{code} is wrong"),
        next: "look".to_owned(),
    }
}

pub(super) fn mark(hours: i64, until: Option<i64>) -> Option<OperatorMark> {
    Some(OperatorMark {
        made_at: ago(hours),
        until: until.map(ago),
        note: Some("disk moved".to_owned()),
    })
}

pub(super) fn proven(days: i64, result: ReceiptResult) -> ObservedReceipt {
    let stamp = Stamp::at(ago(days * 24)).unwrap();
    ObservedReceipt {
        proven: ProvenSnapshot {
            stamp,
            sequence: 31,
            proven_at: stamp.time(),
            by: "drill@laptop".to_owned(),
            target: "s3".to_owned(),
            seconds: 12.4,
            bytes: 283_000_000,
        },
        schema_changed_at: None,
        result,
    }
}

pub(super) fn with_proof(receipts: Vec<ObservedReceipt>) -> Observed {
    let mut observed = well();
    observed.proof = ObservedProof {
        limits: Some(ProofLimits {
            max_age: TimeDelta::days(92),
            keys_max_age: TimeDelta::days(184),
            scope: ProofScope::AnyTarget,
        }),
        first_snapshot: Some(ago(24 * 400)),
        receipts,
        ..ObservedProof::default()
    };
    observed
}

pub(super) fn key(recipient: &str, days: Option<i64>) -> ObservedKey {
    ObservedKey {
        recipient: recipient.to_owned(),
        alive_after: days.map(|days| ago(days * 24)),
        added_at: None,
    }
}

pub(super) fn channel(name: &str, failing: Option<ObservedFailure>) -> ObservedChannel {
    ObservedChannel {
        name: name.to_owned(),
        failing,
    }
}

pub(super) fn disk(percent: u64) -> ObservedDisk {
    ObservedDisk {
        path: "/var/lib/sealift".to_owned(),
        free: (100 << 30) / 100 * percent,
        total: 100 << 30,
    }
}

/// Changes the facts of a host that is well.
pub(super) fn facts(change: impl Fn(&mut Observed)) -> Observed {
    let mut observed = well();
    change(&mut observed);
    observed
}
