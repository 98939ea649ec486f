//! The notifications against servers of this process.

mod crashes;
mod secrets;
mod stubs;
mod table;
mod timing;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::jobs::verdict::{FindingCode, Severity, Verdict, VerdictFinding};
use crate::state::history::{EndedRun, History, NewRun};

const RECIPIENT: &str = "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9";

/// A state directory, its history, and a configuration with channels.
struct World {
    dir: tempfile::TempDir,
    config: Config,
}

impl World {
    fn new(channels: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "host = \"dalidou\"\nrecipients = [\"{RECIPIENT}\"]\nsigner = \"signer\"\nstate = {:?}\n\
             [[target]]\nname = \"s3\"\nurl = \"/nowhere/repo\"\n{channels}",
            dir.path()
        );
        let config = Config::parse(&text, Path::new("/nowhere/c.toml")).unwrap();
        Self { dir, config }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn history(&self) -> History {
        History::open(self.dir.path()).unwrap()
    }

    /// What the agent does every 30 seconds.
    fn tick(&self, verdict: &Verdict, now: DateTime<Utc>) {
        let history = self.history();
        super::evaluate(&self.config, &history, verdict, None, now).unwrap();
        super::deliver(&self.config, &history, now).unwrap();
    }
}

/// `seconds` after the beginning of the test's time, a Tuesday at 06:00.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_775_541_600 + seconds, 0).unwrap()
}

fn verdict(findings: &[VerdictFinding]) -> Verdict {
    let state = findings.iter().map(|one| one.severity).max();
    let mut findings = findings.to_vec();
    findings.sort_by_key(|one| std::cmp::Reverse(one.severity));
    Verdict {
        state: state.unwrap_or(Severity::Green),
        sentence: match findings.first() {
            None => "Safe: everything is on s3.".to_owned(),
            Some(worst) => format!("Not safe: {}.", worst.text),
        },
        since: None,
        findings,
        newest: None,
        proof: None,
        keys: Vec::new(),
    }
}

fn finding(code: FindingCode, severity: Severity, text: &str) -> VerdictFinding {
    VerdictFinding {
        code,
        severity,
        target: None,
        source: None,
        since: None,
        text: text.to_owned(),
        next: "look at /srv/private/next".to_owned(),
    }
}

fn begin(history: &History, id: &str, now: DateTime<Utc>) {
    let run = NewRun {
        id: id.to_owned(),
        kind: "backup".to_owned(),
        trigger: "schedule".to_owned(),
        started_at: now,
        pid: 7,
        pid_started: 9,
        note: None,
    };
    history.begin_run(&run).unwrap();
}

fn end(history: &History, id: &str, (outcome, exit_code): (&str, Option<i32>), now: DateTime<Utc>) {
    let report = serde_json::json!({
        "files": 3, "bytes": 4096, "left_out": ["db"], "skipped_paths": 2,
        "skipped": [{"path": "/srv/private/diary.txt", "reason": "gone"}],
        "databases": [{"path": "db/x.db", "tables": {"love_letters": 3}}],
        "targets": [{"name": "s3", "state": "behind", "error": "403 for /bucket/key"}],
        "errors": [{"text": "cannot read /srv/private/diary.txt", "causes": [], "next": null}],
    });
    let ended = EndedRun {
        ended_at: now,
        outcome: outcome.to_owned(),
        exit_code,
        stamp: None,
        sequence: None,
        message: "cannot read /srv/private/diary.txt".to_owned(),
        report: Some(report.to_string()),
    };
    assert!(history.end_run(id, &ended).unwrap());
}

/// Run ids of the tests.
fn run_id(number: u32) -> String {
    format!("01KNJT3000000000000000{number:04}")
}
