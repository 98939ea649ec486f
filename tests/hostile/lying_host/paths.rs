//! Paths, links and special files.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use base64::Engine as _;
use sealift::format::index::EntryType;

use crate::support::cage::{Cage, Words, line, made};
use crate::support::is_long;

const B64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

fn raw(bytes: &[u8]) -> String {
    format!(r#""path_b64":"{}""#, B64.encode(bytes))
}

fn named(path: &str) -> String {
    format!(r#""path":{}"#, serde_json::to_string(path).unwrap())
}

#[test]
fn no_path_leads_out() {
    let cases: Vec<(&str, String, &str)> = vec![
        ("dots", named("zz/../../canary/new"), "unsafe path"),
        ("raw dots", raw(b"../canary/new"), "unsafe path"),
        (
            "raw dots that are no text",
            raw(b"\xff/../../canary/new"),
            "unsafe path",
        ),
        ("one dot", named("zz/./new"), "unsafe path"),
        ("empty", named("zz//new"), "unsafe path"),
        ("a slash behind", named("zz/"), "unsafe path"),
        ("no name", raw(b""), "unsafe path"),
        ("a zero", raw(b"zz\0/../new"), "unsafe path"),
        (
            "escaped",
            r#""path":"zz\u002f\u002e\u002e\u002f\u002e\u002e\u002fnew""#.into(),
            "unsafe path",
        ),
        ("below nothing", named("zz/y/x"), "no parent"),
        ("below a file", named("z/child"), "no parent"),
        ("before", named("a/before"), "out of order"),
        ("twice", named("z"), "out of order"),
        (
            "two names",
            format!("{},{}", named("zz"), raw(b"../canary/new")),
            "given twice",
        ),
        ("no base64", r#""path_b64":"!!""#.into(), "malformed"),
        ("half a character", r#""path":"\ud800""#.into(), "malformed"),
        ("a number", r#""path":7"#.into(), "malformed"),
        ("none", r#""torn":false"#.into(), "without a path"),
        (
            "a long name",
            named(&format!("z{}", "z".repeat(300))),
            "cannot make",
        ),
    ];
    for (what, path, says) in cases {
        let cage = Cage::with_lines(|_| vec![line(&path, "dir", "")]);
        cage.refuses(what, says, "");
        if is_long() {
            cage.bears_looking(what);
        }
    }
    let absolute = |words: &Words| vec![line(&named(&format!("{}/new", words.canary)), "dir", "")];
    Cage::with_lines(absolute).refuses("absolute", "unsafe path", "unsafe path");
    let mut bytes = line(&named("zz#"), "dir", "");
    let at = bytes.iter().position(|b| *b == b'#').unwrap();
    bytes[at] = 0xff;
    Cage::with_lines(|_| vec![bytes]).refuses("raw bytes in JSON", "malformed", "");
}

/// The script says the same of each: of those that both refuse, by the same rule.
#[test]
fn the_script_names_an_unsafe_path_too() {
    for path in [
        named("zz/../../canary/new"),
        raw(b"../canary/new"),
        named("zz//new"),
        raw(b"zz\0"),
        named("zz/y/x"),
        named("z/child"),
        named("z"),
    ] {
        let ran = Cage::with_lines(|_| vec![line(&path, "dir", "")]).recover(&[]);
        ran.ended(&path, &[1]);
        assert!(ran.err.contains("unsafe path"), "{path}: {}", ran.err);
    }
}

/// Odd, and no harm: a backslash is a character, so is everything but the slash, and case tells names apart.
#[test]
fn odd_names_are_names() {
    let deep = format!("zz/{}", vec!["d".repeat(250); 40].join("/"));
    let mut lines = vec![
        line(&named("zZ"), "dir", ""),
        line(&named("zz"), "dir", ""),
        line(&named(r"zz/..\..\new"), "dir", ""),
        line(&raw(b"zz/\xff\x1b[2J\n"), "dir", ""),
    ];
    let components: Vec<&str> = deep.split('/').collect();
    let below = (2..=components.len()).map(|n| line(&named(&components[..n].join("/")), "dir", ""));
    lines.splice(3..3, below);
    let cage = Cage::with_lines(|_| lines);
    for ran in [cage.restore(&[]), cage.recover(&[])] {
        ran.ended("odd names", &[0]);
        assert!(made(&cage, "zZ").is_some() && made(&cage, r"zz/..\..\new").is_some());
    }
    cage.ls().ended("odd names", &[0]);
    cage.verify().ended("odd names", &[0]);
}

type Lines = fn(&Words, String) -> Vec<Vec<u8>>;

/// Entries through which a restore would write elsewhere; `f` is the content of a file.
const THROUGH_LINKS: [(&str, Lines, &str); 12] = [
    (
        "a file below a link",
        |w, f| {
            let to = format!(r#","target":"{}""#, w.canary);
            vec![
                line(&named("zz"), "symlink", &to),
                line(&named("zz/new"), "file", &f),
            ]
        },
        "no parent",
    ),
    (
        "a directory below a link",
        |w, _| {
            let to = format!(r#","target":"{}""#, w.canary);
            vec![
                line(&named("zz"), "symlink", &to),
                line(&named("zz/dir"), "dir", ""),
            ]
        },
        "no parent",
    ),
    (
        "a link with content",
        |w, f| {
            let to = format!(r#","target":"{}/file"{f}"#, w.canary);
            vec![line(&named("zz"), "symlink", &to)]
        },
        "the keys of a Symlink are wrong",
    ),
    (
        "a link with extents",
        |w, _| {
            let rest = format!(
                r#","target":"{}/file","size":500,"extents":[{}]"#,
                w.canary, w.extent
            );
            vec![line(&named("zz"), "symlink", &rest)]
        },
        "the keys of a Symlink are wrong",
    ),
    (
        "a device with content",
        |w, _| {
            let rest = format!(r#","rdev":[1,3],"size":500,"extents":[{}]"#, w.extent);
            vec![line(&named("zz"), "chardev", &rest)]
        },
        "the keys of a Chardev are wrong",
    ),
    (
        "a pipe with content",
        |w, _| {
            let rest = format!(r#","size":500,"extents":[{}]"#, w.extent);
            vec![line(&named("zz"), "fifo", &rest)]
        },
        "the keys of a Fifo are wrong",
    ),
    (
        "a directory with content",
        |w, _| {
            let rest = format!(r#","size":500,"extents":[{}]"#, w.extent);
            vec![line(&named("zz"), "dir", &rest)]
        },
        "the keys of a Dir are wrong",
    ),
    (
        "a hard link out",
        |w, _| {
            let rest = format!(r#","target":"{}/file""#, w.canary);
            vec![line(&named("zz"), "hardlink", &rest)]
        },
        "unsafe path",
    ),
    (
        "a hard link up",
        |_, _| {
            vec![line(
                &named("zz"),
                "hardlink",
                r#","target":"../canary/file""#,
            )]
        },
        "unsafe path",
    ),
    (
        "a hard link through a link",
        |w, _| {
            let to = format!(r#","target":"{}""#, w.canary);
            vec![
                line(&named("zx"), "symlink", &to),
                line(&named("zz"), "hardlink", r#","target":"zx/file""#),
            ]
        },
        "hard link",
    ),
    (
        "a hard link to a link",
        |w, _| {
            let to = format!(r#","target":"{}/file""#, w.canary);
            vec![
                line(&named("zx"), "symlink", &to),
                line(&named("zz"), "hardlink", r#","target":"zx""#),
            ]
        },
        "hard link",
    ),
    (
        "a hard link with content",
        |w, _| {
            let rest = format!(r#","target":"z","size":500,"extents":[{}]"#, w.extent);
            vec![line(&named("zz"), "hardlink", &rest)]
        },
        "the keys of a Hardlink are wrong",
    ),
];

#[test]
fn nothing_is_written_through_a_link_or_into_a_device() {
    let file = |words: &Words| {
        let (extent, blake3) = (&words.extent, &words.blake3);
        format!(r#","size":500,"blake3":"{blake3}","extents":[{extent}]"#)
    };
    let link = |path: &str, to: &str, rest: &str| {
        let to = serde_json::to_string(to).unwrap();
        line(&named(path), "symlink", &format!(r#","target":{to}{rest}"#))
    };
    for (what, lines, says) in THROUGH_LINKS {
        let cage = Cage::with_lines(|words| lines(words, file(words)));
        cage.refuses(what, says, "");
        if what.starts_with("a link with") {
            // The script wrote through it once.
            cage.recover(&[]).ended(what, &[1]);
        }
        if is_long() {
            cage.bears_looking(what);
        }
    }
    for (what, target, says) in [
        ("a hard link to itself", "zz", "hard link"),
        ("a hard link forward", "zzz", "hard link"),
        ("a hard link to a directory", "a", "hard link"),
        ("a hard link to a hard link", "zy", "hard link"),
    ] {
        let to = |target: &str| format!(r#","target":"{target}""#);
        let cage = Cage::with_lines(|w| {
            let last = line(&named("zzz"), "file", &file(w));
            vec![
                line(&named("zy"), "hardlink", &to("z")),
                line(&named("zz"), "hardlink", &to(target)),
                last,
            ]
        });
        cage.refuses(what, says, "links to no earlier file");
    }
    // An unknown kind, and links to any place: they are links.
    Cage::with_lines(|_| vec![line(&named("zz"), "socket", "")]).refuses(
        "a socket",
        "malformed",
        "",
    );
    let cage = Cage::with_lines(|w| {
        vec![
            link("zx", &w.canary, ""),
            link("zy", "../canary/file", ""),
            link("zz", "zz", ""),
        ]
    });
    for ran in [cage.restore(&[]), cage.recover(&[]), cage.verify()] {
        ran.ended("links", &[0]);
    }
}

/// A file system on which two names are one would make a link of what the index calls a directory or a file.
#[test]
fn the_script_follows_no_link_that_it_made_itself() {
    let cage = Cage::new();
    let test = r#"
import os, sys
sys.argv = ["recover.py"]
sys.path.insert(0, ".")
import recover
os.mkdir("dest/tree")
os.symlink("../canary", "dest/tree/LINK")
root = os.open("dest/tree", os.O_RDONLY)
try:
    recover.enter(root, b"LINK/new")
    print("went in")
except NotADirectoryError:
    print("refused")
entry = {"path": b"LINK", "type": "file", "size": 5, "target": b""}
try:
    recover.attempt(entry, "make this file", recover.make, b"LINK", entry, root)
    print("made")
except recover.Refused:
    print("refused")
os.chdir(sys.path[1] if False else "/")
os.fchdir(root)
os.remove("LINK")
os.chdir("../..")
os.rmdir("dest/tree")
"#;
    let ran = cage.run("python3".as_ref(), &["-B", "-c", test]);
    ran.ended("names that are one", &[0]);
    assert_eq!(ran.out.matches("refused").count(), 2, "{}", ran.said());
}

/// Set-user-id is a mode like others and comes back, on what the restorer owns; a device is made only for root
/// who asks for it.
#[test]
fn special_modes_come_back_and_devices_only_on_demand() {
    let cage = Cage::with_lines(|w| {
        let rest = format!(
            r#","size":500,"blake3":"{}","extents":[{}]"#,
            w.blake3, w.extent
        );
        let suid = line(&named("zs"), "file", &rest);
        let suid = String::from_utf8(suid).unwrap().replace("493", "2541");
        vec![
            line(&named("zb"), "blockdev", r#","rdev":[8,0]"#),
            line(&named("zc"), "chardev", r#","rdev":[1,3]"#),
            line(&named("zp"), "fifo", ""),
            suid.into_bytes(),
        ]
    });
    for ran in [cage.restore(&[]), cage.recover(&[])] {
        ran.ended("special", &[3]);
        assert!(
            ran.err.contains("zb: left out: a device is made only"),
            "{}",
            ran.err
        );
        assert_eq!(made(&cage, "zb"), None);
        assert_eq!(made(&cage, "zc"), None);
        assert_eq!(made(&cage, "zp").unwrap().0, EntryType::Fifo);
        assert_eq!(made(&cage, "zs"), Some((EntryType::File, 0o4755)));
    }
    let too_large = Cage::with_lines(|_| {
        let one = line(&named("zz"), "dir", "");
        vec![
            String::from_utf8(one)
                .unwrap()
                .replace("493", "4096")
                .into_bytes(),
        ]
    });
    too_large.restore(&[]).ended("mode", &[1]);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for ran in [cage.restore(&["--devices"]), cage.recover(&["--devices"])] {
        // Where a container forbids even root to make one, it says so.
        if ran.err.contains("not permitted") {
            continue;
        }
        ran.ended("devices", &[0]);
        let meta = fs::symlink_metadata(cage.restored().join("zc")).unwrap();
        assert!(meta.file_type().is_char_device());
        assert_eq!(meta.rdev(), rustix::fs::makedev(1, 3));
    }
}
