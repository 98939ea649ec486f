//! The shrink alarm: a source that lost most of what it held is backed up as it is, named, and what was there
//! before stays until the operator says that it is right.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::files::files;
use crate::support::host::Host;
use crate::support::small_disk::SmallDisk;

/// A host with its clock on a day of November 2026.
pub fn on(host: &mut Host, day: u32) {
    host.clock = Some(format!("2026-11-{day:02}T06:00:00Z"));
}

pub fn fill(dir: &Path, names: std::ops::Range<u32>, bytes: usize) {
    for name in names {
        fs::write(dir.join(format!("{name}.txt")), text(name, bytes)).unwrap();
    }
}

/// Text that compresses.
fn text(name: u32, bytes: usize) -> Vec<u8> {
    let line = format!("line of file {name}, like all the others\n");
    line.bytes().cycle().take(bytes).collect()
}

pub fn clear(dir: &Path) {
    for file in files(dir) {
        fs::remove_file(file).unwrap();
    }
}

/// A backup that ends with exit code 3 for what shrank alone; returns what it said of it.
fn rings(host: &Host) -> Vec<Value> {
    let report = host.json_exits(&["backup"], &[3]);
    assert_eq!(report["warnings"], Value::Array(vec![]), "{report}");
    assert_eq!(report["targets"][0]["state"], "published", "{report}");
    findings(&report)
}

pub fn findings(json: &Value) -> Vec<Value> {
    json["findings"].as_array().unwrap().clone()
}

pub fn text_of(finding: &Value) -> &str {
    finding["text"].as_str().unwrap()
}

fn remote(host: &Host) -> Vec<u64> {
    let listed = host.remote_list();
    let snapshots = listed["snapshots"].as_array().unwrap().iter();
    snapshots
        .map(|one| one["sequence"].as_u64().unwrap())
        .collect()
}

