//! `list` and `ls` show what an operator asks for: what is kept and why, what was left over, and times and owners that
//! can be read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::files::mode_of;
use crate::support::host::{Host, texts};

const FROM: [&str; 3] = ["--from", "repo", "--accept-signer"];

fn add_to_config(host: &Host, text: &str) {
    fs::write(host.path("c.toml"), format!("{}\n{text}", host.config())).unwrap();
}

/// A host with a source that is taken on request, and two snapshots; the second has it, and tags.
fn host_with_request() -> Host {
    let mut host = Host::new();
    fs::create_dir(host.path("vectors")).unwrap();
    fs::write(host.path("vectors/v.bin"), "v").unwrap();
    add_to_config(
        &host,
        "[[source]]\nname = \"vectors\"\nkind = \"tree\"\npath = \"vectors\"\non_request = true\n",
    );
    host.clock = Some("2026-11-01T06:00:00Z".to_owned());
    host.exits_any(&["backup"], &[0, 3]);
    host.clock = Some("2026-11-02T06:00:00Z".to_owned());
    host.exits_any(
        &["backup", "--include", "vectors", "--tag", "blue"],
        &[0, 3],
    );
    host
}

#[test]
fn tags_pins_and_sources_on_request_are_shown_even_when_the_directory_is_gone() {
    let host = host_with_request();
    host.ok(&["pin", "1"]);
    fs::remove_dir_all(host.path("c.state/snapshots/20261102T060000Z")).unwrap();
    let rows = host.json(&["list"])["backups"].clone();
    assert_eq!(rows[0]["on_request"], serde_json::json!([]));
    assert_eq!(rows[0]["kept"], serde_json::json!(["pinned"]));
    assert_eq!(rows[1]["on_request"], serde_json::json!(["vectors"]));
    assert_eq!(rows[1]["tags"], serde_json::json!(["blue"]));
    assert_eq!(rows[1]["time"], "2026-11-02T06:00:00Z");
    let out = host.ok(&["list"]);
    assert!(
        out.contains("INCLUDES") && out.contains("KEPT") && out.contains("blue"),
        "{out}"
    );
    // On the target, by this host's memory, and by an identity elsewhere.
    let here = host.json(&["list", "--target", "folder"])["snapshots"].clone();
    assert_eq!(
        (&here[1]["tags"][0], &here[0]["pinned"]),
        (&"blue".into(), &true.into())
    );
    let blind = host.json(&[&["list"], &FROM[..]].concat())["snapshots"].clone();
    assert!(
        blind[1]["tags"].is_null() && blind[1]["sources"].is_null(),
        "{blind}"
    );
    let opened = [&["list", "--identity", "key.txt"], &FROM[..]].concat();
    let opened = host.json(&opened)["snapshots"].clone();
    assert_eq!(opened[1]["tags"], serde_json::json!(["blue"]));
    assert!(
        opened[1]["sources"].to_string().contains("vectors"),
        "{opened}"
    );
    let (_, err) = host.exits(&[&["list", "--tag", "blue"], &FROM[..]].concat(), 2);
    assert!(
        err.contains("encrypted") && err.contains("--identity"),
        "{err}"
    );
    // A snapshot of which nothing is known is not taken for one without tags.
    fs::remove_file(host.path("c.state/catalog.db")).unwrap();
    let (_, err) = host.exits_any(&["list", "--target", "folder", "--tag", "blue"], &[0, 3]);
    assert!(!err.contains("no snapshot yet"), "{err}");
}

#[test]
fn leftovers_are_shown_with_what_they_are() {
    let host = Host::new();
    host.backup();
    // A snapshot that was never sent. (This also removes what is unfinished.)
    host.ok(&["snapshot"]);
    let snapshots = host.path("c.state/snapshots");
    for name in [
        "invalid-20261101T060000Z",
        ".partial-20261102T060000Z",
        ".partial-20261103T060000Z",
    ] {
        fs::create_dir(snapshots.join(name)).unwrap();
    }
    let held = fs::File::open(snapshots.join(".partial-20261103T060000Z")).unwrap();
    held.lock().unwrap();
    let (out, err) = host.exits(&["list"], 0);
    for said in [
        "invalid-20261101T060000Z: copies failed the check",
        ".partial-20261102T060000Z: left by a run that did not finish",
        ".partial-20261103T060000Z: a run is working on it now",
        "1 snapshot never sent: `sealift push ",
    ] {
        assert!(err.contains(said), "{err}");
    }
    assert!(out.contains("never sent"), "{out}");
    let report = host.json(&["list"]);
    assert_eq!(report["invalid"].as_array().unwrap().len(), 1);
    assert_eq!(report["unfinished"][1]["is_in_use"], true);
    assert_eq!(report["unfinished"][0]["stamp"], "20261102T060000Z");
}

#[test]
fn local_times_stand_beside_the_stamps_where_they_differ() {
    let mut host = Host::new();
    host.clock = Some("2026-11-01T23:30:00Z".to_owned());
    host.backup();
    let list = |zone: &str| {
        let output = host.command(&["list"]).env("TZ", zone).output().unwrap();
        texts(&output).0
    };
    assert!(!list("UTC").contains("LOCAL TIME"));
    let local = list("EET-2");
    assert!(
        local.contains("LOCAL TIME") && local.contains("20261101T233000Z  2026-11-02 01:30"),
        "{local}"
    );
}

