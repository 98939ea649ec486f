//! What the key holder's machine remembers about signers: trust on first use, and what is an alarm afterwards.

use std::fs;

use super::shell::{Scene, Shell};

const FILE: &str = ".config/sealift/known_signers";
/// Functions for the scripts. `swap NAME` makes a signer and gives it to the host, which lists it in its allowed_signers
/// but introduces it to no reader; `print FILE` shows a fingerprint; `on DAY …` runs a command on a day of April.
const FUNCTIONS: &str = r#"
    print() { ssh-keygen -lf "$1" | cut -d' ' -f2; }
    on() { day=$1; shift; SEALIFT_CLOCK=2026-04-${day}T06:00:00Z "$@"; }
    make() { ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$1"; }
    list() { echo "dalidou namespaces=\"sealift-manifest,sealift-prune\" $(cat "$1.pub")" >>allowed_signers; }
    swap() { make "$1"; list "$1"; sed -i "s|^signer = .*|signer = \"$1\"|" c.toml; }
    afresh() { rm -rf repo c.state; mkdir repo; }
    lines() { grep -c ssh-ed25519 .config/sealift/known_signers; }
"#;

struct Case {
    name: &'static str,
    /// What happens before.
    before: &'static str,
    /// The command that is looked at.
    command: &'static str,
    code: i32,
    /// What it says.
    says: &'static [&'static str],
    /// What it does not say.
    says_not: &'static [&'static str],
    /// Lines with a signer in the file afterwards; 0 also if there is no file.
    lines: usize,
}

const ALARM: &str = "HAS CHANGED";
const ASKED: &str = "is not confirmed";
const ACCEPT: &str = "sealift --quiet list --from repo --accept-signer >/dev/null\n";
const LIST: &str = "sealift list --from repo";
const RESTORE: &str = "sealift restore latest --from repo --identity key.txt --to out";

