//! `sql`: a database in a snapshot is queried by reading its parts, and the answers are those of the restored file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::support::files::{bytes_below, files};
use crate::support::host::{Host, texts};
use crate::support::random::Random;

/// A host with `data/app.db`, which `fill` makes, and a backup of it.
fn host(fill: impl FnOnce(&rusqlite::Connection)) -> Host {
    let host = Host::new();
    let db = rusqlite::Connection::open(host.data().join("app.db")).unwrap();
    fill(&db);
    db.close().unwrap();
    host.backup();
    host
}

/// A query of the newest snapshot on the folder, with further options.
fn words<'a>(host: &'a Host, query: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let first = [
        "sql",
        "latest",
        "data/app.db",
        query,
        "--from",
        "repo",
        "--identity",
        "key.txt",
    ];
    [&first[..], &["--signer", &host.signer], more].concat()
}

fn rows(host: &Host, query: &str) -> Value {
    host.json(&words(host, query, &[]))
}

/// Bytes that do not compress.
fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.flatten().take(count).collect()
}

/// What Python's SQLite says of `file`, in the form of `--json`.
fn by_python(file: &Path, query: &str) -> Value {
    let script = "import json, math, sqlite3, sys
c = sqlite3.connect('file:' + sys.argv[1] + '?immutable=1', uri=True)
c.text_factory = lambda b: b.decode('utf-8', 'replace')
def value(v):
    if isinstance(v, bytes): return {'hex': v.hex()}
    if isinstance(v, float) and math.isinf(v): return 'Inf' if v > 0 else '-Inf'
    return v
r = c.execute(sys.argv[2])
names = [d[0] for d in r.description]
print(json.dumps([dict(zip(names, map(value, row))) for row in r]))";
    let output = Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(file)
        .arg(query)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
    serde_json::from_slice(&output.stdout).unwrap()
}

