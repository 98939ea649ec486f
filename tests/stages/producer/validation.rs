//! Each of the procedure's error codes, provoked once, on snapshots of AtoCore's making and of ours.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::host::{Host, damage};
use crate::support::files::names_in;
use sealift::producer::{InPlaceTrees, from_dir, validate};

/// A snapshot as AtoCore itself makes it.
fn atocores_own(host: &Host, chroma: bool) -> PathBuf {
    let dir = host.path("foreign/20250101T000000Z");
    host.database("foreign/20250101T000000Z/db/atocore.db", "DELETE");
    host.write(
        "foreign/20250101T000000Z/config/project-registry.json",
        b"[]",
    );
    if chroma {
        host.database("foreign/20250101T000000Z/chroma/chroma.sqlite3", "DELETE");
    }
    let metadata = serde_json::json!({
        "created_at": "2025-01-01T00:00:00+00:00",
        "backup_root": "/somewhere/else/20250101T000000Z",
        "db_snapshot_path": "/somewhere/else/20250101T000000Z/db/atocore.db",
        "db_size_bytes": 12288,
        "registry_snapshot_path": "/somewhere/else/20250101T000000Z/config/project-registry.json",
        "chroma_snapshot_path": null,
        "include_chroma": chroma,
        "something_new": {"x": 1},
    });
    fs::write(dir.join("backup-metadata.json"), metadata.to_string()).unwrap();
    dir
}

fn ours(host: &Host) -> PathBuf {
    host.try_produce(&["chroma"]).unwrap().dir
}

#[test]
fn a_sound_snapshot_of_either_making_is_valid() {
    let host = Host::atocore();
    for dir in [atocores_own(&host, true), ours(&host)] {
        let validation = validate(&dir);
        assert!(
            validation.valid && validation.errors.is_empty(),
            "{validation:?}"
        );
        let paths: Vec<&str> = validation
            .databases
            .iter()
            .map(|d| d.path.as_str())
            .collect();
        assert_eq!(paths, ["chroma/chroma.sqlite3", "db/atocore.db"]);
        let snapshot = from_dir(&host.config, &dir, InPlaceTrees::Attach).unwrap();
        assert_eq!(
            snapshot.stamp.to_string(),
            dir.file_name().unwrap().to_str().unwrap()
        );
        let live = |s: &sealift::format::index::SourceRecord| {
            (s.kind.clone(), s.to.clone(), s.path.clone())
        };
        let expected = [
            ("sqlite", "db/atocore.db", "live/data/db/atocore.db"),
            (
                "json",
                "config/project-registry.json",
                "live/config/project-registry.json",
            ),
            ("tree", "chroma", "live/data/chroma"),
        ];
        let expected = expected.map(|(kind, to, path)| {
            (
                kind.to_owned(),
                to.to_owned(),
                host.path(path).display().to_string(),
            )
        });
        assert_eq!(
            snapshot.sources.iter().map(live).collect::<Vec<_>>(),
            expected
        );
    }
}

#[test]
fn each_code_has_its_cause() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 9] = [
        ("snapshot_missing", |dir| fs::remove_dir_all(dir).unwrap()),
        ("db_missing", |dir| {
            fs::remove_file(dir.join("db/atocore.db")).unwrap()
        }),
        ("db_integrity_check_failed", |dir| {
            damage(&dir.join("db/atocore.db"))
        }),
        ("db_integrity_check_failed", |dir| {
            fs::write(dir.join("db/atocore.db"), "").unwrap()
        }),
        ("registry_invalid_json", |dir| {
            fs::write(dir.join("config/project-registry.json"), "{\"a\": ").unwrap();
        }),
        ("registry_missing", |dir| {
            fs::remove_file(dir.join("config/project-registry.json")).unwrap();
        }),
        ("chroma_snapshot_missing", |dir| {
            fs::remove_dir_all(dir.join("chroma")).unwrap()
        }),
        ("chroma_integrity_check_failed", |dir| {
            fs::write(dir.join("chroma/chroma.sqlite3"), "no database").unwrap();
        }),
        ("metadata_invalid", |dir| {
            fs::write(dir.join("backup-metadata.json"), "{").unwrap();
        }),
    ];
    for (code, harm) in cases {
        for make in [|host: &Host| atocores_own(host, true), ours] {
            let host = Host::atocore();
            let dir = make(&host);
            harm(&dir);
            let validation = validate(&dir);
            assert!(!validation.valid);
            assert_eq!(validation.errors, [code], "{}", dir.display());
            assert!(!validation.details.is_empty());
            let refused = from_dir(&host.config, &dir, InPlaceTrees::Attach)
                .unwrap_err()
                .to_string();
            assert!(refused.contains(code), "{refused}");
        }
    }
}

