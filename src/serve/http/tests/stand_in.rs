//! An agent in this process: a stand-in scheduler, and HTTP on a free port.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};

use crate::base::ids::Stamp;
use crate::config::Config;
use crate::jobs::error::JobError;
use crate::jobs::status::proof::ProofFacts;
use crate::jobs::verdict::{FindingCode, NewestPublished, Severity, Verdict, VerdictFinding};
use crate::serve::handle::{AgentEvent, AgentHandle, AgentState, ScheduledJob};
use crate::serve::http::access::AccessTokens;
use crate::serve::http::facts::HostFacts;
use crate::serve::http::listeners::bind;
use crate::serve::http::{ClientLimits, HttpService, serve};
use crate::serve::metrics::MetricsFormat;
use crate::state::history::History;

use super::scheduler::StandIn;
pub(super) use super::scheduler::Work;

pub(super) const TOKEN: &str = "write-0123456789abcdef0123456789abcdef";
pub(super) const READ_TOKEN: &str = "read-0123456789abcdef0123456789abcdef";
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// The other parts of the agent.
pub(super) struct StandInFacts {
    pub(super) verdict: Mutex<Verdict>,
    pub(super) proof: Mutex<ProofFacts>,
    /// The next verdict is a panic.
    pub(super) panics: AtomicUsize,
}

impl HostFacts for StandInFacts {
    fn verdict(&self, _: &Config, now: DateTime<Utc>) -> Result<Verdict, JobError> {
        if self.panics.load(Ordering::SeqCst) > 0 {
            self.panics.fetch_sub(1, Ordering::SeqCst);
            panic!("a fault on purpose");
        }
        let mut verdict = self.verdict.lock().unwrap().clone();
        if let Some(newest) = &mut verdict.newest {
            newest.age_seconds = (now - newest.stamp.time()).num_seconds();
        }
        Ok(verdict)
    }

    fn proof(&self, _: &Config) -> Result<ProofFacts, JobError> {
        Ok(self.proof.lock().unwrap().clone())
    }

    fn metrics(
        &self,
        _: &AgentState,
        verdict: &Verdict,
        format: MetricsFormat,
    ) -> Result<String, JobError> {
        let end = match format {
            MetricsFormat::Prometheus => "",
            MetricsFormat::OpenMetrics => "# EOF\n",
        };
        Ok(format!(
            "sealift_findings {}\n{end}",
            verdict.findings.len()
        ))
    }

    fn test_notifications(&self, _: &Config, channel: Option<&str>) -> Result<Value, JobError> {
        match channel {
            None | Some("phone") => Ok(json!({"channels": [{"name": "phone", "ok": true}]})),
            Some(name) => Err(JobError::request(format!("no channel is named {name:?}"))),
        }
    }
}

pub(super) fn green() -> Verdict {
    let stamp: Stamp = "20260408T060000Z".parse().unwrap();
    Verdict {
        state: Severity::Green,
        sentence: "Safe: the newest snapshot is 2 hours old on s3.".to_owned(),
        since: None,
        findings: Vec::new(),
        newest: Some(NewestPublished {
            stamp,
            sequence: 43,
            age_seconds: 0,
        }),
        proof: None,
        keys: Vec::new(),
    }
}

pub(super) fn red() -> Verdict {
    Verdict {
        state: Severity::Red,
        sentence: "Not safe: disk is behind: there is no folder /mnt/backup.".to_owned(),
        findings: vec![VerdictFinding {
            code: FindingCode::TargetStale,
            severity: Severity::Red,
            target: Some("disk".to_owned()),
            source: None,
            since: None,
            text: "there is no folder /mnt/backup <script>".to_owned(),
            next: "mount /mnt/backup".to_owned(),
        }],
        ..green()
    }
}

