//! What the commands that look at a host cost, if it has many snapshots: time and memory.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sealift::storage::{TargetSpec, open};

use super::{HOST, Pusher};
use crate::support::host::SEALIFT;
use crate::support::is_long;

const TARGET: &str = "repo";

/// What a command took.
struct Cost {
    took: Duration,
    peak_bytes: u64,
    said: String,
}

/// The most processor time of a command, with a debug build, and the most memory. The time on the wall is that of a
/// machine's other work too.
const LONGEST: Duration = Duration::from_secs(5);
const MOST_MEMORY: u64 = 150 << 20;

fn time(value: libc::timeval) -> Duration {
    Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
}

/// Runs the program in `dir`; it must end with exit code 0.
#[allow(clippy::zombie_processes)] // `wait4` waits for it.
fn cost(dir: &Path, arguments: &[&str]) -> Cost {
    let mut child = Command::new(SEALIFT)
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", dir)
        .env("SEALIFT_CONFIG", "c.toml")
        .env("SEALIFT_CLOCK", "2020-01-01T00:00:01Z")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(dir.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both are places for what the call writes; the child was not waited for.
    let usage = unsafe {
        assert!(libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr()) > 0);
        usage.assume_init()
    };
    let messages = fs::read_to_string(dir.join("stderr")).unwrap();
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{arguments:?}: {messages}\n{said}"
    );
    Cost {
        took: time(usage.ru_utime) + time(usage.ru_stime),
        peak_bytes: usage.ru_maxrss as u64 * 1024,
        said,
    }
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
        let cost = cost(&dir, arguments);
        let (took, megabytes) = (cost.took, cost.peak_bytes >> 20);
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