fn local(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path("c.state/snapshots")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

pub fn database(path: &Path, rows: u32) {
    let db = Connection::open(path).unwrap();
    db.execute_batch("CREATE TABLE IF NOT EXISTS documents(id INTEGER PRIMARY KEY, text TEXT); DELETE FROM documents")
        .unwrap();
    let transaction = db.unchecked_transaction().unwrap();
    for row in 0..rows {
        let insert = "INSERT INTO documents(text) VALUES(?1)";
        transaction
            .execute(insert, [format!("document {row}")])
            .unwrap();
    }
    transaction.commit().unwrap();
}

/// A host whose only source is the database `app.db`.
fn with_database(rows: u32) -> Host {
    let mut host = Host::new();
    database(&host.path("app.db"), rows);
    let config = host.config();
    let at = config.find("[[source]]").unwrap();
    let end = config[at..].find("[[target]]").unwrap() + at;
    let source = "[[source]]\nkind = \"sqlite\"\npath = \"app.db\"\nname = \"db\"\n\n";
    let config = format!("{}{source}{}", &config[..at], &config[end..]);
    fs::write(host.path("c.toml"), config).unwrap();
    on(&mut host, 1);
    host.backup();
    host
}

#[test]
fn a_database_that_lost_its_rows_is_named_until_it_is_acknowledged() {
    let mut host = with_database(1204);
    database(&host.path("app.db"), 0);
    on(&mut host, 2);
    let (_, err) = host.exits(&["backup"], 3);
    assert!(
        err.contains(
            "shrunk: db: documents went from 1204 to 0 rows since yesterday. It was backed up as it is; snapshot 1 \
             from before is kept\n  next: if that is right: sealift ack shrunk\n"
        ),
        "{err}"
    );
    // `status` says so until then, and a second run of that state does not hide it.
    for day in 3..5 {
        let status = host.json_exits(&["status"], &[3]);
        assert!(
            text_of(&findings(&status)[0]).starts_with("db: documents went from 1204 to 0 rows")
        );
        on(&mut host, day);
        let found = rings(&host);
        assert_eq!(found[0]["before"]["sequence"], 1);
        assert_eq!(found[0]["since"], "2026-11-02T06:00:00Z");
    }
    let (out, _) = host.exits(&["status"], 3);
    assert!(out.contains("RED shrunk: db: documents"), "{out}");
    let said = host.ok(&["ack", "shrunk", "--note", "emptied on purpose"]);
    assert!(
        said.contains("acknowledged: db: documents went from 1204 to 0 rows"),
        "{said}"
    );
    host.ok(&["status"]);
    on(&mut host, 5);
    assert_eq!(findings(&host.backup()), Vec::<Value>::new());
    let said = host.ok(&["ack", "shrunk"]);
    assert!(said.contains("nothing shrank"), "{said}");
}

#[test]
fn scenarios_of_rows() {
    for (before, now, rings) in [
        (1204, 602, false),
        (1204, 601, true),
        (99, 1, false),
        (100, 49, true),
        (3, 0, true),
        (0, 0, false),
        (100, 5000, false),
    ] {
        let mut host = with_database(before);
        database(&host.path("app.db"), now);
        on(&mut host, 2);
        let report = host.json_exits(&["backup"], &[0, 3]);
        assert_eq!(
            !findings(&report).is_empty(),
            rings,
            "{before} to {now}: {report}"
        );
        assert_eq!(report["complete"], !rings, "{before} to {now}");
    }
}

#[test]
fn what_grows_back_is_no_alarm_any_more() {
    let mut host = Host::new();
    fill(&host.data(), 0..50, 900);
    on(&mut host, 1);
    host.backup();
    clear(&host.data());
    on(&mut host, 2);
    rings(&host);
    fill(&host.data(), 0..50, 900);
    on(&mut host, 3);
    let report = host.backup();
    assert_eq!(
        report["notes"][0], "data had shrunk, and is back",
        "{report}"
    );
    host.ok(&["status"]);
}

/// Two sources, `data` and `more`, of 50 files each, backed up on the first.
fn with_two() -> Host {
    let mut host = Host::prepared(
        |path| fs::create_dir(path.join("more")).unwrap(),
        &["--tree", "data", "--tree", "more"],
    );
    fill(&host.data(), 0..50, 900);
    fill(&host.path("more"), 0..50, 900);
    on(&mut host, 1);
    host.backup();
    host
}

#[test]
fn one_instance_is_acknowledged_and_never_a_code() {
    let mut host = with_two();
    clear(&host.data());
    clear(&host.path("more"));
    on(&mut host, 2);
    let found = rings(&host);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0]["next"],
        "if that is right: sealift ack shrunk --source data"
    );
    let said = host.json(&["ack", "shrunk", "--source", "data"]);
    let open = |said: &Value, key: &str| said[key].as_array().unwrap().len();
    assert_eq!(
        (open(&said, "acknowledged"), open(&said, "still_open")),
        (2, 2)
    );
    assert_eq!(findings(&host.json_exits(&["status"], &[3])).len(), 1);
    for (arguments, says) in [
        (&["ack", "shrank"][..], ", shrunk, "),
        (
            &["ack", "shrunk", "--source", "photos"],
            "there is data, more",
        ),
        (&["ack", "shrunk", "--target", "repo"], "--source"),
    ] {
        let (_, err) = host.exits(arguments, 2);
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    host.ok(&["ack", "shrunk"]);
    host.ok(&["status"]);
    // The next fall is another instance.
    fill(&host.data(), 0..50, 900);
    on(&mut host, 3);
    host.backup();
    clear(&host.data());
    on(&mut host, 4);
    assert_eq!(rings(&host).len(), 1);
}

/// Has each backup delete all but the newest, here and on the target, of what is a day old.
fn keep_one(host: &Host) {
    let config = host.config();
    let end = config.find("[retention]").unwrap();
    let config = format!("{}[retention]\nlast = 1\n", &config[..end]);
    fs::write(host.path("c.toml"), config).unwrap();
    host.edit_config("[[target]]\n", "[[target]]\nprune = true\n");
}

