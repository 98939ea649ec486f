//! The truth table of the verdict: for each code, facts that make it amber, red and gone; and what
//! holds for all facts.

use chrono::TimeDelta;

use super::observed::*;
use super::*;
use crate::state::history::{Acknowledgement, OperatorMark};

fn now() -> DateTime<Utc> {
    "2026-04-08T08:00:00Z".parse().unwrap()
}

fn ago(hours: i64) -> DateTime<Utc> {
    now() - TimeDelta::hours(hours)
}

fn snapshot(sequence: u64, hours: i64) -> ObservedSnapshot {
    ObservedSnapshot {
        stamp: Stamp::at(ago(hours)).unwrap(),
        sequence,
        due: Some(ago(hours) + TimeDelta::hours(26)),
    }
}

fn target(name: &str) -> ObservedTarget {
    ObservedTarget {
        newest: Some(snapshot(43, 2)),
        looked_at: Some(ago(2)),
        ..ObservedTarget::unknown(name, TargetAccess::Readable)
    }
}

/// A host with a daily schedule, whose two targets have everything.
fn well() -> Observed {
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

fn run(ending: RunEnding) -> ObservedRun {
    ObservedRun {
        ending,
        since: Some(ago(2)),
        message: "why".to_owned(),
        next: None,
    }
}

fn open_run(kind: &str, hours: i64, usual: Option<i64>) -> ObservedOpenRun {
    ObservedOpenRun {
        id: "01J".to_owned(),
        kind: kind.to_owned(),
        started_at: ago(hours),
        usual: usual.map(TimeDelta::minutes),
    }
}

fn failure(error: &str) -> Option<ObservedFailure> {
    Some(ObservedFailure {
        since: ago(1),
        error: error.to_owned(),
    })
}

fn problem(code: FindingCode) -> ObservedProblem {
    ObservedProblem {
        code,
        text: format!("{code} is wrong"),
        next: "look".to_owned(),
    }
}

fn mark(hours: i64, until: Option<i64>) -> Option<OperatorMark> {
    Some(OperatorMark {
        made_at: ago(hours),
        until: until.map(ago),
        note: Some("disk moved".to_owned()),
    })
}

fn proven(days: i64, result: ReceiptResult) -> ObservedReceipt {
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
        result,
    }
}

fn with_proof(receipts: Vec<ObservedReceipt>) -> Observed {
    let mut observed = well();
    observed.proof = ObservedProof {
        limits: Some(ProofLimits {
            max_age: TimeDelta::days(92),
            keys_max_age: TimeDelta::days(184),
        }),
        first_snapshot: Some(ago(24 * 400)),
        receipts,
        ..ObservedProof::default()
    };
    observed
}

fn key(recipient: &str, days: Option<i64>) -> ObservedKey {
    ObservedKey {
        recipient: recipient.to_owned(),
        alive_after: days.map(|days| ago(days * 24)),
        added_at: None,
    }
}

fn channel(name: &str, failing: Option<ObservedFailure>) -> ObservedChannel {
    ObservedChannel {
        name: name.to_owned(),
        failing,
    }
}

fn disk(percent: u64) -> ObservedDisk {
    ObservedDisk {
        path: "/var/lib/sealift".to_owned(),
        free: (100 << 30) / 100 * percent,
        total: 100 << 30,
    }
}

/// Changes the facts of a host that is well.
fn facts(change: impl Fn(&mut Observed)) -> Observed {
    let mut observed = well();
    change(&mut observed);
    observed
}

