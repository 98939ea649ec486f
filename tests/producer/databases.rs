//! SQLite sources: whole under writers, and the same file again while nothing changes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::host::{Host, Writer, names, rows};

const SOURCE: &str = "[[source]]\nkind = \"sqlite\"\npath = \"@/live/a.db\"\nto = \"db/a.db\"\n";
const ACCOUNTS: i64 = 50;

fn sum(path: &Path) -> i64 {
    assert!(
        sealift::sqlite::inspect(
            path,
            sealift::sqlite::Depth::Indexes,
            &sealift::sqlite::Budget::of_run(),
        )
        .unwrap()
        .is_ok()
    );
    let conn = Connection::open(path).unwrap();
    conn.query_row("SELECT sum(amount) FROM account", [], |row| row.get(0))
        .unwrap()
}

fn open_bank(path: &Path, journal: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA journal_mode={journal}; PRAGMA synchronous=OFF"
    ))
    .unwrap();
    conn
}

/// Moves amounts about, in one transaction each, and tells of each by a byte in a file.
const TRANSFERS: &str = r#"
db.execute("PRAGMA synchronous=OFF")
done = open(sys.argv[1] + ".transfers", "ab", buffering=0)
say("begun")
for n in range(10**9):
    a, b = n * 7 % 50, (n * 13 + 5) % 50
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE account SET amount = amount - 1 WHERE id = ?", (a,))
    db.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (b,))
    db.execute("COMMIT")
    done.write(b".")
    time.sleep(0.001)
"#;

fn under_writers(journal: &str) {
    let host = Host::new(SOURCE);
    let path = host.write("live/a.db", b"");
    let conn = open_bank(&path, journal);
    conn.execute_batch("CREATE TABLE account(id INTEGER PRIMARY KEY, amount, pad)")
        .unwrap();
    for id in 0..ACCOUNTS {
        conn.execute(
            "INSERT INTO account VALUES (?, 100, randomblob(2000))",
            [id],
        )
        .unwrap();
    }
    drop(conn);
    let done = host.path("live/a.db.transfers");
    let transfers = || fs::metadata(&done).map_or(0, |meta| meta.len());
    let _writers = [
        Writer::start(&path, TRANSFERS),
        Writer::start(&path, TRANSFERS),
    ];
    for _ in 0..6 {
        let before = transfers();
        let made = host.produce();
        assert!(made.snapshot.skipped.is_empty());
        assert_eq!(names(&made.dir.join("db")), ["a.db"], "no sidecars");
        let checked = host.path("checked.db");
        fs::copy(made.dir.join("db/a.db"), &checked).unwrap();
        assert_eq!(sum(&checked), ACCOUNTS * 100, "{journal}");
        // The writers were not held up for good.
        while transfers() < before + 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(host.snapshots().len(), 6);
}

#[test]
fn copies_are_whole_under_writers_with_a_log() {
    under_writers("WAL");
}

#[test]
fn copies_are_whole_under_writers_with_a_journal() {
    under_writers("DELETE");
}

#[test]
fn a_database_that_stays_locked_fails_the_snapshot() {
    let host = Host::new(&format!("{SOURCE}lock_timeout = \"1s\"\n"));
    let path = host.path("live/a.db");
    drop(host.open_database("live/a.db", "DELETE"));
    let held = "db.execute('BEGIN EXCLUSIVE'); say('held'); time.sleep(600)";
    let writer = Writer::start(&path, held);
    let said = host.failure();
    assert!(
        said.contains("stayed locked") && said.contains("a.db"),
        "{said}"
    );
    assert!(host.snapshots().is_empty());
    drop(writer);
    assert_eq!(rows(&host.produce().dir.join("db/a.db")), 200);
}

/// The others are not waited for once the time is spent.
#[test]
fn the_locked_databases_of_a_tree_share_one_time_of_waiting() {
    let host = Host::new(
        "[[source]]\nkind = \"tree\"\npath = \"@/live\"\nto = \"files\"\nlock_timeout = \"3s\"\n",
    );
    let held = "db.execute('BEGIN EXCLUSIVE'); say('held'); time.sleep(600)";
    let _writers: Vec<Writer> = (0..6)
        .map(|i| {
            drop(host.open_database(&format!("live/{i}.db"), "DELETE"));
            Writer::start(&host.path(&format!("live/{i}.db")), held)
        })
        .collect();
    let started = std::time::Instant::now();
    let skipped = host.produce().snapshot.skipped;
    assert!(started.elapsed() < Duration::from_secs(12), "{skipped:?}");
    assert_eq!(skipped.len(), 6, "{skipped:?}");
    assert!(skipped.iter().all(|s| s.reason.contains("stayed locked")));
}

#[test]
fn an_unchanged_database_is_one_file_in_both_snapshots() {
    let host = Host::new(SOURCE);
    let conn = host.open_database("live/a.db", "WAL");
    let inode = |dir: &Path| fs::metadata(dir.join("db/a.db")).unwrap().ino();
    let first = host.produce();
    let second = host.produce();
    assert_eq!(inode(&first.dir), inode(&second.dir));
    conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
    let third = host.produce();
    assert_ne!(inode(&second.dir), inode(&third.dir));
    assert_eq!(rows(&second.dir.join("db/a.db")), 200);
    assert_eq!(rows(&third.dir.join("db/a.db")), 201);
    // Another owner or mode is another file: earlier snapshots are left alone.
    let mut host = host;
    host.reconfigure(&format!("{SOURCE}mode = \"0640\"\n"));
    let fourth = host.produce();
    assert_ne!(inode(&third.dir), inode(&fourth.dir));
    assert_eq!(
        fs::metadata(third.dir.join("db/a.db")).unwrap().mode() & 0o777,
        0o644 & !umask()
    );
}

/// SQLite makes databases 0644 but for the umask.
fn umask() -> u32 {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), "").unwrap();
    !fs::metadata(dir.path().join("x")).unwrap().mode() & 0o666
}
