//! A restore that fails after the exchange, or that the operator takes back: everything is what it was.

use std::fs;

use super::{ONLY_SECOND, assert_unchanged, code};
use crate::support::service::Deployment;

#[test]
fn a_check_that_fails_brings_everything_back() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    deployment.configure_also(ONLY_SECOND);
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(report["state"], "rolled_back", "{said}");
    assert_eq!(code(&report), "check_failed");
    assert_unchanged(&deployment, &before, &said);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    // The new content is kept as evidence.
    let failed = deployment.host.path("kept/failed-restore-20260409T080000Z");
    assert_eq!(report["failed_copy"], failed.display().to_string());
    assert!(failed.join("files/only-in-1").exists());
    assert_eq!(report["safety_copy"], serde_json::json!(null));
    assert_eq!(report["checks_after_rollback"][0]["passed"], true);
}

/// A service that ends without closing its databases leaves rows in the log only.
#[test]
fn rows_that_are_in_the_log_only_come_back() {
    let deployment = Deployment::new();
    deployment.behave("leave-log");
    deployment.configure_also(ONLY_SECOND);
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(report["state"], "rolled_back", "{said}");
    assert_unchanged(&deployment, &before, &said);
}

#[test]
fn a_check_that_fails_after_the_rollback_too_is_reported() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    deployment.configure_also(ONLY_SECOND);
    let kept = deployment.host.path("kept/failed-restore-20260409T080000Z");
    deployment.configure_also(&format!(
        "[[check]]\nname = \"alone\"\ncommand = [\"test\", \"!\", \"-e\", {:?}]",
        kept.display().to_string()
    ));
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(report["state"], "rolled_back");
    assert!(
        said.contains("after the rollback the check \"alone\" failed"),
        "{said}"
    );
    assert!(
        said.contains("which it passed before the restore"),
        "{said}"
    );
}

#[test]
fn a_service_that_does_not_start_with_the_new_content_gets_the_old_back() {
    for (words, expected) in [
        ("refuse-1", "service_did_not_start"),
        ("port", "port_in_use"),
    ] {
        let deployment = Deployment::new();
        deployment.behave(words);
        let before = deployment.state();
        let code_of_exit = 1;
        let (report, said) = deployment.restore(&[], code_of_exit);
        assert_eq!(code(&report), expected, "{said}");
        assert_eq!(deployment.generations(), [2, 2, 2, 2]);
        assert_eq!(deployment.state(), before, "{said}");
        match words {
            "refuse-1" => assert!(deployment.is_running(), "{said}"),
            // It cannot be started with the old content either, which is said, and can be mended.
            _ => {
                assert_eq!(report["state"], "rollback_starting");
                assert!(said.contains("has the old content"), "{said}");
                deployment.behave("");
                let (report, said) = deployment.json(vec!["--json", "restore", "--resume"], 1);
                assert_eq!(report["state"], "rolled_back", "{said}");
                assert!(deployment.is_running());
            }
        }
    }
}

#[test]
fn another_owner_is_named_when_the_service_does_not_start() {
    if !crate::support::is_root_for("another owner of restored files") {
        return;
    }
    let deployment = Deployment::new();
    std::os::unix::fs::chown(deployment.root().join("two.db"), Some(1000), Some(1000)).unwrap();
    deployment.behave("refuse-1");
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "service_did_not_start", "{said}");
    assert!(
        said.contains("two.db belongs to 0:0, before it belonged to 1000:1000"),
        "{said}"
    );
    assert!(
        report["because"][0]["next"]
            .as_str()
            .unwrap()
            .contains("chown -R 1000:1000"),
        "{report}"
    );
}

#[test]
fn a_rollback_by_hand_brings_everything_back_and_can_be_done_once() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    let before = deployment.state();
    let (report, _) = deployment.restore(&[], 0);
    let (again, said) = deployment.json(vec!["--json", "rollback", "--yes"], 0);
    assert_eq!(again["state"], "rolled_back", "{said}");
    assert_eq!(again["id"], report["id"]);
    assert_unchanged(&deployment, &before, &said);
    let (_, said) = deployment.host.exits(&["rollback", "--yes"], 1);
    assert!(said.contains("no restore is in place"), "{said}");
}