const CASES: &[Case] = &[
    Case {
        name: "unknown, and nothing to ask on",
        before: "",
        command: LIST,
        code: 1,
        says: &[ASKED, "--signer SHA256:"],
        says_not: &[ALARM],
        lines: 0,
    },
    Case {
        name: "unknown and accepted",
        before: "",
        command: "sealift list --from repo --accept-signer",
        code: 0,
        says: &["accepted the signer of dalidou", "is remembered in", "known_signers line 3"],
        says_not: &[ALARM],
        lines: 1,
    },
    Case {
        name: "known",
        before: ACCEPT,
        command: LIST,
        code: 0,
        says: &["20260407T060000Z"],
        says_not: &["remembered", ASKED],
        lines: 1,
    },
    Case {
        name: "known, by a command that gives up the right to write",
        before: "",
        command: "sealift restore latest --from repo --identity key.txt --to out --accept-signer",
        code: 0,
        says: &["is remembered in", "restored 3 files"],
        says_not: &["not remembered"],
        lines: 1,
    },
    Case {
        name: "changed",
        before: "swap new; afresh; sealift --quiet backup",
        command: LIST,
        code: 1,
        says: &[ALARM, "known_signers line 3", "remembered: SHA256:", "found:      SHA256:", "remote forget"],
        says_not: &["20260407T060000Z"],
        lines: 1,
    },
    Case {
        name: "changed, and a new one would be accepted",
        before: "swap new; afresh; sealift --quiet backup",
        command: "sealift list --from repo --accept-signer",
        code: 1,
        says: &[ALARM],
        says_not: &[],
        lines: 1,
    },
    Case {
        name: "changed, and a restore",
        before: "swap new; afresh; sealift --quiet backup",
        command: RESTORE,
        code: 1,
        says: &[ALARM],
        says_not: &["restored"],
        lines: 1,
    },
    Case {
        name: "changed, and the new one is given",
        before: "swap new; afresh; sealift --quiet backup",
        command: "sealift list --from repo --signer $(print new.pub)",
        code: 0,
        says: &["remembers another signer", "20260407T060000Z"],
        says_not: &[ALARM],
        lines: 1,
    },
    Case {
        name: "changed, and forgotten",
        before: "swap new; afresh; sealift --quiet backup; sealift remote forget ./repo --host dalidou",
        command: "sealift list --from repo --accept-signer",
        code: 0,
        says: &["is remembered in"],
        says_not: &[ALARM],
        lines: 1,
    },
    Case {
        name: "changed, and the new one is trusted, too",
        before: "swap new; afresh; sealift --quiet backup; sealift remote trust ./repo --signer $(print new.pub)",
        command: LIST,
        code: 0,
        says: &["20260407T060000Z"],
        says_not: &[ALARM, "refused"],
        lines: 2,
    },
    Case {
        name: "introduced",
        before: "make new; sed -i '/^signer =/a next_signer = \"new.pub\"' c.toml; on 08 sealift --quiet backup
            sed -i '/^next_signer/d; s/^signer = .*/signer = \"new\"/' c.toml; list new; on 09 sealift --quiet backup",
        command: LIST,
        code: 0,
        says: &["changes to SHA256:", "introduced it in snapshot 2", "20260409T060000Z", "20260407T060000Z"],
        says_not: &[ALARM, "refused"],
        lines: 2,
    },
    Case {
        name: "introduced, and the old snapshots are gone since",
        before: "make new; sed -i '/^signer =/a next_signer = \"new.pub\"' c.toml; on 08 sealift --quiet backup
            sealift --quiet list --from repo >/dev/null
            sed -i '/^next_signer/d; s/^signer = .*/signer = \"new\"/' c.toml; list new; afresh; on 09 sealift --quiet backup",
        command: RESTORE,
        code: 0,
        says: &["restored 3 files"],
        says_not: &[ALARM, "introduced", "warning: manifest"],
        lines: 2,
    },
    Case {
        name: "replaced without an introduction",
        before: "swap new; on 08 sealift --quiet backup",
        command: LIST,
        code: 3,
        says: &["manifest 00000002-20260408T060000Z-",
            "is refused: it is signed by SHA256:", "was introduced by none", "next: on the host, compare"],
        says_not: &["missing", ALARM],
        lines: 1,
    },
    Case {
        name: "replaced without an introduction, and a restore",
        before: "swap new; on 08 sealift --quiet backup",
        command: RESTORE,
        code: 1,
        says: &["refusing 20260407T060000Z as the latest", "was introduced by none", "next: on the host, compare"],
        says_not: &["restored"],
        lines: 1,
    },
    Case {
        name: "replaced without an introduction, and a verification",
        before: "swap new; on 08 sealift --quiet backup",
        command: "sealift verify --from repo",
        code: 3,
        says: &["ATTENTION", "was introduced by none", "next: on the host, compare"],
        says_not: &["missing"],
        lines: 1,
    },
    Case {
        name: "replaced without an introduction, and an older snapshot by its stamp",
        before: "swap new; on 08 sealift --quiet backup",
        command: "sealift restore 20260407T060000Z --from repo --identity key.txt --to out",
        code: 0,
        says: &["restored 3 files"],
        says_not: &[],
        lines: 1,
    },
    Case {
        name: "forked: two machines with one signer",
        before: "cp -a c.state before; cp -a repo repo-b; on 08 sealift --quiet backup
            rm -r c.state; mv before c.state; mv repo repo-a; mv repo-b repo; echo more >>data/notes.txt
            on 09 sealift --quiet backup; cp -a repo-a/. repo/",
        command: LIST,
        code: 3,
        says: &["sequence 2 is forked"],
        says_not: &[ALARM, ASKED, "signed by"],
        lines: 1,
    },
    Case {
        name: "moved: the same backups by another URL",
        before: "mv repo moved",
        command: "sealift list --from file://$PWD/moved",
        code: 0,
        says: &["is a new place of dalidou", "known_signers line 3", "is remembered in", "20260407T060000Z"],
        says_not: &[ALARM, ASKED],
        lines: 2,
    },
    Case {
        name: "the same place in another spelling",
        before: "ln -s repo link",
        command: "sealift --quiet list --from file://$PWD/link/ && sealift list --from ./repo/",
        code: 0,
        says: &["20260407T060000Z"],
        says_not: &["new place", "remembered"],
        lines: 1,
    },
    Case {
        name: "moved, and another signer there",
        before: "swap new; afresh; sealift --quiet backup; mv repo moved",
        command: "sealift list --from moved",
        code: 1,
        says: &[ASKED],
        says_not: &["is a new place"],
        lines: 1,
    },
    Case {
        name: "two hosts on one target",
        before: "env -u SEALIFT_CLOCK sealift --config d.toml init --host other --recipient recipient.txt --target repo --tree data >/dev/null
            sealift --config d.toml --quiet backup
            sealift --quiet list --from repo --host other --accept-signer >/dev/null",
        command: "sealift list --from repo --host other && sealift list --from repo --host dalidou",
        code: 0,
        says: &["20260407T060000Z"],
        says_not: &[ALARM, ASKED],
        lines: 2,
    },
    Case {
        name: "two hosts, and the second is not known",
        before: "env -u SEALIFT_CLOCK sealift --config d.toml init --host other --recipient recipient.txt --target repo --tree data >/dev/null
            sealift --config d.toml --quiet backup",
        command: "sealift list --from repo --host other",
        code: 1,
        says: &[ASKED, "the signer of other"],
        says_not: &[ALARM],
        lines: 1,
    },
    Case {
        name: "a host takes another one's folder",
        before: "env -u SEALIFT_CLOCK sealift --config d.toml init --host other --recipient recipient.txt --target other --tree data >/dev/null
            sealift --config d.toml --quiet backup; rm -r repo/dalidou; mv other/other repo/dalidou",
        command: LIST,
        code: 1,
        says: &["it belongs to host other"],
        says_not: &["  MANIFEST"],
        lines: 1,
    },
    Case {
        name: "a damaged line is no reason to accept another signer",
        before: "sed -i 's/ SHA256:.*//' .config/sealift/known_signers; swap new; afresh; sealift --quiet backup",
        command: "sealift list --from repo --accept-signer",
        code: 1,
        says: &["warning: line 3 of", "is ignored", "is not accepted unseen"],
        says_not: &["20260407T060000Z"],
        lines: 1,
    },
    Case {
        name: "beside a damaged line a sound one counts",
        before: "echo 'half a li' >>.config/sealift/known_signers",
        command: LIST,
        code: 0,
        says: &["warning: line 4 of", "20260407T060000Z"],
        says_not: &[ASKED],
        lines: 1,
    },
    Case {
        name: "a file that others can write is refused",
        before: "chmod 666 .config/sealift/known_signers",
        command: "sealift list --from repo --accept-signer",
        code: 2,
        says: &["can be written by others", "chmod go-w", "Or give --signer"],
        says_not: &["20260407T060000Z"],
        lines: 1,
    },
    Case {
        name: "a signer that is given needs no file",
        before: "chmod 666 .config/sealift/known_signers",
        command: "sealift list --from repo --signer allowed_signers",
        code: 0,
        says: &["20260407T060000Z"],
        says_not: &["can be written"],
        lines: 1,
    },
    Case {
        name: "a signer that is given is not written",
        before: "rm .config/sealift/known_signers",
        command: "sealift list --from repo --signer allowed_signers",
        code: 0,
        says: &["20260407T060000Z"],
        says_not: &["remembered"],
        lines: 0,
    },
    Case {
        name: "no home directory",
        before: "",
        command: "env -u HOME sealift list --from repo --accept-signer",
        code: 0,
        says: &["accepted the signer", "is not remembered: neither HOME nor", "20260407T060000Z"],
        says_not: &[],
        lines: 1,
    },
    Case {
        name: "a home directory that cannot be written",
        before: "",
        command: "XDG_CONFIG_HOME=/dev/null sealift list --from repo --accept-signer",
        code: 0,
        says: &["accepted the signer", "is not remembered: cannot write", "20260407T060000Z"],
        says_not: &[],
        lines: 1,
    },
    Case {
        name: "every host of a target",
        before: "swap new; afresh; sealift --quiet backup",
        command: "sealift status --from ./repo",
        code: 3,
        says: &["ITS SIGNER HAS CHANGED", "known_signers line 3"],
        says_not: &[],
        lines: 1,
    },
    Case {
        name: "a copy to another target",
        before: "swap new; afresh; sealift --quiet backup; mv c.toml elsewhere.toml",
        command: "sealift sync ./repo ./copy",
        code: 1,
        says: &["is not a trusted signer"],
        says_not: &["copied"],
        lines: 1,
    },
];

