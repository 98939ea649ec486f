//! `catalog rebuild`: what was known is known again, and nothing that was not so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::files::files;
use crate::support::host::Host;
use crate::support::tree::{describe, noise};

/// Every kind of content that is cut in its own way.
fn prepared() -> Host {
    let host = Host::new();
    let data = host.data();
    let db = rusqlite::Connection::open(data.join("app.db")).unwrap();
    db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        .unwrap();
    for n in 0..300 {
        db.execute("INSERT INTO t (body) VALUES (?1)", [noise(n, 3_000)])
            .unwrap();
    }
    drop(db);
    fs::write(data.join("vectors.bin"), noise(1001, 2_000_000)).unwrap();
    fs::write(data.join("large"), noise(1002, 9_000_000)).unwrap();
    fs::write(data.join("middle"), noise(1003, 300_000)).unwrap();
    fs::write(data.join("empty"), "").unwrap();
    fs::create_dir(data.join("small")).unwrap();
    for n in 0..40 {
        fs::write(data.join(format!("small/{n}")), noise(2000 + n, 700)).unwrap();
    }
    fs::hard_link(data.join("middle"), data.join("second name")).unwrap();
    let sparse = fs::File::create(data.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(1004, 50_000), 9 << 20).unwrap();
    drop(sparse);
    host.backup();
    // So that a file's content is in several archives.
    edit(&data.join("vectors.bin"), 500_000, &noise(1, 9_000));
    edit(&data.join("large"), 4_000_000, &noise(2, 100_000));
    change_a_row(&data, 7);
    fs::write(data.join("small/3"), "changed").unwrap();
    host.backup();
    host
}

fn edit(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
}

fn change_a_row(data: &Path, id: u64) {
    let db = rusqlite::Connection::open(data.join("app.db")).unwrap();
    let body = noise(id + 5000, 3_000);
    db.execute("UPDATE t SET body=?1 WHERE id=?2", (body, id as i64))
        .unwrap();
}

fn lose_the_catalog(host: &Host) {
    for file in files(&host.path("c.state")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("catalog") || name.ends_with(".cache") {
            fs::remove_file(file).unwrap();
        }
    }
}

fn rebuild(host: &Host, more: &[&str]) -> Value {
    let all = [&["catalog", "rebuild", "--identity", "key.txt"], more].concat();
    host.json(&all)
}

fn new_bytes(report: &Value) -> u64 {
    report["new_archive_bytes"].as_u64().unwrap()
}

