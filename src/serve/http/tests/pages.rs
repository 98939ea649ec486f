//! The pages.

use std::time::Duration;

use super::stand_in::{TestAgent, Work, add_runs, red};

#[test]
fn every_page_is_shown_and_escapes_what_it_shows() {
    let agent = TestAgent::new();
    *agent.facts.verdict.lock().unwrap() = red();
    agent.set_work(Work::Succeeds(Duration::ZERO));
    let stamp = agent.post("/admin/backup", "{}").json()["stamp"]
        .as_str()
        .unwrap()
        .to_owned();
    agent.settle();
    add_runs(&agent, 3);
    let page = agent.get("/");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let body = &page.body;
    assert!(
        body.contains("there is no folder /mnt/backup &lt;script&gt;"),
        "{body}"
    );
    assert!(!body.contains("<script"));
    for part in [
        "<main>",
        "<h1>",
        "Back up now",
        "Silence",
        "<caption>",
        "scope=\"row\"",
        "lang=\"en\"",
        "not safe",
    ] {
        assert!(body.contains(part), "{part}");
    }
    assert!(body.len() < 60_000, "{}", body.len());
    let run = agent.get("/api/v1/runs").json()["runs"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (path, text) in [
        (format!("/runs/{run}"), "no such folder"),
        (format!("/snapshots/{stamp}"), "sealift restore"),
        ("/targets/disk".to_owned(), "Look now"),
        ("/proof".to_owned(), "Keys"),
        ("/login".to_owned(), "Token"),
    ] {
        let page = agent.get(&path);
        assert!(
            page.status == 200 && page.body.contains(text),
            "{path}: {}",
            page.body
        );
    }
}

#[test]
fn a_browser_sees_errors_as_pages() {
    let agent = TestAgent::new();
    let html = [("Accept", "text/html,application/xhtml+xml")];
    let missing = agent.send("GET", "/runs/x", &html, b"");
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("<h1>Not Found</h1>"));
    assert!(
        missing
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
    agent.get("/runs/x").problem(404, "no_such_run");
    let method = agent.send("PUT", "/", &html, b"");
    assert_eq!((method.status, method.header("allow")), (405, "GET, HEAD"));
}