/// One row of the table: a code, a name for the case, the facts, and what the code is then.
type Row = (FindingCode, &'static str, Observed, Option<Severity>);

const AMBER: Option<Severity> = Some(Severity::Amber);
const RED: Option<Severity> = Some(Severity::Red);
const GONE: Option<Severity> = None;

fn rows_of_targets() -> Vec<Row> {
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
                one.targets[0].access = TargetAccess::WriteOnly;
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

fn rows_of_problems() -> Vec<Row> {
    use FindingCode::*;
    let mut rows = Vec::new();
    for code in [Chain, Fork, LostArchives, ForeignManifest] {
        let found = facts(|one| one.targets[0].problems.push(problem(code)));
        rows.push((code, "found", found, RED));
        rows.push((code, "clean", well(), GONE));
    }
    rows
}

fn rows_of_runs() -> Vec<Row> {
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

fn rows_of_the_host() -> Vec<Row> {
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

fn rows_of_proof() -> Vec<Row> {
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
            after(|one| one.proof.schema_changed_at = Some(ago(5))),
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

fn table() -> Vec<Row> {
    let mut rows = rows_of_targets();
    rows.extend(rows_of_problems());
    rows.extend(rows_of_runs());
    rows.extend(rows_of_the_host());
    rows.extend(rows_of_proof());
    rows
}

fn of_code(verdict: &Verdict, code: FindingCode) -> Vec<&VerdictFinding> {
    let findings = verdict.findings.iter();
    findings.filter(|finding| finding.code == code).collect()
}

#[test]
fn each_code_is_amber_red_and_gone_as_the_table_says() {
    let rows = table();
    for (code, case, observed, expected) in &rows {
        let verdict = judge(observed).verdict;
        let found = of_code(&verdict, *code)
            .iter()
            .map(|one| one.severity)
            .max();
        assert_eq!(found, *expected, "{code}, {case}: {verdict:#?}");
    }
    for code in FindingCode::ALL {
        let of = |expected: Option<Severity>| {
            rows.iter()
                .any(|(of, _, _, found)| *of == code && *found == expected)
        };
        assert!(of(GONE) && (of(AMBER) || of(RED)), "{code}");
        assert_eq!(FindingCode::parse(code.as_str()), Some(code));
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
}

#[test]
fn green_has_a_reason_and_unknown_is_not_green() {
    let verdict = judge(&well()).verdict;
    assert_eq!(verdict.state, Severity::Green);
    assert_eq!(
        verdict.sentence,
        "Safe: snapshot 43 of 2 h ago is on s3 and laptop."
    );
    let mut remembered = well();
    for target in &mut remembered.targets {
        target.access = TargetAccess::WriteOnly;
    }
    let sentence = judge(&remembered).verdict.sentence;
    assert!(
        sentence.ends_with("laptop, as this host remembers."),
        "{sentence}"
    );
    let proven = with_proof(vec![proven(12, ReceiptResult::Good)]);
    let sentence = judge(&proven).verdict.sentence;
    assert!(
        sentence.ends_with("; restored for proof 12 days ago."),
        "{sentence}"
    );
    let nothing = judge(&Observed::nothing(now())).verdict;
    assert_eq!(nothing.state, Severity::Red);
}

#[test]
fn the_sentence_names_the_worst_and_counts_the_rest() {
    let observed = facts(|one| {
        one.targets[1].newest = Some(snapshot(40, 73));
        one.pause = mark(1, None);
        one.last_backup = Some(run(RunEnding::Partial));
    });
    let verdict = judge(&observed).verdict;
    assert_eq!(
        verdict.sentence,
        "Not safe: laptop has had no backup for 3 days (due every day), and 2 more."
    );
    assert_eq!(verdict.since, Some(ago(73) + TimeDelta::hours(26)));
}

/// In every combination of two rows the worst finding decides, no finding hides another, and facts
/// that are bad alone are never better together with others.
#[test]
fn the_worst_wins_and_nothing_makes_it_greener() {
    let rows = table();
    for (code, case, observed, _) in &rows {
        let alone = judge(observed).verdict;
        let worst = alone.findings.iter().map(|one| one.severity).max();
        assert_eq!(
            alone.state,
            worst.unwrap_or(Severity::Green),
            "{code}, {case}"
        );
        assert!(
            alone
                .findings
                .is_sorted_by_key(|one| std::cmp::Reverse(one.severity))
        );
        for change in changes() {
            let mut both = observed.clone();
            change(&mut both);
            let state = judge(&both).verdict.state;
            assert!(
                state >= alone.state,
                "{code}, {case}: {state:?} < {:?}",
                alone.state
            );
        }
    }
}

/// Facts that make any host worse.
fn changes() -> Vec<fn(&mut Observed)> {
    vec![
        |one| one.pause = mark(1, None),
        |one| one.refusal = Some("no recipient".to_owned()),
        |one| one.last_backup = Some(run(RunEnding::Failed)),
        |one| one.config_refused = mark(1, None),
        |one| one.incident = mark(1, None),
        |one| {
            for target in &mut one.targets {
                target.failing = failure("no route");
            }
        },
        |one| {
            for target in &mut one.targets {
                target.problems.push(problem(FindingCode::Fork));
            }
        },
        |one| {
            for target in &mut one.targets {
                target.partial_recipients = vec!["age1qx".to_owned()];
            }
        },
        |one| {
            one.targets
                .push(ObservedTarget::unknown("new", TargetAccess::Readable))
        },
    ]
}

fn acknowledgement(finding: &VerdictFinding, made_at: DateTime<Utc>) -> Acknowledgement {
    Acknowledgement {
        code: finding.code.as_str().to_owned(),
        target: finding.about().to_owned(),
        since: finding.since.unwrap(),
        made_at,
        note: None,
    }
}

/// An acknowledgement silences one finding and no other, whatever else is wrong.
#[test]
fn an_acknowledgement_hides_nothing_else() {
    for (code, case, mut observed, _) in table() {
        observed.pause = mark(1, None);
        observed.last_backup = Some(run(RunEnding::Failed));
        let judged = judge(&observed);
        observed.first_seen = judged.first_seen.into_iter().collect();
        for finding in &judged.verdict.findings {
            observed.acknowledgements = vec![acknowledgement(finding, now())];
            let after = judge(&observed);
            let mut expected = judged.verdict.findings.clone();
            expected.retain(|one| one != finding);
            assert_eq!(after.verdict.findings, expected, "{code}, {case}");
            assert_eq!(after.acknowledged, std::slice::from_ref(finding));
        }
    }
}

#[test]
fn an_acknowledgement_ends_with_its_instance() {
    let late = |hours: i64| facts(|one| one.targets[1].newest = Some(snapshot(42, hours)));
    let mut observed = late(30);
    let finding = judge(&observed).verdict.findings.remove(0);
    observed.acknowledgements = vec![acknowledgement(&finding, now())];
    let verdict = judge(&observed).verdict;
    assert_eq!(verdict.state, Severity::Green);
    assert!(
        verdict
            .sentence
            .starts_with("Safe, with 1 finding acknowledged: ")
    );
    // The next time another snapshot is late.
    let mut again = late(29);
    again
        .acknowledgements
        .clone_from(&observed.acknowledgements);
    assert_eq!(judge(&again).verdict.state, Severity::Amber);
    // It turns red two days later.
    observed.now += TimeDelta::days(2);
    observed.targets[0].newest = Some(snapshot(45, -46));
    observed.targets[0].looked_at = Some(observed.now);
    observed.targets[1].looked_at = Some(observed.now);
    let verdict = judge(&observed).verdict;
    assert_eq!(verdict.findings[0].code, FindingCode::TargetStale);
    assert_eq!(verdict.state, Severity::Red);
    // Another problem of the same code is another instance.
    let mut broken = facts(|one| one.targets[0].problems.push(problem(FindingCode::Chain)));
    let judged = judge(&broken);
    broken.first_seen = judged.first_seen.into_iter().collect();
    broken.acknowledgements = vec![acknowledgement(&judged.verdict.findings[0], now())];
    assert_eq!(judge(&broken).verdict.state, Severity::Green);
    broken.now += TimeDelta::minutes(1);
    broken.targets[0].problems[0].text.push_str(", and more");
    assert_eq!(judge(&broken).verdict.state, Severity::Red);
}
