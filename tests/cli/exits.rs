//! How a command ends if its reader, its terminal or its configuration does not play along.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::{Host, SEALIFT, texts};

/// A host whose second source is not there: each backup is partial.
fn partial_host() -> Host {
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    let gone = "\n[[source]]\nkind = \"json\"\npath = \"/nonexistent/x.json\"\n";
    fs::write(host.path("c.toml"), host.config() + gone).unwrap();
    host
}

/// Kind: the exit code depends on who reads the output.
#[test]
fn a_reader_that_closed_its_pipe_changes_no_exit_code() {
    let host = partial_host();
    for (arguments, code) in [
        (vec!["backup"], 3),
        (vec!["--json", "backup"], 3),
        (vec!["status"], 3),
        (vec!["list", "--config", "nonesuch.toml"], 2),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = host.command(&arguments);
        let output = command.stdout(writer).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
    }
    // A list ends, and that is no failure.
    let listing = "set -o pipefail; sealift --config c.toml ls | true";
    let path = std::path::Path::new(SEALIFT).parent().unwrap();
    let found = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-c", listing])
        .env("PATH", format!("{}:{found}", path.display()))
        .current_dir(host.path("."))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Kind: a configuration that cannot be read counts as none, and what it protects is deleted.
#[test]
fn a_broken_configuration_ends_a_prune_from_a_url() {
    let mut host = Host::new();
    for hour in 1..=4 {
        host.clock = Some(format!("2026-11-0{hour}T06:00:00Z"));
        fs::write(host.data().join("a"), hour.to_string()).unwrap();
        host.backup();
    }
    host.ok(&["pin", "1"]);
    let signer = host.path("c.signer").display().to_string();
    let fingerprint = host.signer.clone();
    let prune = [
        "prune",
        "--from",
        "./repo",
        "--signer",
        &fingerprint,
        "--policy",
        "last=2",
        "--sign-with",
        &signer,
        "--yes",
    ];
    let sequences = |host: &Host| -> Vec<u64> {
        let listed = host.remote_list_any();
        let all = listed["snapshots"].as_array().unwrap().clone();
        all.iter()
            .map(|one| one["sequence"].as_u64().unwrap())
            .collect()
    };
    let good = host.config();
    fs::write(host.path("c.toml"), format!("unknown = 1\n{good}")).unwrap();
    host.exits(&prune, 2);
    let (_, err) = host.exits_any(&["sync", "./repo", "./copy"], &[0, 3]);
    assert!(err.contains("without the configuration"), "{err}");
    fs::write(host.path("c.toml"), good).unwrap();
    assert_eq!(sequences(&host), [1, 2, 3, 4]);
    host.exits_any(&prune, &[0, 3]);
    assert_eq!(sequences(&host), [1, 3, 4]);
}

/// Kind: what a stopped process owes waits for a terminal that takes nothing.
#[test]
fn a_full_terminal_does_not_keep_a_stopped_service_stopped() {
    let host = Host::new();
    let dir = host.temp.path().display().to_string();
    let source = format!(
        "\n[[source]]\nkind = \"command\"\nname = \"slow\"\ncommand = \"touch {dir}/waits; sleep 60\"\n\
         before = \"true\"\nafter = \"touch {dir}/after\"\n"
    );
    fs::write(host.path("c.toml"), host.config() + &source).unwrap();
    let terminal =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY);
    let terminal = terminal.unwrap();
    rustix::pty::grantpt(&terminal).unwrap();
    rustix::pty::unlockpt(&terminal).unwrap();
    let name = rustix::pty::ptsname(&terminal, Vec::new()).unwrap();
    let inner = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap());
    let inner = inner.unwrap();
    // The other end is never read: it is full.
    rustix::io::ioctl_fionbio(&inner, true).unwrap();
    while rustix::io::write(&inner, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&inner, false).unwrap();
    assert!(terminal.as_raw_fd() >= 0);
    let mut command = host.command(&["backup"]);
    let mut child = command
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(inner)
        .spawn()
        .unwrap();
    let by = Instant::now() + Duration::from_secs(30);
    while !host.path("waits").exists() {
        assert!(Instant::now() < by, "the source was never taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let by = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < by, "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(1));
    assert!(host.path("after").exists(), "the service stays stopped");
}

#[test]
fn a_glob_that_finds_nothing_is_an_error_in_json_too() {
    let host = Host::new();
    fs::write(host.data().join("a"), "a").unwrap();
    host.edit_config("stage = false", "stage = true");
    host.backup();
    let (out, _) = texts(&host.run(&["--json", "ls", "latest", "nomatch*"]));
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(said["error"]["text"].is_string(), "{out}");
}
