//! Which snapshot, and which of its files, an operator means by what he writes.

use std::fs;

use crate::support::host::{Host, texts};

/// Central European time with its changes, without a zone database.
const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// A host with snapshots of 27 November 06:00, 28 November 06:00 and 22:30, and 29 November 06:00,
/// all UTC, each with the name of its number. The second is tagged.
fn host() -> Host {
    let mut host = Host::new();
    let text = format!("{}\n[snapshots]\nkeep = \"all\"\n", host.config());
    fs::write(host.path("c.toml"), text).unwrap();
    for (number, time) in ["27T06:00", "28T06:00", "28T22:30", "29T06:00"]
        .iter()
        .enumerate()
    {
        host.clock = Some(format!("2026-11-{time}:00Z"));
        fs::write(host.data().join("number"), (number + 1).to_string()).unwrap();
        match number {
            1 => host.ok(&["backup", "--tag", "before upgrade", "--tag", "good"]),
            _ => host.ok(&["backup"]),
        };
    }
    host.clock = Some("2026-11-30T10:00:00Z".to_owned());
    host
}

const FROM: [&str; 3] = ["--from", "repo", "--accept-signer"];

/// Runs the program in a zone. Returns code, stdout and stderr.
fn in_zone(host: &Host, zone: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = host.command(arguments).env("TZ", zone).output().unwrap();
    let (out, err) = texts(&output);
    (output.status.code().unwrap(), out, err)
}

/// Restores with these arguments; returns the number that the snapshot holds, and what was said.
fn restored(host: &Host, zone: &str, arguments: &[&str]) -> (String, String) {
    let to = tempfile::tempdir_in(host.path(".")).unwrap();
    let to = to.path().join("out");
    let all = [
        &["restore"],
        arguments,
        &FROM,
        &["--identity", "key.txt"],
        &["--to"],
    ]
    .concat();
    let all = [&all[..], &[to.to_str().unwrap()]].concat();
    let (code, out, err) = in_zone(host, zone, &all);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    (fs::read_to_string(to.join("data/number")).unwrap(), err)
}

#[test]
fn a_date_means_the_local_day_and_the_choice_is_shown() {
    let host = host();
    for (zone, text, number) in [
        ("UTC", "2026-11-28", "3"),
        // 22:30 is the next day's in Helsinki, and the day before is in New York.
        ("EET-2", "2026-11-28", "2"),
        (ZONE, "2026-11-28 23:30", "3"),
        (ZONE, "2026-11-28 22:30", "2"),
        (ZONE, "2026-11-28T22:30Z", "3"),
        ("UTC", "yesterday", "4"),
        ("UTC", "2 days ago", "2"),
        ("UTC", "35 hours ago", "3"),
        ("UTC", "2", "2"),
        ("UTC", "20261128T060000Z", "2"),
    ] {
        let (found, err) = restored(&host, zone, &[text]);
        assert_eq!(found, number, "{zone}: {text}");
        let is_date = text.contains(['-', ' ']) || text == "yesterday";
        assert_eq!(err.contains("local time"), is_date, "{text}: {err}");
    }
    let (_, err) = restored(&host, ZONE, &["yesterday"]);
    let said = "yesterday (local time, +01:00): snapshot 20261129T060000Z, made 2026-11-29 07:00 local time (28 h old)";
    assert!(err.contains(said), "{err}");
}

