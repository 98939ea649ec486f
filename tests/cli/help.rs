//! Help pages, tables and colours: on 80 columns, in `LANG=C`, piped, and on a terminal with and without `NO_COLOR`.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::FromRawFd as _;
use std::process::{Command, Stdio};

use super::shell::{Scene, Shell};
use crate::support::host::SEALIFT;

const TOPICS: &[&str] = &[
    "targets",
    "sources",
    "retention",
    "recovery",
    "exit-codes",
    "environment",
];

/// The words of every command and subcommand, as the help pages list them, such as `key generate`.
pub fn commands(shell: &Shell) -> Vec<String> {
    fn below(shell: &Shell, parent: &str, found: &mut Vec<String>) {
        let said = shell.ok(&format!("sealift {parent} --help"));
        for line in said.lines().take_while(|line| *line != "Options:") {
            let row = line.strip_prefix("  ").unwrap_or_default();
            // Others are arguments, and second lines of what a command does.
            if row.starts_with(char::is_lowercase) {
                let name = row.split(' ').next().unwrap();
                let path = format!("{parent} {name}").trim().to_owned();
                below(shell, &path, found);
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    below(shell, "", &mut found);
    found
}

fn fits(command: &str, text: &str) {
    for line in text.lines() {
        assert!(
            line.len() <= 80,
            "{command}: {} columns: {line}",
            line.len()
        );
        assert!(line.is_ascii(), "{command}: {line}");
        assert!(!line.contains('\u{1b}'), "{command}: {line:?}");
    }
}

#[test]
fn every_help_page_is_plain_text_of_80_columns() {
    let shell = Shell::new(Scene::Nothing);
    let commands = commands(&shell);
    assert!(commands.len() >= 25, "{commands:?}");
    for command in commands.iter().map(String::as_str).chain([""]) {
        let long = shell.ok(&format!("LANG=C COLUMNS=80 sealift {command} --help"));
        // There, -h is for sizes as people read them.
        let has_short = command != "ls";
        let short = match has_short {
            true => shell.ok(&format!("LANG=C COLUMNS=80 sealift {command} -h")),
            false => long.clone(),
        };
        fits(command, &long);
        fits(command, &short);
        assert!(
            !has_short || short.lines().count() < long.lines().count(),
            "{command}"
        );
        assert_eq!(shell.ok(&format!("sealift help {command}")), long);
        // A wide terminal, or none, makes no other text.
        assert_eq!(
            shell.ok(&format!("COLUMNS=200 sealift {command} --help")),
            long
        );
        // The global options are on one page.
        let is_global = |line: &str| line.split_whitespace().next() == Some("--json");
        let has_globals = |text: &str| text.lines().any(is_global);
        assert_eq!(
            (has_globals(&short), has_globals(&long)),
            (command.is_empty(), command.is_empty())
        );
        let is_group = commands
            .iter()
            .any(|other| other.starts_with(&format!("{command} ")));
        assert_eq!(
            long.contains("Examples:"),
            !is_group && !command.is_empty(),
            "{command}"
        );
        assert!(short.contains("Options:"), "{command}");
    }
    for topic in TOPICS {
        fits(topic, &shell.ok(&format!("sealift help {topic}")));
    }
    let (code, said) = shell.run("sealift help nonsense");
    assert!(
        code == 2 && TOPICS.iter().all(|topic| said.contains(topic)),
        "{said}"
    );
}

#[test]
fn words_of_peers_are_understood_or_answered() {
    let shell = Shell::new(Scene::Backup);
    assert_eq!(shell.ok("sealift snapshots"), shell.ok("sealift list"));
    assert_eq!(shell.ok("sealift check"), shell.ok("sealift verify"));
    assert_eq!(shell.ok("sealift version"), shell.ok("sealift --version"));
    for (line, tip) in [
        (
            "forget",
            "sealift has no `forget`: `sealift prune --forget SNAPSHOT` deletes a snapshot\n",
        ),
        (
            "--json dump 2>&1 >/dev/null",
            "sealift has no `dump`: `sealift cat SNAPSHOT PATH` prints a file\n",
        ),
        ("help tag", "sealift has no `tag`"),
        (
            "key list",
            "sealift has no `list`: `sealift status` names the recipients\n",
        ),
        ("list -r repo", "  tip: --from URL names a target"),
        (
            "verify --read-data-subset=5%",
            "  tip: --data=5% reads a share",
        ),
    ] {
        let (code, said) = shell.run(&format!("sealift {line}"));
        assert_eq!(code, 2, "{line}: {said}");
        assert!(said.contains(tip), "{line}: {said}");
        fits(line, &said);
    }
    // Neither help nor completions show them.
    let shown = shell.ok("sealift --help; sealift completions bash; sealift completions zsh");
    assert!(shown.contains("sealift,list)") && shown.contains("'list:"));
    // `remote forget` is a command.
    let shown = shown.replace("'forget:Forget the signers", "");
    for word in ["snapshots", "forget", "version", "unlock"] {
        for place in [
            format!("sealift,{word})"),
            format!("'{word}:"),
            format!("\n  {word} "),
        ] {
            assert!(!shown.contains(&place), "{place}");
        }
    }
}

/// What `sealift` prints on a terminal.
fn on_a_terminal(shell: &Shell, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let (mut master, mut slave) = (0, 0);
    let null = std::ptr::null_mut();
    // SAFETY: both are places for a descriptor; the other arguments may be null.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0);
    // SAFETY: the descriptors were opened just now, and are no one else's.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    let mut command = Command::new(SEALIFT);
    command
        .args(arguments)
        .current_dir(shell.dir())
        .env_clear()
        .envs([
            ("SEALIFT_CONFIG", "c.toml"),
            ("SEALIFT_MACHINE_ID", "machine-1"),
            ("TERM", "xterm"),
        ])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stderr(slave.try_clone().unwrap())
        .stdout(slave);
    let mut child = command.spawn().unwrap();
    // It holds the terminal's other end.
    drop(command);
    let mut said = Vec::new();
    // The end of a terminal is an error.
    let _ = master.read_to_end(&mut said);
    child.wait().unwrap();
    // A terminal ends lines in its own way.
    String::from_utf8(said).unwrap().replace("\r\n", "\n")
}

#[test]
fn verdicts_have_colours_on_a_terminal_only() {
    let shell = Shell::new(Scene::Backup);
    shell
        .ok("mkdir empty; printf '[[target]]\\nname = \"second\"\\nurl = \"./empty\"\\n' >>c.toml");
    let green = "\u{1b}[32mok\u{1b}[0m";
    for command in ["status", "verify", "list"] {
        // On a slow machine, what is waited for was shown first.
        let on_a_terminal = |variables: &[(&str, &str)]| {
            let said = on_a_terminal(&shell, &[command], variables);
            let lines = said
                .split('\n')
                .map(|line| line.rsplit('\r').next().unwrap());
            lines.collect::<Vec<_>>().join("\n")
        };
        let said = on_a_terminal(&[]);
        let verdicts = match command {
            "list" => vec!["\u{1b}[33mbehind\u{1b}[0m"],
            "verify" => vec![green, "\u{1b}[31mNOT VERIFIED\u{1b}[0m"],
            _ => vec![green, "\u{1b}[31mATTENTION\u{1b}[0m"],
        };
        assert!(
            verdicts.iter().all(|verdict| said.contains(verdict)),
            "{command}: {said:?}"
        );
        // Without colours it is the same text.
        let mut plain = said.clone();
        for code in ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"] {
            plain = plain.replace(code, "");
        }
        for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
            let said = on_a_terminal(&variables);
            assert_eq!(without_times(&said), without_times(&plain), "{command}");
        }
        let (_, piped) = shell.run(&format!(
            "env -u SEALIFT_CLOCK sealift {command} 2>/dev/null"
        ));
        assert_eq!(without_times(&piped), without_times(&plain));
    }
}

/// `text` without the lines that change from second to second.
fn without_times(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.contains(" ago")).collect()
}

#[test]
fn a_table_of_snapshots_fits_on_80_columns() {
    let shell = Shell::new(Scene::Backup);
    for command in ["list", "list --from repo --accept-signer 2>/dev/null"] {
        let said = shell.ok(&format!("unset SEALIFT_CLOCK; sealift {command}"));
        fits(command, &said);
    }
}
