//! What the commands that look at a host cost, if it has many snapshots: time and memory.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sealift::storage::{TargetSpec, open};

use super::{HOST, Pusher};
use crate::support::cost::{Cost, cost};
use crate::support::host::SEALIFT;
use crate::support::is_long;

const TARGET: &str = "repo";

/// The most processor time of a command, with a debug build, and the most memory. The time on the wall is that of a
/// machine's other work too.
const LONGEST: Duration = Duration::from_secs(5);
const MOST_MEMORY: u64 = 150 << 20;

/// Runs the program in `dir`.
fn run(dir: &Path, arguments: &[&str]) -> Cost {
    let mut command = Command::new(SEALIFT);
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", dir)
        .env("SEALIFT_CONFIG", "c.toml")
        .env("SEALIFT_CLOCK", "2020-01-01T00:00:01Z");
    cost(&mut command, dir)
}

/// The configuration of a host that is `pusher`.
fn configure(pusher: &Pusher) {
    let dir = pusher.dir.path();
    pusher.signer.save(&dir.join("signer")).unwrap();
    let line = format!(
        "{HOST} namespaces=\"sealift-manifest,sealift-prune\" {}\n",
        pusher.signer.public_line()
    );
    fs::write(dir.join("allowed_signers"), line).unwrap();
    let recipient = &pusher.recipients.texts()[0];
    let config = format!(
        "host = \"{HOST}\"\nrecipients = [\"{recipient}\"]\nsigner = \"signer\"\nstate = \"state\"\n\
         [[source]]\nkind = \"tree\"\npath = \"data\"\nto = \"data\"\nstage = false\n\
         [[target]]\nname = \"{TARGET}\"\nurl = \"file://{}/repo\"\n",
        dir.display()
    );
    fs::write(dir.join("c.toml"), config).unwrap();
}

#[test]
fn commands_that_look_at_many_snapshots_take_seconds_and_little_memory() {
    let count = if is_long() { 2000 } else { 60 };
    let mut pusher = Pusher::new();
    let dir = pusher.dir.path().to_owned();
    let spec = TargetSpec {
        name: TARGET.to_owned(),
        ..TargetSpec::from_url(dir.join("repo").to_str().unwrap())
    };
    let target = open(&spec).unwrap();
    for _ in 0..count {
        assert!(pusher.push(&[&target]).is_complete());
    }
    configure(&pusher);
    let stamp = pusher.stamp.to_string();
    for arguments in [
        &["stats"][..],
        &["stats", "--target", TARGET],
        &["list"],
        &["list", "--target", TARGET],
        &["list", "--from", "repo", "--signer", "allowed_signers"],
        &["status"],
        &["status", "--offline"],
        &["status", "--from", "repo", "--signer", "allowed_signers"],
        &["verify"],
        &["prune", "--dry-run", "--policy", "daily=7"],
    ] {
        let cost = run(&dir, arguments);
        let (took, megabytes) = (cost.processor, cost.peak_bytes >> 20);
        println!(
            "{count} snapshots: {}: {took:.2?}, {megabytes} MiB",
            arguments.join(" ")
        );
        let is_seen =
            cost.said.contains(&stamp) || cost.said.contains(&format!("{count} snapshots"));
        assert!(is_seen, "{arguments:?}: {}", cost.said);
        assert!(took < LONGEST, "{arguments:?}: {took:?}");
        assert!(
            cost.peak_bytes < MOST_MEMORY,
            "{arguments:?}: {megabytes} MiB"
        );
    }
}