#[test]
fn bounds_and_tags_narrow_what_latest_means() {
    let host = host();
    for (arguments, number) in [
        (&["--before", "2026-11-28"][..], "1"),
        (&["latest", "--before", "2026-11-28T22:30Z"], "2"),
        (&["--before", "20261129T060000Z"], "3"),
        (&["--tag", "good"], "2"),
        (&["--tag", "good", "--tag", "before upgrade"], "2"),
        (&["2026-11-28", "--tag", "good"], "2"),
    ] {
        assert_eq!(restored(&host, "UTC", arguments).0, number, "{arguments:?}");
    }
    // On the host itself no identity is needed.
    let listed = |arguments: &[&str]| {
        let rows = host.json(&[&["list"], arguments].concat());
        let rows = rows["backups"].as_array().unwrap().clone();
        let numbers = rows.iter().map(|row| row["sequence"].as_u64().unwrap());
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--tag", "good"]), [2]);
    assert_eq!(listed(&["--before", "2026-11-28T12:00Z"]), [1, 2]);
    assert_eq!(listed(&["--tag", "none"]), [0; 0]);
    let (out, err) = host.exits(&["ls", "--tag", "good"], 0);
    assert!(
        out.contains("backup-metadata.json") && err.contains("20261128T060000Z"),
        "{out}{err}"
    );
    for arguments in [&["2", "--tag", "good"][..], &["2", "--before", "yesterday"]] {
        let (_, err) = host.exits(&[&["ls"], arguments].concat(), 2);
        assert!(err.contains("names one snapshot"), "{err}");
    }
    let nothing = [&["ls", "--tag", "none", "--identity", "key.txt"], &FROM[..]].concat();
    let (_, err) = host.exits(&nothing, 1);
    assert!(err.contains("no snapshot latest with tag none"), "{err}");
}

#[test]
fn a_time_without_a_snapshot_names_its_neighbours() {
    let host = host();
    let from = [&["ls", "2026-11-30", "--identity", "key.txt"], &FROM[..]].concat();
    let (_, err) = host.exits(&from, 1);
    assert!(
        err.contains("the newest before is 20261129T060000Z"),
        "{err}"
    );
    let (_, err) = host.exits(&["ls", "2026-11-26"], 1);
    assert!(
        err.contains("the oldest after is 20261127T060000Z"),
        "{err}"
    );
    let (_, err) = host.exits(&["ls", "2026-11-28 00:00", "--before", "2026-11-27"], 1);
    assert!(
        err.contains("no snapshot 2026-11-28 00:00 before 2026-11-27"),
        "{err}"
    );
    for (text, says) in [
        ("2026-11-31", "not a date or a time that exists"),
        ("three days ago", "write it as in"),
        ("yestreday", "names no snapshot"),
    ] {
        let (_, err) = host.exits(&["ls", text], 2);
        assert!(err.contains(says), "{text}: {err}");
    }
}

#[test]
fn every_command_that_takes_a_snapshot_takes_a_date() {
    let host = host();
    for arguments in [
        &["validate", "yesterday"][..],
        &["push", "yesterday"],
        &["verify", "yesterday"],
        &["sync", "folder", "./copy", "yesterday", "--host", "dalidou"],
        &["pin", "yesterday"],
    ] {
        let said = host.exits(arguments, 0);
        let is_named = said
            .1
            .contains("yesterday (local time, +00:00): snapshot 20261129T060000Z");
        assert!(is_named, "{arguments:?}: {said:?}");
    }
    let synced = fs::read_dir(host.path("copy/dalidou/manifests"))
        .unwrap()
        .count();
    assert_eq!(synced, 2, "one manifest and its signature");
    assert_eq!(
        host.json(&["pin", "--list"])["pinned"][0],
        "20261129T060000Z"
    );
    assert_eq!(host.json(&["list"])["backups"][3]["kept"][0], "pinned");
    host.ok(&["pin", "--remove", "4"]);
}

/// What `latest` or a date means depends on when it is read, so nothing is deleted by it.
#[test]
fn only_exact_names_are_deleted() {
    let host = host();
    for text in ["yesterday", "2026-11-28", "3 days ago", "latest"] {
        for arguments in [&["prune", "--forget", text][..], &["pin", "--remove", text]] {
            let (_, err) = host.exits(arguments, 2);
            assert!(err.contains("is no exact name"), "{arguments:?}: {err}");
        }
        host.exits(&["prune", "--local", "--forget", text], 2);
    }
    host.ok(&["prune", "--forget", "1"]);
    assert_eq!(
        host.json(&["list"])["backups"][0]["targets"]["folder"],
        "pruned"
    );
}

/// A newer manifest that cannot be read casts doubt on a date only if it could be the one.
#[test]
fn a_hidden_manifest_casts_doubt_on_the_dates_that_it_could_be() {
    let host = host();
    let manifests = host.path("repo/dalidou/manifests");
    for entry in fs::read_dir(&manifests).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("00000003") && name.ends_with(".sig") {
            fs::remove_file(path).unwrap();
        }
    }
    let run = |text: &str, code: i32| {
        let rest = [
            "--identity",
            "key.txt",
            "--to",
            "out",
            "--dry-run",
            "--signer",
            &host.signer,
        ];
        let all = [&["restore", text, "--from", "repo"], &rest[..]].concat();
        host.exits(&all, code).1
    };
    let err = run("2026-11-28", 1);
    assert!(err.contains("20261128T223000Z"), "{err}");
    run("2026-11-28T20:00Z", 0);
    run("2026-11-27", 0);
    run("latest", 0);
}