#[test]
fn retention_keeps_the_last_one_before_here_and_on_the_target_until_it_is_acknowledged() {
    let mut host = Host::new();
    fill(&host.data(), 0..50, 900);
    for day in 1..=2 {
        on(&mut host, day);
        host.backup();
    }
    clear(&host.data());
    keep_one(&host);
    // `backup` prunes here and there, of what is a day old.
    for day in 3..=6 {
        on(&mut host, day);
        rings(&host);
    }
    let before = "20261102T060000Z";
    assert_eq!(remote(&host), [2, 5, 6]);
    assert_eq!(
        local(&host),
        [before, "20261105T060000Z", "20261106T060000Z"]
    );
    for arguments in [
        &["prune", "--yes"][..],
        &["prune", "--policy", "last=1", "--yes"],
        &["prune", "--local", "--yes"],
    ] {
        host.ok(arguments);
    }
    assert_eq!(remote(&host), [2, 6]);
    assert!(local(&host).contains(&before.to_owned()));
    let dry = host.ok(&["prune", "--dry-run"]);
    assert!(dry.contains("last before a source shrank"), "{dry}");
    for local in [&[][..], &["--local"]] {
        let forget = [&["prune", "--forget", "2", "--yes"], local].concat();
        let (_, err) = host.exits(&forget, 1);
        assert!(err.contains("sealift ack shrunk"), "{err}");
    }
    let out = host.restore("2", "out");
    assert_eq!(files(&out.join("data")).len(), 50);
    host.ok(&["ack", "shrunk"]);
    host.ok(&["prune", "--yes"]);
    host.ok(&["prune", "--local", "--yes"]);
    assert_eq!(remote(&host), [6]);
    assert!(!local(&host).contains(&before.to_owned()));
}

#[test]
fn the_alarm_and_what_it_keeps_outlive_the_catalog() {
    let mut host = Host::new();
    host.edit_config("stage = false", "stage = true");
    fill(&host.data(), 0..50, 900);
    on(&mut host, 1);
    host.backup();
    let lose = |host: &Host, names: &[&str]| {
        for name in names {
            let _ = fs::remove_file(host.path("c.state").join(name));
        }
    };
    let catalog = ["catalog.db", "catalog.db-wal", "catalog.db-shm"];
    // The memory lost as well: the snapshot on this host replaces it.
    lose(&host, &catalog);
    lose(&host, &["figures.json"]);
    clear(&host.data());
    on(&mut host, 2);
    let found = rings(&host);
    assert_eq!(found[0]["before"]["stamp"], "20261101T060000Z");
    lose(&host, &catalog);
    on(&mut host, 3);
    assert_eq!(rings(&host)[0]["before"]["stamp"], "20261101T060000Z");
    host.ok(&["prune", "--policy", "last=1", "--yes"]);
    assert_eq!(remote(&host), [1, 3]);
    // A host without either has nothing to compare with.
    lose(&host, &["figures.json"]);
    fs::remove_dir_all(host.path("c.state/snapshots")).unwrap();
    on(&mut host, 4);
    assert_eq!(findings(&host.backup()), Vec::<Value>::new());
}

#[test]
fn a_damaged_memory_stops_retention_and_no_backup() {
    let mut host = Host::new();
    fill(&host.data(), 0..50, 900);
    on(&mut host, 1);
    host.backup();
    keep_one(&host);
    fs::write(host.path("c.state/figures.json"), "{").unwrap();
    for day in 2..=3 {
        on(&mut host, day);
        let report = host.json_exits(&["backup"], &[3]);
        let warnings = report["warnings"].to_string();
        assert!(
            warnings.contains("so no older snapshot is deleted"),
            "{warnings}"
        );
        assert!(warnings.contains("figures.json is damaged"), "{warnings}");
    }
    assert_eq!(remote(&host), [1, 2, 3]);
    assert_eq!(local(&host).len(), 3);
    for arguments in [
        &["prune", "--policy", "last=1", "--yes"][..],
        &["ack", "shrunk"],
    ] {
        let (_, err) = host.exits(arguments, 1);
        assert!(err.contains("then delete that file"), "{err}");
    }
    let (out, _) = host.exits(&["status"], 3);
    assert!(out.contains("figures.json is damaged"), "{out}");
    // What cannot be written is no different.
    fs::remove_file(host.path("c.state/figures.json")).unwrap();
    fs::create_dir(host.path("c.state/figures.json")).unwrap();
    on(&mut host, 4);
    host.json_exits(&["backup"], &[3]);
    assert_eq!(remote(&host), [1, 2, 3, 4]);
}

