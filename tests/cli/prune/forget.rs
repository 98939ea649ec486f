//! `prune --forget`: the named snapshots go, and no other; what must stay stays.

use std::fs;

use crate::support::host::Host;
use crate::support::tree::describe;

fn with_days(days: u32) -> Host {
    let mut host = Host::new();
    host.edit_config(
        "\n[retention]\n",
        "\n[snapshots]\nkeep = \"all\"\n\n[retention]\n",
    );
    for day in 1..=days {
        host.clock = Some(format!("2026-11-0{day}T06:00:00Z"));
        fs::write(host.data().join("day"), day.to_string()).unwrap();
        host.backup();
    }
    host
}

fn remote(host: &Host) -> Vec<u64> {
    let listed = host.remote_list();
    let snapshots = listed["snapshots"].as_array().unwrap().iter();
    snapshots
        .map(|one| one["sequence"].as_u64().unwrap())
        .collect()
}

fn hash(host: &Host, at: usize) -> String {
    let listed = host.remote_list();
    let name = listed["snapshots"][at]["manifest"].as_str().unwrap();
    name.rsplit('-').next().unwrap().to_owned()
}

#[test]
fn named_by_stamp_sequence_or_hash_exactly_these_go() {
    let mut host = with_days(5);
    let third = hash(&host, 2);
    let arguments = ["prune", "--forget", "20261101T060000Z", "--forget", &third];
    let dry = host.ok(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(dry.matches(" forget").count(), 2, "{dry}");
    assert_eq!(remote(&host), [1, 2, 3, 4, 5]);
    host.ok(&arguments);
    // What the policy would let go stays, and no command reports what went as missing.
    assert_eq!(remote(&host), [2, 4, 5]);
    host.ok(&[
        "prune",
        "--forget",
        "2",
        "--from",
        "repo",
        "--signer",
        &host.signer,
        "--sign-with",
        "c.signer",
    ]);
    assert_eq!(remote(&host), [4, 5]);
    host.clock = Some("2026-11-06T06:00:00Z".to_owned());
    host.backup();
    host.ok(&["verify"]);
    let out = host.restore("4", "out");
    assert_eq!(fs::read_to_string(out.join("data/day")).unwrap(), "4");
}

#[test]
fn the_newest_the_pinned_and_what_is_not_there_are_refused_and_nothing_goes() {
    let host = with_days(4);
    host.ok(&["pin", "20261102T060000Z"]);
    for (name, says) in [
        ("20261104T060000Z", "is the newest and stays"),
        ("20261102T060000Z", "sealift pin --remove 20261102T060000Z"),
        ("20251102T060000Z", "has a snapshot 20251102T060000Z"),
        ("77", "has a snapshot 77"),
    ] {
        let (_, err) = host.exits(&["prune", "--forget", "1", "--forget", name], 1);
        assert!(err.contains(says), "{name}: {err}");
    }
    assert_eq!(remote(&host), [1, 2, 3, 4]);
    // Most of all there is goes with --yes only.
    let all = ["prune", "--forget", "1", "--forget", "3", "--forget", "2"];
    host.ok(&["pin", "--remove", "20261102T060000Z"]);
    let (_, err) = host.exits(&all, 1);
    assert!(err.contains("say --yes"), "{err}");
    host.ok(&[&all[..], &["--yes"]].concat());
    assert_eq!(remote(&host), [4]);
}

#[test]
fn on_this_host_the_newest_and_what_is_only_here_stay() {
    let mut host = with_days(3);
    let local = |host: &Host| {
        fs::read_dir(host.path("c.state/snapshots"))
            .unwrap()
            .count()
    };
    host.ok(&["prune", "--local", "--forget", "1", "--dry-run"]);
    assert_eq!(local(&host), 3);
    host.ok(&[
        "prune",
        "--local",
        "--forget",
        "1",
        "--forget",
        "20261102T060000Z",
    ]);
    assert_eq!(local(&host), 1);
    let (_, err) = host.exits(&["prune", "--local", "--forget", "3"], 1);
    assert!(err.contains("is the newest and stays"), "{err}");
    let (_, err) = host.exits(&["prune", "--local", "--forget", "1"], 1);
    assert!(err.contains("no snapshot 1 is in"), "{err}");
    // Never packed: no target has it.
    host.clock = Some("2026-11-04T06:00:00Z".to_owned());
    host.ok(&["snapshot"]);
    host.clock = Some("2026-11-05T06:00:00Z".to_owned());
    host.backup();
    let forget = ["prune", "--local", "--forget", "20261104T060000Z"];
    let (_, err) = host.exits(&forget, 1);
    assert!(err.contains("it may be here only"), "{err}");
    host.ok(&[&forget[..], &["--yes"]].concat());
    assert_eq!(local(&host), 2);
    // The targets have all of them.
    assert_eq!(remote(&host), [1, 2, 3, 4]);
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn a_snapshot_of_2099_goes_by_name_and_its_target_is_whole() {
    let mut host = with_days(2);
    host.clock = Some("2099-01-01T00:00:00Z".to_owned());
    host.json_exits(&["backup"], &[0, 3]);
    host.clock = Some("2026-11-04T06:00:00Z".to_owned());
    // While it is the newest, no clock counts as right, and the way out is named; it is not --yes.
    let (_, err) = host.exits(&["prune"], 1);
    assert!(err.contains("run `sealift backup` first"), "{err}");
    assert!(!err.contains("say --yes"), "{err}");
    host.json_exits(&["backup"], &[3]);
    host.ok(&["prune", "--forget", "20990101T000000Z"]);
    host.ok(&["prune", "--local", "--forget", "20990101T000000Z"]);
    host.ok(&["verify"]);
    assert_eq!(remote(&host), [1, 2, 4]);
    let listed = host.json(&["list"]).to_string();
    assert!(listed.contains("\"pruned\""), "{listed}");
}
