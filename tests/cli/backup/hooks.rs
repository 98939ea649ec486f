//! Commands around a source, run by the program: what they get, and what ends with it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::host::Host;

fn with_source(source: &str) -> Host {
    let host = Host::new();
    host.edit_config("[[target]]", &format!("{source}\n[[target]]"));
    host
}

#[test]
fn commands_run_without_the_credentials_of_the_targets() {
    let host = with_source(
        "[[source]]\nkind = \"command\"\nname = \"env\"\ncommand = \"env; echo x=$SEALIFT_SOURCE\"\n\
         before = \"env > before\"\nafter = \"env > after\"\n",
    );
    let secrets = [
        ("AWS_SECRET_ACCESS_KEY", "secret-1"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "secret-2"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "secret-3"),
        ("RSYNC_PASSWORD", "secret-4"),
        ("SEALIFT_WEBDAV_PASSWORD", "secret-5"),
        ("SEALIFT_PASSPHRASE_FILE", "secret-6"),
    ];
    let mut run = host.command(&["snapshot"]);
    run.envs(secrets)
        .env("SSH_AUTH_SOCK", "/agent")
        .env("OTHER", "stays");
    let output = run.output().unwrap();
    assert!(output.status.success());
    let snapshot = String::from_utf8(output.stdout).unwrap();
    let copy = host.path(snapshot.trim()).join("env");
    for path in [copy, host.path("before"), host.path("after")] {
        let seen = fs::read_to_string(&path).unwrap();
        assert!(!seen.contains("secret-"), "{path:?}: {seen}");
        assert!(seen.contains("OTHER=stays") && seen.contains("SSH_AUTH_SOCK=/agent"));
    }
}

/// A command that gets SIGTERM may clean up; one that does not is ended.
#[test]
fn a_run_that_is_told_to_end_ends_its_command() {
    for (trap, signal) in [
        ("", "-TERM"),
        ("trap '' TERM; ", "-TERM"),
        ("", "-INT"),
        ("", "-HUP"),
    ] {
        let host = with_source(&format!(
            "[[source]]\nkind = \"command\"\nname = \"dump\"\nafter = \"touch after\"\n\
             command = \"{trap}sleep 61 & echo $! > pid; sleep 62; sleep 63\"\n"
        ));
        let mut run = host.command(&["backup"]).spawn().unwrap();
        let start = Instant::now();
        let pid = loop {
            let pid = fs::read_to_string(host.path("pid")).unwrap_or_default();
            if pid.ends_with('\n') {
                break pid.trim().to_owned();
            }
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        };
        let sent = Command::new("kill")
            .args([signal, &run.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(run.wait().unwrap().code(), Some(1));
        assert!(host.path("after").exists(), "`after` runs nevertheless");
        // Ended, or waiting for its parent to notice.
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_running = !state.is_empty() && !state.contains(") Z");
        assert!(!is_running, "{trap}{signal}: {state}");
    }
}
