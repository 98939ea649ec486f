//! When messages are sent, and what is in them.

use std::time::{Duration, Instant};

use super::stubs::{Servers, Stub};
use super::{World, at, begin, end, finding, run_id, verdict};
use crate::config::NotifyEvent;
use crate::jobs::notify::deliver::deliver_within;
use crate::jobs::notify::edges::EdgeTiming;
use crate::jobs::notify::evaluate::evaluate_with;
use crate::jobs::notify::{RunNotifier, agent_is_running, channel_states};
use crate::jobs::verdict::FindingCode::{
    ChannelFailed, DiskLow, RunFailed, Shrunk, TargetBehind, TargetStale,
};
use crate::jobs::verdict::Severity::{Amber, Red};
use crate::jobs::verdict::{ProvenSnapshot, Verdict, VerdictFinding};

fn hook(stub: &Stub, lines: &str) -> String {
    format!(
        "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\n{lines}\n",
        stub.port
    )
}

/// The events that came, each with the codes of its new and resolved findings.
fn events(stub: &Stub) -> Vec<String> {
    let got = stub.take();
    let texts = got.iter().map(|got| {
        let json = got.json();
        let codes = |list: &str| {
            let codes = json[list].as_array().unwrap().iter();
            let codes = codes.map(|one| one["code"].as_str().unwrap());
            codes.collect::<Vec<_>>().join("+")
        };
        let event = json["event"].as_str().unwrap();
        let (new, lasting, resolved) = (codes("new"), codes("lasting"), codes("resolved"));
        format!("{event} {new}/{lasting}/{resolved}")
    });
    texts.collect()
}

fn low() -> VerdictFinding {
    finding(DiskLow, Red, "less than 1 % is free")
}

fn stale(severity: crate::jobs::verdict::Severity) -> VerdictFinding {
    VerdictFinding {
        target: Some("s3".to_owned()),
        ..finding(TargetStale, severity, "s3 is late")
    }
}

/// Ticks every 30 seconds from `from` to `to`, both included.
fn ticks(world: &World, verdict: &Verdict, from: i64, to: i64) {
    for second in (from..=to).step_by(30) {
        world.tick(verdict, at(second));
    }
}

#[test]
fn findings_of_30_seconds_are_one_message_and_short_ones_none() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, ""));
    let failed = finding(RunFailed, Red, "");
    world.tick(&verdict(&[]), at(0));
    world.tick(&verdict(std::slice::from_ref(&failed)), at(30));
    let shrunk = VerdictFinding {
        source: Some("db".to_owned()),
        ..finding(Shrunk, Amber, "db: love_letters went from 9 to 0 rows")
    };
    world.tick(&verdict(&[failed.clone(), shrunk.clone()]), at(45));
    assert_eq!(events(&stub), Vec::<String>::new());
    // One that lasts for less than five minutes is not reported, unless it is the result of a run.
    let three = [failed, shrunk, low()];
    ticks(&world, &verdict(&three), 60, 330);
    assert_eq!(events(&stub), ["red run_failed+shrunk//"]);
    ticks(&world, &verdict(&three[..2]), 360, 900);
    assert_eq!(events(&stub), Vec::<String>::new());
}

#[test]
fn a_finding_that_comes_and_goes_is_reported_once_in_its_interval() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, "hold = \"0s\"\nmin_interval = \"15m\""));
    for second in (0..840).step_by(120) {
        ticks(&world, &verdict(&[low()]), second, second + 30);
        ticks(&world, &verdict(&[]), second + 60, second + 90);
    }
    let got = events(&stub);
    assert_eq!(got, ["red disk_low//", "recovered //disk_low"]);
    ticks(&world, &verdict(&[low()]), 840, 1_000);
    assert_eq!(events(&stub), ["red disk_low//"]);
}

#[test]
fn worse_is_new_and_better_is_amber() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, ""));
    ticks(&world, &verdict(&[stale(Amber)]), 0, 330);
    ticks(&world, &verdict(&[stale(Red)]), 360, 420);
    assert_eq!(
        events(&stub),
        ["amber target_stale//", "red target_stale//"]
    );
    ticks(&world, &verdict(&[stale(Amber)]), 450, 1_500);
    ticks(&world, &verdict(&[]), 1_530, 1_600);
    let rest = ["amber target_stale//", "recovered //target_stale"];
    assert_eq!(events(&stub), rest);
}

#[test]
fn a_channel_for_red_alone_gets_the_end_of_red() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, "events = [\"red\", \"recovered\"]"));
    ticks(&world, &verdict(&[stale(Amber)]), 0, 600);
    ticks(&world, &verdict(&[stale(Red)]), 630, 1_200);
    ticks(&world, &verdict(&[stale(Amber)]), 1_230, 1_300);
    assert_eq!(
        events(&stub),
        ["red target_stale//", "recovered //target_stale"]
    );
}

