//! Copies are whole, locks hold, and nothing is left beside a database that was not ours.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use sealift::base::sqlite::{
    Budget, Depth, Inspection, MAGIC, Place, SqliteError, backup, has_live_journal, is_sqlite,
    lock_for_read, sidecars,
};

use crate::support::files::names_in;

const BUSY: Duration = Duration::from_secs(5);

fn database(path: &Path, journal: &str, page_size: u32) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA journal_mode={journal};
         CREATE TABLE t(x); INSERT INTO t SELECT randomblob(50) FROM
         (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) SELECT i FROM n)"
    ))
    .unwrap();
    conn
}

fn inspect(path: &Path, depth: Depth) -> Result<Inspection, SqliteError> {
    sealift::base::sqlite::inspect(path, depth, &Budget::of_run())
}

/// Whether a lock for reading is available.
fn is_lockable(path: &Path) -> bool {
    let place = Place::of(path).unwrap();
    let file = place.open().unwrap();
    lock_for_read(&place, &file, BUSY, None).unwrap().is_some()
}

fn age(path: &Path) {
    let past = SystemTime::now() - Duration::from_secs(60);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(past)
        .unwrap();
}

#[test]
fn copies_keep_page_size_and_leave_nothing_beside() {
    for journal in ["WAL", "DELETE", "PERSIST", "TRUNCATE"] {
        for page_size in [512, 4096, 65536] {
            let dir = tempfile::tempdir().unwrap();
            let (src, dst) = (dir.path().join("a b?#%.db"), dir.path().join("copy"));
            let conn = database(&src, journal, page_size);
            backup(&src, &dst, BUSY).unwrap();
            let copy = inspect(&dst, Depth::Indexes).unwrap();
            assert!(
                copy.is_ok() && copy.page_size == page_size,
                "{journal} {copy:?}"
            );
            assert_eq!(copy.tables["t"], 200);
            drop(conn);
            let beside: Vec<_> = names_in(dir.path());
            assert!(
                !beside.iter().any(|name| name.starts_with("copy-")),
                "{beside:?}"
            );
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                fs::metadata(&dst).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
}

#[test]
fn a_quiet_wal_database_is_left_without_sidecars() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("a.db"), dir.path().join("copy"));
    drop(database(&src, "WAL", 4096));
    age(&src);
    backup(&src, &dst, BUSY).unwrap();
    assert_eq!(names_in(dir.path()), ["a.db", "copy"]);
    assert!(!is_lockable(&src));
    assert_eq!(names_in(dir.path()), ["a.db", "copy"]);
}

#[test]
fn a_crashed_writers_log_and_journal_are_played_back() {
    let dir = tempfile::tempdir().unwrap();
    for journal in ["WAL", "DELETE"] {
        let live = dir.path().join(format!("{journal}.db"));
        let conn = database(&live, journal, 4096);
        // Spilling the cache leaves uncommitted pages in the file of a rollback-mode database.
        conn.execute_batch("PRAGMA cache_size=1; BEGIN; UPDATE t SET x = randomblob(3000)")
            .unwrap();
        let crashed = dir.path().join(format!("{journal}-crashed.db"));
        fs::copy(&live, &crashed).unwrap();
        for (from, to) in sidecars(&live).iter().zip(sidecars(&crashed)) {
            if from.exists() && !from.to_string_lossy().ends_with("-shm") {
                fs::copy(from, to).unwrap();
            }
        }
        drop(conn);
        assert!(has_live_journal(&crashed), "{journal}");
        let dst = dir.path().join(format!("{journal}-copy.db"));
        backup(&crashed, &dst, BUSY).unwrap();
        let conn = Connection::open(&dst).unwrap();
        let sql = "SELECT count(*) FROM t WHERE length(x) = 50";
        let old: i64 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(old, 200, "{journal}: the transaction was never committed");
    }
}

#[test]
fn failures_leave_no_copy_and_name_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("a.db"), dir.path().join("copy"));
    let missing = backup(&dir.path().join("none"), &dst, BUSY).unwrap_err();
    assert!(missing.to_string().contains("none"), "{missing}");
    assert!(!dst.exists() && !dir.path().join("none").exists());

    let conn = database(&src, "DELETE", 4096);
    conn.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let busy = backup(&src, &dst, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(busy, SqliteError::Busy { .. }), "{busy:?}");
    assert!(!dst.exists());

    fs::write(&dst, "precious").unwrap();
    assert!(backup(&src, &dst, BUSY).is_err());
    assert_eq!(fs::read(&dst).unwrap(), b"precious");
}

#[test]
fn a_lock_holds_writers_of_other_processes_off_until_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("a.db");
    drop(database(&src, "DELETE", 4096));
    let write = || {
        let status = std::process::Command::new("python3")
            .arg("-c")
            .arg("import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=0.1)\nc.execute('delete from t')\nc.commit()")
            .arg(&src)
            .stderr(std::process::Stdio::null())
            .status();
        status.unwrap().success()
    };
    let place = Place::of(&src).unwrap();
    let file = place.open().unwrap();
    let budget = Budget::of_run();
    let check = Some((Depth::Structure, &budget));
    let mut locked = lock_for_read(&place, &file, BUSY, check).unwrap().unwrap();
    // The lock outlives our descriptors of the file, and its check.
    let bytes = fs::read(&src).unwrap();
    drop(file);
    assert_eq!(locked.inspect(&place).unwrap().tables["t"], 200);
    assert!(!write(), "a writer got through the lock");
    drop(locked);
    assert!(write());
    assert!(is_sqlite(&bytes));
}

#[test]
fn damage_is_told_and_foreign_schemas_are_tolerated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let conn = database(&path, "DELETE", 512);
    conn.execute_batch(
        "CREATE TABLE odd(name TEXT); INSERT INTO odd VALUES ('x'), ('y');
         CREATE INDEX odd_index ON odd(name);
         PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET sql='CREATE TABLE odd(name TEXT COLLATE martian)' WHERE name='odd';
         INSERT INTO sqlite_schema VALUES
           ('table','alien','alien',0,'CREATE VIRTUAL TABLE alien USING martian(x)')",
    )
    .unwrap();
    drop(conn);
    let found = inspect(&path, Depth::Indexes).unwrap();
    assert!(found.is_ok(), "{found:?}");
    assert_eq!(found.tables["t"], 200);
    assert!(!found.tables.contains_key("alien"));

    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 1024].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    assert!(!inspect(&path, Depth::Indexes).unwrap().is_ok());
    fs::write(&path, [MAGIC.as_slice(), &[9; 600]].concat()).unwrap();
    assert!(!inspect(&path, Depth::Indexes).unwrap().is_ok());
    assert!(!is_lockable(&path));
}

/// SQLite by itself takes no path of more than 512 bytes.
#[test]
fn a_database_at_the_end_of_a_long_path_is_checked_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("a.db");
    drop(database(&made, "DELETE", 4096));
    let deep = (0..4).fold(dir.path().to_owned(), |path, _| path.join("d".repeat(200)));
    fs::create_dir_all(&deep).unwrap();
    let path = deep.join("a.db");
    fs::rename(&made, &path).unwrap();
    assert_eq!(inspect(&path, Depth::Indexes).unwrap().tables["t"], 200);
    assert!(is_lockable(&path));
    backup(&path, &deep.join("copy"), BUSY).unwrap();
    assert!(inspect(&deep.join("copy"), Depth::Indexes).unwrap().is_ok());
}