#[test]
fn other_sources_have_codes_of_their_own() {
    let host = Host::new(
        "[[source]]\nkind = \"sqlite\"\npath = \"@/a.db\"\nname = \"ledger\"\n\
         [[source]]\nkind = \"json\"\npath = \"@/b.json\"\nname = \"settings\"\n\
         [[source]]\nkind = \"tree\"\npath = \"@/docs\"\ncheck = \"strict\"\n\
         [[source]]\nkind = \"command\"\nname = \"dump\"\ncommand = \"echo x\"\n",
    );
    host.database("a.db", "WAL");
    host.write("b.json", b"{}");
    host.database("docs/in.db", "DELETE");
    let cases: [(&str, &str, &[u8]); 3] = [
        ("ledger_integrity_check_failed", "a.db", b"x"),
        ("settings_invalid_json", "b.json", b"\xff"),
        (
            "docs_integrity_check_failed",
            "docs/in.db",
            b"SQLite format 3\0 and nothing",
        ),
    ];
    for (code, place, content) in cases {
        let dir = host.produce().dir;
        // Not through the link: the copy before must stay sound.
        fs::remove_file(dir.join(place)).unwrap();
        fs::write(dir.join(place), content).unwrap();
        assert_eq!(validate(&dir).errors, [code]);
    }
    for (code, place) in [
        ("ledger_missing", "a.db"),
        ("settings_missing", "b.json"),
        ("dump_missing", "dump"),
    ] {
        let dir = host.produce().dir;
        fs::remove_file(dir.join(place)).unwrap();
        assert_eq!(validate(&dir).errors, [code]);
    }
    let dir = host.produce().dir;
    fs::remove_dir_all(dir.join("docs")).unwrap();
    assert_eq!(validate(&dir).errors, ["docs_missing"]);
}

#[test]
fn metadata_that_is_missing_or_leads_out_is_invalid() {
    let host = Host::atocore();
    let dir = ours(&host);
    let path = dir.join("backup-metadata.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("\"db/atocore.db\"", "\"../../etc/passwd\""),
    )
    .unwrap();
    assert_eq!(validate(&dir).errors, ["metadata_invalid"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(validate(&dir).errors, ["metadata_invalid"]);
}

/// Nothing is written, not even beside a database in WAL mode.
#[test]
fn a_check_leaves_no_trace() {
    let host = Host::atocore();
    let dir = ours(&host);
    let before = names_in(&dir.join("db"));
    assert!(validate(&dir).valid);
    assert_eq!(names_in(&dir.join("db")), before);
    assert_eq!(before, ["atocore.db"]);
}

/// A hole of 3 GB, and a string of 40 MB: neither is held in memory.
#[test]
fn json_of_any_size_is_checked_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("20260407T060000Z");
    fs::create_dir_all(snapshot.join("config")).unwrap();
    fs::create_dir_all(snapshot.join("db")).unwrap();
    let path = snapshot.join("config/project-registry.json");
    let mut file = fs::File::create(&path).unwrap();
    let peak_kib = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap().to_owned();
        number.parse::<u64>().unwrap()
    };
    let is_named = |validation: &sealift::producer::Validation| {
        let code = "registry_invalid_json".to_owned();
        validation.errors.contains(&code)
    };
    let before = peak_kib();
    file.set_len(3 << 30).unwrap();
    assert!(is_named(&sealift::producer::validate(&snapshot)));
    file.set_len(0).unwrap();
    let piece = vec![b'x'; 1 << 20];
    file.write_all(b"\"").unwrap();
    for _ in 0..40 {
        file.write_all(&piece).unwrap();
    }
    assert!(is_named(&sealift::producer::validate(&snapshot)));
    file.write_all(b"\"").unwrap();
    assert!(!is_named(&sealift::producer::validate(&snapshot)));
    assert!(peak_kib() < before + (16 << 10), "{before} {}", peak_kib());
}