const VALUES: &str = "CREATE TABLE v(id INTEGER PRIMARY KEY, a);
    INSERT INTO v(a) VALUES (NULL), (-9223372036854775808), (9223372036854775807), (0.1), (1e300), (9e999), (''),
    ('a,\"b\"
c'), ('ünï'), (x'00ff'), (x''), (1.0);";

#[test]
fn values_of_every_kind_are_printed_in_three_ways() {
    let host = host(|db| db.execute_batch(VALUES).unwrap());
    let query = "SELECT id, a FROM v ORDER BY id";
    assert_eq!(
        rows(&host, query),
        by_python(&host.data().join("app.db"), query)
    );
    let csv = host.ok(&words(&host, query, &["--csv"]));
    let parse = "import csv, json, sys; print(json.dumps(list(csv.reader(sys.stdin))))";
    fs::write(host.path("out.csv"), &csv).unwrap();
    let parsed = Command::new("python3")
        .args(["-c", parse])
        .stdin(fs::File::open(host.path("out.csv")).unwrap())
        .output()
        .unwrap();
    let parsed: Vec<Vec<String>> = serde_json::from_slice(&parsed.stdout).unwrap();
    assert_eq!(parsed.len(), 13);
    assert_eq!(parsed[8], ["8", "a,\"b\"\nc"]);
    assert_eq!(parsed[10], ["10", "x'00ff'"]);
    assert_eq!(parsed[6], ["6", "Inf"]);
    assert!(
        csv.contains("\n1,\n") && csv.contains("\n7,\"\"\n"),
        "{csv}"
    );
    let table = host.ok(&words(&host, query, &[]));
    assert!(table.starts_with("id  a\n1   NULL\n"), "{table}");
    assert_eq!(
        rows(&host, "SELECT a, a, id AS a_2 FROM v LIMIT 1").to_string(),
        "[{\"a\":null,\"a_2\":null,\"a_2_2\":1}]"
    );
    // The local snapshot has no copy of a tree that is read in place.
    let (_, err) = host.exits(&["sql", "latest", "data/app.db", "SELECT 1"], 1);
    assert!(err.contains("read in place"), "{err}");
}

#[test]
fn random_databases_answer_as_the_restored_file_does() {
    let cases = Config {
        cases: 4,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (
        prop::sample::select(vec![512_u32, 1024, 4096, 65536]),
        prop::bool::ANY,
        prop::collection::vec(
            (
                any::<i64>(),
                ".{0,40}",
                prop::collection::vec(any::<u8>(), 0..3000),
            ),
            1..120,
        ),
    );
    TestRunner::new(cases)
        .run(&strategy, |(page, is_wal, content)| {
            let host = host(|db| {
                let mode = if is_wal { "WAL" } else { "DELETE" };
                db.execute_batch(&format!(
                    "PRAGMA page_size={page}; PRAGMA journal_mode={mode};
                     CREATE TABLE t(k INTEGER, s TEXT, b BLOB); CREATE INDEX i ON t(s);"
                ))
                .unwrap();
                for row in &content {
                    db.execute(
                        "INSERT INTO t VALUES (?1, ?2, ?3)",
                        rusqlite::params![row.0, row.1, row.2],
                    )
                    .unwrap();
                }
            });
            let restored = host.restore("latest", "restored").join("data/app.db");
            for query in [
                "SELECT rowid, * FROM t ORDER BY rowid",
                "SELECT s, count(*), sum(length(b)) AS n FROM t GROUP BY s ORDER BY s",
                "SELECT max(k) AS m, min(s) AS s FROM t",
                "PRAGMA integrity_check",
            ] {
                prop_assert_eq!(rows(&host, query), by_python(&restored, query));
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn only_reading_statements_run() {
    let host = host(|db| {
        db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
            .unwrap()
    });
    for (query, what) in [
        ("DELETE FROM t", "does not only read"),
        ("CREATE TEMP TABLE x(a)", "does not only read"),
        ("VACUUM INTO 'x'", "does not only read"),
        ("PRAGMA journal_mode=DELETE", "does not only read"),
        ("ATTACH 'x' AS y", "ATTACH"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT 1; SELECT 2", "not one SQL statement"),
        ("", "not one SQL statement"),
        ("SELECT nope FROM t", "no such column"),
        ("SELEC", "syntax error"),
    ] {
        let (out, err) = host.exits(&words(&host, query, &[]), 1);
        assert!(
            err.contains("data/app.db") && err.contains(what),
            "{query}: {err}"
        );
        assert_eq!(out, "", "{query}");
    }
    assert!(!host.path("x").exists());
    let endless =
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r";
    let began = Instant::now();
    let (_, err) = host.exits(&words(&host, endless, &["--timeout", "1s"]), 1);
    assert!(
        err.contains("more than 1 s") && began.elapsed().as_secs() < 30,
        "{err}"
    );
    let (_, err) = host.exits(&words(&host, "SELECT 1", &["--csv", "--json"]), 2);
    assert!(err.contains("--csv"), "{err}");
    for (path, what) in [("data/ap.db", "Did you mean"), ("data", "directory")] {
        let mut words = words(&host, "SELECT 1", &[]);
        words[2] = path;
        let (_, err) = host.exits(&words, 1);
        assert!(err.contains(what), "{err}");
    }
    fs::write(host.data().join("app.db"), "no database").unwrap();
    host.backup();
    let (_, err) = host.exits(&words(&host, "SELECT 1", &[]), 1);
    assert!(err.contains("not an SQLite database"), "{err}");
}

/// A copy in the snapshot directory of the host, a database in the mode of a log.
#[test]
fn a_local_snapshot_is_queried_without_an_identity() {
    let host = Host::prepared(
        |dir| {
            let db = rusqlite::Connection::open(dir.join("own.db")).unwrap();
            db.execute_batch(
                "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES (41)",
            )
            .unwrap();
        },
        &["--sqlite", "own.db"],
    );
    host.backup();
    let said = host.ok(&["sql", "latest", "own.db", "SELECT a + 1 AS a FROM t"]);
    assert_eq!(said, "a\n42\n");
    let snapshot = fs::read_dir(host.path("c.state/snapshots"))
        .unwrap()
        .next()
        .unwrap();
    let database = snapshot.unwrap().path().join("own.db");
    let wal = database.with_file_name("own.db-wal");
    assert!(!wal.exists(), "a query writes nothing");
    fs::write(&wal, vec![1; 5000]).unwrap();
    let (_, err) = host.exits(&["sql", "latest", "own.db", "SELECT 1"], 1);
    assert!(err.contains("belongs to its content"), "{err}");
}

/// Many point queries fetch a part of the database; a scan does not get past `--max-fetch`.
#[test]
fn point_queries_fetch_a_part_and_a_scan_stops_at_its_limit() {
    let mut random = Random::new(7);
    let host = host(|db| {
        db.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, key TEXT, body BLOB); BEGIN")
            .unwrap();
        for id in 0..24_000 {
            let body = bytes(&mut random, 1500);
            db.execute(
                "INSERT INTO t VALUES (?1, ?2, ?3)",
                rusqlite::params![id, format!("k{id}"), body],
            )
            .unwrap();
        }
        db.execute_batch("CREATE INDEX i ON t(key); COMMIT")
            .unwrap();
    });
    let all = bytes_below(&host.folder().join("archives"));
    let cache = host.path("cache");
    let cache = cache.to_str().unwrap();
    let ids: Vec<String> = (0..1000).map(|n| format!("'k{}'", n * 2)).collect();
    let many = format!(
        "SELECT count(*) AS n, sum(length(body)) AS b FROM t WHERE key IN ({})",
        ids.join(",")
    );
    let said = host.json(&words(&host, &many, &["--cache", cache]));
    assert_eq!(said[0]["n"], 1000);
    let fetched = bytes_below(Path::new(cache));
    println!("1000 point queries fetched {fetched} of {all} bytes");
    assert!(fetched < all, "{fetched} of {all}");
    let one = host.path("one");
    let said = host.json(&words(
        &host,
        "SELECT length(body) AS b FROM t WHERE key = 'k23456'",
        &["--cache", one.to_str().unwrap()],
    ));
    assert_eq!(said[0]["b"], 1500);
    let fetched = bytes_below(&one);
    println!("one point query fetched {fetched} of {all} bytes");
    assert!(fetched < all / 2, "{fetched} of {all}");
    let scan = "SELECT sum(length(body)) FROM t WHERE body IS NOT NULL AND hex(body) <> ''";
    let (out, err) = host.exits(
        &words(&host, scan, &["--max-fetch", "9MB", "--cache", "none"]),
        1,
    );
    assert!(
        err.contains("than it may fetch") && err.contains("--max-fetch"),
        "{err}"
    );
    assert_eq!(out, "");
}

#[test]
fn a_damaged_archive_is_named_and_no_row_is_wrong() {
    let mut random = Random::new(8);
    let host = host(|db| {
        db.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
            .unwrap();
        for id in 0..2000 {
            db.execute(
                "INSERT INTO t VALUES (?1, ?2)",
                rusqlite::params![id, bytes(&mut random, 1000)],
            )
            .unwrap();
        }
    });
    let archives = files(&host.folder().join("archives"));
    let largest = archives
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(largest, bytes).unwrap();
    let (_, err) = host.exits(
        &words(
            &host,
            "SELECT sum(length(hex(body))) FROM t",
            &["--cache", "none"],
        ),
        1,
    );
    assert!(
        err.contains("archive ") && err.contains("repo") && !err.contains("disk I/O"),
        "{err}"
    );
}

/// Neither the query nor the rows leave a trace in clear.
#[test]
fn no_plaintext_reaches_a_disk() {
    let secret = "the plans of the flying machine";
    let host = host(|db| {
        db.execute_batch("CREATE TABLE t(a TEXT)").unwrap();
        for n in 0..3000 {
            db.execute("INSERT INTO t VALUES (?1)", [format!("{n} {secret}")])
                .unwrap();
        }
    });
    fs::remove_dir_all(host.data()).unwrap();
    let tmp = host.path("tmp");
    fs::create_dir(&tmp).unwrap();
    let mut command = host.command(&words(
        &host,
        "SELECT DISTINCT a FROM t ORDER BY a DESC LIMIT 3",
        &[],
    ));
    let output = command.env("TMPDIR", &tmp).output().unwrap();
    let (out, err) = texts(&output);
    assert!(out.contains(secret), "{out}{err}");
    for file in files(host.temp.path()) {
        let bytes = fs::read(&file).unwrap();
        let found = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "{}", file.display());
    }
    assert_eq!(files(&tmp), Vec::<std::path::PathBuf>::new());
}
