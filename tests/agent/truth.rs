//! What `list` and `status` say of targets is so, whoever brought a snapshot there or took it away.

use std::fs;

use crate::host::{Host, SEALIFT};

fn with_two(host: &Host, number: u32) {
    fs::write(host.data().join("number"), number.to_string()).unwrap();
}

/// `repo`, and `usb`, which does not exist until somebody syncs to it.
fn host_and_usb() -> Host {
    let host = Host::new();
    let url = format!("file://{}", host.path("usb").display());
    let text = format!(
        "{}\n[[target]]\nname = \"usb\"\nurl = \"{url}\"\n",
        host.config()
    );
    fs::write(host.path("c.toml"), text).unwrap();
    for number in 0..3 {
        with_two(&host, number);
        host.json_exits(&["backup"], &[3]);
    }
    host
}

fn states(host: &Host, target: &str, codes: &[i32]) -> Vec<String> {
    let listed = host.json_exits(&["list"], codes);
    let rows = listed["backups"].as_array().unwrap().iter();
    let state = |row: &serde_json::Value| row["targets"][target].as_str().unwrap_or("-").to_owned();
    rows.map(state).collect()
}

#[test]
fn what_sync_brought_is_not_behind() {
    let host = host_and_usb();
    let (out, _) = host.exits(&["status"], 3);
    assert!(out.contains("3 snapshots behind"), "{out}");
    host.ok(&["sync", "folder", "usb"]);
    let out = host.exits(&["status"], 3).0;
    assert!(!out.contains("behind;"), "{out}");
    assert_eq!(states(&host, "usb", &[0]), ["published"; 3]);
    // The next backup remembers it.
    with_two(&host, 4);
    host.backup();
    host.ok(&["status"]);
}

#[test]
fn of_a_folder_that_is_gone_nothing_is_published() {
    let host = Host::new();
    with_two(&host, 1);
    host.backup();
    assert_eq!(states(&host, "folder", &[0]), ["published"]);
    fs::rename(host.path("repo/dalidou"), host.path("repo/elsewhere")).unwrap();
    assert_eq!(states(&host, "folder", &[0]), ["gone"]);
    fs::rename(host.path("repo"), host.path("unplugged")).unwrap();
    assert_eq!(states(&host, "folder", &[3]), ["not seen"]);
    let (_, err) = host.exits(&["list"], 3);
    assert!(err.contains("is the disk mounted?"), "{err}");
}

#[test]
fn what_was_pruned_is_not_published() {
    let mut host = Host::new();
    for day in 1..=3 {
        host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        with_two(&host, day);
        host.backup();
    }
    host.ok(&["prune", "--policy", "last=1", "--yes"]);
    let expected = ["pruned", "pruned", "published"];
    assert_eq!(states(&host, "folder", &[0]), expected);
}

/// Kind: a `~` that no shell replaced is taken for the name of a folder.
#[test]
fn a_tilde_is_refused_wherever_a_target_is_named() {
    let host = Host::new();
    with_two(&host, 1);
    host.backup();
    let home = host.temp.path().join("backups").display().to_string();
    let recipient = host.recipient.clone();
    let output = std::process::Command::new(SEALIFT)
        .args(["--config", "new.toml", "init", "--target", "~/backups"])
        .args(["--host", "h", "--recipient", &recipient, "--tree", "data"])
        .env("HOME", host.temp.path())
        .current_dir(host.temp.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("no shell replaced its ~"), "{err}");
    for arguments in [
        &["list", "--from", "~/backups"][..],
        &["status", "--from", "~/backups"],
        &["sync", "folder", "~/backups"],
        &["sync", "~/backups", "folder"],
    ] {
        let (_, err) = host.exits(arguments, 2);
        assert!(err.contains(&home), "{arguments:?}: {err}");
    }
    let url = format!("file://{}", host.path("repo").display());
    host.edit_config(&url, "~/backups");
    let (_, err) = host.exits(&["backup"], 2);
    assert!(err.contains(&home), "{err}");
    assert!(!host.path("~").exists());
}