/// However the place of a target is written, what `prune` and `sync` do there is noted.
#[test]
fn what_is_done_under_a_url_is_noted_for_the_target_at_that_place() {
    let mut host = Host::new();
    let usb = host.path("usb").display().to_string();
    add_to_config(
        &host,
        &format!("[[target]]\nname = \"usb\"\nurl = \"file://{usb}\"\n"),
    );
    for day in 1..=3 {
        host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        fs::write(host.data().join("number"), day.to_string()).unwrap();
        host.json_exits(&["backup"], &[0, 3]);
    }
    host.ok(&["sync", "folder", &format!("{usb}/")]);
    let from = [
        "--from",
        &usb,
        "--signer",
        &host.signer,
        "--sign-with",
        "c.signer",
    ];
    host.ok(&[&["prune", "--policy", "last=2", "--yes"], &from[..]].concat());
    // What the catalog remembers, when the folder cannot be looked at.
    fs::rename(host.path("usb"), host.path("away")).unwrap();
    let report = host.json_exits(&["list"], &[3]);
    let rows = report["backups"].as_array().unwrap().iter();
    let states: Vec<_> = rows.map(|row| row["targets"]["usb"].as_str()).collect();
    assert_eq!(states, [Some("pruned"), Some("not seen"), Some("not seen")]);
    assert_eq!(report["as_of"]["usb"], "2026-11-03T06:00:00Z");
    assert!(report["as_of"].get("folder").is_none(), "{report}");
}

/// A tree that is read in place is not on this host a second time: nothing says that the snapshot lacks it.
#[test]
fn a_path_in_a_tree_that_is_read_in_place_is_not_called_missing() {
    let host = Host::new();
    fs::create_dir(host.data().join("photos")).unwrap();
    fs::write(host.data().join("photos/x.jpg"), "x").unwrap();
    host.backup();
    for path in ["data/photos/x.jpg", "data", "data/**/*.jpg"] {
        let (_, err) = host.exits(&["ls", "latest", path], 1);
        assert!(
            err.contains("read in place") && !err.contains("in this snapshot"),
            "{path}: {err}"
        );
        assert!(err.contains("--identity"), "{err}");
    }
    let (_, err) = host.exits(&["ls", "latest", "dat"], 1);
    assert!(err.contains("no \"dat\" in this snapshot"), "{err}");
    let (_, err) = host.exits(&["ls", "latest", "backup-metadata.json"], 0);
    assert!(!err.contains("in place"), "{err}");
    let (_, err) = host.exits(&["ls"], 0);
    assert!(err.contains("data is read in place"), "{err}");
}

#[test]
fn json_has_octal_modes_and_extents_on_request_only() {
    let host = Host::new();
    let path = host.data().join("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    host.backup();
    let list = |more: &[&str]| {
        let all = [
            &["ls", "latest", "data/file", "--identity", "key.txt"],
            &FROM[..],
            more,
        ]
        .concat();
        host.json(&all)[0].clone()
    };
    let plain = list(&[]);
    assert_eq!(plain["mode"], "4750");
    assert!(plain.get("extents").is_none(), "{plain}");
    assert!(plain["mtime"].as_str().unwrap().ends_with('Z'), "{plain}");
    assert!(list(&["--extents"])["extents"].is_array());
    let local = host.json(&["ls"])[0].clone();
    assert_eq!(
        (&local["path"], &local["mode"]),
        (&"backup-metadata.json".into(), &"0600".into())
    );
    let (out, _) = host.exits(&["ls", "-h"], 0);
    assert!(out.contains(" kB ") || out.contains(" B "), "{out}");
    assert!(
        out.lines()
            .next()
            .unwrap()
            .contains("Z backup-metadata.json"),
        "{out}"
    );
}

/// What is restored may be secret: whatever the umask, a new directory is the restorer's alone.
#[test]
fn a_new_directory_of_a_restore_is_private_and_one_that_is_there_stays_as_it_is() {
    let host = Host::new();
    host.backup();
    let restore = |to: &str| {
        let all = [
            &["restore", "latest", "--identity", "key.txt", "--to", to],
            &FROM[..],
        ]
        .concat();
        host.exits(&all, 0).1
    };
    let err = restore("out");
    assert_eq!(mode_of(&host.path("out")), 0o700);
    assert!(err.contains("chmod 755"), "{err}");
    fs::create_dir(host.path("open")).unwrap();
    fs::set_permissions(host.path("open"), fs::Permissions::from_mode(0o755)).unwrap();
    let err = restore("open");
    assert_eq!(mode_of(&host.path("open")), 0o755);
    assert!(!err.contains("chmod"), "{err}");
}

#[test]
fn a_wrong_identity_is_named_with_the_one_that_is_wanted() {
    let host = Host::new();
    host.backup();
    let wanted = host.recipient.clone();
    let given = host.generate("other.txt");
    for command in [
        &["restore", "latest", "--to", "out"][..],
        &["ls", "latest"],
        &["ls", "--tag", "x"],
        &["list"],
    ] {
        let all = [command, &["--identity", "other.txt"], &FROM[..]].concat();
        let (_, err) = host.exits(&all, 1);
        assert!(
            err.contains(wanted.trim()) && err.contains(given.trim()),
            "{err}"
        );
        assert!(
            !err.contains("archives/") && err.contains("next: give the identity"),
            "{err}"
        );
        assert!(err.len() < 600, "{err}");
    }
    let (_, err) = host.exits_any(
        &[&["verify", "--identity", "other.txt"], &FROM[..]].concat(),
        &[1, 3],
    );
    assert!(!err.contains("archives/"), "{err}");
}
