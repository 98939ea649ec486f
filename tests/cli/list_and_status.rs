//! What `list` and `status` say of targets is true, whichever program brought a snapshot there or took it away.

use std::fs;

use crate::support::host::{Host, SEALIFT};

fn with_two(host: &Host, number: u32) {
    fs::write(host.data().join("number"), number.to_string()).unwrap();
}

/// `repo`, and `usb`, which does not exist before the first sync to it.
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
    let out = host.ok(&["status"]);
    assert!(!out.contains(" behind"), "{out}");
    assert!(out.contains("every target has caught up"), "{out}");
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

/// What was pruned where this host had not noted it, is pruned; a tombstone without a signature counts for nothing.
#[test]
fn what_a_target_says_goes_before_what_is_remembered() {
    let host = host_and_usb();
    host.ok(&["sync", "folder", "usb"]);
    let usb = format!("file://{}", host.path("usb").display());
    let signer = host.signer.clone();
    let by_hand = [
        "prune",
        "--from",
        &usb,
        "--signer",
        &signer,
        "--sign-with",
        "c.signer",
        "--policy",
        "last=2",
        "--yes",
    ];
    let output = host.run(&by_hand);
    assert!(
        output.status.success(),
        "{}",
        crate::support::host::texts(&output).1
    );
    assert_eq!(
        states(&host, "usb", &[0]),
        ["pruned", "published", "published"]
    );
    assert_eq!(states(&host, "folder", &[0]), ["published"; 3]);
    let out = host.ok(&["status"]);
    assert!(!out.contains(" behind"), "{out}");
    let manifests = host.path("usb/dalidou/manifests");
    let mut names: Vec<_> = fs::read_dir(&manifests)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    let name = names[0].to_str().unwrap().to_owned();
    for file in [name.clone(), format!("{name}.sig")] {
        fs::remove_file(manifests.join(file)).unwrap();
    }
    let forged = host.path("usb/dalidou/tombstones").join(&name);
    fs::write(&forged, "{}").unwrap();
    fs::write(forged.with_extension("json.sig"), "no signature").unwrap();
    assert_eq!(states(&host, "usb", &[0]), ["pruned", "gone", "published"]);
    // What is sent again is there again.
    host.ok(&["sync", "folder", "usb"]);
    assert_eq!(states(&host, "usb", &[0])[1], "published");
    // A backup changes none of it.
    with_two(&host, 5);
    host.backup();
    assert_eq!(states(&host, "usb", &[0])[1..], ["published"; 3]);
}

/// Of a target that is no folder here `list` says what this host remembers: so `sync` and `prune` note what they do.
#[test]
fn what_this_host_does_on_a_target_elsewhere_is_noted() {
    let server = crate::support::s3::S3Server::start();
    let mut host = Host::new();
    let run = |host: &Host, arguments: &[&str], codes: &[i32]| {
        let output = host
            .command(arguments)
            .envs(server.variables())
            .output()
            .unwrap();
        let (out, err) = crate::support::host::texts(&output);
        assert!(
            codes.contains(&output.status.code().unwrap()),
            "{arguments:?}: {out}{err}"
        );
        out
    };
    for number in 1..=3 {
        host.clock = Some(format!("2026-11-0{number}T06:00:00Z"));
        with_two(&host, number);
        host.backup();
    }
    let text = format!(
        "{}\n[[target]]\nname = \"far\"\nurl = \"s3://{}/x\"\nendpoint = \"{}\"\n",
        host.config(),
        crate::support::s3::BUCKET,
        server.endpoint()
    );
    fs::write(host.path("c.toml"), text).unwrap();
    host.clock = Some("2026-11-04T06:00:00Z".to_owned());
    with_two(&host, 4);
    run(&host, &["backup"], &[0, 3]);
    let given_up = ["given up", "given up", "given up", "published"];
    assert_eq!(states(&host, "far", &[0]), given_up);
    run(&host, &["sync", "folder", "far"], &[0]);
    assert_eq!(states(&host, "far", &[0]), ["published"; 4]);
    run(&host, &["status"], &[0, 3]);
    run(
        &host,
        &["prune", "--target", "far", "--policy", "last=2", "--yes"],
        &[0],
    );
    assert_eq!(
        states(&host, "far", &[0]),
        ["pruned", "pruned", "published", "published"]
    );
    assert_eq!(states(&host, "folder", &[0]), ["published"; 4]);
    // Away, or back with nothing on it: what is remembered is not said to be seen.
    drop(server);
    let (out, err) = host.exits(&["status"], 3);
    assert!(out.contains("far"), "{out}{err}");
}

/// `newest` is what is there, not what was.
#[test]
fn of_a_folder_that_was_emptied_nothing_is_the_newest() {
    let host = Host::new();
    with_two(&host, 1);
    host.backup();
    fs::rename(host.path("repo/dalidou"), host.path("elsewhere")).unwrap();
    let status = host.json_exits(&["status"], &[3]);
    let target = &status["targets"][0];
    assert!(
        target["newest"].is_null() && target["age_seconds"].is_null(),
        "{target}"
    );
    assert!(
        !target["problems"].as_array().unwrap().is_empty(),
        "{target}"
    );
    // Emptied on purpose, it is filled again.
    fs::create_dir(host.path("repo/dalidou")).unwrap();
    assert_eq!(states(&host, "folder", &[0]), ["gone"]);
    with_two(&host, 2);
    host.json_exits(&["backup"], &[0, 3]);
    assert_eq!(states(&host, "folder", &[0]).last().unwrap(), "published");
    host.json_exits(&["status"], &[0, 3]);
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
