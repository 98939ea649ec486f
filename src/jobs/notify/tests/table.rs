//! The truth table of docs/notifications.md: each way to fail, on each kind of channel.

use super::stubs::Servers;
use super::{World, at, begin, end, finding, run_id, verdict};
use crate::jobs::verdict::FindingCode::{
    ConfigChanged, DiskLow, RunFailed, RunOverlong, RunPartial, TargetBehind, TargetUnknown,
};
use crate::jobs::verdict::Severity::{Amber, Red};
use crate::jobs::verdict::VerdictFinding;

/// One row of the table.
struct Case {
    name: &'static str,
    /// How the run ends, if it does.
    end: Option<(&'static str, Option<i32>)>,
    findings: Vec<VerdictFinding>,
    /// The title of the message.
    title: &'static str,
    /// The ping of healthchecks after that of the begin.
    ping: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let failed = || finding(RunFailed, Red, "`mount /srv/private` failed: love_letters");
    let behind = |text| VerdictFinding {
        target: Some("s3".to_owned()),
        ..finding(TargetBehind, Amber, text)
    };
    let unknown = VerdictFinding {
        target: Some("s3".to_owned()),
        ..finding(TargetUnknown, Amber, "s3 cannot be looked at: no such name")
    };
    let case = |name, end, findings, title, ping| Case {
        name,
        end: Some(end),
        findings,
        title,
        ping: Some(ping),
    };
    let (red, amber) = ("not safe", "needs attention");
    let partial = ("partial", Some(3));
    vec![
        case(
            "pre-hook fails",
            ("failed", Some(1)),
            vec![failed()],
            red,
            "/fail",
        ),
        case(
            "repository 403",
            partial,
            vec![behind("s3 is behind: 403 for /bucket/private")],
            amber,
            "/fail",
        ),
        case(
            "DNS dead",
            partial,
            vec![behind("s3 is behind: no such name"), unknown],
            amber,
            "/fail",
        ),
        case(
            "disk full",
            ("failed", Some(1)),
            vec![
                failed(),
                finding(DiskLow, Red, "less than 1 % of /srv/private is free"),
            ],
            red,
            "/fail",
        ),
        case(
            "config broken",
            ("failed", Some(2)),
            vec![
                failed(),
                finding(ConfigChanged, Amber, "/etc/private.toml:3: unknown key"),
            ],
            red,
            "/fail",
        ),
        case(
            "child kill -9",
            ("killed", None),
            vec![failed()],
            red,
            "/fail",
        ),
        case(
            "agent kill -9",
            ("killed", None),
            vec![failed()],
            red,
            "/fail",
        ),
        case(
            "partial",
            partial,
            vec![finding(RunPartial, Amber, "skipped /srv/private/diary.txt")],
            amber,
            "/fail",
        ),
        Case {
            name: "overlong",
            end: None,
            findings: vec![finding(RunOverlong, Amber, "the backup runs since 02:00")],
            title: amber,
            ping: None,
        },
    ]
}

const NONE: [Vec<String>; 4] = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];

fn titles(of_messages: [&str; 2], pings: &[&str]) -> [Vec<String>; 4] {
    let [event, title] = of_messages.map(|text| vec![text.to_owned()]);
    let pings = pings.iter().map(|ping| (*ping).to_owned()).collect();
    [event, title.clone(), title, pings]
}

fn event(title: &str) -> &'static str {
    match title {
        "not safe" => "red",
        _ => "amber",
    }
}

/// The failure of `case` from second `from` on; all channels are down for the first `down` seconds.
fn fails_and_recovers(case: &Case, down: i64) {
    let servers = Servers::start();
    let world = World::new(&servers.channels());
    let history = world.history();
    let good = verdict(&[]);
    let what = case.name;
    // A success before it: nothing but the pings of healthchecks.
    world.tick(&good, at(0));
    begin(&history, &run_id(1), at(10));
    world.tick(&good, at(10));
    end(&history, &run_id(1), ("complete", Some(0)), at(20));
    world.tick(&good, at(20));
    world.tick(&good, at(60));
    let quiet = [
        Vec::new(),
        Vec::new(),
        Vec::new(),
        vec!["/start".to_owned(), String::new()],
    ];
    assert_eq!(servers.titles(), quiet, "{what}");
    // The failure.
    servers.set_down(down > 0);
    begin(&history, &run_id(2), at(100));
    world.tick(&good, at(100));
    if let Some(how) = case.end {
        end(&history, &run_id(2), how, at(110));
    }
    let bad = verdict(&case.findings);
    for second in (110..down).step_by(120) {
        world.tick(&bad, at(second));
    }
    assert!(down == 0 || servers.titles() == NONE, "{what}");
    servers.set_down(false);
    for second in (down.max(110)..down + 1_200).step_by(60) {
        world.tick(&bad, at(second));
    }
    let pings: Vec<&str> = ["/start"].into_iter().chain(case.ping).collect();
    // A begin that is over when it could be reported is not reported: the ping of the end is.
    let expected = titles([event(case.title), case.title], &pings);
    assert_eq!(servers.titles(), expected, "{what} {down}");
    // The recovery, once; and nothing more on the next success.
    let later = down + 3_000;
    if case.end.is_none() {
        end(&history, &run_id(2), ("complete", Some(0)), at(later));
    }
    begin(&history, &run_id(3), at(later));
    world.tick(&bad, at(later));
    end(&history, &run_id(3), ("complete", Some(0)), at(later + 20));
    for second in (later + 20..later + 500).step_by(60) {
        world.tick(&good, at(second));
    }
    let mut pings = vec!["/start", ""];
    if case.end.is_none() {
        pings.insert(0, "");
    }
    let expected = titles(["recovered", "recovered"], &pings);
    assert_eq!(servers.titles(), expected, "{what} {down}");
    for second in (later + 1_000..later + 4_000).step_by(600) {
        world.tick(&good, at(second));
    }
    assert_eq!(servers.titles(), NONE, "{what}");
    assert_eq!(history.outbox().unwrap(), []);
}

#[test]
fn each_failure_is_reported_once_and_its_end_once() {
    for case in cases() {
        fails_and_recovers(&case, 0);
    }
}

#[test]
fn a_message_waits_for_a_channel_that_is_down_for_an_hour() {
    // One red, one amber, and one of a run that does not end; all of them in the long form.
    let is_long = std::env::var_os("SEALIFT_TEST_LONG").is_some_and(|value| value == "1");
    let short = ["disk full", "DNS dead", "overlong"];
    for case in cases() {
        if is_long || short.contains(&case.name) {
            fails_and_recovers(&case, 3_600);
        }
    }
}

#[test]
fn neither_paths_nor_tables_leave() {
    for case in cases() {
        let servers = Servers::start();
        let world = World::new(&servers.channels());
        let history = world.history();
        world.tick(&verdict(&[]), at(0));
        begin(&history, &run_id(2), at(100));
        if let Some(how) = case.end {
            end(&history, &run_id(2), how, at(110));
        }
        for second in (110..800).step_by(60) {
            world.tick(&verdict(&case.findings), at(second));
        }
        for stub in servers.all() {
            for got in stub.take() {
                let said = format!("{}{}", got.head, got.body.replace("=\n", ""));
                for private in ["private", "love_letters", "diary", "x.db", "bucket"] {
                    assert!(!said.contains(private), "{}: {said}", case.name);
                }
                assert!(!case.title.is_empty() && said.contains("dalidou") || !got.path.is_empty());
            }
        }
    }
}
