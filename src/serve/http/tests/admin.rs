//! The admin API of AtoCore.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stand_in::{TestAgent, Work};

/// The commands of AtoCore's "Backup and Restore Procedure" that talk to the admin API, as it has
/// them.
const PROCEDURE: &[&str] = &[
    r#"curl -fsS -X POST http://dalidou:8100/admin/backup \
  -H "Content-Type: application/json" \
  -d '{"include_chroma": false}'"#,
    r#"curl -fsS -X POST http://dalidou:8100/admin/backup \
  -H "Content-Type: application/json" \
  -d '{"include_chroma": true}'"#,
    r#"curl -fsS http://dalidou:8100/admin/backup"#,
    r#"curl -fsS http://dalidou:8100/admin/backup/20260407T060000Z/validate"#,
    r#"curl -fsS http://dalidou:8100/admin/backup | jq '.backups[].stamp'"#,
    r#"curl -fsS http://dalidou:8100/admin/backup/$STAMP/validate | jq ."#,
    r#"curl -fsS http://dalidou:8100/health | jq ."#,
    r#"curl -fsS -X POST http://dalidou:8100/admin/backup \
  -H "Content-Type: application/json" -d '{}'"#,
    r#"LATEST=$(curl -fsS http://dalidou:8100/admin/backup | jq -r '.backups[-1].stamp')
curl -fsS http://dalidou:8100/admin/backup/$LATEST/validate | jq ."#,
];

