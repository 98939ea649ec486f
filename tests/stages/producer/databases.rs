//! SQLite sources: whole under writers, and the same file again while nothing changes.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::host::{Host, Writer, rows};
use crate::support::files::names_in;

const SOURCE: &str = "[[source]]\nkind = \"sqlite\"\npath = \"@/live/a.db\"\nto = \"db/a.db\"\n";
const ACCOUNTS: i64 = 50;

fn sum(path: &Path) -> i64 {
    assert!(
        sealift::base::sqlite::inspect(
            path,
            sealift::base::sqlite::Depth::Indexes,
            &sealift::base::sqlite::Budget::of_run(),
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

/// Moves amounts about, in one transaction each, and writes a byte to a file for each.
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
        assert_eq!(names_in(&made.dir.join("db")), ["a.db"], "no sidecars");
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

/// A database that only its application can check in full.
struct Foreign {
    name: &'static str,
    script: &'static str,
    /// Words of the note; empty if nothing is left to its application.
    note: &'static str,
}

const FOREIGN: &[Foreign] = &[
    Foreign {
        name: "an index on a function",
        script: "CREATE TABLE t(x); CREATE INDEX i ON t(fold(x))",
        note: "only its application can check indexes of the table \"t\": ",
    },
    Foreign {
        name: "a partial index",
        script: "CREATE TABLE t(x); CREATE INDEX i ON t(x) WHERE fold(x) > 0",
        note: "only its application can check indexes of the table \"t\": ",
    },
    Foreign {
        name: "a stored column, which no check computes again",
        script: "CREATE TABLE t(x, y GENERATED ALWAYS AS (fold(x)) STORED)",
        note: "",
    },
    Foreign {
        name: "a constraint",
        script: "CREATE TABLE t(x CHECK (fold(x) > 0))",
        note: "",
    },
    Foreign {
        name: "a collation",
        script: "CREATE TABLE t(x COLLATE mine PRIMARY KEY)",
        note: "only its application can check the table \"t\": no such collation sequence: mine",
    },
    Foreign {
        name: "a trigger and a view, which no check runs",
        script: "CREATE TABLE t(x); CREATE VIEW v AS SELECT fold(x) FROM t;
                 CREATE TRIGGER g AFTER DELETE ON t BEGIN SELECT fold(old.x); END",
        note: "",
    },
];

/// Kind: SQLite cannot prepare what it needs a function, a collation or a module of the application for.
#[test]
fn what_only_its_application_can_check_is_stored_and_named() {
    for foreign in FOREIGN {
        let host = Host::new(SOURCE);
        let path = host.write("live/a.db", b"");
        let script = "import sqlite3, sys\n\
             db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
             db.create_function('fold', 1, lambda x: x, deterministic=True)\n\
             db.create_collation('mine', lambda a, b: (a > b) - (a < b))\n\
             db.executescript(sys.argv[2])\n\
             db.execute('CREATE TABLE other(x)')\n\
             db.execute('INSERT INTO t(x) VALUES (1)')\n";
        let made = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .arg(foreign.script)
            .status();
        assert!(made.unwrap().success(), "{}", foreign.name);
        let made = host.produce();
        let (name, notes) = (foreign.name, &made.notes);
        assert!(
            made.snapshot.skipped.is_empty(),
            "{name}: {:?}",
            made.snapshot.skipped
        );
        assert_eq!(
            notes.is_empty(),
            foreign.note.is_empty(),
            "{name}: {notes:?}"
        );
        let note = notes.concat();
        assert!(note.contains(foreign.note), "{name}: {notes:?}");
        let copy = made.dir.join("db/a.db");
        let tables = &made.snapshot.databases[0].tables;
        assert_eq!(tables.get("other"), Some(&0), "{name}: {tables:?}");
        let checked = sealift::producer::validate(&made.dir);
        assert!(
            checked.valid && checked.unchecked.is_empty(),
            "{name}: {checked:?}"
        );

        // Damage is found nevertheless: in the table itself, or only beside it if its keys are foreign.
        let file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
        let page = match foreign.name {
            "a collation" => file.metadata().unwrap().len() / 4096 - 1,
            _ => 1,
        };
        file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
        let checked = sealift::producer::validate(&made.dir);
        assert_eq!(checked.errors, ["db_a_db_integrity_check_failed"], "{name}");
    }
}

/// A schema of a later SQLite says nothing against the database.
#[test]
fn a_database_of_a_later_sqlite_is_stored_and_called_not_checked() {
    let host = Host::new(SOURCE);
    let path = host.database("live/a.db", "DELETE");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The schema format number; four is the highest so far.
    file.write_all_at(&[0, 0, 0, 9], 44).unwrap();
    let made = host.produce();
    let skipped = &made.snapshot.skipped;
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert!(
        skipped[0].reason.starts_with("stored, not checked: "),
        "{skipped:?}"
    );
    assert!(made.snapshot.left_out.is_empty());
    let same =
        fs::read(made.dir.join("db/a.db")).unwrap()[100..] == fs::read(&path).unwrap()[100..];
    assert!(same);
}
