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

/// Of a preset, `init` asks how its application is stopped and started, and writes that. Until it is known, `config
/// check` warns.
#[test]
fn init_asks_how_atocore_is_stopped_and_started() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let recipient = recipient(dir);
    fs::create_dir_all(dir.join("ato/data/db")).unwrap();
    rusqlite::Connection::open(dir.join("ato/data/db/atocore.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t(x)")
        .unwrap();
    fs::write(dir.join("ato/other.yaml"), "services: {}").unwrap();
    let init = |more: &[&'static str]| {
        let own = [
            "init",
            "--host",
            "h",
            "--recipient",
            &recipient,
            "--target",
            "repo",
        ];
        let preset = ["--preset", "atocore", "--root", "ato"];
        let all = [&own[..], &preset, more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let plain = |arguments: &[String]| {
        let mut command = Command::new(SEALIFT);
        command
            .args(["--config", "c.toml"])
            .args(arguments)
            .current_dir(dir);
        let output = command.output().unwrap();
        let (out, err) = texts(&output);
        (output.status.code(), format!("{out}{err}"))
    };
    let check = || plain(&["config".to_owned(), "check".to_owned()]);
    let restart = || {
        ["c.toml", "c.signer", "c.signer.pub"].map(|name| fs::remove_file(dir.join(name)).unwrap())
    };
    // On a terminal.
    let arguments = init(&[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let answers = ["nowhere/compose.yaml", "--bad", "ato/other.yaml"];
    let output = on_terminal(dir, &answers, &arguments);
    let (said, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{err}");
    assert!(
        said.contains("or none [none]:") && !said.contains("Schedule"),
        "{said}"
    );
    assert!(said.contains("is not a file") && said.contains("not the name of a systemd unit"));
    let config = fs::read_to_string(dir.join("c.toml")).unwrap();
    let file = dir.canonicalize().unwrap().join("ato/other.yaml");
    let stop = format!(
        "stop = [\"docker\", \"compose\", \"-f\", \"{}\", \"stop\", \"atocore\"]",
        file.display()
    );
    assert!(config.contains(&stop), "{config}");
    let (code, said) = check();
    assert!(code == Some(0) || !said.contains("[restore]"), "{said}");
    restart();
    // Without one.
    let (code, said) = plain(&init(&[]));
    assert!(
        code == Some(0) && said.contains("fill in `stop` and `start`"),
        "{said}"
    );
    let (code, said) = check();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("warning: restore: `stop` and `start` are missing"),
        "{said}"
    );
    restart();
    let (code, said) = plain(&init(&["--unit", "atocore.service"]));
    assert!(code == Some(0) && !said.contains("fill in"), "{said}");
    let config = fs::read_to_string(dir.join("c.toml")).unwrap();
    assert!(
        config.contains("stop = [\"systemctl\", \"stop\", \"atocore.service\"]"),
        "{config}"
    );
    restart();
    let (code, said) = plain(&init(&["--compose", "nowhere"]));
    assert!(code == Some(2) && said.contains("--compose: "), "{said}");
}
