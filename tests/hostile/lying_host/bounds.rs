//! Much of everything: entries, depth, lines. What it takes grows with what must be read, and no faster.

use crate::support::cage::{Cage, line};
use crate::support::is_long;

/// Directories, each with a name of its own.
#[test]
fn very_many_entries_are_read_within_bounds() {
    let count = if is_long() { 1_000_000 } else { 10_000 };
    let mut cage = Cage::with_lines(|_| {
        let one = |n| {
            line(
                &format!(r#""path":"zz{n:07}""#),
                "symlink",
                r#","target":"../canary""#,
            )
        };
        (0..count).map(one).collect()
    });
    // A large index is in a file for a while.
    cage.file_bytes = 256 << 20;
    let ran = cage.ls();
    ran.ended("many entries", &[0]);
    assert_eq!(ran.out.lines().count(), count + 3);
    // The last of them spoils it: nothing is made before all were read.
    let mut cage = Cage::with_lines(|_| {
        let one = |n| line(&format!(r#""path":"zz{n:07}""#), "dir", "");
        let last = line(r#""path":"zzz/../../canary/new""#, "dir", "");
        (0..count).map(one).chain([last]).collect()
    });
    cage.file_bytes = 256 << 20;
    let ran = cage.restore(&[]);
    ran.ended("many entries", &[1]);
    assert!(ran.err.contains("unsafe path"), "{}", ran.err);
    if !is_long() {
        cage.recover(&[]).ended("many entries by hand", &[1]);
    }
}

/// A path through thousands of directories, and very many that are open at once.
#[test]
fn depth_and_breadth_take_no_more_than_their_bytes() {
    let depth = if is_long() { 3_000 } else { 1_050 };
    let start = std::time::Instant::now();
    let deep = |n: usize| {
        let path = format!("zz{}", "/d".repeat(n));
        line(&format!(r#""path":"{path}""#), "dir", "")
    };
    let cage = Cage::with_lines(|_| (0..depth).map(deep).collect());
    cage.ls().ended("depth", &[0]);
    if is_long() {
        cage.restore(&[]).ended("depth", &[0]);
        cage.verify().ended("depth", &[0]);
        cage.recover(&[]).ended("depth by hand", &[0]);
    }
    // What fails in the end leaves none of it, modes that forbid it or not.
    let cage = Cage::with_lines(|words| {
        let rest = format!(
            r#","size":500,"blake3":"{}","extents":[{}]"#,
            "0".repeat(64),
            words.extent.replace(",500]", ",400],[\"-\",0,100]"),
        );
        let last = line(r#""path":"zzz""#, "file", &rest);
        (0..depth).map(deep).chain([last]).collect()
    });
    let ran = cage.restore(&[]);
    ran.ended("depth that fails", &[1]);
    assert!(ran.err.contains("not what the index says"), "{}", ran.err);
    let cage = Cage::with_lines(|_| {
        let last = line(&format!(r#""path":"{}""#, "z".repeat(300)), "dir", "");
        (0..depth).map(deep).chain([last]).collect()
    });
    cage.recover(&[]).ended("depth that fails by hand", &[1]);
    // Each begins with the one before, and none is its parent: all stay open to the end.
    let longer = |n: usize| {
        let path = format!("zz{}", "!".repeat(n));
        line(&format!(r#""path":"{path}""#), "dir", "")
    };
    let last = line(r#""path":"zz/file""#, "dir", "");
    let cage = Cage::with_lines(|_| (0..depth).map(longer).chain([last]).collect());
    cage.ls().ended("breadth", &[0]);
    // The long form takes a minute on a quiet machine.
    let most = if is_long() { 600 } else { 120 };
    let took = start.elapsed().as_secs();
    assert!(took < most, "{took} s");
}

/// A line of zeros, and one of nothing but extents.
#[test]
fn long_lines_are_read_within_bounds() {
    let megabytes = if is_long() { 24 } else { 2 };
    let cage = Cage::with_lines(|_| vec![vec![0; megabytes << 20]]);
    cage.refuses("zeros", "malformed", "");
    cage.ls().ended("zeros", &[1]);
    let cage = Cage::with_lines(|words| {
        let extents = vec![r#"["-",0,1]"#; (megabytes << 20) / 10].join(",");
        let size = (megabytes << 20) / 10;
        let rest = format!(
            r#","size":{size},"blake3":"{}","extents":[{extents}]"#,
            words.blake3
        );
        vec![line(r#""path":"zz""#, "file", &rest)]
    });
    cage.ls().ended("extents", &[0]);
    let ran = cage.restore(&[]);
    ran.ended("extents", &[1]);
    assert!(ran.err.contains("not what the index says"), "{}", ran.err);
    // Megabytes of attributes, and of notes.
    let cage = Cage::with_lines(|_| {
        let value = "A".repeat(megabytes << 20);
        vec![line(
            r#""path":"zz""#,
            "dir",
            &format!(r#","xattrs":{{"user.x":"{value}"}}"#),
        )]
    });
    cage.restore(&[]).ended("attributes", &[3]);
    cage.recover(&[]).ended("attributes by hand", &[3]);
    let cage = Cage::lying(|draft| {
        draft.header.note = Some("\u{1b}[2J".repeat(megabytes << 16));
        draft.header.tags = vec!["\u{7}".to_owned(); megabytes << 10];
        draft.header.skipped = vec![
            sealift::format::index::Skipped {
                path: "\u{1b}]0;x\u{7}".to_owned(),
                reason: "\u{1b}c".to_owned(),
            };
            megabytes << 8
        ];
    });
    cage.restore(&[]).ended("notes", &[3]);
    cage.recover(&[]).ended("notes by hand", &[3]);
    cage.ls().ended("notes", &[0]);
}

/// Counts that promise more than there is.
#[test]
fn an_index_that_promises_too_much_is_refused() {
    for (what, from, to) in [
        (
            "archives",
            r#""archives":1"#,
            r#""archives":18446744073709551615"#,
        ),
        (
            "entries",
            r#""entries":3"#,
            r#""entries":18446744073709551615"#,
        ),
        ("fewer entries", r#""entries":3"#, r#""entries":2"#),
        ("no archives", r#""archives":1"#, r#""archives":0"#),
        ("negative archives", r#""archives":1"#, r#""archives":-1"#),
        ("a format", r#""format":1"#, r#""format":2"#),
        ("another host", r#""host":"dalidou""#, r#""host":"other""#),
        (
            "another stamp",
            r#""stamp":"20260407T060000Z""#,
            r#""stamp":"20270407T060001Z""#,
        ),
    ] {
        let mut cage = Cage::new();
        let tree = cage.tree.clone();
        let mut found = None;
        cage.repo.push_changed(&tree, |draft| {
            draft.header.archives = draft.archives.len() as u64;
            draft.header.entries = draft.entries.len() as u64;
            let mut lines = vec![serde_json::to_vec(&draft.header).unwrap()];
            lines.extend(
                draft
                    .archives
                    .iter()
                    .map(|a| serde_json::to_vec(a).unwrap()),
            );
            lines.extend(draft.entries.iter().map(|e| e.to_line()));
            let needed: Vec<_> = draft.archives.iter().map(|stream| stream.archive).collect();
            found = Some((lines, needed));
        });
        let (mut lines, needed) = found.unwrap();
        let header = String::from_utf8(lines[0].clone()).unwrap();
        assert!(header.contains(from), "{header}");
        lines[0] = header.replace(from, to).into_bytes();
        let index = [lines.join(&b'\n'), b"\n".to_vec()].concat();
        cage.repo.publish_index(&index, needed);
        cage.refuses(what, "index", "");
    }
}
