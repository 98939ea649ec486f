//! `init` on a terminal, which Python's `pty` plays.

use std::fs;
use std::process::{Command, Output};

use crate::support::host::{SEALIFT, texts};

/// Runs the program on a terminal, and types one answer each time it waits for one after a colon, then
/// the end of the input.
const TERMINAL: &str = r#"
import os, pty, sys
answers = sys.argv[1].split("|")
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said = b""
while True:
    try:
        more = os.read(fd, 4096)
    except OSError:
        break
    if not more:
        break
    said += more
    if said.endswith(b": "):
        # Without an answer that is left, the end of the input.
        os.write(fd, answers.pop(0).encode() + b"\n" if answers else b"\x04")
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn on_terminal(dir: &std::path::Path, answers: &[&str], arguments: &[&str]) -> Output {
    Command::new("python3")
        .args([
            "-c",
            TERMINAL,
            &answers.join("|"),
            SEALIFT,
            "--config",
            "c.toml",
        ])
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", dir)
        .output()
        .unwrap()
}

fn recipient(dir: &std::path::Path) -> String {
    let made = Command::new(SEALIFT)
        .args(["key", "generate", "--output", "key.txt"])
        .current_dir(dir)
        .output()
        .unwrap();
    texts(&made).0.trim().to_owned()
}

#[test]
fn init_asks_for_what_is_missing_and_the_backup_works() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fs::create_dir(dir.join("data")).unwrap();
    let recipient = recipient(dir);
    // A name that is not valid is asked for again; an empty line takes the default, or ends a list.
    let answers = [
        "bad name", "dalidou", &recipient, "", "data", "", "repo", "", "",
    ];
    let output = on_terminal(dir, &answers, &["init"]);
    let (said, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{err}");
    for part in [
        "Name for this machine's backups [",
        "sealift key generate --output key.txt",
        "Schedule, or none [0 6 * * *]:",
        "target   folder: can write",
        "next: sealift --config c.toml backup",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let config = fs::read_to_string(dir.join("c.toml")).unwrap();
    for line in [
        "host = \"dalidou\"",
        "backup = \"0 6 * * *\"",
        "kind = \"tree\"",
    ] {
        assert!(config.contains(line), "{config}");
    }
    let backup = on_terminal(dir, &[], &["backup"]);
    assert_eq!(backup.status.code(), Some(0), "{}", texts(&backup).0);
}

#[test]
fn only_what_is_missing_is_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fs::create_dir(dir.join("data")).unwrap();
    let recipient = recipient(dir);
    let arguments = [
        "init",
        "--host",
        "h",
        "--recipient",
        &recipient,
        "--tree",
        "data",
    ];
    let more = ["--schedule", "0 5 * * *"];
    let output = on_terminal(dir, &["repo", ""], &[&arguments[..], &more].concat());
    let (said, _) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        !said.contains("Recipient") && !said.contains("Path"),
        "{said}"
    );
}

#[test]
fn a_private_key_ends_it_at_once_and_is_in_no_message() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    recipient(dir);
    let text = fs::read_to_string(dir.join("key.txt")).unwrap();
    let key = text
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-"))
        .unwrap();
    let output = on_terminal(dir, &["h", key], &["init"]);
    let (said, _) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("this machine must never hold it"), "{said}");
    // Once: what the terminal itself shows while it is typed.
    assert_eq!(said.matches(key).count(), 1, "{said}");

    let given = Command::new(SEALIFT)
        .args([
            "--config",
            "c.toml",
            "init",
            "--recipient",
            key,
            "--target",
            "repo",
            "--tree",
            ".",
        ])
        .current_dir(dir)
        .output()
        .unwrap();
    let (out, err) = texts(&given);
    assert_eq!(given.status.code(), Some(2), "{err}");
    assert!(
        err.contains("must never hold it") && !err.contains(key) && out.is_empty(),
        "{err}"
    );
    assert!(!dir.join("c.toml").exists() && !dir.join("c.signer").exists());
}
