//! A host in a scratch directory: a configuration, and what it backs up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use sealift::base::progress::Silent;
use sealift::config::Config;
use sealift::producer::{ProduceError, ProduceRequest, Produced, produce};

use crate::support::files::names_in;

const RECIPIENT: &str = "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9";

pub struct Host {
    dir: tempfile::TempDir,
    pub config: Config,
}

impl Host {
    /// `sources` is TOML in which `@` stands for the host's directory.
    pub fn new(sources: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = parse(dir.path(), sources);
        Self { dir, config }
    }

    /// An AtoCore with a database, a registry and a vector store.
    pub fn atocore() -> Self {
        let host = Self::new(
            "[snapshots]\ndir = \"@/snapshots\"\npreset = \"atocore\"\nroot = \"@/live\"\n",
        );
        host.database("live/data/db/atocore.db", "WAL");
        host.write("live/config/project-registry.json", b"{\"projects\": []}");
        host.database("live/data/chroma/chroma.sqlite3", "DELETE");
        host.write("live/data/chroma/0f/data_level0.bin", &[7; 9000]);
        host
    }

    pub fn reconfigure(&mut self, sources: &str) {
        self.config = parse(self.dir.path(), sources);
    }

    pub fn path(&self, rel: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(rel)
    }

    pub fn write(&self, rel: &str, content: &[u8]) -> PathBuf {
        let path = self.path(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A database with 200 rows in `t`, closed again.
    pub fn database(&self, rel: &str, journal: &str) -> PathBuf {
        drop(self.open_database(rel, journal));
        self.path(rel)
    }

    pub fn open_database(&self, rel: &str, journal: &str) -> Connection {
        let path = self.path(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let conn = Connection::open(path).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA journal_mode={journal}; CREATE TABLE t(x);
             INSERT INTO t SELECT randomblob(50) FROM (WITH RECURSIVE n(i) AS
             (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) SELECT i FROM n)"
        ))
        .unwrap();
        conn
    }

    pub fn try_produce(&self, include: &[&str]) -> Result<Produced, ProduceError> {
        let there = sealift::producer::list(&self.config.snapshots_dir).unwrap();
        let mut newest_first = there.into_iter().rev();
        let previous = newest_first.find(|one| one.valid != Some(false));
        let request = ProduceRequest {
            include: include.iter().map(|name| (*name).to_owned()).collect(),
            tags: vec!["nightly".to_owned()],
            note: Some("a note".to_owned()),
            now: now(),
            previous: previous.map(|one| one.path),
            taken: Default::default(),
            reread: Default::default(),
        };
        produce(&self.config, &request, &Silent)
    }

    pub fn produce(&self) -> Produced {
        self.try_produce(&[])
            .unwrap_or_else(|e| panic!("{}", told(&e)))
    }

    /// What went wrong, with its causes.
    pub fn failure(&self) -> String {
        told(&self.try_produce(&[]).expect_err("a snapshot was made"))
    }

    /// Why sources are missing from a snapshot that was made without them.
    pub fn left_out(&self) -> String {
        let left_out = self.produce().snapshot.left_out;
        assert!(!left_out.is_empty(), "every source was taken");
        let reasons: Vec<String> = left_out.iter().map(|one| one.reason()).collect();
        reasons.join("\n")
    }

    /// Names in the snapshots directory.
    pub fn snapshots(&self) -> Vec<String> {
        names_in(&self.config.snapshots_dir)
    }
}

fn parse(dir: &Path, sources: &str) -> Config {
    let dir = dir.canonicalize().unwrap();
    let text = format!(
        "host = \"h\"\nrecipients = [\"{RECIPIENT}\"]\nsigner = \"@/signer\"\nstate = \"@/state\"\n{sources}"
    );
    let text = text.replace('@', dir.to_str().unwrap());
    Config::parse(&text, &dir.join("sealift.toml")).unwrap()
}

/// Every test's snapshots are made in one second.
pub fn now() -> DateTime<Utc> {
    "2026-04-07T06:00:00Z".parse().unwrap()
}

pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// So long that a change since would show in a file's times.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}

pub fn rows(database: &Path) -> u64 {
    let inspection = sealift::base::sqlite::inspect(
        database,
        sealift::base::sqlite::Depth::Indexes,
        &sealift::base::sqlite::Budget::of_run(),
    )
    .unwrap();
    assert_eq!(inspection.integrity, "ok");
    inspection.tables["t"]
}

/// Overwrites the middle of a database, past its first page.
pub fn damage(path: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xA5; 4096], 4096).unwrap();
}

/// Another process that works on a database, until it is dropped.
///
/// In this process a lock would be lost: a process that closes any descriptor of a file loses all locks of the
/// process on it, and here the test and what it tests are one process.
pub struct Writer(std::process::Child);

impl Writer {
    /// Runs `script` with `db`, a connection to `path` in autocommit mode, and `say(text)`; returns once it
    /// has said something.
    pub fn start(path: &Path, script: &str) -> Self {
        let head = "import sqlite3,sys,time\n\
                    db=sqlite3.connect(sys.argv[1],timeout=20,isolation_level=None)\n\
                    def say(text): print(text,flush=True)\n";
        let mut child = std::process::Command::new("python3")
            .args(["-c", &format!("{head}{script}")])
            .arg(path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut said).unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