/// Runs one command of the procedure, with curl finding the host at the agent's port.
fn procedure(agent: &TestAgent, command: &str, stamp: &str) -> String {
    let port = agent.address.port();
    let script = format!(
        "set -eu -o pipefail\ncurl() {{ command curl --max-time 60 --connect-to dalidou:8100:127.0.0.1:{port} \"$@\"; }}\n\
         STAMP={stamp}\n{command}\n"
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_of_the_procedure_work_as_they_are() {
    let agent = TestAgent::new();
    agent.set_work(Work::Succeeds(Duration::ZERO));
    let run = |index: usize, stamp: &str| {
        let said = procedure(&agent, PROCEDURE[index], stamp);
        agent.settle();
        said
    };
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let made = value(&run(0, ""));
    let root = made["backup_root"].as_str().unwrap();
    assert!(
        std::path::Path::new(root).join("db/atocore.db").exists(),
        "{root}"
    );
    assert_eq!(
        (&made["valid"], &made["chroma_snapshot_included"]),
        (&json!(true), &json!(false))
    );
    assert!(made["db_size_bytes"].as_u64().unwrap() > 0);
    let with_chroma = value(&run(1, ""));
    assert_eq!(
        with_chroma["chroma_snapshot_included"], true,
        "{with_chroma}"
    );
    let (first, second) = (
        made["stamp"].as_str().unwrap(),
        with_chroma["stamp"].as_str().unwrap(),
    );
    let listed = value(&run(2, ""));
    assert_eq!(
        listed["backup_dir"],
        agent.config.snapshots_dir.display().to_string()
    );
    let backups = listed["backups"].as_array().unwrap();
    let stamps: Vec<&str> = backups
        .iter()
        .map(|one| one["stamp"].as_str().unwrap())
        .collect();
    assert_eq!(stamps, [first, second]);
    assert_eq!(
        (&backups[0]["has_metadata"], &backups[0]["backup_root"]),
        (&json!(true), &json!(root))
    );
    let missing = value(&run(3, ""));
    assert_eq!(
        (&missing["valid"], &missing["errors"], &missing["exists"]),
        (&json!(false), &json!(["snapshot_missing"]), &json!(false))
    );
    assert_eq!(run(4, ""), format!("\"{first}\"\n\"{second}\"\n"));
    let valid = value(&run(5, first));
    assert_eq!(
        (&valid["valid"], &valid["errors"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(value(&run(6, ""))["status"], "ok");
    let third = value(&run(7, ""));
    let newest = value(&run(8, ""));
    assert_eq!(
        (&newest["stamp"], &newest["valid"]),
        (&third["stamp"], &json!(true))
    );
}

#[test]
fn the_answer_comes_with_the_snapshot_or_with_the_push() {
    let agent = TestAgent::new();
    agent.set_work(Work::Succeeds(Duration::from_secs(3)));
    let begin = Instant::now();
    let early = agent.post("/admin/backup", r#"{"unknown": 1}"#);
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(early.status, 200, "{}", early.body);
    let value = early.json();
    assert_eq!(
        value["targets"],
        json!({"s3": "pending", "disk": "pending"})
    );
    assert_eq!(
        value["run"],
        agent.get("/api/v1/status").json()["running"]["id"]
    );
    agent.settle();
    agent.set_work(Work::Succeeds(Duration::from_millis(200)));
    let late = agent.post("/admin/backup", r#"{"wait":"push"}"#).json();
    assert_eq!(
        late["targets"],
        json!({"s3": "published", "disk": "behind: no such folder"})
    );
    assert_eq!(late["valid"], true);
    // Without a body, as FastAPI takes it.
    assert_eq!(agent.send("POST", "/admin/backup", &[], b"").status, 200);
}

#[test]
fn a_failed_backup_names_the_codes_of_its_validation() {
    let agent = TestAgent::new();
    agent.set_work(Work::Fails);
    let reply = agent.post("/admin/backup", "{}");
    assert_eq!(reply.problem(500, "failed"), "the snapshot is not valid");
    let value = reply.json();
    assert_eq!(
        (&value["valid"], &value["errors"]),
        (&json!(false), &json!(["db_integrity_check_failed"]))
    );
    assert_eq!(value["next"], "suspect the disk");
}

#[test]
fn wrong_requests_start_nothing() {
    let agent = TestAgent::new();
    for body in [
        r#"{"include_chroma": "yes"}"#,
        r#"{"include_chroma": 1}"#,
        r#"{"wait":"never"}"#,
        "[]",
        "{",
    ] {
        agent
            .post("/admin/backup", body)
            .problem(422, "invalid_body");
    }
    for stamp in [
        "..%2f..%2fetc",
        "latest",
        "20260407",
        "20260407T060000Z%00",
        "2026040712060000Z",
        "%2e%2e",
    ] {
        let path = format!("/admin/backup/{stamp}/validate");
        agent.get(&path).problem(400, "not_a_stamp");
    }
    // Not a time, but of the form.
    let odd = agent.get("/admin/backup/99999999T999999Z/validate").json();
    assert_eq!(odd["errors"], json!(["snapshot_missing"]));
    assert_eq!(agent.started.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn the_run_goes_on_when_the_caller_goes_away() {
    let agent = TestAgent::new();
    agent.set_work(Work::Succeeds(Duration::from_millis(800)));
    let body = r#"{"wait":"push"}"#;
    let request = format!(
        "POST /admin/backup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = agent.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.state.borrow().running.is_none() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stream);
    agent.settle();
    let runs = agent.get("/api/v1/runs").json();
    assert_eq!(runs["runs"][0]["outcome"], "partial");
}

#[test]
fn only_finished_snapshots_are_listed() {
    let agent = TestAgent::new();
    agent.set_work(Work::Succeeds(Duration::ZERO));
    agent.post("/admin/backup", "{}");
    agent.settle();
    let dir = &agent.config.snapshots_dir;
    for name in [
        ".partial-20260101T000000Z",
        "invalid-20260102T000000Z",
        "20260103T000000Z",
        "notes",
    ] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    let listed = agent.get("/admin/backup").json();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn an_agent_that_ends_does_not_keep_its_callers_waiting() {
    let mut agent = TestAgent::new();
    agent.set_work(Work::Hangs);
    let address = agent.address;
    let waiting = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = "POST /admin/backup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(head.as_bytes()).unwrap();
        super::stand_in::Reply::read(&mut stream)
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.state.borrow().running.is_none() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(agent.stop() < Duration::from_secs(4));
    waiting.join().unwrap().problem(503, "stopping");
}