/// Where each chunk of data lies. (A check of the row stands above its length.)
fn places(catalog: &Path) -> BTreeMap<Vec<u8>, (Vec<u8>, i64, i64)> {
    let db = rusqlite::Connection::open(catalog).unwrap();
    let mut query = db
        .prepare(
            "SELECT hash, blake3, offset, length & 1099511627775 FROM chunks JOIN archives ON n=archive WHERE kind='data'",
        )
        .unwrap();
    let rows = query.query_map([], |row| {
        Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn restores_as_it_is(host: &Host, to: &str) {
    let out = host.restore("latest", to);
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn with_an_identity_the_next_push_is_as_small_as_ever() {
    let host = prepared();
    let catalog = host.path("c.state/catalog.db");
    let before = places(&catalog);
    lose_the_catalog(&host);
    let said = rebuild(&host, &[]);
    assert_eq!(said["snapshots"], 2, "{said}");
    let content = &said["content"];
    assert_eq!(content["fetched_files"], 0, "{said}");
    assert_eq!(content["unknown_files"], 0, "{said}");
    let after = places(&catalog);
    assert!(content["chunks"].as_u64().unwrap() > 300, "{said}");
    for (hash, place) in &after {
        assert_eq!(before.get(hash), Some(place), "a place that was not known");
    }
    // Of what only the first snapshot had nothing is learned.
    assert!(
        after.len() * 10 > before.len() * 9,
        "{} of {}",
        after.len(),
        before.len()
    );
    edit(&host.data().join("vectors.bin"), 800_000, b"a change");
    change_a_row(&host.data(), 20);
    let report = host.backup();
    assert!(new_bytes(&report) < 60_000, "{report}");
    assert_eq!(report["sequence"], 3, "{report}");
    restores_as_it_is(&host, "out");
    host.ok(&["verify", "--data"]);
}

#[test]
fn content_that_changed_meanwhile_is_fetched() {
    let host = prepared();
    let data = host.data();
    let kept = host.path("kept");
    let copied = std::process::Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([&data, &kept])
        .status();
    assert!(copied.unwrap().success());
    fs::remove_file(data.join("large")).unwrap();
    edit(&data.join("middle"), 0, b"something else");
    fs::write(data.join("small/5"), noise(1, 700)).unwrap();
    lose_the_catalog(&host);
    let said = rebuild(&host, &["--scratch", "."]);
    // Both names of one file are one.
    assert_eq!(said["content"]["fetched_files"], 3, "{said}");
    assert_eq!(said["content"]["unknown_files"], 0, "{said}");
    for left in fs::read_dir(host.temp.path()).unwrap() {
        let name = left.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("sealift-"), "{name} was left");
    }
    // What it was before is known.
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&kept, &data).unwrap();
    let report = host.backup();
    assert!(new_bytes(&report) < 60_000, "{report}");
    restores_as_it_is(&host, "out");
}

#[test]
fn what_is_not_at_hand_is_stored_once_more_where_nothing_is_to_be_fetched() {
    let host = prepared();
    let large = host.data().join("large");
    let content = fs::read(&large).unwrap();
    fs::remove_file(&large).unwrap();
    lose_the_catalog(&host);
    let said = rebuild(&host, &["--at-hand"]);
    assert_eq!(said["content"]["unknown_files"], 1, "{said}");
    fs::write(&large, content).unwrap();
    let report = host.backup();
    let bytes = new_bytes(&report);
    assert!((9_000_000..9_200_000).contains(&bytes), "{report}");
    restores_as_it_is(&host, "out");
}

#[test]
fn without_an_identity_the_history_is_known_and_content_is_not() {
    let host = prepared();
    lose_the_catalog(&host);
    let (out, _) = host.exits(&["catalog", "rebuild"], 0);
    assert!(out.contains("found 2 snapshots of dalidou"), "{out}");
    assert!(out.contains("stores everything again"), "{out}");
    let report = host.backup();
    assert!(new_bytes(&report) > 11_000_000, "{report}");
    assert_eq!(report["sequence"], 3, "{report}");
    restores_as_it_is(&host, "out");
    host.ok(&["verify"]);
}

#[test]
fn a_catalog_in_doubt_is_replaced_and_kept() {
    let host = prepared();
    let catalog = host.path("c.state/catalog.db");
    let before = places(&catalog);
    let said = rebuild(&host, &[]);
    let kept = said["kept"].as_str().unwrap();
    assert_eq!(places(&host.path("c.state").join(kept)), before);
    for name in ["catalog.new.db", "catalog.new.db-wal", "catalog.new.db-shm"] {
        assert!(!host.path("c.state").join(name).exists(), "{name}");
    }
    restores_as_it_is(&host, "out");
    assert!(new_bytes(&host.backup()) < 20_000);
}

/// Kind: what is not known any more is shown as if there were none.
#[test]
fn tags_and_sources_are_known_again_where_they_can_be() {
    let mut host = Host::new();
    let large = "\n[[source]]\nkind = \"command\"\nname = \"large\"\non_request = true\ncommand = \"echo x\"\n\n\
                 [snapshots]\nkeep = 1\n\n[retention]\n";
    host.edit_config("\n[retention]\n", large);
    for (day, arguments) in [
        &["--tag", "first", "--include", "large"][..],
        &["--tag", "second"],
        &["--tag", "third"],
    ]
    .into_iter()
    .enumerate()
    {
        host.clock = Some(format!("2026-04-0{}T06:00:00Z", day + 1));
        fs::write(host.data().join("today"), day.to_string()).unwrap();
        host.json(&[&["backup"], arguments].concat());
    }
    let known = |host: &Host| {
        let list = host.json(&["list"]);
        let all = list["backups"].as_array().unwrap().iter();
        let known =
            all.map(|one| format!("{} {} {}", one["tags"], one["on_request"], one["lacks"]));
        known.collect::<Vec<_>>()
    };
    let all = [
        r#"["first"] ["large"] null"#,
        r#"["second"] [] null"#,
        r#"["third"] [] []"#,
    ];
    assert_eq!(known(&host), all);
    // The old catalog knows them.
    assert_eq!(host.json(&["catalog", "rebuild"])["without_known_tags"], 0);
    assert_eq!(known(&host), all);
    // Without it, what is still on this host is known.
    lose_the_catalog(&host);
    assert_eq!(host.json(&["catalog", "rebuild"])["without_known_tags"], 2);
    let some = ["null null null", "null null null", all[2]];
    assert_eq!(known(&host), some);
    let table = host.ok(&["list"]);
    assert_eq!(
        table
            .lines()
            .filter(|line| line.trim_end().ends_with('?'))
            .count(),
        2,
        "{table}"
    );
    let said = host.ok(&["catalog", "rebuild"]);
    assert!(
        said.contains("the tags of 2 snapshots are not known"),
        "{said}"
    );
    // An identity shows all.
    assert_eq!(rebuild(&host, &[])["without_known_tags"], 0);
    assert_eq!(known(&host), all);
}

#[test]
fn where_it_cannot_be_done_the_catalog_is_as_it_was() {
    let host = prepared();
    let catalog = host.path("c.state/catalog.db");
    let before = places(&catalog);
    let is_as_it_was = |args: &[&str], expected: &str| {
        let all = [&["catalog", "rebuild"], args].concat();
        let (_, err) = host.exits(&all, 1);
        assert!(err.contains(expected), "{err}");
        assert_eq!(places(&catalog), before, "{err}");
        let state = fs::read_dir(host.path("c.state")).unwrap();
        for entry in state {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                !name.contains("new") && !name.contains("replaced"),
                "{name}"
            );
        }
    };
    // Another's key.
    host.generate("other.txt");
    is_as_it_was(
        &["--identity", "other.txt"],
        "give the identity of one of these recipients",
    );
    // No target.
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    is_as_it_was(&[], "repo");
    fs::rename(host.path("away"), host.path("repo")).unwrap();
    // An archive is damaged that must be read.
    fs::remove_file(host.data().join("large")).unwrap();
    let archives = files(&host.folder().join("archives"));
    let largest = archives
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len());
    edit(largest.unwrap(), 100_000, b"damaged");
    is_as_it_was(&["--identity", "key.txt"], "sealift verify --repair");
    // Another machine pushed last.
    let clone = host.path("c.state-of-clone");
    fs::rename(host.path("c.state"), &clone).unwrap();
    let mut other = host;
    other.machine = "machine-2".to_owned();
    other.ok(&["adopt", "--yes"]);
    other.exits_any(&["backup"], &[0, 3]);
    other.machine = "machine-1".to_owned();
    fs::remove_dir_all(other.path("c.state")).unwrap();
    fs::rename(&clone, other.path("c.state")).unwrap();
    let (_, err) = other.exits(&["catalog", "rebuild"], 1);
    assert!(
        err.contains("another machine pushes as host dalidou"),
        "{err}"
    );
    assert_eq!(places(&other.path("c.state/catalog.db")), before);
}

/// Kind: the log of the catalog that was replaced is played into the new one.
#[test]
fn a_process_that_reads_the_old_catalog_leaves_nothing_beside_the_new_one() {
    let host = prepared();
    let catalog = host.path("c.state/catalog.db");
    let reader = rusqlite::Connection::open(&catalog).unwrap();
    let changes = "PRAGMA wal_autocheckpoint=0; INSERT INTO meta VALUES('of the old one', 'x')";
    reader.execute_batch(changes).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
    rebuild(&host, &[]);
    let new = rusqlite::Connection::open(&catalog).unwrap();
    let check: String = new
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let query = "SELECT count(*) FROM meta WHERE key='of the old one'";
    let found: i64 = new.query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(found, 0);
    drop((new, reader));
    host.backup();
    restores_as_it_is(&host, "out");
}
