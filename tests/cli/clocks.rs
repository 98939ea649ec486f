//! A clock that is wrong once: order goes by sequence, nothing stays wrong, and nothing is stamped
//! that a reader refuses.

use std::fs;

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::tree::describe;

fn at(host: &mut Host, time: &str) {
    host.clock = Some(time.to_owned());
    fs::write(host.data().join("when"), time).unwrap();
}

fn local(host: &Host) -> Vec<String> {
    let dir = fs::read_dir(host.path("c.state/snapshots")).unwrap();
    let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A host that keeps three days, three of which passed before one run in 2099.
fn after_a_glitch() -> Host {
    let mut host = Host::new();
    host.edit_config("weekly = 4", "weekly = 0");
    host.edit_config("monthly = 6", "monthly = 0");
    host.edit_config("daily = 7", "daily = 3");
    for day in 1..=3 {
        at(&mut host, &format!("2026-11-0{day}T06:00:00Z"));
        host.backup();
    }
    at(&mut host, "2099-01-01T00:00:00Z");
    host.json_exits(&["backup"], &[0, 3]);
    host
}

#[test]
fn after_one_run_in_2099_only_the_next_warns_and_retention_goes_on() {
    let mut host = after_a_glitch();
    for day in 4..=9 {
        at(&mut host, &format!("2026-11-0{day}T06:00:00Z"));
        let report = host.json_exits(&["backup"], if day == 4 { &[3] } else { &[0] });
        let warned = report["warnings"].to_string().contains("20990101T000000Z");
        assert_eq!(warned, day == 4, "{report}");
    }
    let kept = ["20261108T060000Z", "20261109T060000Z"];
    assert_eq!(local(&host), kept);
    assert_eq!(host.ok(&["prune", "--local", "--yes"]), "");
}

#[test]
fn latest_on_this_host_and_the_list_go_by_sequence() {
    let mut host = after_a_glitch();
    at(&mut host, "2026-11-04T06:00:00Z");
    host.json_exits(&["backup"], &[3]);
    let out = host.ok(&["validate"]);
    assert!(out.contains("20261104T060000Z"), "{out}");
    let listed = host.json(&["list"]);
    let stamps = listed["backups"].as_array().unwrap();
    let last = stamps.last().unwrap()["stamp"].as_str();
    assert_eq!(last, Some("20261104T060000Z"), "{listed}");
    // One that was never packed, by a clock that is ahead again, is not the newest either.
    at(&mut host, "2099-06-01T00:00:00Z");
    host.ok(&["snapshot"]);
    at(&mut host, "2026-11-05T06:00:00Z");
    let out = host.ok(&["validate"]);
    assert!(out.contains("20261104T060000Z"), "{out}");
}

#[test]
fn unchanged_copies_are_links_into_the_snapshot_before_and_not_into_2099() {
    use std::os::unix::fs::MetadataExt as _;
    let mut host = after_a_glitch();
    let document = host.path("x.json");
    let source = format!(
        "[[source]]\nkind = \"json\"\npath = \"{}\"\nto = \"x.json\"\n",
        document.display()
    );
    fs::write(host.path("c.toml"), format!("{}\n{source}", host.config())).unwrap();
    fs::write(&document, "[2099]").unwrap();
    host.clock = Some("2099-01-02T00:00:00Z".to_owned());
    host.json_exits(&["backup"], &[0, 3]);
    fs::write(&document, "[2026]").unwrap();
    let mut inodes = Vec::new();
    for day in 4..=5 {
        host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        host.json_exits(&["backup"], &[0, 3]);
        let copy = format!("c.state/snapshots/2026110{day}T060000Z/x.json");
        inodes.push(fs::metadata(host.path(&copy)).unwrap().ino());
    }
    assert_eq!(inodes[0], inodes[1]);
}

#[test]
fn a_clock_that_is_no_time_is_refused_and_one_that_is_set_is_reported() {
    let mut host = Host::new();
    for wrong in [
        "soon",
        "",
        "2026-11-01",
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
    ] {
        host.clock = Some(wrong.to_owned());
        let (_, err) = host.exits(&["backup"], 2);
        assert!(err.contains("SEALIFT_CLOCK"), "{wrong}: {err}");
        assert!(err.contains("2026-04-07T06:00:00Z"), "{wrong}: {err}");
    }
    assert!(!host.path("c.state/snapshots").exists());
    host.clock = Some("2026-11-01T06:00:00Z".to_owned());
    let (_, err) = texts(&host.run(&["backup", "--quiet"]));
    assert!(err.contains("warning: SEALIFT_CLOCK is set"), "{err}");
    host.clock = None;
    let (_, err) = texts(&host.run(&["status", "--offline"]));
    assert!(!err.contains("SEALIFT_CLOCK"), "{err}");
}

#[test]
fn a_leap_second_makes_a_snapshot_that_every_reader_takes() {
    let mut host = Host::new();
    for time in ["2026-12-31T23:59:60Z", "9999-12-31T23:59:59Z"] {
        at(&mut host, time);
        host.json_exits(&["backup"], &[0, 3]);
        let to = format!("at-{}", &time[..4]);
        let out = host.restore("latest", &to);
        assert_eq!(describe(&out.join("data")), describe(&host.data()));
        let out = host.recover("latest", &format!("by-hand-{}", &time[..4]));
        assert_eq!(describe(&out.join("data")), describe(&host.data()));
    }
    assert!(files(&host.folder()).iter().any(|file| {
        let name = file.to_string_lossy();
        name.contains("20261231T235959Z")
    }));
}
