//! Names, sites, tokens and sessions.

use super::stand_in::{READ_TOKEN, Setup, TOKEN, TestAgent};

const BACKUP: &str = r#"{"kind":"backup"}"#;

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn a_name_that_is_not_this_machines_gets_no_answer() {
    let agent = TestAgent::with(Setup {
        serve: "allowed_hosts = [\"backup.example.org\"]\n".to_owned(),
        ..Setup::default()
    });
    let with_host = |host: &str| agent.send("GET", "/health", &[("Host", host)], b"");
    for host in [
        "localhost",
        "LOCALHOST:8101",
        "127.0.0.1:1",
        "[::1]:8101",
        "dalidou:8100",
        "backup.example.org",
        "backup.example.org.:443",
    ] {
        assert_eq!(with_host(host).status, 200, "{host}");
    }
    for host in [
        "evil",
        "evil.example:8101",
        "192.0.2.7",
        "x@localhost",
        "localhost.evil",
        "a b",
    ] {
        let detail = with_host(host).problem(421, "unknown_host");
        assert!(
            detail.contains("add it to [serve] allowed_hosts"),
            "{detail}"
        );
    }
    let detail = with_host("evil").problem(421, "unknown_host");
    assert_eq!(
        detail,
        "this agent does not answer to \"evil\"; if that is its name here, add it to [serve] allowed_hosts"
    );
    agent
        .raw(b"GET /health HTTP/1.0\r\n\r\n")
        .problem(421, "unknown_host");
}

#[test]
fn another_sites_page_starts_nothing() {
    let agent = TestAgent::new();
    let json = ("Content-Type", "application/json");
    let own = format!("http://{}", agent.address);
    let send =
        |headers: &[(&str, &str)]| agent.send("POST", "/api/v1/runs", headers, BACKUP.as_bytes());
    for evil in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        send(&[json, evil]).problem(403, "cross_site");
        send(&[("Content-Type", "text/plain"), evil]).problem(403, "cross_site");
    }
    send(&[("Content-Type", "text/plain")]).problem(415, "not_json");
    send(&[]).problem(415, "not_json");
    // What a browser sends without a body, as a form of another site could before browsers said so.
    let bare = agent.send("POST", "/admin/backup", &[("Origin", &own)], b"");
    bare.problem(415, "not_json");
    agent
        .post_form("/api/v1/runs", &[], "kind=backup")
        .problem(403, "form_token");
    agent
        .post_form("/login", &[], "token=x")
        .problem(403, "form_token");
    assert_eq!(agent.started.load(std::sync::atomic::Ordering::SeqCst), 0);
    let same = [
        json,
        ("Origin", own.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    assert_eq!(send(&same).status, 202);
}

#[test]
fn a_token_opens_what_it_is_for() {
    let agent = TestAgent::with_tokens();
    let json = ("Content-Type", "application/json");
    let get = |path: &str, token: &str| {
        agent.send("GET", path, &[("Authorization", &bearer(token))], b"")
    };
    let start = |token: &str| {
        let headers = [json, ("Authorization", &bearer(token))];
        agent.send("POST", "/api/v1/runs", &headers, BACKUP.as_bytes())
    };
    agent.get("/api/v1/status").problem(401, "token_missing");
    agent.get("/metrics").problem(401, "token_missing");
    agent
        .post("/api/v1/runs", BACKUP)
        .problem(401, "token_missing");
    let wrong = get("/api/v1/status", "x");
    assert_eq!(
        wrong.problem(401, "token_wrong"),
        "the token is not accepted"
    );
    assert_eq!(wrong.header("www-authenticate"), "Bearer realm=\"sealift\"");
    get("/api/v1/status", "").problem(401, "token_wrong");
    get("/api/v1/status", &"x".repeat(10_000)).problem(401, "token_wrong");
    get("/api/v1/status", &TOKEN[..37]).problem(401, "token_wrong");
    assert_eq!(get("/api/v1/status", READ_TOKEN).status, 200);
    assert_eq!(get("/api/v1/status", TOKEN).status, 200);
    start(READ_TOKEN).problem(403, "read_only");
    assert_eq!(start(TOKEN).status, 202);
    for path in ["/health", "/openapi.json", "/login"] {
        assert_eq!(agent.get(path).status, 200, "{path}");
    }
    assert_eq!(agent.get("/health/backup").body, "{\"state\":\"green\"}");
    assert!(get("/health/backup", READ_TOKEN).json()["sentence"].is_string());
}

#[test]
fn metrics_may_be_open() {
    let agent = TestAgent::with(Setup {
        serve: "metrics_without_token = true\n".to_owned(),
        has_tokens: true,
        ..Setup::default()
    });
    let metrics = agent.get("/metrics");
    assert_eq!(metrics.body, "sealift_findings 0\n");
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let open = [(
        "Accept",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    )];
    let open = agent.send("GET", "/metrics", &open, b"");
    assert!(
        open.header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(open.body.ends_with("# EOF\n"));
    agent.get("/api/v1/status").problem(401, "token_missing");
}

#[test]
fn ten_wrong_tokens_a_minute_are_too_many() {
    let agent = TestAgent::with_tokens();
    let get = |token: &str| {
        agent.send(
            "GET",
            "/api/v1/status",
            &[("Authorization", &bearer(token))],
            b"",
        )
    };
    for _ in 0..10 {
        get("wrong").problem(401, "token_wrong");
    }
    let reply = get("wrong");
    reply.problem(429, "too_many_attempts");
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds));
    // Otherwise the answer would show that a guess was right.
    get(TOKEN).problem(429, "too_many_attempts");
    agent.get("/api/v1/status").problem(401, "token_missing");
    assert_eq!(agent.get("/health").status, 200);
}

