use super::*;
use proptest::prelude::*;
use serde_json::json;

fn condition(operator: Operator, with: Value) -> Expectation {
    Expectation { operator, with }
}

/// Each operator beside values that meet it and values that do not.
#[test]
fn each_operator_accepts_what_it_says_and_nothing_else() {
    use Operator::{Eq, Exists, Ge, Gt, Le, LenGe, Lt, Matches, Ne};
    let table: &[(Operator, Value, &[Value], &[Value])] = &[
        (
            Eq,
            json!("ok"),
            &[json!("ok")],
            &[json!("OK"), json!("ok "), json!(null), json!(["ok"])],
        ),
        (
            Eq,
            json!(1),
            &[json!(1), json!(1.0)],
            &[json!("1"), json!(true), json!(1.5), json!(2)],
        ),
        (
            Eq,
            json!({"a": [1, null]}),
            &[json!({"a": [1.0, null]})],
            &[
                json!({"a": [1]}),
                json!({"a": [1, null], "b": 0}),
                json!({}),
            ],
        ),
        (Eq, json!(null), &[json!(null)], &[json!(0), json!(false)]),
        (
            Ne,
            json!(0),
            &[json!(1), json!("0"), json!(null)],
            &[json!(0), json!(0.0), json!(-0.0)],
        ),
        (
            Ge,
            json!(1),
            &[json!(1), json!(1.0), json!(u64::MAX)],
            &[json!(0), json!(0.999), json!("5"), json!(null), json!([1])],
        ),
        (
            Gt,
            json!(1),
            &[json!(1.5), json!(2)],
            &[json!(1), json!(1.0)],
        ),
        (
            Le,
            json!(-1),
            &[json!(-1), json!(i64::MIN)],
            &[json!(0), json!("-2")],
        ),
        (
            Lt,
            json!(0.5),
            &[json!(0), json!(-7)],
            &[json!(0.5), json!(1)],
        ),
        (
            Matches,
            json!("1.?.*"),
            &[json!("1.2."), json!("1.é.rc1/x")],
            &[json!("1.22"), json!("x1.2.3"), json!(1.2), json!(null)],
        ),
        (
            LenGe,
            json!(2),
            &[json!([0, 0]), json!("éé"), json!({"a": 1, "b": 2})],
            &[json!([0]), json!("é"), json!({}), json!(22), json!(null)],
        ),
        (Exists, json!(true), &[json!(null), json!(0)], &[]),
        (Exists, json!(false), &[], &[json!(null), json!(0)]),
    ];
    for (operator, with, good, bad) in table {
        let condition = condition(*operator, with.clone());
        for (values, expected) in [(good, true), (bad, false)] {
            for value in *values {
                let found = holds(&condition, Some(value));
                assert_eq!(found, expected, "{value} {operator:?} {with}");
            }
        }
    }
}

/// Without a value no condition holds, except that it must not exist.
#[test]
fn a_missing_value_meets_no_condition_but_exists_false() {
    for operator in [
        Operator::Eq,
        Operator::Ne,
        Operator::Ge,
        Operator::Gt,
        Operator::Le,
        Operator::Lt,
        Operator::Matches,
        Operator::LenGe,
    ] {
        for with in [json!(null), json!(0), json!("*")] {
            assert!(!holds(&condition(operator, with), None), "{operator:?}");
        }
    }
    assert!(holds(&condition(Operator::Exists, json!(false)), None));
    assert!(!holds(&condition(Operator::Exists, json!(true)), None));
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        (-9_i64..9).prop_map(|n| json!(n)),
        (-9_i32..9).prop_map(|n| json!(f64::from(n) / 2.0)),
    ]
}

proptest! {
    /// Of two numbers exactly one of less, equal and more holds, and the others follow from it.
    #[test]
    fn numbers_are_ordered(a in number(), b in number()) {
        let is = |operator| holds(&condition(operator, b.clone()), Some(&a));
        let (lt, eq, gt) = (is(Operator::Lt), is(Operator::Eq), is(Operator::Gt));
        prop_assert_eq!(u8::from(lt) + u8::from(eq) + u8::from(gt), 1);
        prop_assert_eq!(is(Operator::Le), lt || eq);
        prop_assert_eq!(is(Operator::Ge), gt || eq);
        prop_assert_eq!(is(Operator::Ne), !eq);
    }

    /// Patterns agree with the regular expressions that they stand for.
    #[test]
    fn patterns_match_as_their_regular_expressions(
        pattern in "[ab*?]{0,8}",
        text in "[ab]{0,8}",
    ) {
        let regex = pattern.replace('*', ".*").replace('?', ".");
        let regex = regex::Regex::new(&format!("^{regex}$")).unwrap();
        prop_assert_eq!(matches(&pattern, &text), regex.is_match(&text));
    }
}

#[test]
fn messages_name_the_value_and_what_was_expected() {
    let mut outcome = Outcome::default();
    outcome.add(
        "/status",
        &[condition(Operator::Eq, json!("ok"))],
        Some(&json!("ok")),
    );
    outcome.add(
        "/documents",
        &[condition(Operator::Ge, json!(1))],
        Some(&json!(0)),
    );
    outcome.add("/x", &[condition(Operator::Exists, json!(true))], None);
    let attempt = outcome.finish();
    assert_eq!(
        attempt.found,
        "/documents is 0, expected at least 1; /x is missing, expected a value"
    );
    assert_eq!(attempt.wrong, [Some(json!(0)), None]);
    let long = shown(&json!("x\u{1b}[2J\n".repeat(100)));
    assert!(
        long.chars().count() <= SHOWN_CHARS + 3 && !long.contains('\u{1b}'),
        "{long}"
    );
}