#[test]
fn red_that_lasts_is_repeated_daily_and_amber_is_not() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, ""));
    let both = verdict(&[low(), stale(Amber)]);
    for minute in (0..3 * 1_440).step_by(30) {
        world.tick(&both, at(minute * 60));
    }
    let got = events(&stub);
    assert_eq!(got[0], "red disk_low+target_stale//");
    assert_eq!(got[1..], ["red /disk_low/", "red /disk_low/"]);
    let world = World::new(&hook(&stub, "repeat = \"off\""));
    for minute in (0..3 * 1_440).step_by(30) {
        world.tick(&both, at(minute * 60));
    }
    assert_eq!(events(&stub).len(), 1);
}

#[test]
fn in_quiet_hours_only_red_is_sent_and_takes_the_others_along() {
    let stub = Stub::http();
    // The test begins at 06:00 UTC.
    let quiet = "quiet = \"08:00-10:00\"\nzone = \"Europe/Berlin\"\nhold = \"0s\"";
    let world = World::new(&hook(&stub, quiet));
    ticks(&world, &verdict(&[stale(Amber)]), 0, 600);
    assert_eq!(events(&stub), Vec::<String>::new());
    ticks(&world, &verdict(&[stale(Amber), low()]), 630, 900);
    assert_eq!(events(&stub), ["red disk_low+target_stale//"]);
    ticks(&world, &verdict(&[]), 930, 7_170);
    assert_eq!(events(&stub), Vec::<String>::new());
    ticks(&world, &verdict(&[]), 7_200, 7_260);
    assert_eq!(events(&stub), ["recovered //disk_low+target_stale"]);
}

#[test]
fn what_waited_in_the_outbox_when_quiet_hours_begin_waits_for_their_end() {
    let stub = Stub::http();
    let quiet = "quiet = \"06:05-07:00\"\nhold = \"0s\"";
    let world = World::new(&hook(&stub, quiet));
    stub.answer(500);
    ticks(&world, &verdict(&[stale(Amber)]), 0, 240);
    stub.answer(200);
    ticks(&world, &verdict(&[stale(Amber), low()]), 600, 1_800);
    assert_eq!(events(&stub), ["red disk_low//"]);
    ticks(&world, &verdict(&[stale(Amber), low()]), 3_600, 3_660);
    assert_eq!(events(&stub), ["amber target_stale//"]);
}

#[test]
fn after_a_day_without_the_channel_the_present_is_reported() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, "repeat = \"off\"\nhold = \"0s\""));
    stub.answer(503);
    let bad = verdict(&[low(), stale(Amber)]);
    for minute in (0..1_500).step_by(30) {
        world.tick(&bad, at(minute * 60));
    }
    let states = channel_states(&world.history(), &world.config).unwrap();
    assert_eq!(
        states[0].error.as_deref(),
        Some("the webhook answers 503: no / here")
    );
    assert_eq!((states[0].waiting, states[0].succeeded_at), (1, None));
    stub.answer(200);
    for minute in (1_500..1_600).step_by(5) {
        world.tick(&verdict(&[low()]), at(minute * 60));
    }
    // The one that ended meanwhile was reported by no message that arrived.
    let got = events(&stub);
    assert_eq!(got[0], "red disk_low+target_stale//");
    assert_eq!(got[1..], ["recovered //target_stale"]);
    let states = channel_states(&world.history(), &world.config).unwrap();
    assert_eq!((states[0].failing_since, states[0].waiting), (None, 0));
    let totals = world.history().totals("notify").unwrap();
    let expired = totals.iter().find(|(_, outcome, _)| outcome == "expired");
    assert_eq!(expired.unwrap().2, 1);
}

#[test]
fn started_complete_proof_and_weekly_come_if_they_are_asked_for() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, "events = [\"all\"]"));
    let history = world.history();
    let mut good = verdict(&[]);
    world.tick(&good, at(0));
    begin(&history, &run_id(1), at(60));
    ticks(&world, &good, 60, 90);
    end(&history, &run_id(1), ("complete", Some(0)), at(100));
    ticks(&world, &good, 120, 300);
    assert_eq!(events(&stub), ["started //", "complete //"]);
    good.proof = Some(ProvenSnapshot {
        stamp: "20260407T060000Z".parse().unwrap(),
        sequence: 3,
        proven_at: at(200),
        by: "drill@laptop".to_owned(),
        target: "s3".to_owned(),
        seconds: 12.4,
        bytes: 283,
    });
    ticks(&world, &good, 330, 600);
    assert_eq!(events(&stub), ["proof //"]);
    // The next Monday, 08:00.
    let monday = 6 * 86_400 + 7_200;
    ticks(&world, &good, monday - 60, monday + 600);
    let got = stub.take();
    assert_eq!(got.len(), 1);
    let json = got[0].json();
    assert_eq!(json["event"], "weekly");
    assert_eq!(json["lines"][0], "s3: nothing to report; never seen");
    assert_eq!(json["verdict"]["state"], "green");
}