#[test]
fn globs_choose_paths_and_a_literal_path_goes_first() {
    let host = Host::new();
    for path in [
        "a.jpg",
        "b.png",
        "deep/er/c.jpg",
        "deep/[a].jpg",
        "other/a.jpg",
    ] {
        let path = host.data().join("photos").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    host.backup();
    let identity = [&["--identity", "key.txt"], &FROM[..]].concat();
    let listed = |paths: &[&str]| {
        let rows = host.json(&[&["ls", "latest"], paths, &identity].concat());
        let rows = rows.as_array().unwrap().clone();
        let rows = rows.iter().filter(|row| row["type"] == "file");
        let names = rows.map(|row| row["path"].as_str().unwrap().replace("data/photos/", ""));
        names.collect::<Vec<_>>()
    };
    assert_eq!(listed(&["data/photos/*.jpg"]), ["a.jpg"]);
    let all = ["a.jpg", "deep/[a].jpg", "deep/er/c.jpg", "other/a.jpg"];
    assert_eq!(listed(&["data/photos/**/*.jpg"]), all);
    assert_eq!(listed(&["data/photos/deep/[a].jpg"]), ["deep/[a].jpg"]);
    assert_eq!(
        listed(&["**/[ab].???", "data/photos/other"]),
        ["a.jpg", "b.png", "other/a.jpg"]
    );
    let restore = [
        &["restore", "latest", "data/photos/**/a.jpg", "--to", "out"],
        &identity[..],
    ]
    .concat();
    host.ok(&restore);
    let photos = host.path("out/data/photos");
    assert!(photos.join("a.jpg").exists() && photos.join("other/a.jpg").exists());
    assert!(!photos.join("b.png").exists() && !photos.join("deep").exists());
    for (glob, near) in [
        ("data/photos/*.gif", "\"data/photos/a.jpg\""),
        ("*.png", "\"data/photos/b.png\""),
        ("**/*.JPG", "\"data/photos/a.jpg\""),
    ] {
        for command in [
            &["ls", "latest", glob][..],
            &["restore", "latest", glob, "--to", "none"],
        ] {
            let (_, err) = host.exits(&[command, &identity].concat(), 1);
            let said = format!("nothing in this snapshot matches {glob:?}. There is {near}");
            assert!(err.contains(&said), "{err}");
        }
    }
    assert!(!host.path("none").exists());
}

/// Kind: a name with the characters of a glob cannot be named.
#[test]
fn names_with_backslashes_and_the_characters_of_globs_are_found() {
    let host = Host::new();
    let photos = host.data().join("photos");
    for path in [
        "a[1]/x.txt",
        "a1/x.txt",
        "foo\\bar",
        "star*",
        "star2",
        "what?",
    ] {
        let path = photos.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    host.backup();
    let identity = [&["--identity", "key.txt"], &FROM[..]].concat();
    for (number, (wanted, found)) in [
        ("a[1]", &["a[1]/x.txt"][..]),
        ("a[1]/x.txt", &["a[1]/x.txt"]),
        ("a[1]/*.txt", &["a[1]/x.txt"]),
        ("a?/*.txt", &["a1/x.txt"]),
        ("foo\\bar", &["foo\\bar"]),
        ("star*", &["star*"]),
        ("star?", &["star*", "star2"]),
        ("what?", &["what?"]),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("data/photos/{wanted}");
        let rows = host.json(&[&["ls", "latest", &path], &identity[..]].concat());
        let rows = rows.as_array().unwrap().clone();
        let rows = rows.iter().filter(|row| row["type"] == "file");
        let names = rows.map(|row| row["path"].as_str().unwrap().replace("data/photos/", ""));
        assert_eq!(names.collect::<Vec<_>>(), found, "{wanted}");
        let to = format!("out{number}");
        host.ok(&[&["restore", "latest", &path, "--to", &to], &identity[..]].concat());
        let out = host.path(&to).join("data/photos");
        let there = crate::support::files::files(&out);
        let there: Vec<&str> = there
            .iter()
            .map(|path| path.strip_prefix(&out).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(there, found, "{wanted}");
    }
}

/// Kind: clocks show one time twice, or at the end of the repeated hour. The zone of the system reports such times in
/// an order of its own.
#[test]
fn a_time_that_occurs_twice_means_the_last_and_the_day_begins_with_the_first() {
    let mut host = Host::new();
    let keep = format!("{}\n[snapshots]\nkeep = \"all\"\n", host.config());
    fs::write(host.path("c.toml"), keep).unwrap();
    for (number, time) in ["00:20", "01:20", "01:50"].iter().enumerate() {
        host.clock = Some(format!("2026-10-25T{time}:00Z"));
        fs::write(host.data().join("number"), (number + 1).to_string()).unwrap();
        host.backup();
    }
    host.clock = Some("2026-10-26T10:00:00Z".to_owned());
    for (time, number) in [
        ("02:30", "2"),
        ("02:55", "3"),
        ("03:00", "3"),
        ("01:59", ""),
    ] {
        let text = format!("2026-10-25 {time}");
        if number.is_empty() {
            let all = [&["ls", text.as_str(), "--identity", "key.txt"], &FROM[..]].concat();
            assert_eq!(in_zone(&host, ZONE, &all).0, 1, "{text}");
            continue;
        }
        assert_eq!(restored(&host, ZONE, &[&text]).0, number, "{text}");
    }
    // Midnight occurs twice: at 04:00 and 05:00 UTC.
    let mut host = Host::new();
    host.clock = Some("2026-11-01T04:20:00Z".to_owned());
    fs::write(host.data().join("number"), "1").unwrap();
    host.backup();
    host.clock = Some("2026-11-02T12:00:00Z".to_owned());
    let havana = "CST5CDT,M3.2.0/0,M11.1.0/1";
    assert_eq!(restored(&host, havana, &["2026-11-01"]).0, "1");
    let all = [&["ls", "2026-10-31", "--identity", "key.txt"], &FROM[..]].concat();
    assert_eq!(in_zone(&host, havana, &all).0, 1);
}
