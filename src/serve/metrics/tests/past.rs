//! Hosts with pasts of several lengths.

use std::path::Path;

use chrono::{DateTime, Duration, Utc};

use super::super::*;
use crate::base::ids::{Hash, Stamp, WriterId};
use crate::config::Config;
use crate::format::known::KnownRef;
use crate::format::manifest::{FORMAT, IndexRef, Manifest, ManifestCore, Totals};
use crate::format::receipt::{
    JudgedReceipt, RECEIPT_FORMAT, Receipt, ReceiptKind, ReceiptOutcome, ReceiptTarget,
    ReceiptTimes, RestoredTotals, WitnessState,
};
use crate::jobs::metric_facts::{ConfiguredChannel, MetricSources, gather};
use crate::jobs::verdict::{FindingCode, KeyAlive, Severity, Verdict, VerdictFinding};
use crate::state::catalog::{ArchiveCheck, Catalog, PublicationState, SnapshotOrigin};
use crate::state::history::{EndedRun, History, NewRun};

/// A name that has every character that the text format treats specially.
pub(super) const ODD: &str = "a \"b\" \\c\nd";

pub(super) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_775_541_600 + second, 0).unwrap()
}

/// A host with a state directory of its own.
pub(super) struct Host {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: Config,
    pub(super) history: History,
}

impl Host {
    pub(super) fn new(targets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), targets);
        let history = History::open(dir.path()).unwrap();
        Self {
            dir,
            config,
            history,
        }
    }

    pub(super) fn catalog(&self) -> Catalog {
        Catalog::open(&self.dir.path().join("catalog.db")).unwrap()
    }

    pub(super) fn facts(
        &self,
        catalog: Option<&Catalog>,
        agent: Option<AgentFigures>,
    ) -> MetricFacts {
        let from = MetricSources {
            config: &self.config,
            history: Some(&self.history),
            catalog,
        };
        let channel = ConfiguredChannel {
            name: ODD,
            last_success: None,
        };
        gather(from, &[channel], agent, at(0)).unwrap()
    }

    pub(super) fn begin(&self, id: &str, kind: &str, at: DateTime<Utc>) {
        let run = NewRun {
            id: id.to_owned(),
            kind: kind.to_owned(),
            trigger: "schedule".to_owned(),
            started_at: at,
            pid: std::process::id(),
            pid_started: 0,
            note: None,
        };
        self.history.begin_run(&run).unwrap();
    }

    pub(super) fn run(&self, id: &str, kind: &str, from: DateTime<Utc>, end: &EndedRun) {
        self.begin(id, kind, from);
        assert!(self.history.end_run(id, end).unwrap());
    }
}

fn config(state: &Path, targets: &[&str]) -> Config {
    let mut text = format!(
        "host = \"dalidou\"\nrecipients = [\"age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9\"]\n\
         signer = \"signer\"\nstate = {state:?}\n[schedule]\nbackup = \"0 6 * * *\"\n[spool]\nlimit = \"10GB\"\n\
         [[source]]\nname = \"db\"\nkind = \"tree\"\npath = \"/srv/db\"\nto = \"db\"\n\
         [[source]]\nname = \"db-old\"\nkind = \"tree\"\npath = \"/srv/old\"\nto = \"db-old\"\n"
    );
    for name in targets {
        // The escapes of TOML and of Rust are the same.
        text += &format!("[[target]]\nname = {name:?}\nurl = \"/srv/backups\"\n");
    }
    Config::parse(&text, Path::new("/etc/sealift.toml")).unwrap()
}

fn manifest(sequence: u64, stamp: DateTime<Utc>) -> Manifest {
    let core = ManifestCore {
        format: FORMAT,
        requires: Vec::new(),
        host: "dalidou".parse().unwrap(),
        stamp: Stamp::at(stamp).unwrap(),
        sequence,
        parents: Vec::new(),
        writer: WriterId([1; 8]),
        machine: "0".repeat(32),
        known: KnownRef::Inline(Vec::new()),
        marks_seen: Vec::new(),
        next_by: None,
        recipients: Vec::new(),
        index: IndexRef {
            extents: Vec::new(),
            bytes: 0,
            blake3: Hash([0; 32]),
        },
        totals: Totals {
            bytes: 283_000_000,
            new_bytes: 3_100_000,
            ..Totals::default()
        },
        next_signer: None,
    };
    Manifest::new(core, Vec::new())
}

fn ended(at: DateTime<Utc>, outcome: &str, code: Option<i32>, sequence: Option<u64>) -> EndedRun {
    let report = r#"{"files": 1200, "stored_bytes": 600000, "skipped": [
        {"path": "db", "reason": "x"}, {"path": "db/x", "reason": "x"}, {"path": "db-old/\"y", "reason": "x"},
        {"path": "elsewhere", "reason": "x"}]}"#;
    EndedRun {
        ended_at: at,
        outcome: outcome.to_owned(),
        exit_code: code,
        stamp: None,
        sequence,
        message: String::new(),
        report: Some(report.to_owned()),
    }
}

pub(super) fn agent() -> AgentFigures {
    AgentFigures {
        next_due: vec![("verify".to_owned(), at(3600))],
        is_config_current: false,
        process: ProcessFigures::read(),
    }
}

