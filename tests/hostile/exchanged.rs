//! A user exchanges directories, files and databases of a tree while they are backed up: nothing outside the tree
//! is read, nothing outside the snapshot is written, no content gets another's mode, and nothing waits.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sealift::base::openat::{Dir, Kind};

use crate::support::host::Host;
use crate::support::is_long;

const SECRET: &str = "TOPSECRET";
const PAIRS: usize = 6;

/// Exchanges pairs of names below a directory until it is dropped.
struct Exchanging {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchanging {
    fn start(root: &Path, pairs: Vec<(String, String)>) -> Self {
        let root = Dir::open(root).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (a, b) in &pairs {
                    root.exchange(a, &root, b).unwrap();
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn write(path: &Path, content: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn database(path: &Path, journal: &str, value: &str, mode: u32) -> Connection {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let conn = Connection::open(path).unwrap();
    let sql = "CREATE TABLE t (v); INSERT INTO t VALUES";
    conn.execute_batch(&format!("PRAGMA journal_mode={journal}; {sql} ('{value}')"))
        .unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    conn
}

/// The tree, the pairs that are exchanged in it, and connections that keep its databases' logs alive.
fn make(host: &Host) -> (Vec<(String, String)>, Vec<Connection>) {
    let (data, outside) = (host.data(), host.path("outside"));
    let root = Dir::open(&data).unwrap();
    let mut pairs = Vec::new();
    let mut held = Vec::new();
    for file in ["shadow", "deep/shadow"] {
        write(&outside.join(file), SECRET, 0o600);
    }
    for n in 0..PAIRS {
        for file in ["shadow", "deep/shadow"] {
            write(&data.join(format!("d{n}")).join(file), "mine", 0o644);
        }
        symlink(&outside, data.join(format!("z{n}"))).unwrap();
        pairs.push((format!("d{n}"), format!("z{n}")));
        write(&data.join(format!("p{n}")), "open", 0o644);
        write(&data.join(format!("q{n}")), "closed", 0o600);
        pairs.push((format!("p{n}"), format!("q{n}")));
        let tag = "Signature: 8a477f597d28d172789f06886806bc55";
        write(&data.join(format!("c{n}/CACHEDIR.TAG")), tag, 0o644);
        root.make_node(format!("c{n}/z"), Kind::Fifo, None).unwrap();
        pairs.push((format!("c{n}/CACHEDIR.TAG"), format!("c{n}/z")));
        let journal = if n % 2 == 0 { "WAL" } else { "DELETE" };
        for (dir, value, mode) in [("one", "open", 0o644), ("two", "closed", 0o600)] {
            let path = data.join(format!("{dir}{n}/x.db"));
            held.push(database(&path, journal, value, mode));
        }
        pairs.push((format!("one{n}"), format!("two{n}")));
    }
    (pairs, held)
}

/// Backs up within a minute: a FIFO in a file's place makes nothing wait.
fn back_up(host: &Host) {
    let mut command = host.command(&["backup", "--quiet"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("a backup waits");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
}

/// Whether the content of whatever is in `dir` belongs to its mode. Returns how many files it looked at.
fn look(dir: &Path) -> usize {
    let mut looked = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let name = entry.file_name().into_string().unwrap();
        if meta.is_dir() {
            looked += look(&path);
            continue;
        }
        if !meta.is_file() {
            continue;
        }
        // What was stored as bytes has its log beside it, and that may be the other database's.
        let has_log = path.with_file_name("x.db-wal").exists();
        let value = match name.as_str() {
            "x.db" if has_log => continue,
            "x.db" => Connection::open(&path)
                .and_then(|conn| conn.query_row("SELECT v FROM t", [], |row| row.get(0)))
                .unwrap_or_default(),
            _ => fs::read_to_string(&path).unwrap_or_default(),
        };
        assert!(
            !value.contains(SECRET),
            "{} is from outside",
            path.display()
        );
        let expected = match value.as_str() {
            "open" => 0o644,
            "closed" => 0o600,
            _ => continue,
        };
        assert_eq!(meta.mode() & 0o777, expected, "{}: {value}", path.display());
        looked += 1;
    }
    looked
}

fn rounds() -> usize {
    if is_long() { 40 } else { 5 }
}

fn check(host: &Host) {
    let (pairs, held) = make(host);
    let mut looked = 0;
    for round in 0..rounds() {
        let exchanging = Exchanging::start(&host.data(), pairs.clone());
        back_up(host);
        drop(exchanging);
        let to = format!("out{round}");
        let restore = [
            "restore",
            "--target",
            "folder",
            "--identity",
            "key.txt",
            "--to",
            &to,
        ];
        host.exits_any(&restore, &[0, 3]);
        looked += look(&host.path(&to));
        // Read again next time.
        for n in 0..PAIRS {
            let now = std::time::SystemTime::now();
            for name in ["p", "q"] {
                let file = fs::File::open(host.data().join(format!("{name}{n}"))).unwrap();
                file.set_modified(now).unwrap();
            }
        }
    }
    drop(held);
    assert!(looked > rounds() * PAIRS, "{looked}");
    let outside = fs::read_dir(host.path("outside")).unwrap().count();
    assert_eq!(outside, 2, "something was written outside");
    let secret = fs::read_to_string(host.path("outside/shadow")).unwrap();
    assert_eq!(secret, SECRET);
}

#[test]
fn a_tree_read_in_place_gives_away_nothing_while_it_is_exchanged() {
    check(&Host::new());
}

#[test]
fn a_staged_tree_gives_away_nothing_while_it_is_exchanged() {
    let host = Host::new();
    host.edit_config("stage = false", "stage = true");
    check(&host);
}
