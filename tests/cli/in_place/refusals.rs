//! What is refused before anything is touched, each with its code and its next step.

use std::fs;
use std::os::unix::process::CommandExt as _;

use super::{assert_unchanged, code};
use crate::support::service::Deployment;
use crate::support::small_disk::SmallDisk;

fn snapshot(deployment: &Deployment) -> std::path::PathBuf {
    deployment.host.path("c.state/snapshots/20260408T060000Z")
}

/// Asserts that the restore is refused with `expected`, whose next step is named, and that nothing changed.
fn assert_refused(deployment: &Deployment, arguments: &[&str], expected: &str) -> String {
    let before = deployment.state();
    let (report, said) = deployment.restore(arguments, 1);
    assert_eq!(report["state"], "refused", "{said}");
    assert_eq!(code(&report), expected, "{said}");
    assert!(
        !report["because"][0]["next"].as_str().unwrap().is_empty(),
        "{report}"
    );
    assert!(said.contains("nothing was changed"), "{said}");
    assert_unchanged(deployment, &before, &said);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
    said
}

#[test]
fn a_damaged_snapshot_is_refused_by_the_code_of_its_damage() {
    let deployment = Deployment::new();
    let database = snapshot(&deployment).join("one");
    let whole = fs::read(&database).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0xee);
    fs::write(&database, &bytes).unwrap();
    assert_refused(&deployment, &[], "one_integrity_check_failed");
    // The others can be restored.
    deployment.restore(&["--only", "settings"], 0);
    assert_eq!(deployment.generations(), [2, 2, 1, 2]);
}

#[test]
fn a_registry_that_is_no_json_is_refused() {
    let deployment = Deployment::new();
    fs::write(
        snapshot(&deployment).join("settings"),
        "{ edited at this mo",
    )
    .unwrap();
    assert_refused(&deployment, &[], "settings_invalid_json");
}

#[test]
fn a_snapshot_of_another_host_or_from_other_paths_takes_more_than_a_yes() {
    let deployment = Deployment::new();
    deployment
        .host
        .edit_config("host = \"dalidou\"", "host = \"staging\"");
    let said = assert_refused(&deployment, &[], "wrong_deployment");
    assert!(said.contains("made by host \"dalidou\""), "{said}");
    deployment
        .host
        .edit_config("host = \"staging\"", "host = \"dalidou\"");
    let moved = deployment.host.path("elsewhere.json");
    fs::rename(deployment.root().join("settings.json"), &moved).unwrap();
    deployment
        .host
        .edit_config("app/settings.json", "elsewhere.json");
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "wrong_deployment", "{said}");
    assert!(said.contains("app/settings.json"), "{said}");
    deployment.restore(&["--from-other-host"], 0);
    let text = fs::read_to_string(moved).unwrap();
    assert!(text.contains("\"generation\": 1"), "{text}");
}

#[test]
fn a_command_that_is_not_there_is_refused() {
    let deployment = Deployment::new();
    deployment
        .host
        .edit_config("start = [\"python3\"", "start = [\"/no/such/program\"");
    assert_refused(&deployment, &[], "command_missing");
}

#[test]
fn a_mount_point_is_refused() {
    let deployment = Deployment::new();
    let files = deployment.root().join("files");
    let Some(_disk) = SmallDisk::mount(&files) else {
        return;
    };
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(code(&report), "mount_point", "{said}");
    assert!(said.contains("--overwrite"), "{said}");
    assert!(deployment.is_running());
}

#[test]
fn places_within_each_other_are_refused() {
    let deployment = Deployment::new();
    deployment
        .host
        .edit_config("[restore]", "[restore]\npreserve_dir = \"app/files/kept\"");
    assert_refused(&deployment, &[], "overlap");
}

#[test]
fn a_user_without_the_rights_is_refused() {
    if !crate::support::is_root_for("a restore by a user without rights") {
        return;
    }
    let deployment = Deployment::new();
    let before = deployment.state();
    let home = deployment.host.temp.path();
    let status = std::process::Command::new("chown")
        .args(["-R", "65534:65534"])
        .args([home.join("c.state"), home.join("c.toml")])
        .status();
    assert!(status.unwrap().success());
    let status = std::process::Command::new("chmod")
        .arg("0755")
        .arg(home)
        .status();
    assert!(status.unwrap().success());
    let mut command = deployment
        .host
        .command(&["--json", "restore", "--in-place", "--yes"]);
    let output = command.uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    assert_eq!(
        code(&report),
        "no_rights",
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_unchanged(&deployment, &before, &said);
}

#[test]
fn a_check_of_the_staged_content_fails_before_the_service_is_stopped() {
    let deployment = Deployment::new();
    let check = format!("{}\nphase = \"staged\"", super::ONLY_SECOND);
    deployment.configure_also(&check);
    let pid = deployment.pid();
    let before = deployment.state();
    let (report, said) = deployment.restore(&[], 1);
    assert_eq!(
        (code(&report), &report["state"]),
        ("check_failed", &"undone".into()),
        "{said}"
    );
    assert_unchanged(&deployment, &before, &said);
    assert_eq!(deployment.pid(), pid);
    assert_eq!(deployment.strangers(), Vec::<String>::new());
}