#[test]
fn changes_since_the_restore_are_not_given_up_unless_that_is_wanted() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    let before = deployment.state();
    deployment.restore(&[], 0);
    fs::write(deployment.root().join("files/later"), "work of a day").unwrap();
    let (report, said) = deployment.json(vec!["--json", "rollback", "--yes"], 1);
    assert_eq!(code(&report), "live_data_changed", "{said}");
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    let (_, said) = deployment.json(vec!["--json", "rollback", "--yes", "--discard-changes"], 0);
    assert_unchanged(&deployment, &before, &said);
    let later = deployment
        .host
        .path("kept/post-restore-20260409T080000Z/files/later");
    assert_eq!(fs::read_to_string(later).unwrap(), "work of a day");
}

#[test]
fn safety_copies_are_listed_reported_and_deleted_when_they_are_old_enough_and_never_before() {
    let mut deployment = Deployment::with("preserve_dir = \"kept\"");
    deployment.restore(&[], 0);
    let kept = deployment.host.path("kept/pre-restore-20260409T080000Z");
    let shown = deployment.host.ok(&["rollback", "--list"]);
    // A path has a line of its own.
    let mut columns = shown.lines().filter(|line| !line.starts_with("  "));
    assert!(columns.all(|line| line.chars().count() <= 80), "{shown}");
    let list = deployment.host.json(&["rollback", "--list"]);
    let one = &list["restores"][0];
    assert_eq!(one["safety_copy"], kept.display().to_string());
    assert!(one["kept_bytes"].as_u64().unwrap() > 10_000, "{one}");
    assert_eq!(one["is_deletable"], false);
    deployment.host.ok(&["rollback", "--clean"]);
    assert!(kept.join("one").exists());
    let (status, _) = deployment.host.exits_any(&["status", "--offline"], &[0, 3]);
    assert!(!status.contains("safety copy"), "{status}");
    deployment.host.clock = Some("2026-04-17T08:00:00Z".to_owned());
    let (status, _) = deployment.host.exits_any(&["status", "--offline"], &[0, 3]);
    assert!(
        status.contains("may be deleted since 2026-04-16"),
        "{status}"
    );
    // Nothing but the command for it deletes them.
    deployment.host.ok(&["snapshot"]);
    deployment.host.ok(&["prune", "--local"]);
    assert!(kept.join("one").exists());
    let said = deployment.host.ok(&["rollback", "--clean"]);
    assert!(said.contains("deleted") && !kept.exists(), "{said}");
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    let list = deployment.host.json(&["rollback", "--list"]);
    assert_eq!(list["restores"][0]["state"], "cleaned");
}

/// A safety copy in the snapshots directory is none of the snapshots, and no backup finds it strange.
#[test]
fn safety_copies_may_be_among_the_snapshots() {
    let deployment = Deployment::with("preserve_dir = \"c.state/snapshots\"");
    deployment.restore(&[], 0);
    let report = deployment.host.backup();
    assert_eq!(
        report["skipped"].as_array().map_or(0, Vec::len),
        0,
        "{report}"
    );
    let list = deployment.host.json(&["list"]).to_string();
    assert!(!list.contains("pre-restore"), "{list}");
    deployment.host.ok(&["prune", "--local", "--yes"]);
    assert!(
        deployment
            .host
            .path("c.state/snapshots/pre-restore-20260409T080000Z/one")
            .exists()
    );
}

/// A database that SQLite cannot open is kept as its files are, log included, and comes back so.
#[test]
fn a_database_that_cannot_be_opened_is_kept_with_its_log() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    deployment.behave("leave-log");
    deployment.service("stop");
    let one = deployment.root().join("one/one.db");
    let mut bytes = fs::read(&one).unwrap();
    bytes[100..4096].fill(0xee);
    bytes[16..20].copy_from_slice(&[0xff; 4]);
    fs::write(&one, &bytes).unwrap();
    let log = fs::read(one.with_file_name("one.db-wal")).unwrap();
    assert!(log.len() > 1000);
    let (report, said) = deployment.restore(&["--no-start"], 0);
    assert_eq!(report["state"], "committed", "{said}");
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    let kept = deployment.host.path("kept/pre-restore-20260409T080000Z");
    assert!(fs::read(kept.join("one")).unwrap() == bytes);
    assert!(fs::read(kept.join("one-wal")).unwrap() == log);
    deployment.json(vec!["--json", "rollback", "--yes", "--no-start"], 0);
    assert!(fs::read(&one).unwrap() == bytes);
    assert!(fs::read(one.with_file_name("one.db-wal")).unwrap() == log);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
}