/// The outcome of each state of the memory and of the target. All but those that begin with an unknown signer follow
/// a `list --accept-signer` of one backup.
#[test]
fn each_signer_is_known_asked_about_or_an_alarm() {
    let mut wrong = Vec::new();
    for case in CASES {
        let shell = Shell::new(Scene::Backup);
        let first = match case.name.starts_with("unknown") || case.name.contains("gives up") {
            true => "",
            false => ACCEPT,
        };
        shell.ok(&format!("set -e\n{FUNCTIONS}\n{first}\n{}", case.before));
        let (code, said) = shell.run(&format!("{FUNCTIONS}\n{}", case.command));
        let text = fs::read_to_string(shell.dir().join(FILE)).unwrap_or_default();
        let is_right = code == case.code
            && case.says.iter().all(|text| said.contains(text))
            && !case.says_not.iter().any(|text| said.contains(text))
            && text.matches("ssh-ed25519").count() == case.lines;
        if !is_right {
            wrong.push(format!("{}: exit code {code}\n{said}\n{text}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn first_uses_at_the_same_time_are_all_remembered() {
    let shell = Shell::new(Scene::Backup);
    shell.ok("for i in 1 2 3 4 5 6; do cp -a repo repo-$i; done");
    shell.ok("for i in 1 2 3 4 5 6; do sealift list --from repo-$i --accept-signer & done; wait");
    let text = fs::read_to_string(shell.dir().join(FILE)).unwrap();
    for i in 1..=6 {
        let place = format!("/repo-{i} dalidou ssh-ed25519 ");
        assert_eq!(text.matches(&place).count(), 1, "{text}");
    }
    assert_eq!(text.lines().count(), 8, "{text}");
}

#[test]
fn the_file_and_its_directory_are_private() {
    let shell = Shell::new(Scene::Backup);
    shell.ok(ACCEPT);
    let modes = shell.ok("stat -c %a .config .config/sealift .config/sealift/known_signers");
    assert_eq!(modes, "700\n700\n600\n");
}

/// The host itself, with its configuration, has allowed_signers: it remembers nothing.
#[test]
fn the_host_itself_uses_no_memory() {
    let shell = Shell::new(Scene::Backup);
    shell.ok("sealift list --target folder && sealift verify && sealift status");
    assert!(!shell.dir().join(".config").exists());
}

/// A key holder who pinned only the new signer: one line for all old snapshots, and no false one.
#[test]
fn the_snapshots_of_an_earlier_signer_are_one_line_in_all() {
    let shell = Shell::new(Scene::Backup);
    shell.ok(&format!(
        "set -e\n{FUNCTIONS}\non 08 sealift --quiet backup; on 09 sealift --quiet backup; swap new; on 10 sealift --quiet backup"
    ));
    let pinned = "--from repo --signer $(print new.pub)";
    let (code, said) = shell.run(&format!("{FUNCTIONS}\nsealift list {pinned}"));
    assert_eq!(code, 3, "{said}");
    let warnings: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("warning: ") && !line.contains("CLOCK"))
        .collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(
        warnings[0].contains(
            "3 snapshots (sequence 1 to 3, 20260407T060000Z to 20260409T060000Z) are refused"
        ),
        "{said}"
    );
    assert!(
        said.contains("an earlier signer of the host?") && said.contains("next: if that was"),
        "{said}"
    );
    let (code, said) = shell.run(&format!("{FUNCTIONS}\nsealift verify {pinned}"));
    assert_eq!((code, said.contains("missing")), (3, false), "{said}");
    // The newest is the new signer's, so nothing is in doubt.
    shell.ok(&format!(
        "{FUNCTIONS}\nsealift restore {pinned} --identity key.txt --to out"
    ));
    // Both pinned: no word about signers.
    let said = shell.ok("sealift list --from repo --signer allowed_signers");
    assert!(!said.contains("signer"), "{said}");
}

/// Keys of SSH are long: people read their fingerprints.
#[test]
fn a_whole_rsa_key_is_not_shown_to_people() {
    let shell = Shell::new(Scene::Host);
    shell.ok(
        "set -e; ssh-keygen -q -t rsa -b 2048 -N '' -f id
        sed -i \"s|^recipients = .*|recipients = [\\\"$(cut -d' ' -f1,2 id.pub)\\\"]|\" c.toml; sealift --quiet backup",
    );
    let print = shell.ok("ssh-keygen -lf id.pub | cut -d' ' -f2");
    for command in [
        "sealift status",
        "sealift key check --identity id \"$(cut -d' ' -f1,2 id.pub)\"",
    ] {
        let said = shell.ok(command);
        assert!(
            said.contains(&format!("ssh-rsa {}", print.trim())),
            "{said}"
        );
        assert!(!said.contains("AAAA"), "{said}");
    }
    let said = shell.ok("sealift --json status");
    assert!(said.contains("ssh-rsa AAAA"), "{said}");
}

/// A replacement machine with a signer of its own, and the old machine's allowed_signers.
#[test]
fn init_says_whose_snapshots_a_target_holds() {
    let shell = Shell::new(Scene::Backup);
    let init = "env -u SEALIFT_CLOCK sealift init --host dalidou --recipient recipient.txt --target repo --tree data";
    let (code, said) = shell.run(&format!("rm -r c.toml c.state; {init}"));
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("the newest by this machine's signer"),
        "{said}"
    );
    let (code, said) = shell.run(&format!(
        "rm -r c.toml c.state c.signer c.signer.pub; {init}"
    ));
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("which is not this machine's signer, but one that `allowed_signers` lists"),
        "{said}"
    );
    assert!(!said.contains("by this signer"), "{said}");
}

/// Runs a command on a terminal and answers its question.
const ASK: &str = r#"cat >ask.py <<'END'
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
said = b""
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    is_asked = b"[yes/no]" in said
    said += more
    if b"[yes/no]" in said and not is_asked:
        os.write(terminal, sys.argv[1].encode() + b"\n")
sys.stdout.write(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
"#;

/// On a terminal the key holder is asked once: a yes is remembered, a no is not.
#[test]
fn on_a_terminal_the_first_use_is_asked_about_and_the_next_is_not() {
    let shell = Shell::new(Scene::Backup);
    shell.ok(ASK);
    let (code, said) = shell.run("python3 ask.py no sealift list --from repo");
    assert_eq!(
        (code, said.contains("Is it the signer of dalidou? [yes/no]")),
        (1, true),
        "{said}"
    );
    assert!(!shell.dir().join(FILE).exists());
    let said = shell.ok("python3 ask.py yes sealift list --from repo");
    assert!(said.contains("is remembered in"), "{said}");
    let text = fs::read_to_string(shell.dir().join(FILE)).unwrap();
    assert!(text.trim_end().ends_with(" confirmed"), "{text}");
    let said = shell.ok("python3 ask.py no sealift list --from repo");
    assert!(!said.contains("[yes/no]"), "{said}");
    // Another signer at a new place: the question shows the one that is known.
    shell.ok(&format!(
        "{FUNCTIONS}\nswap new; afresh; sealift --quiet backup; mv repo moved"
    ));
    let (code, said) = shell.run("python3 ask.py no sealift list --from moved");
    assert_eq!((code, said.contains("ATTENTION: at ")), (1, true), "{said}");
    assert!(said.contains("known_signers line 3"), "{said}");
}