#[test]
fn mails_of_one_finding_are_one_thread() {
    let servers = Servers::start();
    let world = World::new(&servers.channels());
    ticks(&world, &verdict(&[low()]), 0, 400);
    ticks(&world, &verdict(&[]), 430, 500);
    let mails = servers.email.take();
    assert_eq!(mails.len(), 2);
    let header = |number: usize, name: &str| {
        let mut lines = mails[number].body.lines();
        let line = lines.find(|line| line.starts_with(name)).map(str::to_owned);
        line.map(|line| line[name.len()..].trim().to_owned())
    };
    let id = header(0, "Message-ID:").unwrap();
    assert!(id.ends_with("@dalidou.sealift>"), "{id}");
    assert_eq!(header(1, "References:"), Some(id.clone()));
    assert_eq!(header(1, "In-Reply-To:"), Some(id.clone()));
    assert_ne!(header(1, "Message-ID:"), Some(id));
    for mail in &mails {
        assert!(
            mail.body.contains("Auto-Submitted: auto-generated"),
            "{mail:?}"
        );
        assert!(mail.body.contains("multipart/alternative"), "{mail:?}");
        assert!(mail.body.contains("text/html"), "{mail:?}");
        assert!(mail.head.contains("RCPT TO:<me@example.org>"), "{mail:?}");
    }
    let ntfy = servers.ntfy.take();
    assert!(ntfy[0].head.contains("priority: 5\n"), "{ntfy:?}");
    assert!(
        ntfy[0]
            .body
            .starts_with("Not safe: less than 1 % is free.\n"),
        "{ntfy:?}"
    );
    assert!(
        ntfy[1].head.contains("tags: white_check_mark\n"),
        "{ntfy:?}"
    );
}

#[test]
fn pings_of_a_run_have_its_id_and_a_report() {
    let stub = Stub::http();
    let channels = format!(
        "[[notify]]\nkind = \"healthchecks\"\nurl = \" http://127.0.0.1:{}/uuid \"\npartial = \"log\"\n\
         [[notify]]\nname = \"verdict\"\nkind = \"healthchecks\"\nurl = \"http://127.0.0.1:{}/verdict\"\njob = \"verdict\"\n",
        stub.port, stub.port
    );
    let world = World::new(&channels);
    let history = world.history();
    world.tick(&verdict(&[]), at(0));
    begin(&history, &run_id(1), at(60));
    world.tick(&verdict(&[]), at(60));
    end(&history, &run_id(1), ("partial", Some(3)), at(100));
    world.tick(&verdict(&[low()]), at(100));
    let got = stub.take();
    let paths: Vec<&str> = got.iter().map(|got| got.path.as_str()).collect();
    let rid = crate::base::ids::ulid_as_uuid(&run_id(1)).unwrap();
    let start = format!("/uuid/start?rid={rid}");
    let log = format!("/uuid/log?rid={rid}");
    assert_eq!(paths, ["/verdict", &start, &log]);
    let body = &got[2].body;
    for part in [
        "partial (exit code 3)",
        "2 paths skipped",
        "sources left out: db",
        "bytes: 4096",
    ] {
        assert!(body.contains(part), "{body}");
    }
    // Hourly; and of those that could not be sent, the newest only.
    ticks(&world, &verdict(&[low()]), 130, 3_570);
    assert!(stub.take().is_empty());
    stub.answer(500);
    ticks(&world, &verdict(&[low()]), 3_600, 8_970);
    stub.answer(200);
    ticks(&world, &verdict(&[low()]), 9_000, 10_770);
    let got = stub.take();
    let paths: Vec<&str> = got.iter().map(|got| got.path.as_str()).collect();
    assert_eq!(paths, ["/verdict/fail"]);
}

#[test]
fn a_channel_does_not_report_its_own_failure() {
    let (one, two) = (Stub::http(), Stub::http());
    let second = hook(&two, "hold = \"0s\"").replace("\"hook\"", "\"other\"");
    let world = World::new(&format!("{}{second}", hook(&one, "hold = \"0s\"")));
    one.answer(500);
    ticks(&world, &verdict(&[low()]), 0, 60);
    let failed = VerdictFinding {
        target: Some("hook".to_owned()),
        ..finding(ChannelFailed, Amber, "no message has reached hook")
    };
    ticks(&world, &verdict(&[low(), failed]), 90, 600);
    one.answer(200);
    ticks(&world, &verdict(&[low()]), 630, 2_000);
    assert_eq!(events(&one), ["red disk_low//"]);
    let two = events(&two);
    assert_eq!(
        two,
        [
            "red disk_low//",
            "amber channel_failed//",
            "recovered //channel_failed"
        ]
    );
}

