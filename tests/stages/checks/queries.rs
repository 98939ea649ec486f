//! Checks by SQL: one value, of one moment, without a change to the database.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{config, named, run};
use crate::support::files::names_in;

fn made(path: &Path, journal: &str) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA journal_mode={journal}; CREATE TABLE t(x); INSERT INTO t VALUES (1), (2), (3);
         CREATE VIEW v AS SELECT count(*) AS n FROM t"
    ))
    .unwrap();
    db
}

/// A `[[check]]` for each query, with its name and its condition.
fn tables(database: &Path, queries: &[(&str, &str, &str)]) -> String {
    let table = |(name, query, condition): &(&str, &str, &str)| {
        let database = database.display().to_string();
        format!(
            "[[check]]\nname = {name:?}\nsql = {{ database = {database:?}, query = {query:?}, {condition} }}\ntimeout = \"2s\"\n"
        )
    };
    queries.iter().map(table).collect()
}

#[test]
fn a_query_returns_one_value_or_says_what_is_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.db");
    drop(made(&path, "DELETE"));
    let before = fs::read(&path).unwrap();
    let queries = [
        ("rows", "SELECT count(*) FROM t", "ge = 3"),
        ("view", "SELECT n FROM v", "eq = 3"),
        ("text", "SELECT 'v' || 12", "matches = \"v?2\""),
        ("real", "SELECT avg(x) FROM t", "eq = 2"),
        ("blob", "SELECT x'00ff'", "eq = \"00ff\""),
        ("whole", "PRAGMA integrity_check", "eq = \"ok\""),
        ("few", "SELECT count(*) FROM t", "ge = 4"),
        ("null", "SELECT max(x) FROM t WHERE x > 9", "ge = 0"),
        ("none", "SELECT x FROM t WHERE x > 9", "ge = 0"),
        ("several", "SELECT x FROM t", "ge = 0"),
        ("columns", "SELECT 1, 2", "ge = 0"),
        ("wrong", "SELEKT 1", "ge = 0"),
        ("missing", "SELECT count(*) FROM absent", "ge = 0"),
        ("writes", "INSERT INTO t VALUES (4) RETURNING x", "ge = 0"),
        ("drops", "DROP TABLE t", "ge = 0"),
        ("attaches", "ATTACH '/tmp/other.db' AS o", "ge = 0"),
        ("mode", "PRAGMA journal_mode=WAL", "eq = \"wal\""),
        ("large", "SELECT hex(zeroblob(70000))", "ne = \"\""),
        (
            "endless",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
            "ge = 0",
        ),
    ];
    let started = Instant::now();
    let results = run(&config(&tables(&path, &queries)), None, Duration::ZERO);
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    let good = ["rows", "view", "text", "real", "blob", "whole"];
    for result in &results {
        let expected = good.contains(&result.name.as_str());
        assert_eq!(result.passed, expected, "{result:?}");
    }
    for (name, text) in [
        ("few", "the value is 3, expected at least 4"),
        ("null", "the value is null"),
        ("none", "the query returned no row"),
        ("several", "several rows"),
        ("columns", "2 columns"),
        ("wrong", "syntax error"),
        ("missing", "no such table: absent"),
        ("endless", "more than 2.0 s"),
    ] {
        let found = &named(&results, name).found;
        assert!(found.contains(text), "{name}: {found}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names_in(temp.path()), ["a.db"]);
}

/// A database whose log holds what its file does not, in use by another process: the value has both.
#[test]
fn a_database_in_use_is_read_with_its_log() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.db");
    let db = made(&path, "WAL");
    db.execute_batch("INSERT INTO t VALUES (4)").unwrap();
    assert!(names_in(temp.path()).contains(&"a.db-wal".to_owned()));
    let tables = tables(&path, &[("rows", "SELECT count(*) FROM t", "eq = 4")]);
    let results = run(&config(&tables), None, Duration::ZERO);
    assert!(results[0].passed, "{results:?}");
    // Once it is closed, nothing may appear beside it.
    drop(db);
    assert_eq!(names_in(temp.path()), ["a.db"]);
    let results = run(&config(&tables), None, Duration::ZERO);
    assert!(results[0].passed, "{results:?}");
    assert_eq!(names_in(temp.path()), ["a.db"]);
}

#[test]
fn what_is_no_database_fails() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.db");
    let tables = tables(&path, &[("rows", "SELECT 1", "eq = 1")]);
    let config = config(&tables);
    assert!(!run(&config, None, Duration::ZERO)[0].passed);
    fs::write(&path, "not a database at all").unwrap();
    assert!(!run(&config, None, Duration::ZERO)[0].passed);
}