/// Returns the value of the hidden field.
pub(super) fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_token\" value=\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[test]
fn a_browser_logs_in_and_out() {
    let agent = TestAgent::with_tokens();
    agent.get("/").problem(401, "token_missing");
    let to_login = agent.send("GET", "/", &[("Accept", "text/html")], b"");
    assert_eq!(
        (to_login.status, to_login.header("location")),
        (303, "/login")
    );
    let page = agent.get("/login").body;
    assert!(!page.contains("Back up now"));
    let form = |token: &str| format!("form_token={}&token={token}", form_token(&page));
    agent
        .post_form("/login", &[], &form("wrong"))
        .problem(401, "token_wrong");
    let opened = agent.post_form("/login", &[], &form(READ_TOKEN));
    assert_eq!((opened.status, opened.header("location")), (303, "/"));
    let cookie = opened.header("set-cookie");
    assert!(cookie.starts_with("sealift_session="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"),
        "{cookie}"
    );
    let reader = cookie.split(';').next().unwrap().to_owned();
    let page_of = |session: &str| agent.send("GET", "/", &[("Cookie", session)], b"");
    let read = page_of(&reader);
    assert_eq!(read.status, 200);
    assert!(!read.body.contains("Back up now") && read.body.contains("Log out"));
    let opened = agent.post_form("/login", &[], &form(TOKEN));
    let writer = opened
        .header("set-cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let written = page_of(&writer).body;
    let start = |session: &str, token: &str| {
        let form = format!("kind=backup&form_token={token}");
        agent.post_form("/api/v1/runs", &[("Cookie", session)], &form)
    };
    // A form token is of one session.
    start(&writer, &form_token(&read.body)).problem(403, "form_token");
    start(&reader, &form_token(&read.body)).problem(403, "read_only");
    let started = start(&writer, &form_token(&written));
    assert_eq!(started.status, 303, "{}", started.body);
    assert!(started.header("location").starts_with("/runs/0"));
    let out = format!("form_token={}", form_token(&written));
    let out = agent.post_form("/logout", &[("Cookie", &writer)], &out);
    assert_eq!((out.status, out.header("location")), (303, "/login"));
    page_of(&writer).problem(401, "token_missing");
    assert_eq!(page_of(&reader).status, 200);
}

#[test]
fn behind_a_trusted_proxy_with_tls_the_cookie_is_bound_to_it() {
    let agent = TestAgent::with(Setup {
        serve: "trusted_proxies = [\"127.0.0.1/32\"]\n".to_owned(),
        has_tokens: true,
        ..Setup::default()
    });
    let proxy = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Prefix", "/ops"),
        ("X-Forwarded-For", "192.0.2.9"),
    ];
    let page = agent.send("GET", "/login", &proxy, b"").body;
    assert!(page.contains("action=\"/ops/login\""));
    let login = |token: &str, proxy: &[(&str, &str)]| {
        let form = format!("form_token={}&token={token}", form_token(&page));
        agent.post_form("/login", proxy, &form)
    };
    let opened = login(TOKEN, &proxy);
    assert_eq!(opened.header("location"), "/ops/");
    let cookie = opened.header("set-cookie");
    assert!(cookie.starts_with("__Host-sealift_session="), "{cookie}");
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    // The client is locked out, and not the proxy.
    for _ in 0..10 {
        login("wrong", &proxy).problem(401, "token_wrong");
    }
    login(TOKEN, &proxy).problem(429, "too_many_attempts");
    let other = [("X-Forwarded-For", "192.0.2.9, 192.0.2.10")];
    assert_eq!(login(TOKEN, &other).status, 303);
}
