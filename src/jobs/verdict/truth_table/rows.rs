//! The rows of the table.

use chrono::TimeDelta;

use super::facts::*;
use crate::jobs::verdict::observed::*;
use crate::jobs::verdict::{FindingCode, Severity};

/// One row of the table: a code, a name for the case, the facts, and what the code is then.
pub(super) type TruthRow = (FindingCode, &'static str, Observed, Option<Severity>);

const AMBER: Option<Severity> = Some(Severity::Amber);
const RED: Option<Severity> = Some(Severity::Red);
const GONE: Option<Severity> = None;

fn rows_of_targets() -> Vec<TruthRow> {
    use FindingCode::*;
    let behind = |hours: i64, cause: Option<&str>| {
        facts(|one| {
            one.targets[1].newest = Some(snapshot(42, hours));
            one.targets[1].waiting = Some(ObservedWaiting {
                snapshots: 1,
                since: ago(2),
                cause: cause.map(str::to_owned),
            });
        })
    };
    let aged = |hours: i64| facts(|one| one.targets[1].newest = Some(snapshot(42, hours)));
    let may_be_away = |hours: i64| {
        let mut one = behind(hours, None);
        one.targets[1].max_age = Some(TimeDelta::days(7));
        one.targets[1].failing = failure("no route");
        one
    };
    let late = |hours: i64| {
        facts(|one| {
            for target in &mut one.targets {
                target.newest = Some(snapshot(43, hours));
            }
        })
    };
    let looked = |hours: i64| facts(|one| one.targets[0].looked_at = Some(ago(hours)));
    let verify = |read: Option<i64>| {
        facts(|one| {
            one.verify_max_age = Some(TimeDelta::days(365));
            for target in &mut one.targets {
                target.read_since = Some(ago(1));
            }
            one.targets[0].read_since = read.map(|days| ago(days * 24));
        })
    };
    vec![
        (
            NeverBackedUp,
            "no target",
            facts(|one| one.targets.clear()),
            RED,
        ),
        (
            NeverBackedUp,
            "nothing published",
            facts(|one| {
                one.targets
                    .iter_mut()
                    .for_each(|target| target.newest = None)
            }),
            RED,
        ),
        (NeverBackedUp, "published", well(), GONE),
        (SnapshotStale, "past next_by", late(27), RED),
        (SnapshotStale, "in time", late(25), GONE),
        (
            SnapshotStale,
            "within the grace",
            {
                let mut one = late(27);
                one.schedule.grace = TimeDelta::hours(2);
                one
            },
            GONE,
        ),
        (
            SnapshotStale,
            "no schedule",
            facts(|one| {
                for target in &mut one.targets {
                    target.newest = Some(ObservedSnapshot {
                        due: None,
                        ..snapshot(43, 2000)
                    });
                }
                one.schedule.interval = None;
            }),
            GONE,
        ),
        (TargetStale, "late there only", aged(30), AMBER),
        (TargetStale, "three intervals", aged(73), RED),
        (TargetStale, "in time", aged(25), GONE),
        (TargetStale, "the whole host is late", late(100), GONE),
        (
            TargetStale,
            "empty",
            facts(|one| one.targets[1].newest = None),
            AMBER,
        ),
        (TargetStale, "may be away", may_be_away(120), GONE),
        (TargetStale, "away for too long", may_be_away(24 * 8), RED),
        (TargetBehind, "waits", behind(25, Some("no room")), AMBER),
        (TargetBehind, "caught up", well(), GONE),
        (TargetBehind, "may be away", may_be_away(25), GONE),
        (
            TargetBehind,
            "late, which says more",
            behind(30, None),
            GONE,
        ),
        (TargetUnknown, "no look for an interval", looked(25), AMBER),
        (TargetUnknown, "looked", looked(23), GONE),
        (
            TargetUnknown,
            "never looked",
            facts(|one| one.targets[0].looked_at = None),
            AMBER,
        ),
        (
            TargetUnknown,
            "the look failed",
            facts(|one| one.targets[0].failing = failure("no route")),
            AMBER,
        ),
        (
            TargetUnknown,
            "write-only",
            facts(|one| {
                one.targets[0].access = TargetReach::WriteOnly;
                one.targets[0].looked_at = None;
            }),
            GONE,
        ),
        (TargetUnknown, "may be away", may_be_away(25), GONE),
        (
            VerifyOverdue,
            "not read for too long",
            verify(Some(366)),
            AMBER,
        ),
        (VerifyOverdue, "never read", verify(None), AMBER),
        (VerifyOverdue, "read", verify(Some(364)), GONE),
        (VerifyOverdue, "not asked for", well(), GONE),
        (
            PartialRecipient,
            "in part",
            facts(|one| one.targets[0].partial_recipients = vec!["age1qx".to_owned()]),
            AMBER,
        ),
        (PartialRecipient, "in full", well(), GONE),
    ]
}

fn rows_of_problems() -> Vec<TruthRow> {
    use FindingCode::*;
    let mut rows = Vec::new();
    for code in [Chain, Fork, LostArchives, ForeignManifest] {
        let found = facts(|one| one.targets[0].problems.push(problem(code)));
        rows.push((code, "found", found, RED));
        rows.push((code, "clean", well(), GONE));
    }
    rows
}

fn rows_of_runs() -> Vec<TruthRow> {
    use FindingCode::*;
    let ended = |ending| facts(|one| one.last_backup = Some(run(ending)));
    let open = |run: ObservedOpenRun| facts(|one| one.open_runs = vec![run.clone()]);
    vec![
        (RunFailed, "failed", ended(RunEnding::Failed), RED),
        (RunFailed, "interrupted", ended(RunEnding::Interrupted), RED),
        (RunFailed, "killed", ended(RunEnding::Killed), RED),
        (RunFailed, "partial", ended(RunEnding::Partial), GONE),
        (RunFailed, "complete", well(), GONE),
        (RunPartial, "partial", ended(RunEnding::Partial), AMBER),
        (
            RunPartial,
            "targets only",
            ended(RunEnding::TargetsBehind),
            GONE,
        ),
        (RunPartial, "complete", well(), GONE),
        (
            RunOverlong,
            "four times",
            open(open_run("backup", 2, Some(20))),
            AMBER,
        ),
        (
            RunOverlong,
            "not an hour",
            open(open_run("backup", 1, Some(1))),
            GONE,
        ),
        (
            RunOverlong,
            "as usual",
            open(open_run("backup", 2, Some(40))),
            GONE,
        ),
        (
            RunOverlong,
            "an interval",
            open(open_run("backup", 25, None)),
            RED,
        ),
        (
            RunOverlong,
            "a long verify",
            open(open_run("verify", 25, Some(60))),
            AMBER,
        ),
        (RunOverlong, "ended", well(), GONE),
        (
            BackupRefused,
            "refused",
            facts(|one| one.refusal = Some("no recipient".to_owned())),
            RED,
        ),
        (BackupRefused, "not refused", well(), GONE),
    ]
}

fn rows_of_the_host() -> Vec<TruthRow> {
    use FindingCode::*;
    let restore = |process| {
        facts(|one| {
            one.restore_open = Some(ObservedRestore {
                process,
                text: "a restore".to_owned(),
                next: "wait".to_owned(),
            });
        })
    };
    let spool = |bytes| facts(|one| one.spool = Some(ObservedSpool { bytes, limit: 1000 }));
    let space = |percent| facts(|one| one.disks = vec![disk(50), disk(percent)]);
    let channels = |phone: bool, mail: bool| {
        facts(|one| {
            let failing = |fails: bool| failure("403").filter(|_| fails);
            one.channels = vec![
                channel("phone", failing(phone)),
                channel("mail", failing(mail)),
            ];
        })
    };
    vec![
        (
            Shrunk,
            "open",
            facts(|one| {
                one.shrunk = vec![ObservedShrink {
                    source: "db".to_owned(),
                    since: Some(ago(2)),
                    text: "db: documents went from 1204 to 0 rows".to_owned(),
                    next: "sealift ack shrunk".to_owned(),
                }];
            }),
            RED,
        ),
        (Shrunk, "acknowledged, or back", well(), GONE),
        (
            RestoreOpen,
            "running",
            restore(RestoreProcess::Running),
            AMBER,
        ),
        (
            RestoreOpen,
            "interrupted",
            restore(RestoreProcess::Gone),
            RED,
        ),
        (RestoreOpen, "ended", well(), GONE),
        (SpoolFull, "nearly", spool(950), AMBER),
        (SpoolFull, "full", spool(1000), RED),
        (SpoolFull, "half", spool(500), GONE),
        (DiskLow, "4 %", space(4), AMBER),
        (DiskLow, "nothing", space(0), RED),
        (DiskLow, "6 %", space(6), GONE),
        (
            DiskLow,
            "a share of a large disk",
            facts(|one| {
                one.disks = vec![ObservedDisk {
                    free: 20 << 30,
                    total: 10 << 40,
                    ..disk(0)
                }];
            }),
            GONE,
        ),
        (
            Clock,
            "a stamp in the future",
            facts(|one| one.targets[0].newest = Some(snapshot(44, -1))),
            AMBER,
        ),
        (
            Clock,
            "set back",
            facts(|one| one.clock_set_back = mark(1, None)),
            AMBER,
        ),
        (Clock, "right", well(), GONE),
        (
            Clock,
            "caught up",
            facts(|one| one.clock_set_back = mark(2, Some(1))),
            GONE,
        ),
        (
            ConfigChanged,
            "refused",
            facts(|one| one.config_refused = mark(1, None)),
            AMBER,
        ),
        (ConfigChanged, "read", well(), GONE),
        (
            Paused,
            "until later",
            facts(|one| one.pause = mark(1, Some(-1))),
            AMBER,
        ),
        (
            Paused,
            "for good",
            facts(|one| one.pause = mark(1, None)),
            AMBER,
        ),
        (
            Paused,
            "over",
            facts(|one| one.pause = mark(2, Some(1))),
            GONE,
        ),
        (ChannelFailed, "one", channels(true, false), AMBER),
        (ChannelFailed, "all", channels(true, true), RED),
        (ChannelFailed, "none", channels(false, false), GONE),
    ]
}

fn rows_of_proof() -> Vec<TruthRow> {
    use FindingCode::*;
    use ReceiptResult::*;
    let after = |change: fn(&mut Observed)| {
        let mut observed = with_proof(vec![proven(10, Good)]);
        change(&mut observed);
        observed
    };
    let keys = |keys: Vec<ObservedKey>| {
        let mut observed = with_proof(vec![proven(10, Good)]);
        observed.proof.keys = keys;
        observed
    };
    vec![
        (
            ProofOverdue,
            "too old",
            with_proof(vec![proven(93, Good)]),
            AMBER,
        ),
        (
            ProofOverdue,
            "twice too old",
            with_proof(vec![proven(185, Good)]),
            RED,
        ),
        (
            ProofOverdue,
            "fresh",
            with_proof(vec![proven(10, Good)]),
            GONE,
        ),
        (ProofOverdue, "never", with_proof(Vec::new()), RED),
        (
            ProofOverdue,
            "a new host",
            {
                let mut observed = with_proof(Vec::new());
                observed.proof.first_snapshot = Some(ago(24 * 20));
                observed
            },
            AMBER,
        ),
        (
            ProofOverdue,
            "an incident",
            after(|one| one.incident = mark(5, None)),
            AMBER,
        ),
        (
            ProofOverdue,
            "an incident before it",
            after(|one| one.incident = mark(24 * 11, None)),
            GONE,
        ),
        (
            ProofOverdue,
            "another schema",
            after(|one| one.proof.receipts[0].schema_changed_at = Some(ago(5))),
            AMBER,
        ),
        (
            ProofOverdue,
            "another schema, and an older snapshot proven since",
            after(|one| {
                one.proof.receipts[0].schema_changed_at = Some(ago(5));
                one.proof.receipts[0].proven.proven_at = ago(1);
            }),
            AMBER,
        ),
        (
            ProofOverdue,
            "the new schema proven before an older snapshot",
            {
                let mut observed = with_proof(vec![proven(3, Good), proven(10, Good)]);
                observed.proof.receipts[1].schema_changed_at = Some(ago(24 * 4));
                observed.proof.receipts[1].proven.proven_at = ago(1);
                observed
            },
            GONE,
        ),
        (
            ProofOverdue,
            "the new schema proven from one of two targets",
            {
                let mut observed = with_proof(vec![proven(3, Good), proven(10, Good)]);
                let names: Vec<String> = observed
                    .targets
                    .iter()
                    .map(|one| one.name.clone())
                    .collect();
                observed.proof.receipts[0].proven.target = names[0].clone();
                observed.proof.receipts[1].proven.target = names[1].clone();
                observed.proof.receipts[1].schema_changed_at = Some(ago(24 * 4));
                observed.proof.limits.as_mut().unwrap().scope = ProofScope::EachTarget;
                observed
            },
            AMBER,
        ),
        (ProofOverdue, "not configured", well(), GONE),
        (
            ProofFailed,
            "the newest failed",
            with_proof(vec![proven(10, Good), proven(5, Failed("x".to_owned()))]),
            RED,
        ),
        (
            ProofFailed,
            "a good one since",
            with_proof(vec![proven(5, Good), proven(10, Failed("x".to_owned()))]),
            GONE,
        ),
        (
            ForeignReceipt,
            "not believed",
            with_proof(vec![proven(5, Good), proven(4, Foreign("x".to_owned()))]),
            AMBER,
        ),
        (
            ForeignReceipt,
            "believed",
            with_proof(vec![proven(5, Good)]),
            GONE,
        ),
        (
            KeySilent,
            "one",
            keys(vec![key("age1a", Some(200)), key("age1b", Some(9))]),
            AMBER,
        ),
        (
            KeySilent,
            "never proven",
            keys(vec![key("age1a", None), key("age1b", Some(9))]),
            AMBER,
        ),
        (
            KeySilent,
            "all, for long",
            keys(vec![key("age1a", Some(400)), key("age1b", None)]),
            RED,
        ),
        (
            KeySilent,
            "proven",
            keys(vec![key("age1a", Some(100))]),
            GONE,
        ),
    ]
}

pub(super) fn table() -> Vec<TruthRow> {
    let mut rows = rows_of_targets();
    rows.extend(rows_of_problems());
    rows.extend(rows_of_runs());
    rows.extend(rows_of_the_host());
    rows.extend(rows_of_proof());
    rows
}