/// An agent, and what a test changes of it.
pub(super) struct TestAgent {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: Arc<Config>,
    pub(super) facts: Arc<StandInFacts>,
    pub(super) work: Arc<Mutex<Work>>,
    pub(super) state: watch::Sender<AgentState>,
    pub(super) events: broadcast::Sender<AgentEvent>,
    pub(super) address: SocketAddr,
    pub(super) service: HttpService,
    /// Runs that were started, and commands to look again.
    pub(super) started: Arc<AtomicUsize>,
    pub(super) refreshed: Arc<AtomicUsize>,
    shutdown: watch::Sender<bool>,
    served: Option<tokio::task::JoinHandle<()>>,
    pub(super) runtime: Option<tokio::runtime::Runtime>,
}

/// How an agent begins.
#[derive(Default)]
pub(super) struct Setup {
    /// The lines of `[serve]`.
    pub(super) serve: String,
    pub(super) limits: ClientLimits,
    pub(super) has_tokens: bool,
}

impl TestAgent {
    pub(super) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(super) fn with_tokens() -> Self {
        Self::with(Setup {
            has_tokens: true,
            ..Setup::default()
        })
    }

    pub(super) fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_data(dir.path());
        let config = Arc::new(config(dir.path(), &setup));
        let tokens = AccessTokens::load(&config.serve).unwrap();
        let runtime = crate::base::runtime::runtime().unwrap();
        let inside = runtime.enter();
        let (commands, asked) = mpsc::channel(16);
        let state = watch::channel(AgentState {
            config: Arc::clone(&config),
            running: None,
            schedule: vec![ScheduledJob {
                job: "backup".to_owned(),
                cron: "0 6 * * *".to_owned(),
                zone: "UTC".to_owned(),
                next: None,
                last: None,
            }],
            paused_until: None,
            beat: Instant::now(),
            reload_error: None,
        })
        .0;
        let events = broadcast::channel(64).0;
        let handle = AgentHandle {
            commands,
            state: state.subscribe(),
            events: events.clone(),
        };
        let facts = Arc::new(StandInFacts {
            verdict: Mutex::new(green()),
            proof: Mutex::default(),
            panics: AtomicUsize::new(0),
        });
        let service = HttpService::start(handle, tokens, facts.clone(), setup.limits).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let listeners = bind(&[listen], &tokens).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (shutdown, end) = watch::channel(false);
        let work = Arc::new(Mutex::new(Work::Succeeds(Duration::from_millis(300))));
        let (started, refreshed) = (Arc::default(), Arc::default());
        let scheduler = StandIn {
            config: Arc::clone(&config),
            work: Arc::clone(&work),
            state: state.clone(),
            events: events.clone(),
            started: Arc::clone(&started),
            refreshed: Arc::clone(&refreshed),
        };
        runtime.spawn(scheduler.run(asked));
        let served = runtime.spawn(serve(service.clone(), listeners, end));
        drop(inside);
        Self {
            dir,
            config,
            facts,
            work,
            state,
            events,
            address,
            service,
            started,
            refreshed,
            shutdown,
            served: Some(served),
            runtime: Some(runtime),
        }
    }

    pub(super) fn set_work(&self, work: Work) {
        *self.work.lock().unwrap() = work;
    }

    pub(super) fn history(&self) -> History {
        History::open(&self.config.state).unwrap()
    }

    /// Ends the service, and returns how long that took.
    pub(super) fn stop(&mut self) -> Duration {
        let begin = Instant::now();
        self.shutdown.send_replace(true);
        let (runtime, served) = (self.runtime.as_ref().unwrap(), self.served.take().unwrap());
        runtime.block_on(served).unwrap();
        begin.elapsed()
    }

    /// Sends a request without a body.
    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    /// Sends JSON.
    pub(super) fn post(&self, path: &str, body: &str) -> Reply {
        let json = ("Content-Type", "application/json");
        self.send("POST", path, &[json], body.as_bytes())
    }

    /// Sends a form.
    pub(super) fn post_form(&self, path: &str, headers: &[(&str, &str)], form: &str) -> Reply {
        let kind = ("Content-Type", "application/x-www-form-urlencoded");
        self.send("POST", path, &[&[kind], headers].concat(), form.as_bytes())
    }

    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.raw(&[head.as_bytes(), b"\r\n", body].concat())
    }

    /// Connects, with a deadline for each read.
    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Sends bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        Reply::read(&mut stream)
    }

    /// Waits until no run is under way.
    pub(super) fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.state.borrow().running.is_some() {
            assert!(Instant::now() < deadline, "the run does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.shutdown.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// In lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        assert!(!bytes.is_empty(), "no answer: {read:?}");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            status: status.parse().unwrap(),
            headers: headers.collect(),
            body: body.to_owned(),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Asserts the status and the code of a problem, and returns its detail.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], "about:blank");
        assert!(document["title"].is_string() && document.get("next").is_some());
        document["detail"].as_str().unwrap().to_owned()
    }
}

