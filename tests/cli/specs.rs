//! The specification of each verb, with its expected output: `cmd/VERB.md` reads as documentation and is run as a test.
//!
//! In a file, each block marked `console` holds commands (`$ …`), what they print (both streams), and their exit code if
//! it is not 0 (`? 3`). All commands of a file run in one new directory, by `sh`, at a fixed time. A comment in the
//! file's head chooses what is there before: `<!-- scene: … -->`, see [`Scene`]. What differs from run to run is
//! replaced by a word in brackets, see [`REDACTIONS`].
//!
//! After a change of messages this writes the new output into the files; look at the difference before you commit it:
//!
//! ```sh
//! SNAPSHOTS=overwrite cargo test --test cli specs::
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use regex::{Captures, Regex};
use snapbox::{Assert, Data};

use super::help::commands;
use super::shell::{Scene, Shell};

pub(super) const CLOCK_WARNING: &str = "warning: SEALIFT_CLOCK is set";
const COMMANDS: &str = "```console";
const BLOCK_END: &str = "```";

/// What is replaced in outputs, in this order.
const REDACTIONS: &[(&str, &str)] = &[
    (r"age1[0-9a-z]{58}", "[RECIPIENT]"),
    (r"SHA256:[A-Za-z0-9+/]{43}", "[SIGNER]"),
    (r"ssh-ed25519 [A-Za-z0-9+/]+", "ssh-ed25519 [KEY]"),
    (r"\b[0-9a-f]{64}\b", "[HASH]"),
    (r"\b[0-9a-f]{16}\b", "[HASH16]"),
    (r"archives/[0-9a-f]{2}/", "archives/[XX]/"),
    (r"before-restore-\w+", "before-restore-[STAMP]"),
    (r"\b[0-9A-HJKMNP-TV-Z]{26}\b", "[ID]"),
    (r"\(pid \d+\)", "(pid [PID])"),
    // Of `ls`: this file is written by the run, and has the path of the directory.
    (
        r"\d+ (?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ )?backup-metadata",
        "[SIZE] backup-metadata",
    ),
    (
        r"\b[\w-]+:[\w-]+ +((?:\d+|\[SIZE\]) (?:\d{4}-|backup-m))",
        "[OWNER] $1",
    ),
    (
        r#"("(?:uid|gid|user|group)": )(?:\d+|"[^"]*")"#,
        "$1[OWNER]",
    ),
    (r#"("\w*bytes\w*": )\d+"#, "$1[BYTES]"),
    (r"\b\d+(?:\.\d+)? (?:[kMGT]?B|bytes)\b", "[SIZE]"),
    (r"\b\d+(?:\.\d+)? s\b", "[TIME]"),
    (r"\btried \d+ times\b", "tried [N] times"),
    (r"\b\d+\.\d\d : 1\b", "[RATIO]"),
    (r#"("total": )\d+\.\d+"#, "$1[RATIO]"),
    (
        concat!("\\b", env!("CARGO_PKG_VERSION"), "\\b"),
        "[VERSION]",
    ),
];

/// Replaces in the output of a command what differs from run to run.
pub(super) struct Redactor(Vec<(Regex, &'static str)>);

impl Redactor {
    pub(super) fn new() -> Self {
        let all = REDACTIONS.iter();
        Self(
            all.map(|(pattern, word)| (Regex::new(pattern).unwrap(), *word))
                .collect(),
        )
    }

    pub(super) fn redact(&self, said: &str, dir: &Path) -> String {
        let mut text = said.replace(dir.to_str().unwrap(), "[CWD]");
        for (pattern, word) in &self.0 {
            text = pattern.replace_all(&text, *word).into_owned();
        }
        let lines = text.lines().filter(|line| !line.starts_with(CLOCK_WARNING));
        lines
            .map(|line| format!("{}\n", in_columns(line)))
            .collect()
    }
}

/// `line` with narrow columns, if it belongs to a table whose widths depend on what was redacted.
fn in_columns(line: &str) -> String {
    let is_head = Regex::new("^[A-Z]{4,} {2,}[A-Z]{4,}")
        .unwrap()
        .is_match(line);
    if !is_head && !line.contains("[SIZE]") {
        return line.to_owned();
    }
    let gaps = Regex::new(r"(\S) {2,}").unwrap();
    let narrow = gaps.replace_all(line, |found: &Captures<'_>| format!("{}  ", &found[1]));
    narrow.trim_end().to_owned()
}

/// The text of a specification with the output of its commands as it is now.
fn run_spec(text: &str) -> String {
    let scene = text.lines().find_map(|line| {
        let name = line.strip_prefix("<!-- scene: ")?;
        name.strip_suffix(" -->")
    });
    let shell = Shell::new(Scene::named(scene.unwrap_or("nothing")));
    let redactor = Redactor::new();
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        if line != COMMANDS {
            continue;
        }
        while let Some(line) = lines.next_if(|line| *line != BLOCK_END) {
            let Some(first) = line.strip_prefix("$ ") else {
                continue;
            };
            let mut script = first.to_owned();
            out += &format!("{line}\n");
            while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
                script += &format!("\n{}", &more[2..]);
                out += &format!("{more}\n");
            }
            let (code, said) = shell.run(&script);
            let said = redactor.redact(&said, shell.dir());
            if code != 0 {
                out += &format!("? {code}\n");
            }
            let is_plain = |line: &str| !line.starts_with("$ ") && line != BLOCK_END;
            assert!(said.lines().all(is_plain), "{said}");
            out += &said;
        }
    }
    out
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/cmd")
}

fn is_as_specified(name: &str) {
    let path = folder().join(format!("{name}.md"));
    let expected = fs::read_to_string(&path).unwrap();
    let actual = run_spec(&expected);
    Assert::new()
        .action_env("SNAPSHOTS")
        .eq(actual, Data::read_from(&path, None).raw());
}

macro_rules! specs {
    ($($name:ident)*) => {
        const SPECS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                is_as_specified(stringify!($name));
            }
        )*
    };
}

specs! {
    ack adopt backup catalog completions config demo drill help incident init key list ls man notify open pause pin prune push
    remote restore resume rollback runs sealift serve snapshot source sql stats status sync target unit validate verify
}

#[test]
fn each_verb_has_a_specification() {
    let shell = Shell::new(Scene::Nothing);
    let all = commands(&shell);
    let mut verbs: Vec<&str> = all.iter().map(String::as_str).collect();
    verbs.retain(|verb| !verb.contains(' '));
    verbs.push("sealift");
    verbs.sort_unstable();
    assert_eq!(verbs, SPECS);
    for name in SPECS {
        let text = fs::read_to_string(folder().join(format!("{name}.md"))).unwrap();
        assert!(text.contains("--help"), "{name}");
    }
}