#[test]
fn a_run_without_an_agent_sends_at_its_end() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, ""));
    let history = world.history();
    begin(&history, &run_id(1), at(0));
    let row = history.run(&run_id(1)).unwrap().unwrap();
    let notifier = RunNotifier::began(&world.config, &verdict(&[low()]), &row, at(0));
    end(&history, &run_id(1), ("failed", Some(1)), at(9));
    let row = history.run(&run_id(1)).unwrap();
    let bad = verdict(&[low(), finding(RunFailed, Red, ""), stale(Amber)]);
    assert_eq!(
        notifier.ended(&bad, row.as_ref(), at(9)),
        Vec::<String>::new()
    );
    // Nothing waits until it has lasted.
    assert_eq!(events(&stub), ["red disk_low+run_failed+target_stale//"]);
    assert_eq!(history.outbox().unwrap(), []);
    // A channel that fails is a warning.
    stub.answer(403);
    begin(&history, &run_id(2), at(100));
    let row = history.run(&run_id(2)).unwrap().unwrap();
    let notifier = RunNotifier::began(&world.config, &bad, &row, at(100));
    end(&history, &run_id(2), ("complete", Some(0)), at(120));
    let row = history.run(&run_id(2)).unwrap();
    let warnings = notifier.ended(&verdict(&[]), row.as_ref(), at(120));
    assert!(
        warnings[0].contains("no message reached hook: the webhook answers 403"),
        "{warnings:?}"
    );
    assert_eq!(history.outbox().unwrap().len(), 1);
    // The agent sends.
    let lock = std::fs::File::create(world.state().join("serve.lock")).unwrap();
    assert!(!agent_is_running(&world.state()));
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(agent_is_running(&world.state()));
    let notifier = RunNotifier::began(&world.config, &bad, row.as_ref().unwrap(), at(200));
    assert_eq!(
        notifier.ended(&bad, row.as_ref(), at(210)),
        Vec::<String>::new()
    );
    assert_eq!(history.outbox().unwrap().len(), 1);
}

#[test]
fn a_dead_server_costs_the_deadline_and_no_more() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stub = Stub::http();
    let dead = format!(
        "[[notify]]\nname = \"dead\"\nkind = \"ntfy\"\nurl = \"http://127.0.0.1:{port}/t\"\n"
    );
    let world = World::new(&format!("{dead}{}", hook(&stub, "")));
    let history = world.history();
    let bad = verdict(&[low()]);
    evaluate_with(
        &world.config,
        &history,
        (&bad, None),
        EdgeTiming::AtOnce,
        at(0),
    )
    .unwrap();
    let began = Instant::now();
    let deadline = Some(began + Duration::from_millis(700));
    let report = deliver_within(&world.config, &history, at(0), deadline).unwrap();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!((report.sent, report.failed.len()), (1, 1));
    assert_eq!(events(&stub), ["red disk_low//"]);
}

/// Kind: an agent gathered findings and ended before it sent them, and the next process waits as
/// it did.
#[test]
fn what_an_agent_left_unsent_is_sent_by_the_next_run_at_once() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, ""));
    let history = world.history();
    let failed = verdict(&[finding(RunFailed, Red, "it failed")]);
    world.tick(&failed, at(0));
    assert_eq!(events(&stub), Vec::<String>::new());
    assert_eq!(history.outbox().unwrap().len(), 1);
    let (config, timing) = (&world.config, EdgeTiming::AtOnce);
    evaluate_with(config, &history, (&failed, None), timing, at(2)).unwrap();
    deliver_within(config, &history, at(2), None).unwrap();
    assert_eq!(events(&stub), ["red run_failed//"]);
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let stub = Stub::http();
    let world = World::new(&hook(&stub, "events = [\"all\"]"));
    let bad = verdict(&[low(), stale(Amber), finding(TargetBehind, Amber, "x")]);
    ticks(&world, &bad, 0, 600);
    let history = world.history();
    let version = |history: &crate::state::history::History| history.outbox_version().unwrap();
    let before = version(&history);
    ticks(&world, &bad, 630, 1_500);
    assert_eq!(version(&history), before);
    assert_eq!(events(&stub).len(), 1);
    assert!(
        world.config.channels[0]
            .events
            .contains(&NotifyEvent::Weekly)
    );
}