/// The application: a database, a registry and a vector store.
fn make_data(dir: &Path) {
    let script = r#"
import os, sqlite3, sys
root = sys.argv[1]
for path in ["data/db", "data/chroma", "config"]:
    os.makedirs(os.path.join(root, path))
for path in ["data/db/atocore.db", "data/chroma/chroma.sqlite3"]:
    db = sqlite3.connect(os.path.join(root, path))
    db.execute("CREATE TABLE documents(id INTEGER PRIMARY KEY, text TEXT)")
    db.executemany("INSERT INTO documents(text) VALUES(?)", [("document %d" % n,) for n in range(200)])
    db.commit()
    db.close()
open(os.path.join(root, "config/project-registry.json"), "w").write('{"projects": []}')
"#;
    let root = dir.join("srv");
    let made = Command::new("python3")
        .args(["-c", script])
        .arg(&root)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn config(dir: &Path, setup: &Setup) -> Config {
    let tokens = match setup.has_tokens {
        true => {
            std::fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
            std::fs::write(dir.join("read-token"), READ_TOKEN).unwrap();
            "token_file = \"token\"\nread_token_file = \"read-token\"\n"
        }
        false => "",
    };
    std::fs::create_dir(dir.join("state")).unwrap();
    let text = format!(
        "host = \"dalidou\"\nrecipients = [\"{RECIPIENT}\"]\nsigner = \"signer\"\nstate = \"state\"\n\
         [snapshots]\ndir = \"snapshots\"\npreset = \"atocore\"\nroot = \"srv\"\n\
         [[target]]\nname = \"s3\"\nurl = \"s3://bucket/prefix\"\n\
         [[target]]\nname = \"disk\"\nurl = \"/mnt/backup\"\n\
         [serve]\n{}{tokens}",
        setup.serve
    );
    Config::parse(&text, &dir.join("sealift.toml")).unwrap()
}

/// Writes many ended runs at once.
pub(super) fn add_runs(agent: &TestAgent, number: usize) {
    drop(agent.history());
    let script = r#"
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
report = json.dumps({"stored_bytes": 5, "new_bytes": 4, "errors": [], "skipped": [],
  "targets": [{"name": "s3", "state": "published", "sent_bytes": 6, "seconds": 1.5, "error": None}] , "x": "y" * 1500})
start = 1700000000000
db.executemany("INSERT INTO runs(id, kind, trigger, started_at, ended_at, outcome, exit_code, pid, pid_started, stamp, sequence, message, report) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
  [("01H%023d" % n, "backup" if n % 4 else "verify", "schedule", start + n * 3600000, start + n * 3600000 + 60000,
    "failed" if n % 7 == 0 else "complete", 0, 1, 1, "20231114T221320Z", n, "m%d" % n, report) for n in range(int(sys.argv[2]))])
db.commit()
"#;
    let made = Command::new("python3")
        .args(["-c", script])
        .arg(agent.config.state.join("history.db"))
        .arg(number.to_string())
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}
