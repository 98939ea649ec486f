//! SQLite under fire: writers move money while snapshots are taken; no restored database is torn.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::support::host::Host;

const ACCOUNTS: i64 = 200;
const MONEY: i64 = 100_000;

fn create(path: &Path, mode: &str) {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", mode).unwrap();
    db.execute_batch("CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INTEGER, note TEXT)")
        .unwrap();
    for id in 0..ACCOUNTS {
        let note = "x".repeat(300);
        db.execute(
            "INSERT INTO accounts VALUES (?1, ?2, ?3)",
            (id, MONEY / ACCOUNTS, note),
        )
        .unwrap();
    }
}

struct Writers {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(path: &Path, count: u64) -> Self {
        let (stop, commits) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..count)
            .map(|n| {
                let (stop, commits, path) = (stop.clone(), commits.clone(), path.to_owned());
                std::thread::spawn(move || transfer(&path, n + 1, &stop, &commits))
            })
            .collect();
        Self {
            stop,
            commits,
            threads,
        }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.commits.load(Ordering::Relaxed)
    }
}

fn transfer(path: &Path, seed: u64, stop: &AtomicBool, commits: &AtomicU64) {
    let mut db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    let mut state = seed;
    while !stop.load(Ordering::Relaxed) {
        let mut pick = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as i64) % ACCOUNTS
        };
        let (from, to, amount) = (pick(), pick(), pick());
        let tx = db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        tx.execute(
            "UPDATE accounts SET money = money - ?2 WHERE id = ?1",
            (from, amount),
        )
        .unwrap();
        tx.execute(
            "UPDATE accounts SET money = money + ?2 WHERE id = ?1",
            (to, amount),
        )
        .unwrap();
        tx.commit().unwrap();
        commits.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn check(path: &Path) {
    let db = Connection::open(path).unwrap();
    let integrity: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    let sum: i64 = db
        .query_row("SELECT sum(money) FROM accounts", [], |row| row.get(0))
        .unwrap();
    assert_eq!(
        (integrity.as_str(), sum),
        ("ok", MONEY),
        "{}",
        path.display()
    );
}

/// Twenty snapshots of `database` under writers, then every one restored.
fn under_fire(host: &Host, database: &Path, restored: &str) {
    let writers = Writers::start(database, 2);
    let mut stamps = Vec::new();
    for _ in 0..20 {
        let report = host.backup();
        stamps.push(report["stamp"].as_str().unwrap().to_owned());
    }
    assert!(writers.stop() > 50);
    for (number, stamp) in stamps.iter().enumerate() {
        let out = host.restore(stamp, &format!("out-{number}"));
        check(&out.join(restored));
        let sidecars: Vec<PathBuf> = crate::support::files::files(&out)
            .into_iter()
            .filter(|path| path.to_string_lossy().ends_with("-journal"))
            .collect();
        assert_eq!(sidecars, Vec::<PathBuf>::new());
    }
    let out = host.recover("latest", "by-hand");
    check(&out.join(restored));
}

#[test]
fn a_wal_database_in_a_tree_read_in_place() {
    let host = Host::new();
    let database = host.data().join("bank.db");
    create(&database, "wal");
    under_fire(&host, &database, "data/bank.db");
}

#[test]
fn a_rollback_database_in_a_tree_read_in_place() {
    let host = Host::new();
    let database = host.data().join("bank.db");
    create(&database, "delete");
    under_fire(&host, &database, "data/bank.db");
}

#[test]
fn the_atocore_preset() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    for dir in ["data/db", "data/chroma", "config"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let database = root.join("data/db/atocore.db");
    create(&database, "wal");
    let root = root.display().to_string();
    let host = Host::with_init(&["--preset", "atocore", "--root", &root]);
    under_fire(&host, &database, "db/atocore.db");
}
