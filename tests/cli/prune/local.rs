//! The copies on the host itself: the newest ones stay, and what a target lacks.

use std::fs;

use super::{Host, backup, change, set_clock, stamps};

fn local(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path("c.state/snapshots")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut days: Vec<String> = names.map(|name| name[4..8].to_owned()).collect();
    days.sort();
    days
}

fn keep(host: &Host, value: &str) {
    let text = host.config();
    let line = text.lines().find(|line| line.starts_with("keep ="));
    match line {
        Some(line) => host.edit_config(line, &format!("keep = {value}")),
        None => host.edit_config(
            "\n[retention]\n",
            &format!("\n[snapshots]\nkeep = {value}\n\n[retention]\n"),
        ),
    }
}

#[test]
fn the_two_newest_stay_and_what_the_target_lacks() {
    let mut host = Host::new();
    (0..6).for_each(|number| drop(backup(&mut host, number)));
    assert_eq!(local(&host), ["0305", "0306"]);
    assert_eq!(stamps(&host).len(), 6, "the target is left alone");
    let (repo, away) = (host.path("repo"), host.path("away"));
    fs::rename(&repo, &away).unwrap();
    for number in 6..9 {
        set_clock(&mut host, number);
        change(&host, number);
        host.exits(&["backup"], 1);
    }
    assert_eq!(local(&host), ["0305", "0306", "0307", "0308", "0309"]);
    fs::rename(&away, &repo).unwrap();
    let report = backup(&mut host, 9);
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(local(&host), ["0309", "0310"]);
    assert!(
        report["notes"]
            .to_string()
            .contains("4 older snapshots deleted on this host"),
        "{report}"
    );
    let report = backup(&mut host, 10);
    assert!(
        !report["notes"].to_string().contains("deleted on this host"),
        "{report}"
    );
    host.ok(&["verify", "--data"]);
}

/// One target has it, the other waits for it.
#[test]
fn a_copy_that_one_of_two_targets_lacks_stays() {
    let mut host = Host::with_init(&["--tree", "data", "--target", "second"]);
    backup(&mut host, 0);
    let (second, away) = (host.path("second"), host.path("away"));
    fs::rename(&second, &away).unwrap();
    for number in 1..5 {
        set_clock(&mut host, number);
        change(&host, number);
        host.exits(&["backup"], 3);
    }
    assert_eq!(local(&host), ["0302", "0303", "0304", "0305"]);
    fs::rename(&away, &second).unwrap();
    backup(&mut host, 5);
    assert_eq!(local(&host), ["0305", "0306"]);
}

/// The trial backups of the first day: no later run raises an alarm, here or on the target.
#[test]
fn eight_trial_backups_of_the_first_day_raise_no_alarm() {
    let mut host = Host::new();
    host.edit_config("name = \"folder\"\n", "name = \"folder\"\nprune = true\n");
    for trial in 0..8 {
        host.clock = Some(format!("2026-03-01T1{trial}:00:00Z"));
        change(&host, trial);
        host.backup();
    }
    assert_eq!(local(&host).len(), 2);
    for number in 1..5 {
        let report = backup(&mut host, number);
        assert_eq!(report["complete"], true, "{report}");
        assert_eq!(local(&host).len(), 2);
    }
    let days: Vec<String> = stamps(&host)
        .iter()
        .map(|day| day[4..].to_owned())
        .collect();
    assert_eq!(days, ["0301", "0302", "0303", "0304", "0305"]);
}

#[test]
fn keep_says_how_many_and_pins_stay() {
    let mut host = Host::new();
    keep(&host, "\"all\"");
    (0..6).for_each(|number| drop(backup(&mut host, number)));
    assert_eq!(local(&host).len(), 6);
    keep(&host, "3");
    let would = host.json(&["prune", "--local", "--dry-run"]);
    assert_eq!(would["forgotten"].as_array().unwrap().len(), 3, "{would}");
    host.ok(&["pin", "20260302T060000Z"]);
    let listed = host.ok(&["prune", "--local", "--dry-run"]);
    let expected = "20260301T060000Z\n20260303T060000Z\nwould delete 2 of 6 snapshots";
    assert!(listed.starts_with(expected), "{listed}");
    assert_eq!(local(&host).len(), 6);
    host.ok(&["prune", "--local"]);
    assert_eq!(local(&host), ["0302", "0304", "0305", "0306"]);
    keep(&host, "1");
    backup(&mut host, 6);
    assert_eq!(local(&host), ["0302", "0307"]);
    for wrong in ["0", "-1", "\"none\""] {
        keep(&host, wrong);
        host.exits(&["backup"], 2);
    }
}

/// With one copy left, an unchanged file is a link to it, and a push stores what is new only.
#[test]
fn the_next_snapshot_needs_no_more_than_the_last_copy() {
    use std::os::unix::fs::MetadataExt as _;
    let mut host = Host::new();
    let source = "\n[[source]]\nkind = \"json\"\npath = \"x.json\"\n\n[snapshots]\nkeep = 1\n\n[retention]\n";
    host.edit_config("\n[retention]\n", source);
    let text = format!("\"{}\"", "0123456789abcdef".repeat(100_000));
    fs::write(host.path("x.json"), text).unwrap();
    let copy = |host: &Host, day: &str| {
        let copy = format!("c.state/snapshots/202603{day}T060000Z/x.json");
        fs::metadata(host.path(&copy)).unwrap().ino()
    };
    fs::write(host.data().join("large"), super::noise(7, 3_000_000)).unwrap();
    backup(&mut host, 0);
    let first = copy(&host, "01");
    let report = backup(&mut host, 1);
    assert_eq!(copy(&host, "02"), first);
    assert_eq!(local(&host), ["0302"]);
    assert!(
        report["new_archive_bytes"].as_u64().unwrap() < 200_000,
        "{report}"
    );
}

/// Kind: a copy that no target has any more is deleted, since the run that sent it was complete.
#[test]
fn what_the_target_lost_stays_on_the_host() {
    let mut host = Host::new();
    (0..2).for_each(|number| drop(backup(&mut host, number)));
    let folder = host.path("repo/dalidou");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    for number in 2..6 {
        set_clock(&mut host, number);
        change(&host, number);
        host.exits_any(&["backup"], &[0, 3]);
    }
    let here = local(&host);
    assert!(
        here.starts_with(&["0301".to_owned(), "0302".to_owned()]),
        "{here:?}"
    );
    host.exits(&["prune", "--local", "--forget", "20260301T060000Z"], 1);
    host.exits_any(&["push", "20260301T060000Z"], &[0, 3]);
    for number in 6..9 {
        set_clock(&mut host, number);
        change(&host, number);
        host.exits_any(&["backup"], &[0, 3]);
    }
    assert!(!local(&host).contains(&"0301".to_owned()));
}
