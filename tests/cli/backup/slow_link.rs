//! A slow, far link is used to the full: what there is to send or to fetch keeps it busy, and the requests
//! that wait for it to answer are few.
//!
//! The measurement that counts is the long form of a release build:
//! `SEALIFT_TEST_LONG=1 cargo test --release --test cli slow_link -- --nocapture`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::host::{Host, texts};
use crate::support::is_long;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::slow_link::SlowLink;
use crate::support::tree::{describe, noise};

struct Form {
    file_bytes: usize,
    files: u64,
    bytes_per_second: u64,
    latency: Duration,
    /// Of the link, over the whole time.
    least_percent: u64,
}

const LONG: Form = Form {
    file_bytes: 64_000_000,
    files: 10,
    bytes_per_second: 20_000_000,
    latency: Duration::from_millis(50),
    least_percent: 90,
};
/// Of a debug build on a busy machine: that nothing stands still for long.
const SHORT: Form = Form {
    file_bytes: 3_000_000,
    files: 4,
    bytes_per_second: 5_000_000,
    latency: Duration::from_millis(20),
    least_percent: 40,
};

/// Runs `command` to its end; how much of the link it used, in percent of what would have gone through.
fn share_of_link(
    link: &SlowLink,
    server: &S3Server,
    mut command: Command,
    what: &str,
    way: fn((u64, u64)) -> u64,
) -> u64 {
    let (before, requests) = (way(link.bytes()), link.requests());
    let started = Instant::now();
    let output = server.output_of(&mut command);
    let seconds = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", texts(&output).1);
    let bytes = way(link.bytes()) - before;
    let share = bytes as f64 / seconds / link.bytes_per_second as f64;
    println!(
        "{what}: {:.1} MB in {seconds:.2} s, {:.2} MB/s, {:.1} % of the link, {} requests",
        bytes as f64 / 1e6,
        bytes as f64 / 1e6 / seconds,
        share * 100.0,
        link.requests() - requests
    );
    (share * 100.0) as u64
}

#[test]
fn a_push_and_a_restore_fill_a_slow_link() {
    let form = if is_long() { LONG } else { SHORT };
    let server = S3Server::start();
    let link = SlowLink::start(server.address, form.bytes_per_second, form.latency);
    let (url, endpoint) = (
        format!("s3://{BUCKET}/off/site"),
        format!("http://{}", link.address),
    );
    let host = Host::with_init(&["--tree", "data"]);
    let config = host.config();
    let start = config.find("[[target]]").unwrap();
    let end = config.find("[retention]").unwrap();
    let target =
        format!("[[target]]\nname = \"s3\"\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\n\n");
    let config = [&config[..start], &target, &config[end..]].concat();
    fs::write(host.path("c.toml"), config).unwrap();
    for n in 0..form.files {
        fs::write(host.data().join(format!("f{n}")), noise(n, form.file_bytes)).unwrap();
    }
    let push = host.command(&["--quiet", "backup"]);
    let pushed = share_of_link(&link, &server, push, "push", |bytes| bytes.0);
    let restore = host.command(&[
        "--quiet",
        "restore",
        "latest",
        "--from",
        &url,
        "--endpoint",
        &endpoint,
        "--identity",
        "key.txt",
        "--signer",
        &host.signer,
        "--to",
        "out",
    ]);
    let restored = share_of_link(&link, &server, restore, "restore", |bytes| bytes.1);
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
    let least = form.least_percent;
    assert!(pushed >= least, "the push used {pushed} % of the link");
    assert!(
        restored >= least,
        "the restore used {restored} % of the link"
    );
}

/// Each call of rsync is a process on the other machine. A restore needs six: the folders, the manifests, the
/// newest with its signature, its table, its index, its data.
#[test]
fn a_restore_over_rsync_makes_no_more_calls_than_it_must() {
    let host = Host::new();
    for name in ["a", "b"] {
        fs::write(host.data().join(name), name).unwrap();
    }
    host.backup();
    let server = crate::support::rsync::SshServer::start("");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(host.folder())
        .arg(server.files())
        .status();
    assert!(copied.unwrap().success());
    // Counts, and is rsync.
    let (shims, calls) = (host.path("shims"), host.path("calls"));
    fs::create_dir(&shims).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "#!/bin/sh\necho call >>'{}'\nPATH='{path}' exec rsync \"$@\"\n",
        calls.display()
    );
    fs::write(shims.join("rsync"), script).unwrap();
    fs::set_permissions(shims.join("rsync"), fs::Permissions::from_mode(0o755)).unwrap();
    let (url, ssh) = (server.url(""), server.ssh());
    let from = [
        "restore",
        "latest",
        "--from",
        &url,
        "--ssh",
        &ssh,
        "--identity",
        "key.txt",
    ];
    let mut command =
        host.command(&[&from[..], &["--signer", &host.signer, "--to", "out"]].concat());
    let output = command
        .env("PATH", format!("{}:{path}", shims.display()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        crate::support::host::texts(&output).1
    );
    assert!(host.path("out/data/b").is_file());
    let made = fs::read_to_string(&calls).unwrap().lines().count();
    assert!(made <= 6, "{made} calls of rsync");
}
