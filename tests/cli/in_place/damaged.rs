//! Damage to what an interrupted restore in place left, or to a safety copy: it is found, and no data is lost.

use std::fs;
use std::path::{Path, PathBuf};

use super::interrupted::killed_while_it_stops;
use crate::support::service::Deployment;

/// The only file below `dir` whose name contains `part`.
fn find(dir: &Path, part: &str) -> PathBuf {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found =
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().contains(part));
    found
        .next()
        .unwrap_or_else(|| panic!("{part} is not in {}", dir.display()))
}

fn restore_dir(deployment: &Deployment) -> PathBuf {
    find(&deployment.host.path("c.state/restores"), "01")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len();
    bytes[at % length] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// What is damaged, and how it ends: the state that `--resume` reports, or a part of its refusal.
#[test]
fn damage_to_an_interrupted_restore_is_found_or_harmless() {
    for (what, expected) in [
        ("plan flip", "is not the plan that the journal"),
        ("plan delete", "No such file"),
        ("journal flip", "line 1 of the journal is damaged"),
        ("journal truncate", "undone"),
        ("journal delete", "the journal of the restore"),
        ("staged file flip", "undone"),
        ("staged file delete", "undone"),
        ("staged tree delete", "undone"),
    ] {
        let deployment = killed_while_it_stops();
        let dir = restore_dir(&deployment);
        let journal = dir.join("journal.jsonl");
        match what {
            "plan flip" => flip(&dir.join("plan.json"), 300),
            "plan delete" => fs::remove_file(dir.join("plan.json")).unwrap(),
            "journal flip" => flip(&journal, 60),
            "journal truncate" => {
                let text = fs::read(&journal).unwrap();
                fs::write(&journal, &text[..text.len() / 2]).unwrap();
            }
            "journal delete" => fs::remove_file(&journal).unwrap(),
            "staged file flip" => flip(&find(&deployment.root(), ".two.db.sealift-new-"), 5000),
            "staged file delete" => {
                fs::remove_file(find(&deployment.root(), ".two.db.sealift-new-")).unwrap();
            }
            _ => fs::remove_dir_all(find(&deployment.root(), ".files.sealift-new-")).unwrap(),
        }
        let command = match what {
            // Without a journal nothing is open; the next restore finds the trace.
            "journal delete" => vec!["--json", "restore", "--in-place", "--yes"],
            _ => vec!["--json", "restore", "--resume"],
        };
        let (report, said) = deployment.json(command, 1);
        let is_as_expected = report["state"] == expected || said.contains(expected);
        assert!(is_as_expected, "{what}: {report} {said}");
        assert_eq!(deployment.generations(), [2, 2, 2, 2], "{what}");
        if what == "journal flip" {
            let status = deployment.host.json_exits(&["status", "--offline"], &[3]);
            assert!(
                status["restore_open"].to_string().contains("line 1"),
                "{status}"
            );
            deployment.host.exits(&["list"], 1);
        }
    }
}

#[test]
fn a_safety_copy_that_was_damaged_is_not_put_back() {
    for is_gone in [false, true] {
        let deployment = Deployment::with("preserve = \"copy\"\npreserve_dir = \"kept\"");
        deployment.restore(&[], 0);
        let copy = deployment
            .host
            .path("kept/pre-restore-20260409T080000Z/two");
        match is_gone {
            true => fs::remove_file(&copy).unwrap(),
            false => flip(&copy, 5000),
        }
        let (report, said) = deployment.json(vec!["--json", "rollback", "--yes"], 1);
        assert_eq!(super::code(&report), "content_changed", "{said}");
        assert_eq!(deployment.generations(), [1, 1, 1, 1]);
        assert!(deployment.is_running());
    }
}

/// What cannot come back is known before the service is stopped.
#[test]
fn a_safety_copy_that_is_gone_stops_no_service() {
    let deployment = Deployment::with("preserve_dir = \"kept\"");
    deployment.restore(&[], 0);
    let kept = deployment.host.path("kept/pre-restore-20260409T080000Z");
    fs::remove_file(kept.join("two")).unwrap();
    let (report, said) = deployment.json(vec!["--json", "rollback", "--yes"], 1);
    assert_eq!(super::code(&report), "content_changed", "{report} {said}");
    assert_eq!(deployment.generations(), [1, 1, 1, 1]);
    assert!(deployment.is_running());
    // Nothing is open: other commands do their work.
    deployment.host.ok(&["snapshot"]);
}

/// One restore whose plan is damaged does not hide the others.
#[test]
fn a_past_restore_with_a_damaged_plan_is_named_beside_the_others() {
    let mut deployment = Deployment::with("");
    deployment.restore(&[], 0);
    flip(&restore_dir(&deployment).join("plan.json"), 300);
    deployment.host.clock = Some("2026-04-10T08:00:00Z".to_owned());
    deployment.restore(&[], 0);
    let listed = deployment.host.json_exits(&["rollback", "--list"], &[3]);
    assert_eq!(listed["restores"].as_array().unwrap().len(), 1, "{listed}");
    let damaged = listed["damaged"].as_array().unwrap();
    assert!(
        damaged[0]["why"].to_string().contains("is not the plan"),
        "{listed}"
    );
    let (_, said) = deployment.host.exits(&["rollback", "--list"], 3);
    assert!(
        said.contains("cannot be shown") && said.contains("Look at "),
        "{said}"
    );
    let status = deployment
        .host
        .json_exits(&["status", "--offline"], &[0, 3]);
    assert!(status["restore_open"].is_null(), "{status}");
}
