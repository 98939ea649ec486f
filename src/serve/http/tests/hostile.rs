//! Clients that mean harm.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::stand_in::{Reply, Setup, TestAgent};
use crate::serve::http::ClientLimits;

fn impatient() -> TestAgent {
    let limits = ClientLimits {
        headers: Duration::from_millis(700),
        body: Duration::from_millis(700),
        write: Duration::from_millis(700),
        ..ClientLimits::default()
    };
    TestAgent::with(Setup {
        limits,
        ..Setup::default()
    })
}

const HEAD: &str =
    "POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

#[test]
fn slow_clients_are_let_go() {
    let agent = impatient();
    for begin in [
        "",
        "GET /health HT",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
    ] {
        let mut stream = agent.connect();
        stream.write_all(begin.as_bytes()).unwrap();
        let started = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(started.elapsed() < Duration::from_secs(10), "{begin:?}");
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    }
    // One byte now and then does not extend the time.
    let mut stream = agent.connect();
    let started = Instant::now();
    stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    while started.elapsed() < Duration::from_secs(10) && stream.write_all(b"X").is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    // A connection that stays open after an answer is closed, too.
    let mut stream = agent.connect();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let started = Instant::now();
    assert_eq!(Reply::read(&mut stream).status, 200);
    assert!(started.elapsed() < Duration::from_secs(10));
    let mut stream = agent.connect();
    stream
        .write_all(format!("{HEAD}Content-Length: 20\r\n\r\n{{\"kind\":").as_bytes())
        .unwrap();
    Reply::read(&mut stream).problem(408, "slow_body");
    assert_eq!(agent.started.load(Ordering::SeqCst), 0);
}

#[test]
fn a_client_that_reads_nothing_is_let_go() {
    let agent = impatient();
    super::stand_in::add_runs(&agent, 200);
    let path = "/api/v1/runs?limit=200";
    let mut stream = agent.connect();
    let padding = "x".repeat(8000);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX: {padding}\r\n\r\n");
    let started = Instant::now();
    // Many requests at once, and none of the answers is read.
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut written = 0;
    while written < 20_000 && stream.write_all(request.as_bytes()).is_ok() {
        written += 1;
    }
    assert!(written < 20_000);
    assert!(
        started.elapsed() < Duration::from_secs(19),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(agent.get("/health").status, 200);
}

#[test]
fn large_requests_are_refused() {
    let agent = TestAgent::new();
    let sized = |bytes: usize| {
        let body = vec![b' '; bytes];
        agent.send(
            "POST",
            "/api/v1/runs",
            &[("Content-Type", "application/json")],
            &body,
        )
    };
    sized((64 << 10) + 1).problem(413, "too_large");
    sized(64 << 10).problem(422, "invalid_body");
    // A length that is announced is refused at once, and not when the body was waited for.
    let mut stream = agent.connect();
    let announced = format!("{HEAD}Content-Length: 1000000000\r\n\r\n");
    stream.write_all(announced.as_bytes()).unwrap();
    let begun = Instant::now();
    Reply::read(&mut stream).problem(413, "too_large");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let mut stream = agent.connect();
    stream
        .write_all(format!("{HEAD}Content-Length: 1000000000\r\n\r\n").as_bytes())
        .unwrap();
    let _ = stream.write_all(&[b'x'; 1 << 20]);
    let mut start = [0; 12];
    // The answer may be lost, as the rest of the body is not read.
    if stream.read_exact(&mut start).is_ok() {
        assert_eq!(&start, b"HTTP/1.1 413");
    }
    let mut chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..17 {
        chunked += &format!("1000\r\n{}\r\n", "x".repeat(4096));
    }
    agent
        .raw((chunked + "0\r\n\r\n").as_bytes())
        .problem(413, "too_large");
    let long = format!(
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    assert_eq!(agent.raw(long.as_bytes()).status, 431);
    let path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(70_000)
    );
    assert!([414, 431].contains(&agent.raw(path.as_bytes()).status));
    for nonsense in [
        "\r\n\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = agent.connect();
        stream.write_all(nonsense.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert!(
            !String::from_utf8_lossy(&reply).contains(" 200 "),
            "{nonsense:?}"
        );
    }
    assert_eq!(agent.started.load(Ordering::SeqCst), 0);
}

#[test]
fn paths_that_climb_find_nothing() {
    let agent = TestAgent::new();
    agent
        .get("/admin/backup/..%2f..%2fetc/validate")
        .problem(400, "not_a_stamp");
    for path in [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/runs/..%2f..%2fstate",
        "/targets/..",
        "/api/v1/runs/%00/log",
        "/snapshots/..%2fpins",
        "/api/v1/targets/%ff",
    ] {
        let reply = agent.get(path);
        assert_eq!(reply.status, 404, "{path}: {}", reply.body);
    }
}

#[test]
fn the_257th_connection_is_refused_and_places_come_back() {
    let agent = TestAgent::new();
    let mut open: Vec<TcpStream> = (0..256).map(|_| agent.connect()).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        let reply = agent.get("/health");
        if reply.status == 503 || Instant::now() > deadline {
            break reply;
        }
    };
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    open.truncate(10);
    while agent.get("/health").status != 200 {
        assert!(Instant::now() < deadline);
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[test]
fn ten_thousand_requests_leave_nothing_behind() {
    let script = r#"
import http.client, sys, threading
port, rounds = int(sys.argv[1]), int(sys.argv[2])
paths = ["/health", "/api/v1/status", "/api/v1/runs?limit=20", "/nothing", "/admin/backup/..%2f..%2fetc/validate", "/metrics", "/login"]
def work(number):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for round in range(rounds):
        kind = (number + round) % 9
        if kind < 7:
            connection.request("GET", paths[kind])
        elif kind == 7:
            connection.request("POST", "/api/v1/runs", b"{", {"Content-Type": "text/plain", "Origin": "https://evil"})
        else:
            connection.request("GET", "/health", headers={"Host": "evil.example"})
        answer = connection.getresponse()
        answer.read()
        expected = [200, 200, 200, 404, 400, 200, 200, 403, 421][kind]
        assert answer.status == expected, (kind, answer.status)
        if answer.headers.get("Connection") == "close":
            connection.close()
    connection.close()
threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
failures = []
threading.excepthook = lambda args: failures.append(args.exc_value)
[t.start() for t in threads]
[t.join() for t in threads]
assert not failures, failures[:3]
"#;
    let agent = TestAgent::new();
    super::stand_in::add_runs(&agent, 100);
    let run = |rounds: &str| {
        let output = Command::new("python3")
            .args(["-c", script, &agent.address.port().to_string(), rounds])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    // What the first requests load stays.
    run("40");
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, files_before) = (resident(), files());
    let begin = Instant::now();
    run("157");
    let grown = resident().saturating_sub(before);
    println!(
        "10,048 requests in {:?}: {} KB more",
        begin.elapsed(),
        grown / 1024
    );
    assert_eq!(agent.started.load(Ordering::SeqCst), 0);
    // In one process with other tests, these grow, too.
    if std::env::var_os("NEXTEST").is_some() {
        assert!(grown <= 10 << 20, "{grown} bytes");
        let deadline = Instant::now() + Duration::from_secs(20);
        while files() > files_before {
            assert!(
                Instant::now() < deadline,
                "{} files, not {files_before}",
                files()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
