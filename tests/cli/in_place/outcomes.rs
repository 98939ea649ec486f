//! A restore in place that succeeds: what is in place afterwards, what is kept, and what is reported.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::ONLY_SECOND;
use crate::support::atocore::AtoCore;
use crate::support::host::Host;
use crate::support::service::{Deployment, generations, state};

#[test]
fn all_items_are_replaced_and_the_old_ones_are_kept_whole() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 0);
    assert_eq!(report["state"], "committed", "{said}");
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    assert!(deployment.is_running());
    // The mode of the configuration, and those of the snapshot.
    let mode = |path: &str| {
        let meta = fs::metadata(deployment.root().join(path)).unwrap();
        meta.permissions().mode() & 0o7777
    };
    assert_eq!(mode("one/one.db"), 0o640);
    assert_eq!(mode("settings.json"), 0o604);
    assert_eq!(mode("files/inner"), 0o750);
    // The safety copy is everything that was there, with the row that was in the log only.
    let kept = deployment.host.path("kept/pre-restore-20260409T080000Z");
    assert_eq!(report["safety_copy"], kept.display().to_string());
    let copy = deployment.host.path("copy");
    fs::create_dir_all(copy.join("one")).unwrap();
    for (from, to) in [
        ("one", "one/one.db"),
        ("two", "two.db"),
        ("settings", "settings.json"),
    ] {
        fs::rename(kept.join(from), copy.join(to)).unwrap();
    }
    fs::rename(kept.join("files"), copy.join("files")).unwrap();
    assert_eq!(generations(&copy), [2, 2, 2, 2]);
    assert_eq!(state(&copy), before);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    assert!(
        report["downtime_seconds"].as_f64().unwrap() < 10.0,
        "{report}"
    );
    // The next backup believes no file unseen.
    for memory in ["c.state/last-snapshot.cache", "c.state/stage/files.jsonl"] {
        assert!(!deployment.host.path(memory).exists(), "{memory}");
    }
    deployment.host.ok(&["snapshot"]);
}

#[test]
fn the_old_content_is_beside_the_new_without_a_directory_for_it() {
    let deployment = Deployment::new();
    let (report, _) = deployment.restore(&[], 0);
    let end = "pre-restore-20260409T080000Z";
    let expected =
        ["files", "one.db", "settings.json", "two.db"].map(|name| format!("{name}.{end}"));
    assert_eq!(deployment.strangers(), expected);
    for item in report["items"].as_array().unwrap() {
        let path = item["safety_copy"].as_str().unwrap();
        assert!(fs::metadata(path).is_ok(), "{path}");
    }
}

#[test]
fn one_item_can_be_restored_and_the_others_stay() {
    let deployment = Deployment::new();
    let (report, _) = deployment.restore(&["--only", "two", "--only", "files"], 0);
    assert_eq!(deployment.generations(), [2, 1, 2, 1]);
    assert_eq!(report["items"].as_array().unwrap().len(), 2);
    let (_, said) = deployment.restore(&["--only", "three"], 2);
    assert!(said.contains("there is no source \"three\""), "{said}");
}

#[test]
fn a_dry_run_changes_nothing_and_shows_everything() {
    let deployment = Deployment::new();
    let before = deployment.state();
    let out = deployment.host.ok(&["restore", "--in-place", "--dry-run"]);
    for expected in [
        "one: ",
        "is replaced by",
        "the old content is moved to",
        "stop: python3",
        "checks: none",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    super::assert_unchanged(&deployment, &before, &out);
    let (report, _) = deployment.json(vec!["--json", "restore", "--in-place", "--dry-run"], 0);
    assert_eq!(report["items"].as_array().unwrap().len(), 4);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    assert!(!deployment.host.path("c.state/restores").exists());
}

#[test]
fn without_a_terminal_it_wants_a_yes() {
    let deployment = Deployment::new();
    let before = deployment.state();
    let (_, said) = deployment.host.exits(&["restore", "--in-place"], 2);
    assert!(said.contains("--yes"), "{said}");
    super::assert_unchanged(&deployment, &before, &said);
}

#[test]
fn what_was_not_there_before_is_new_and_its_rollback_moves_it_away() {
    let deployment = Deployment::new();
    fs::remove_file(deployment.root().join("settings.json")).unwrap();
    let (report, _) = deployment.restore(&[], 0);
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    assert_eq!(report["items"][2]["safety_copy"], json!(null));
    deployment
        .host
        .ok(&["rollback", "--yes", "--discard-changes"]);
    assert_eq!(deployment.generations(), [2, 2, 0, 2]);
}

#[test]
fn the_service_stays_down_if_it_should() {
    let deployment = Deployment::new();
    deployment.configure_also(ONLY_SECOND);
    let (report, _) = deployment.restore(&["--no-start"], 0);
    assert_eq!(report["started"], false);
    assert!(!deployment.is_running());
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
}

#[test]
fn a_check_that_failed_before_is_reported_and_rolls_nothing_back() {
    let deployment = Deployment::new();
    deployment.configure_also("[[check]]\nname = \"never\"\ncommand = [\"false\"]");
    let (report, said) = deployment.restore(&[], 3);
    assert_eq!(report["state"], "committed");
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    let warning = report["warnings"][0]["text"].as_str().unwrap();
    assert!(
        warning.contains("before the restore, too"),
        "{warning}\n{said}"
    );
    assert_eq!(report["checks_before"][0]["passed"], false);
}

#[test]
fn a_strict_configuration_rolls_back_for_that_check_too() {
    let deployment = Deployment::with("strict = true");
    let before = deployment.state();
    deployment.configure_also("[[check]]\nname = \"never\"\ncommand = [\"false\"]");
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(report["state"], "rolled_back");
    super::assert_unchanged(&deployment, &before, &said);
}

/// AtoCore's own data: without a vector store in the snapshot, the vectors stay, and that is said.
#[test]
fn a_snapshot_without_vectors_leaves_those_that_are_there() {
    let host = Host::new();
    let atocore = AtoCore::started(&host.path("atocore"));
    let root = atocore.root.display();
    let tables = format!(
        "[snapshots]\ndir = \"{root}/backups/snapshots\"\npreset = \"atocore\"\nroot = \"{root}\"\n{}\n[[target]]",
        atocore.restore_tables()
    );
    host.edit_config("[[target]]", &tables);
    host.ok(&["snapshot"]);
    let vectors = atocore.root.join("data/chroma");
    let before = crate::support::tree::describe(&vectors);
    let report = host.json_exits(&["restore", "--in-place", "--yes"], &[3]);
    assert_eq!(report["state"], "committed", "{report}");
    assert_eq!(report["warnings"][0]["code"], "chroma_snapshot_missing");
    assert_eq!(crate::support::tree::describe(&vectors), before);
    assert!(report["checks"].as_array().unwrap().len() >= 3, "{report}");
    assert!(
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|check| check["passed"] == true)
    );
}
