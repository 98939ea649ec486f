//! The AtoCore preset: its layout, its metadata, its optional parts.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::host::{Host, damage, now, rows};
use crate::support::files::names_in;
use sealift::producer::{InPlaceTrees, ProduceError, from_dir, list, validate};

#[test]
fn a_snapshot_has_atocores_layout_and_metadata() {
    let host = Host::atocore();
    let made = host.produce();
    let dir = host.path("snapshots/20260407T060000Z");
    assert_eq!(made.dir, dir);
    assert_eq!(names_in(&dir), ["backup-metadata.json", "config", "db"]);
    assert_eq!(rows(&dir.join("db/atocore.db")), 200);
    let meta = fs::metadata(dir.join("db/atocore.db")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    if rustix::process::geteuid().is_root() {
        assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
    }
    let registry = dir.join("config/project-registry.json");
    assert_eq!(
        fs::metadata(&registry).unwrap().permissions().mode() & 0o7777,
        0o644
    );
    assert_eq!(fs::read(registry).unwrap(), b"{\"projects\": []}");
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o7777,
        0o700
    );

    let text = fs::read_to_string(dir.join("backup-metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(metadata, made.metadata);
    assert_eq!(metadata["stamp"], "20260407T060000Z");
    assert_eq!(metadata["created_at"], "2026-04-07T06:00:00+00:00");
    assert_eq!(metadata["backup_root"], dir.to_str().unwrap());
    assert_eq!(
        metadata["db_snapshot_path"],
        dir.join("db/atocore.db").to_str().unwrap()
    );
    assert_eq!(metadata["db_size_bytes"], meta.len());
    assert_eq!(metadata["chroma_snapshot_included"], false);
    assert_eq!(metadata["sealift"]["validation"]["valid"], true);
    assert_eq!(metadata["sealift"]["tags"][0], "nightly");

    let snapshot = &made.snapshot;
    assert!(snapshot.validation.valid && snapshot.skipped.is_empty());
    assert_eq!(snapshot.note.as_deref(), Some("a note"));
    assert_eq!(snapshot.databases.len(), 1);
    assert_eq!(snapshot.databases[0].tables["t"], 200);
    let sources: Vec<&str> = snapshot.sources.iter().map(|s| s.to.as_str()).collect();
    assert_eq!(sources, ["db/atocore.db", "config/project-registry.json"]);
    let validation = validate(&dir);
    assert!(validation.valid, "{validation:?}");
    assert_eq!(validation.databases, snapshot.databases);
}

#[test]
fn chroma_is_taken_on_request_only() {
    let host = Host::atocore();
    assert!(!host.produce().dir.join("chroma").exists());
    let made = host.try_produce(&["chroma"]).unwrap();
    assert_eq!(rows(&made.dir.join("chroma/chroma.sqlite3")), 200);
    assert_eq!(
        fs::read(made.dir.join("chroma/0f/data_level0.bin")).unwrap(),
        [7; 9000]
    );
    assert_eq!(made.metadata["chroma_snapshot_included"], true);
    assert_eq!(made.metadata["chroma_snapshot_files"], 2);
    let databases: Vec<&str> = made
        .snapshot
        .databases
        .iter()
        .map(|d| d.path.as_str())
        .collect();
    assert_eq!(databases, ["chroma/chroma.sqlite3", "db/atocore.db"]);

    let unknown = host.try_produce(&["croma"]).unwrap_err();
    let said = unknown.to_string();
    assert!(matches!(unknown, ProduceError::UnknownInclude { .. }));
    assert!(
        said.contains("\"croma\"") && said.contains("db, registry, chroma"),
        "{said}"
    );
}

#[test]
fn the_registry_may_be_missing_the_database_may_not() {
    let host = Host::atocore();
    fs::remove_file(host.path("live/config/project-registry.json")).unwrap();
    let made = host.produce();
    assert!(made.snapshot.skipped.is_empty() && !made.dir.join("config").exists());
    assert_eq!(made.metadata["registry_snapshot_path"], "");
    assert_eq!(made.snapshot.sources.len(), 1);
    assert!(validate(&made.dir).valid);

    fs::remove_file(host.path("live/data/db/atocore.db")).unwrap();
    let said = host.failure();
    assert!(
        said.contains("\"db\"") && said.contains("atocore.db is not there"),
        "{said}"
    );
    assert_eq!(
        host.snapshots().len(),
        1,
        "nothing is left of the failed one"
    );
}

#[test]
fn an_invalid_snapshot_is_kept_aside_and_never_taken_for_one() {
    let host = Host::atocore();
    host.write("live/config/project-registry.json", b"{\"projects\": [");
    damage(&host.path("live/data/chroma/chroma.sqlite3"));
    damage(&host.path("live/data/db/atocore.db"));
    let error = host.try_produce(&["chroma"]).unwrap_err();
    let said = error.to_string();
    let ProduceError::Invalid { dir, errors, .. } = error else {
        panic!("{said}");
    };
    assert_eq!(
        errors,
        [
            "db_integrity_check_failed",
            "registry_invalid_json",
            "chroma_integrity_check_failed"
        ]
    );
    assert_eq!(dir, host.path("snapshots/invalid-20260407T060000Z"));
    assert!(
        said.contains("registry_invalid_json") && said.contains("invalid-2026"),
        "{said}"
    );
    assert_eq!(host.snapshots(), ["invalid-20260407T060000Z"]);
    assert!(list(&host.config.snapshots_dir).unwrap().is_empty());
    assert_eq!(validate(&dir).errors, errors);
    let refused = from_dir(&host.config, &dir, InPlaceTrees::Attach).unwrap_err();
    assert!(matches!(refused, ProduceError::Invalid { .. }), "{refused}");

    // Even one that was mended since is no snapshot: other parts of it may be wrong.
    fs::write(dir.join("config/project-registry.json"), b"{}").unwrap();
    fs::remove_file(dir.join("chroma/chroma.sqlite3")).unwrap();
    let sound = host.database("sound.db", "DELETE");
    fs::copy(&sound, dir.join("db/atocore.db")).unwrap();
    assert!(validate(&dir).valid);
    assert!(from_dir(&host.config, &dir, InPlaceTrees::Attach).is_err());

    // The stamp is taken: the next snapshot does not get the same one.
    host.write("live/config/project-registry.json", b"{}");
    fs::copy(&sound, host.path("live/data/db/atocore.db")).unwrap();
    assert!(host.produce().dir.ends_with("20260407T060001Z"));
}

#[test]
fn a_damaged_database_is_kept_for_whoever_repairs_it() {
    let host = Host::atocore();
    damage(&host.path("live/data/db/atocore.db"));
    let ProduceError::Invalid {
        errors, details, ..
    } = host.try_produce(&[]).unwrap_err()
    else {
        panic!("it was taken for valid");
    };
    assert_eq!(errors, ["db_integrity_check_failed"]);
    assert!(details[0].contains("db/atocore.db"), "{details:?}");
}

#[test]
fn snapshots_of_one_second_get_a_second_each() {
    let host = Host::atocore();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| host.produce());
        }
    });
    let found = list(&host.config.snapshots_dir).unwrap();
    let stamps: Vec<String> = found.iter().map(|s| s.stamp.to_string()).collect();
    let expected: Vec<String> = (0..4).map(|n| format!("20260407T06000{n}Z")).collect();
    assert_eq!(stamps, expected);
    for snapshot in &found {
        assert!(validate(&snapshot.path).valid);
        assert_eq!(snapshot.valid, Some(true));
        let metadata = snapshot.metadata.as_ref().unwrap();
        assert_eq!(metadata["stamp"], snapshot.stamp.to_string());
    }
    assert_eq!(host.snapshots().len(), 4);
    assert_eq!(found[0].stamp.time(), now());
}
