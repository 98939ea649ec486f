//! What an operator does through the API.

use std::sync::atomic::Ordering;

use super::auth::form_token;
use super::stand_in::{TestAgent, Work};
use crate::state::history::OperatorMark;

#[test]
fn a_run_is_started_and_cancelled_once() {
    let agent = TestAgent::new();
    agent.set_work(Work::Hangs);
    let started = agent.post("/api/v1/runs", r#"{"kind":"verify","note":"by hand"}"#);
    assert_eq!(started.status, 202);
    let id = started.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(started.header("location"), format!("/api/v1/runs/{id}"));
    let running = agent.get("/api/v1/status").json()["running"].clone();
    assert_eq!(
        (&running["id"], &running["kind"]),
        (&id.as_str().into(), &"verify".into())
    );
    assert!(running.get("snapshot").is_none());
    let busy = agent.post("/admin/backup", "{}");
    let detail = busy.problem(409, "busy");
    assert!(
        detail.starts_with("a backup is under way since "),
        "{detail}"
    );
    assert_eq!(busy.json()["run"], id.as_str());
    assert_eq!(busy.json()["next"], "wait for it, or cancel it");
    let run = agent.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!(
        (&run["note"], &run["outcome"]),
        (&"by hand".into(), &serde_json::Value::Null)
    );
    let cancel = format!("/api/v1/runs/{id}/cancel");
    assert_eq!(agent.post(&cancel, "").status, 202);
    agent.settle();
    agent.post(&cancel, "{}").problem(409, "ended");
    let other = "/api/v1/runs/01H00000000000000000000999/cancel";
    agent.post(other, "").problem(404, "no_such_run");
    assert_eq!(
        agent.get(&format!("/api/v1/runs/{id}")).json()["outcome"],
        "cancelled"
    );
}

#[test]
fn a_wrong_body_names_what_is_wrong() {
    let agent = TestAgent::new();
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"kind":"restore"}"#,
        r#"{"kind":"backup","to":"/etc"}"#,
        r#"{"kind":"backup","include":"chroma"}"#,
        r#"{"kind":"backup","kind":"verify"}"#,
        "\u{0}",
    ] {
        let reply = agent.post("/api/v1/runs", body);
        match body {
            // The last of equal members counts.
            r#"{"kind":"backup","kind":"verify"}"# => assert_eq!(reply.status, 202),
            _ => drop(reply.problem(422, "invalid_body")),
        }
    }
    agent.settle();
    let body = r#"{"kind":"backup","include":["photos"]}"#;
    let detail = agent
        .post("/api/v1/runs", body)
        .problem(404, "no_such_source");
    assert!(detail.contains("\"photos\""));
    let long = format!(r#"{{"kind":"backup","note":"{}"}}"#, "x".repeat(1001));
    agent
        .post("/api/v1/runs", &long)
        .problem(422, "invalid_body");
    let kind = agent.send(
        "POST",
        "/api/v1/runs",
        &[("Content-Type", "application/xml")],
        b"<x/>",
    );
    kind.problem(415, "not_json");
    assert_eq!(agent.started.load(Ordering::SeqCst), 1);
}

#[test]
fn pauses_end_by_themselves() {
    let agent = TestAgent::new();
    let reply = agent.post("/api/v1/pause", "").json();
    let until: chrono::DateTime<chrono::Utc> =
        reply["paused_until"].as_str().unwrap().parse().unwrap();
    let hours = (until - crate::base::clock::now()).num_minutes();
    assert!((1439..=1440).contains(&hours), "{until}");
    let mark = agent.history().mark(OperatorMark::PAUSE).unwrap().unwrap();
    assert_eq!(mark.until.unwrap().timestamp(), until.timestamp());
    let named = agent.post(
        "/api/v1/pause",
        r#"{"until":"2999-01-01T00:00:00+01:00","note":"move"}"#,
    );
    assert_eq!(named.json()["paused_until"], "2998-12-31T23:00:00Z");
    agent
        .post("/api/v1/pause", r#"{"until":"2020-01-01T00:00:00Z"}"#)
        .problem(409, "in_the_past");
    agent
        .post("/api/v1/pause", r#"{"until":"tomorrow"}"#)
        .problem(422, "invalid_body");
    assert_eq!(agent.post("/api/v1/resume", "").json()["was_paused"], true);
    assert_eq!(agent.post("/api/v1/resume", "").json()["was_paused"], false);
    assert_eq!(agent.refreshed.load(Ordering::SeqCst), 4);
}

#[test]
fn findings_channels_and_the_configuration() {
    let agent = TestAgent::new();
    let ack = agent.post(
        "/api/v1/ack",
        r#"{"code":"shrunk","note":"as it should be"}"#,
    );
    assert_eq!(ack.status, 200, "{}", ack.body);
    agent
        .post("/api/v1/ack", r#"{"code":"nonsense"}"#)
        .problem(409, "refused");
    agent
        .post("/api/v1/ack", r#"{"code":"shrunk","target":"nas"}"#)
        .problem(404, "no_such_target");
    let sent = agent.post("/api/v1/notify/test", r#"{"channel":"phone"}"#);
    assert_eq!(sent.json()["channels"][0]["ok"], true);
    agent
        .post("/api/v1/notify/test", r#"{"channel":"fax"}"#)
        .problem(409, "refused");
    let path = agent.config.file.display().to_string();
    assert_eq!(agent.post("/api/v1/reload", "").json()["config_path"], path);
    let probe = agent.post("/api/v1/targets/s3/probe", "");
    assert_eq!(probe.status, 202);
    agent
        .post("/api/v1/targets/nas/probe", "")
        .problem(404, "no_such_target");
}

#[test]
fn the_buttons_of_the_page_work() {
    let agent = TestAgent::new();
    let token = form_token(&agent.get("/").body);
    let press = |path: &str, fields: &str| {
        agent.post_form(path, &[], &format!("form_token={token}&{fields}"))
    };
    agent.set_work(Work::Hangs);
    let started = press("/api/v1/runs", "kind=backup&include=&note=");
    assert_eq!(started.status, 303, "{}", started.body);
    let page = started.header("location").to_owned();
    let question = format!("{page}/cancel");
    assert!(
        agent
            .get(&page)
            .body
            .contains(&format!("href=\"{question}\""))
    );
    let asked = agent.get(&question).body;
    assert!(
        asked.contains("Cancel it") && asked.contains("Cancel this backup?"),
        "{asked}"
    );
    let cancelled = press(&format!("/api/v1{page}/cancel"), "");
    assert_eq!(
        (cancelled.status, cancelled.header("location")),
        (303, page.as_str())
    );
    agent.settle();
    let ended = agent.get(&question).body;
    assert!(
        ended.contains("It has ended") && !ended.contains("Cancel it"),
        "{ended}"
    );
    for (path, fields) in [
        ("/api/v1/pause", ""),
        ("/api/v1/resume", ""),
        ("/api/v1/ack", "code=shrunk"),
    ] {
        let reply = press(path, fields);
        assert_eq!(
            (reply.status, reply.header("location")),
            (303, "/"),
            "{path}: {}",
            reply.body
        );
    }
}