pub(super) fn verdict() -> Verdict {
    let finding = |target: &str| VerdictFinding {
        code: FindingCode::TargetStale,
        severity: Severity::Red,
        target: Some(target.to_owned()),
        source: None,
        since: None,
        text: "/srv/secret is old".to_owned(),
        next: String::new(),
    };
    let key = |recipient: &str, seconds: Option<i64>| KeyAlive {
        recipient: recipient.to_owned(),
        alive_after: seconds.map(at),
    };
    Verdict {
        state: Severity::Red,
        sentence: String::new(),
        since: None,
        findings: vec![finding("s3"), finding("laptop")],
        newest: None,
        proof: None,
        keys: vec![
            key(
                "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9",
                Some(-9),
            ),
            key(
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAOtPgyXzbjT6R9JZk+0I4r8afRRhBP5Sw60pHMQaB1",
                Some(-8),
            ),
            key(
                "age1yubikey1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqwxyz",
                Some(-7),
            ),
            key("age1never", None),
        ],
    }
}

/// A receipt of a drill from the target `target`, as the history keeps it.
fn judged(target: &str, sequence: u64, finished_at: DateTime<Utc>) -> (String, String) {
    let receipt = Receipt {
        format: RECEIPT_FORMAT,
        kind: ReceiptKind::Drill,
        requires: Vec::new(),
        host: "dalidou".parse().unwrap(),
        sequence,
        stamp: Stamp::at(at(sequence.cast_signed() - 86_400)).unwrap(),
        core: Hash([1; 32]),
        manifest: String::new(),
        target: ReceiptTarget {
            name: target.to_owned(),
            id: "0".repeat(16),
        },
        by: "drill@laptop".to_owned(),
        tool: "sealift 0.1.0".to_owned(),
        machine: "0".repeat(32),
        started_at: finished_at,
        finished_at,
        milliseconds: ReceiptTimes {
            fetch: 400,
            restore: 11_000,
            checks: 1_000,
        },
        outcome: ReceiptOutcome::Passed,
        restored: Some(RestoredTotals::default()),
        checks: Vec::new(),
        errors: Vec::new(),
        recipients: Vec::new(),
        schema: None,
        witness: String::new(),
    };
    let name = receipt.name().to_string();
    let judged = JudgedReceipt {
        receipt,
        witness: WitnessState::NotCheckable,
        is_by_host: false,
    };
    (name, serde_json::to_string(&judged).unwrap())
}

/// Backups of a year, each three days after the one before, and some verifies, with some failures,
/// and a run that is under way.
pub(super) fn year(host: &Host) -> Catalog {
    let catalog = host.catalog();
    for number in 0..122_u64 {
        let from = at((number.cast_signed() * 3 - 365) * 86_400);
        let to = from + Duration::milliseconds(4_125);
        let id = format!("R{number:04}");
        if number % 50 == 49 {
            host.run(&id, "backup", from, &ended(to, "killed", None, None));
            continue;
        }
        let sequence = number + 1;
        let made = manifest(sequence, from);
        catalog
            .add_snapshot(&made, SnapshotOrigin::MadeHere)
            .unwrap();
        let core = &made.core_hash;
        catalog
            .set_publication("s3", core, PublicationState::Published, to)
            .unwrap();
        if number < 117 {
            let state = PublicationState::Published;
            catalog.set_publication("gone", core, state, to).unwrap();
            catalog.set_publication(ODD, core, state, to).unwrap();
        }
        let (outcome, code) = if number == 121 {
            ("partial", 3)
        } else {
            ("complete", 0)
        };
        host.run(
            &id,
            "backup",
            from,
            &ended(to, outcome, Some(code), Some(sequence)),
        );
        if number % 7 == 0 {
            let end = ended(to, "failed", Some(1), None);
            host.run(&format!("V{number:04}"), "verify", from, &end);
        }
    }
    host.begin("Z", "prune", at(-10));
    for (target, error) in [
        ("s3", None),
        (ODD, Some("no route to /srv/secret")),
        ("gone", None),
    ] {
        let seen = error.map_or(Ok("{}"), Err);
        host.history.record_look(target, at(-20), seen).unwrap();
        host.history
            .add_to_total(("sent_bytes", target, ""), 77)
            .unwrap();
    }
    for (channel, outcome) in [(ODD, "sent"), (ODD, "failed"), ("gone", "sent")] {
        let total = ("notify", channel, outcome);
        host.history.add_to_total(total, 3).unwrap();
    }
    // The newest snapshot counts, and not the drill that was done last.
    let receipts = [
        judged("s3", 30, at(-40)),
        judged("s3", 31, at(-50)),
        judged(ODD, 7, at(-60)),
        judged("gone", 31, at(-50)),
    ];
    let record = host
        .history
        .record_receipts("s3", at(-20), &receipts, &[], "{}");
    record.unwrap();
    // Its process is gone.
    let dead = NewRun {
        id: "Y".to_owned(),
        kind: "drill".to_owned(),
        trigger: "schedule".to_owned(),
        started_at: at(-99),
        pid: std::process::id(),
        pid_started: 1,
        note: None,
    };
    host.history.begin_run(&dead).unwrap();
    catalog.set_verified("s3", at(-30)).unwrap();
    let check = ArchiveCheck {
        at: at(-40),
        whole: Some(false),
    };
    catalog.set_check("s3", &Hash([1; 32]), &check).unwrap();
    catalog
}