#[test]
fn what_the_configuration_changed_is_said_and_what_is_not_there_is_not_compared() {
    let mut host = with_two();
    // Excluded, by mistake or not: it rings, and says what may explain it.
    host.edit_config("path = \"", "exclude = [\"*.txt\"]\npath = \"");
    on(&mut host, 2);
    let found = rings(&host);
    assert_eq!(found.len(), 2);
    let text = text_of(&found[0]);
    assert!(
        text.contains("`exclude` of this source changed meanwhile"),
        "{text}"
    );
    host.edit_config("exclude = [\"*.txt\"]\n", "");
    on(&mut host, 3);
    host.backup();
    // Renamed, on request, removed: nothing to compare with.
    host.edit_config("to = \"more\"", "to = \"other\"");
    fill(&host.path("more"), 50..51, 900);
    on(&mut host, 4);
    host.backup();
    host.edit_config("to = \"other\"", "to = \"other\"\non_request = true");
    clear(&host.path("more"));
    on(&mut host, 5);
    host.backup();
    // The last snapshot that has it is the one before.
    on(&mut host, 6);
    let report = host.json_exits(&["backup", "--include", "other"], &[3]);
    assert_eq!(findings(&report)[0]["before"]["sequence"], 4);
}

#[test]
fn an_older_snapshot_that_is_pushed_by_hand_is_compared_with_nothing() {
    let mut host = Host::new();
    host.edit_config("stage = false", "stage = true");
    fill(&host.data(), 0..2, 900);
    on(&mut host, 1);
    host.backup();
    fill(&host.data(), 0..50, 900);
    on(&mut host, 2);
    host.backup();
    on(&mut host, 3);
    let report = host.json_exits(&["push", "20261101T060000Z"], &[3]);
    assert_eq!(findings(&report), Vec::<Value>::new());
    clear(&host.data());
    on(&mut host, 4);
    let found = rings(&host);
    assert!(
        text_of(&found[0]).contains("from 50 to 0 files"),
        "{found:?}"
    );
}

#[test]
fn a_mount_point_is_one() {
    let mut host = Host::new();
    host.edit_config("to = \"data\"", "to = \"data\"\nmountpoint = true");
    let Some(disk) = SmallDisk::mount(&host.data()) else {
        return;
    };
    fill(&host.data(), 0..50, 900);
    on(&mut host, 1);
    host.backup();
    // Not mounted: nothing of the empty folder is taken for what was there.
    drop(disk);
    on(&mut host, 2);
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("nothing is mounted at "), "{err}");
    assert!(err.contains("next: mount the disk"), "{err}");
    assert_eq!(remote(&host), [1]);
}

#[test]
fn a_tree_whose_marker_or_mount_is_missing_is_not_read() {
    let mut host = with_two();
    host.edit_config(
        "to = \"data\"",
        "to = \"data\"\nmust_exist = [\"photos/.marker\"]",
    );
    let config = host.config();
    on(&mut host, 2);
    let says = |host: &Host, what: &str| {
        let report = host.json_exits(&["backup"], &[3]);
        let skipped = report["left_out"].to_string();
        assert!(skipped.contains(what), "{skipped}");
        assert_eq!(findings(&report), Vec::<Value>::new());
    };
    says(&host, "lacks photos/.marker, which `must_exist` names");
    // A link leads out of the tree.
    std::os::unix::fs::symlink(host.path("more"), host.path("data/photos")).unwrap();
    fs::write(host.path("more/.marker"), "").unwrap();
    on(&mut host, 3);
    says(&host, "lacks photos/.marker");
    fs::remove_file(host.path("data/photos")).unwrap();
    fs::create_dir(host.path("data/photos")).unwrap();
    fs::write(host.path("data/photos/.marker"), "").unwrap();
    on(&mut host, 4);
    host.backup();
    host.edit_config("must_exist = [\"photos/.marker\"]", "mountpoint = true");
    on(&mut host, 5);
    says(&host, "nothing is mounted at ");
    // What is refused when the configuration is read.
    for marker in ["", "/etc/x", "../x", "a/./b", "a//b"] {
        let bad = config.replace("photos/.marker", marker);
        fs::write(host.path("c.toml"), bad).unwrap();
        let (_, err) = host.exits(&["status"], 2);
        assert!(err.contains("must_exist"), "{marker}: {err}");
    }
    let bad = config.replace("[\"photos/.marker\"]", "[]");
    fs::write(host.path("c.toml"), bad).unwrap();
    let (_, err) = host.exits(&["status"], 2);
    assert!(err.contains("is empty"), "{err}");
}
