//! Streams of events.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::stand_in::{Setup, TestAgent};
use crate::serve::handle::AgentEvent;
use crate::serve::http::ClientLimits;

/// A client that follows.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn new(agent: &TestAgent, last: Option<&str>) -> Self {
        let mut stream = agent.connect();
        let last = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut follower = Self(BufReader::new(stream));
        assert!(follower.line().contains(" 200 "));
        while follower.line() != ": still here" {}
        follower
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Returns the id and the name of the next event.
    fn event(&mut self) -> (u64, String) {
        let mut id = 0;
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().unwrap();
            }
            if let Some(name) = line.strip_prefix("event: ") {
                return (id, name.to_owned());
            }
        }
    }
}

fn happens(agent: &TestAgent, number: usize) {
    for number in 0..number {
        let id = format!("run {number}");
        agent.events.send(AgentEvent::Run { id }).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_client_that_comes_back_misses_nothing() {
    let agent = TestAgent::new();
    let mut follower = Follower::new(&agent, None);
    happens(&agent, 2);
    agent.events.send(AgentEvent::Verdict).unwrap();
    let (first, name) = follower.event();
    assert_eq!(name, "run");
    assert_eq!(follower.event(), (first + 1, "run".to_owned()));
    assert_eq!(follower.event(), (first + 2, "verdict".to_owned()));
    drop(follower);
    happens(&agent, 1);
    let mut back = Follower::new(&agent, Some(&(first + 1).to_string()));
    assert_eq!(back.event(), (first + 2, "verdict".to_owned()));
    assert_eq!(back.event(), (first + 3, "run".to_owned()));
    for gone in ["5", "nonsense"] {
        assert_eq!(
            Follower::new(&agent, Some(gone)).event(),
            (first + 3, "resync".to_owned())
        );
    }
}

#[test]
fn streams_are_bounded_and_end() {
    let limits = ClientLimits {
        comment: Duration::from_millis(100),
        stream: Duration::from_millis(1500),
        ..ClientLimits::default()
    };
    let agent = TestAgent::with(Setup {
        limits,
        ..Setup::default()
    });
    let mut open: Vec<Follower> = (0..32).map(|_| Follower::new(&agent, None)).collect();
    let refused = agent.get("/api/v1/events");
    refused.problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "10");
    // Other requests are answered meanwhile.
    assert_eq!(agent.get("/health").status, 200);
    // Comments keep coming, and then the end: the last chunk is empty.
    let mut comments = 0;
    loop {
        let line = open[0].line();
        comments += usize::from(line == ": still here");
        if line == "0" {
            break;
        }
    }
    assert!(comments >= 5, "{comments}");
    drop(open);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while agent.get("/api/v1/events").status != 200 {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn an_open_stream_does_not_hold_up_the_end() {
    let mut agent = TestAgent::new();
    let _follower = Follower::new(&agent, None);
    let took = agent.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
}
