//! The truth table of the verdict: for each code, facts that make it amber, red and gone; and what
//! holds for all facts.

mod facts;
mod rows;

use chrono::TimeDelta;

use super::observed::*;
use super::*;
use crate::state::history::Acknowledgement;
use facts::*;
use rows::table;

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
        assert!(
            of(None) && (of(Some(Severity::Amber)) || of(Some(Severity::Red))),
            "{code}"
        );
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
        target.access = TargetReach::WriteOnly;
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
                .push(ObservedTarget::unknown("new", TargetReach::Readable))
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
