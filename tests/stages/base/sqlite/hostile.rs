//! Databases that were made to harm end a check, never a backup or a restore; every byte comes back.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sealift::base::sqlite::{Budget, Depth, inspect};

use super::shapes::{End, SHAPES};
use crate::support::host::Host;
use crate::support::is_long;
use crate::support::ran_in_own_process;

/// What no process of a backup or restore may take.
const MOST_MEMORY_KIB: i64 = 512 << 10;

/// The most memory that any ended child of this process took, or a child of theirs.
fn memory_of_children_kib() -> i64 {
    // SAFETY: the structure is plain data, and the call fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0);
        usage.ru_maxrss
    }
}

#[test]
fn each_shape_is_checked_or_ended_in_time() {
    if ran_in_own_process("base::sqlite::hostile::each_shape_is_checked_or_ended_in_time") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, make, end) in SHAPES {
        let path = dir.path().join(name);
        make(&path);
        for depth in [Depth::Structure, Depth::Indexes] {
            // Without much of a reserve a check gets 250 ms beyond its fair share.
            let reserve = match end {
                End::Heavy => Duration::from_secs(90),
                End::Endless | End::Soon => Duration::from_millis(600),
            };
            let budget = Budget::with_reserve(reserve);
            let started = Instant::now();
            let found = inspect(&path, depth, &budget);
            let unchecked = found.as_ref().err().and_then(|error| error.unchecked());
            assert!(
                started.elapsed() < Duration::from_secs(40),
                "{name} {found:?}"
            );
            match end {
                End::Endless => {
                    let why = unchecked.unwrap_or("checked");
                    assert!(why.contains("took more than"), "{name}: {found:?}");
                }
                End::Heavy => {
                    let why = unchecked.unwrap_or("checked");
                    assert!(why.contains("MiB"), "{name}: {found:?}");
                }
                // An answer, or none because a busy machine took too long.
                End::Soon => assert!(found.is_ok() || unchecked.is_some(), "{name}: {found:?}"),
            }
        }
        fs::remove_file(&path).unwrap();
    }
    assert!(memory_of_children_kib() < MOST_MEMORY_KIB);
}

#[test]
fn all_checks_of_a_run_share_one_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let (_, make, _) = SHAPES[0];
    let paths: Vec<_> = (0..20)
        .map(|i| dir.path().join(format!("{i}.db")))
        .collect();
    paths.iter().for_each(|path| make(path));
    let budget = Budget::with_reserve(Duration::from_secs(1));
    let started = Instant::now();
    let why: Vec<String> = paths
        .iter()
        .map(|path| {
            let error = inspect(path, Depth::Structure, &budget).unwrap_err();
            error.unchecked().unwrap().to_owned()
        })
        .collect();
    assert!(started.elapsed() < Duration::from_secs(10), "{why:?}");
    assert!(why[0].contains("took more than"), "{why:?}");
    assert!(why[19].contains("other databases of this run"), "{why:?}");
}

/// Backs the shapes up and restores them: the tree is the same, and what was not checked is named.
fn there_and_back(wanted: impl Fn(End) -> bool, most: Duration) {
    let host = Host::new();
    let mut unchecked = Vec::new();
    for (name, make, end) in SHAPES {
        // So large a hole takes minutes to read, which is not what is tried here.
        if !wanted(*end) || *name == "huge-hole" {
            continue;
        }
        make(&host.data().join(name));
        if *end != End::Soon {
            unchecked.push(*name);
        }
    }
    let sound = Connection::open(host.data().join("sound.db")).unwrap();
    sound
        .execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
        .unwrap();
    drop(sound);
    let started = Instant::now();
    let report = host.json_exits(&["backup"], &[3]);
    assert!(started.elapsed() < most, "{:?}", started.elapsed());
    let skipped = report["skipped"].to_string();
    for name in unchecked {
        let reason = format!("data/{name}");
        assert!(skipped.contains(&reason), "{name} is not in {skipped}");
    }
    assert!(skipped.contains("stored, not checked"), "{skipped}");
    assert!(!skipped.contains("sound.db"), "{skipped}");
    let restored = host.restore_exits("latest", "out", &[3]).join("data");
    for entry in fs::read_dir(host.data()).unwrap() {
        let name = entry.unwrap().file_name();
        let same = |dir: &Path| fs::read(dir.join(&name)).unwrap();
        assert!(same(&host.data()) == same(&restored), "{name:?}");
    }
    let most = memory_of_children_kib();
    assert!(most < MOST_MEMORY_KIB, "{most} KiB");
}

#[test]
fn a_tree_of_heavy_databases_comes_back_whole() {
    if ran_in_own_process("base::sqlite::hostile::a_tree_of_heavy_databases_comes_back_whole") {
        return;
    }
    there_and_back(|end| end != End::Endless, Duration::from_secs(60));
}

/// The endless ones use the whole reserve up, which takes a minute and a half.
#[test]
fn a_tree_of_endless_databases_is_backed_up_within_its_budget() {
    if ran_in_own_process(
        "base::sqlite::hostile::a_tree_of_endless_databases_is_backed_up_within_its_budget",
    ) {
        return;
    }
    if is_long() {
        there_and_back(|_| true, Duration::from_secs(180));
    }
}

#[test]
fn what_legitimate_databases_hold_is_checked_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.db");
    let db = Connection::open(&path).unwrap();
    let columns: Vec<String> = (0..1900)
        .map(|i| format!("c{i} TEXT NOT NULL DEFAULT ''"))
        .collect();
    let tables: String = (0..2000)
        .map(|i| {
            format!("CREATE TABLE t{i}(a INTEGER PRIMARY KEY, b TEXT NOT NULL, c REAL UNIQUE);")
        })
        .collect();
    db.execute_batch(&format!(
        "PRAGMA synchronous=OFF; BEGIN; {tables}
         CREATE TABLE wide({});
         INSERT INTO wide(c0) VALUES ('x');
         CREATE TABLE blobs(id INTEGER PRIMARY KEY, content BLOB NOT NULL, note TEXT);
         CREATE INDEX by_note ON blobs(note);
         INSERT INTO blobs VALUES (1, zeroblob(200000000), 'n');
         CREATE TABLE texts(x TEXT CHECK (length(x) > 2));
         INSERT INTO texts VALUES (hex(zeroblob(20000000)));
         COMMIT",
        columns.join(",")
    ))
    .unwrap();
    drop(db);
    for depth in [Depth::Structure, Depth::Indexes] {
        let found = inspect(&path, depth, &Budget::of_run()).unwrap();
        assert!(found.is_ok(), "{}", found.integrity);
        assert_eq!(found.tables.len(), 2003);
        assert_eq!(found.tables["blobs"], 1);
    }
}
