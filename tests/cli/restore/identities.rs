//! Identities as people have them: through an editor, a clipboard or a pipe, or locked with a passphrase. What opens
//! by `restore` opens by `recover.py`, and what is wrong with one is said of it, not of an archive.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::host::{Host, texts};

fn host() -> Host {
    let host = Host::new();
    fs::write(host.data().join("file"), "content").unwrap();
    host
}

/// The line of the secret key in `key.txt`.
fn secret(host: &Host) -> String {
    let text = fs::read_to_string(host.path("key.txt")).unwrap();
    let mut lines = text.lines();
    lines
        .find(|line| line.starts_with("AGE-SECRET"))
        .unwrap()
        .to_owned()
}

fn by_sealift(host: &Host, identity: &str, to: &str) -> Output {
    let from = ["restore", "latest", "--from", "repo", "--accept-signer"];
    host.run(&[&from[..], &["--identity", identity, "--to", to]].concat())
}

fn by_hand(host: &Host, identity: &str, to: &str) -> Command {
    let mut command = host.recover_command("latest", to);
    // The last one counts.
    command.args(["--identity", identity]);
    command
}

#[test]
fn an_identity_that_went_through_an_editor_opens_both_ways() {
    let host = host();
    host.backup();
    let key = secret(&host);
    for (number, text) in [
        format!("{key} "),
        format!("  \t{key}"),
        format!("{key}\r\n"),
        format!("\u{feff}{key}\r\n"),
        format!("\u{feff}# a comment\r\n\r\n  # another: AGE-SECRET-KEY-1…\r\n{key}\t\r\n\r\n"),
        format!("\n\n{key}"),
        format!("\u{a0}{key}\u{a0}\n"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(host.path("k.txt"), &text).unwrap();
        for (way, output) in [
            by_sealift(&host, "k.txt", &format!("s{number}")),
            by_hand(&host, "k.txt", &format!("r{number}"))
                .output()
                .unwrap(),
        ]
        .iter()
        .enumerate()
        {
            let (_, err) = texts(output);
            assert_eq!(
                output.status.code(),
                Some(0),
                "way {way} of {text:?}: {err}"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_an_identity_is_said_of_it() {
    let host = host();
    host.backup();
    let key = secret(&host);
    let wrong = if &key[30..31] == "Q" { "P" } else { "Q" };
    let typo = format!("{}{wrong}{}", &key[..30], &key[31..]);
    let wide: Vec<u8> = format!("\u{feff}{key}\n")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (what, bytes, said) in [
        ("a typing error", typo.into_bytes(), "typing error"),
        (
            "a line too short",
            key.as_bytes()[..40].to_vec(),
            "typing error",
        ),
        ("no key", b"hello\n".to_vec(), "line 1"),
        ("comments only", b"# nothing\n".to_vec(), "no secret key"),
        ("UTF-16", wide, "UTF-16"),
        (
            "a public key",
            host.recipient.clone().into_bytes(),
            "public key",
        ),
        ("no text", b"\x80\x81\n".to_vec(), "text"),
    ] {
        fs::write(host.path("k.txt"), bytes).unwrap();
        for (way, output) in [
            by_sealift(&host, "k.txt", "out"),
            by_hand(&host, "k.txt", "out").output().unwrap(),
        ]
        .iter()
        .enumerate()
        {
            let (_, err) = texts(output);
            assert_eq!(output.status.code(), Some(1), "way {way} of {what}: {err}");
            assert!(
                err.contains(said) && err.contains("k.txt"),
                "way {way} of {what}: {err}"
            );
            assert!(!err.contains("genuine"), "way {way} of {what}: {err}");
            assert!(!host.path("out").exists());
        }
    }
}

#[test]
fn an_identity_may_come_by_a_pipe() {
    let host = host();
    host.backup();
    let bash = format!(
        "exec python3 -B recover.py repo/dalidou --identity <(cat key.txt) --signer {} --to piped",
        host.signer
    );
    let output = Command::new("bash")
        .args(["-c", &bash])
        .current_dir(host.temp.path())
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", texts(&output).1);
    let mut command = by_hand(&host, "-", "given");
    command.stdin(fs::File::open(host.path("key.txt")).unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", texts(&output).1);
    let from = by_sealift(&host, "/dev/stdin", "sealift");
    // Nothing was given on it.
    assert_eq!(from.status.code(), Some(1));
}

#[test]
fn a_signer_may_be_a_public_key() {
    let host = host();
    host.backup();
    let public = fs::read_to_string(host.path("c.signer.pub")).unwrap();
    fs::write(
        host.path("ssh-edited.pub"),
        format!("\u{feff}# mine\r\n{}\r\n", public.trim()),
    )
    .unwrap();
    for (number, signer) in ["c.signer.pub", "ssh-edited.pub", public.trim()]
        .into_iter()
        .enumerate()
    {
        let mut command = by_hand(&host, "key.txt", &format!("out{number}"));
        let output = command.args(["--signer", signer]).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{signer}: {}",
            texts(&output).1
        );
    }
    // Another one's is not taken.
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(host.path("other"))
        .status();
    assert!(made.unwrap().success());
    let mut command = by_hand(&host, "key.txt", "out");
    let output = command.args(["--signer", "other.pub"]).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("who is not trusted"), "{err}");
    let mut command = by_hand(&host, "key.txt", "out");
    let output = command
        .args(["--signer", "ssh-ed25519 AAAA"])
        .output()
        .unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(!host.path("out").exists());
}

/// Answers every question on a terminal with `answer`; prints how many there were and the exit code.
const ANSWERS: &str = r#"
import os, pty, select, sys, time
answer, pid = sys.argv[1].encode() + b"\n", 0
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[2], sys.argv[2:])
asked, end, seen = 0, time.time() + 60, b""
while time.time() < end:
    if select.select([fd], [], [], 1)[0]:
        try: got = os.read(fd, 65536)
        except OSError: break
        if not got: break
        seen += got
        sys.stderr.buffer.write(got)
        while b"passphrase" in seen:
            asked, seen = asked + 1, seen.split(b"passphrase", 1)[1]
            time.sleep(0.2)
            os.write(fd, answer)
print(asked, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn answered(host: &Host, answer: &str, command: &Command) -> (String, String) {
    let output = Command::new("python3")
        .args(["-c", ANSWERS, answer, "python3"])
        .args(command.get_args())
        .current_dir(host.temp.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    (out.trim().to_owned(), err)
}

/// Kind: a question per archive.
#[test]
fn a_passphrase_is_asked_for_once_whatever_it_locks() {
    let host = host();
    for number in 0..3 {
        let content = crate::support::tree::noise(number, 1_100_000);
        fs::write(host.data().join(number.to_string()), content).unwrap();
    }
    host.edit_config("host = ", "pack.archive_size = \"1MiB\"\nhost = ");
    for (kind, more) in [("ed25519", &[][..]), ("rsa", &["-b", "2048", "-m", "PEM"])] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "hushed", "-f"])
            .arg(host.path(kind))
            .args(more)
            .status();
        assert!(made.unwrap().success());
        let public = fs::read_to_string(host.path(&format!("{kind}.pub"))).unwrap();
        let (from, to) = (
            "recipients = [",
            format!("recipients = [\"{}\", ", public.trim()),
        );
        host.edit_config(from, &to);
    }
    fs::write(host.path("passphrase"), "hushed\n").unwrap();
    let output = host
        .command(&["key", "generate", "--passphrase", "--output", "sealed.txt"])
        .env("SEALIFT_PASSPHRASE_FILE", host.path("passphrase"))
        .output()
        .unwrap();
    let recipient = texts(&output).0;
    host.edit_config(
        "recipients = [",
        &format!("recipients = [\"{}\", ", recipient.trim()),
    );
    host.backup();
    assert!(crate::support::files::files(&host.folder().join("archives")).len() > 3);
    for identity in ["ed25519", "rsa", "sealed.txt"] {
        let before = fs::read(host.path(identity)).unwrap();
        let to = format!("out-{identity}");
        let (told, err) = answered(&host, "hushed", &by_hand(&host, identity, &to));
        assert_eq!(told, "1 0", "{identity}: {err}");
        assert!(host.path(&to).join("data/2").is_file());
        assert_eq!(fs::read(host.path(identity)).unwrap(), before);
        let (told, err) = answered(&host, "wrong", &by_hand(&host, identity, "no"));
        assert!(told.ends_with(" 1"), "{identity}: {told}: {err}");
        assert!(err.contains("was not opened"), "{identity}: {err}");
        assert!(!host.path("no").exists());
    }
}
