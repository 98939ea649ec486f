//! `--events-fd`: JSON Lines for other programs.

use serde_json::Value;

use super::screen::Frames;
use super::{ON_A_TERMINAL, on_a_terminal, slow_host};
use crate::shell::{Scene, Shell};

fn events(shell: &Shell) -> Vec<Value> {
    let text = std::fs::read_to_string(shell.dir().join("events")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    lines.collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["event"] == kind)
        .collect()
}

#[test]
fn a_backup_writes_its_stages_its_progress_and_last_its_report() {
    let shell = slow_host();
    shell.ok("sqlite3 db.sqlite 'create table t(x); insert into t values (1), (2)' 2>/dev/null ||
              python3 -c \"import sqlite3; c=sqlite3.connect('db.sqlite'); c.execute('create table t(x)'); c.executemany('insert into t values (?)', [(1,), (2,)]); c.commit()\"
              printf '\n[[source]]\nkind = \"sqlite\"\nname = \"db\"\npath = \"db.sqlite\"\n' >>c.toml");
    shell.ok("sealift -q backup --events-fd 3 3>events");
    let events = events(&shell);
    for event in &events {
        let time = event["t"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == 24, "{time}");
    }
    let stages = of_kind(&events, "stage");
    let stages: Vec<String> = stages
        .iter()
        .map(|event| {
            format!(
                "{} {}",
                event["stage"].as_str().unwrap(),
                event["source"].as_str().unwrap_or("")
            )
        })
        .collect();
    let expected = [
        "producing db",
        "validating db",
        "packing ",
        "shipping ",
        "publishing ",
    ];
    let places: Vec<usize> = expected
        .iter()
        .map(|stage| {
            stages
                .iter()
                .position(|one| one == stage)
                .unwrap_or_else(|| panic!("{stage}: {stages:?}"))
        })
        .collect();
    assert!(places.is_sorted(), "{stages:?}");

    // Some progress on the way, at most 4 a second, each with a higher count than the last.
    let progress = of_kind(&events, "progress");
    let sent: Vec<u64> = progress
        .iter()
        .filter_map(|event| event["targets"]["folder"]["sent"].as_u64())
        .collect();
    assert!(sent.len() >= 4 && sent.is_sorted(), "{sent:?}");
    assert!(
        sent.iter().any(|sent| (1..5_000_000).contains(sent)),
        "{sent:?}"
    );

    assert_eq!(of_kind(&events, "report").len(), 1);
    let report = &events.last().unwrap()["report"];
    assert_eq!(report["kind"], "backup");
    assert_eq!(report["outcome"], "complete");
    assert_eq!(report["exit_code"], 0);
    assert_eq!(report["stamp"], "20260407T060000Z");
    assert_eq!(report["targets"][0]["name"], "folder");
    assert_eq!(report["targets"][0]["state"], "published");
    assert!(
        report["targets"][0]["sent_bytes"].as_u64() >= sent.last().copied(),
        "{report}"
    );
    let source = |name: &str| {
        let sources = report["sources"].as_array().unwrap();
        sources
            .iter()
            .find(|one| one["name"] == name)
            .unwrap_or_else(|| panic!("{name}: {report}"))
    };
    assert!(source("db")["seconds"].as_f64().is_some(), "{report}");
    assert_eq!(report["databases"][0]["tables"]["t"], 2, "{report}");
}

/// Kind: while something large is copied, nothing shows that it goes on.
#[test]
fn a_source_that_is_copied_counts_its_bytes() {
    let shell = Shell::new(Scene::Host);
    let line = "for i in 1 2 3 4; do head -c 1000000 /dev/zero; sleep 0.4; done";
    shell.ok(&format!(
        "printf '\n[[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = \"{line}\"\n' >>c.toml"
    ));
    shell.ok("sealift -q backup --events-fd 3 3>events");
    let events = events(&shell);
    let copied: Vec<u64> = of_kind(&events, "progress")
        .iter()
        .filter(|event| event["source"] == "dump")
        .map(|event| event["bytes"].as_u64().unwrap())
        .collect();
    let within = copied
        .iter()
        .filter(|bytes| (1..4_000_000).contains(*bytes));
    assert!(within.count() >= 2 && copied.is_sorted(), "{copied:?}");
    std::fs::write(shell.dir().join("on_a_terminal.py"), ON_A_TERMINAL).unwrap();
    let (_, said) = on_a_terminal(&shell, "xterm", 80, "", "backup");
    let frames = Frames::of(&said, 80);
    let shown =
        |line: &str| line.starts_with("copying the sources: dump, ") && line.contains(" MB, ");
    assert!(frames.any(shown), "{frames}");
}

/// Kind: the agent does not learn why its child makes no progress.
#[test]
fn a_target_that_is_retried_is_an_event() {
    let shell = Shell::new(Scene::Host);
    let port = crate::support::free_port();
    shell.ok(&format!(
        "printf '\n[[target]]\nname = \"away\"\nurl = \"s3://bucket/x\"\nendpoint = \"http://127.0.0.1:{port}\"\n' >>c.toml"
    ));
    let environment = "AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b";
    for command in ["status", "backup --retry 4s"] {
        shell.run(&format!(
            "{environment} sealift -q {command} --events-fd 3 3>events 2>said"
        ));
        let events = events(&shell);
        let retried = of_kind(&events, "retrying");
        assert!(!retried.is_empty(), "{command}: {events:?}");
        assert_eq!(retried[0]["target"], "away");
        assert!(
            retried[0]["cause"].as_str().unwrap().contains("refused"),
            "{retried:?}"
        );
        assert!(retried[0]["left_seconds"].as_u64().is_some(), "{retried:?}");
    }
}

#[test]
fn a_failure_reports_its_causes_and_the_next_step() {
    let shell = Shell::new(Scene::Host);
    let (code, said) = shell.run("sealift backup --include nosuch --events-fd 3 3>events");
    assert_eq!(code, 2, "{said}");
    let events = events(&shell);
    let report = &events.last().unwrap()["report"];
    assert_eq!(
        (&report["outcome"], &report["exit_code"]),
        (&"failed".into(), &2.into())
    );
    let text = report["errors"][0]["text"].as_str().unwrap();
    assert!(text.contains("nosuch"), "{report}");
    assert!(report["errors"][0]["causes"].is_array(), "{report}");
}

#[test]
fn an_interrupted_run_reports_that_it_was_cancelled() {
    let shell = slow_host();
    let (code, said) = shell.run(
        "sealift backup --events-fd 3 3>events & pid=$!
         for i in $(seq 100); do grep -q '\"sending\"' events && break; sleep 0.1; done
         kill -INT $pid || kill -TERM $pid; wait $pid",
    );
    assert_eq!(code, 1, "{said}");
    let report = &events(&shell).pop().unwrap()["report"];
    assert_eq!(
        (&report["outcome"], &report["exit_code"]),
        (&"cancelled".into(), &1.into())
    );
}

#[test]
fn a_reader_that_has_gone_or_never_reads_costs_the_run_nothing() {
    let shell = Shell::new(Scene::Host);
    for reader in ["true", "sleep 3"] {
        shell.ok(&format!(
            "rm -f code; {{ sealift -q backup --events-fd 3 3>&1 >said 2>&1; echo $? >code; }} | {reader}"
        ));
        let code = std::fs::read_to_string(shell.dir().join("code")).unwrap();
        assert_eq!(code, "0\n", "{reader}");
    }
}

#[test]
fn a_descriptor_that_cannot_take_events_is_refused() {
    let shell = Shell::new(Scene::Host);
    for (arguments, why) in [
        ("--events-fd 0", "standard input, output and error"),
        ("--events-fd 1", "standard input, output and error"),
        ("--events-fd 2", "standard input, output and error"),
        ("--events-fd 9", "this descriptor is not open"),
        ("--events-fd=-1", "this descriptor is not open"),
        ("--events-fd 9 9<c.toml", "open for reading only"),
    ] {
        let (code, said) = shell.run(&format!("sealift status {arguments}"));
        assert_eq!(code, 2, "{arguments}: {said}");
        assert!(said.contains(why), "{arguments}: {said}");
    }
}

#[test]
fn no_child_inherits_the_descriptor() {
    let shell = Shell::new(Scene::Host);
    shell.ok("printf '\n[[source]]\nkind = \"command\"\nname = \"fds\"\ncommand = [\"sh\", \"-c\", \"ls -l /proc/self/fd\"]\nto = \"fds.txt\"\n' >>c.toml");
    shell.ok("sealift -q backup --events-fd 7 7>events && sealift -q restore --identity key.txt --to out --accept-signer");
    let open = shell.ok("cat $(find out -name fds.txt)");
    assert!(
        open.contains(" 0 -> ") && !open.contains("events"),
        "{open}"
    );
}
