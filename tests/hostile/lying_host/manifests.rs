//! Manifests and table pages that are signed and absurd.

use std::fs;

use sealift::base::ids::{Hash, ObjectKey};
use sealift::format::known::{Directory, KnownPage, KnownPages, KnownRef};
use sealift::format::manifest::{Known, ManifestCore};
use serde_json::json;

use crate::support::cage::{Cage, publish_bytes, replace_page, republish, republish_core};
use crate::support::is_long;
use crate::support::tree::noise;

type Change = fn(&mut serde_json::Value, &mut serde_json::Value);

/// Changes of a manifest's two lines, and what the refusal says.
const ABSURD: [(&str, Change, &str); 17] = [
    (
        "a later format",
        |core, _| core["format"] = json!(2),
        "format 2",
    ),
    (
        "no format",
        |core, _| core["format"] = json!(-1),
        "malformed",
    ),
    (
        "features",
        |core, _| core["requires"] = json!(["\u{1b}[2J\u{7}"]),
        "features",
    ),
    (
        "a strange key",
        |core, _| core["\u{1b}]0;pwned\u{7}"] = json!(1),
        "unknown field",
    ),
    (
        "another host",
        |core, _| core["host"] = json!("other"),
        "to host other",
    ),
    (
        "no host",
        |core, _| core["host"] = json!("../dalidou"),
        "malformed",
    ),
    (
        "the last sequence",
        |core, _| core["sequence"] = json!(u64::MAX),
        "out of range",
    ),
    (
        "beyond it",
        |core, _| core["sequence"] = json!(1u64 << 53),
        "out of range",
    ),
    (
        "no stamp",
        |core, _| core["stamp"] = json!("20261399T996199Z"),
        "",
    ),
    (
        "no parents",
        |core, _| core["parents"] = json!(["\u{1b}c"]),
        "malformed",
    ),
    (
        "known as text",
        |core, _| core["known"] = json!("all"),
        "malformed",
    ),
    (
        "no time",
        |core, _| core["next_by"] = json!("tomorrow"),
        "malformed",
    ),
    (
        "no extents",
        |core, _| core["index"]["extents"] = json!([["-", 0]]),
        "malformed",
    ),
    (
        "negative bytes",
        |core, _| core["index"]["bytes"] = json!(-1),
        "malformed",
    ),
    (
        "a page that is a path",
        |_, tables| tables["tables"] = json!(["../../canary/file"]),
        "malformed",
    ),
    ("a list", |core, _| *core = json!([1, 2, 3]), "malformed"),
    (
        "a page twice",
        |_, tables| {
            let page = tables["tables"][0].clone();
            tables["tables"] = json!([page, page]);
        },
        "twice",
    ),
];

/// A signed manifest that no reader takes: it is named, and an older one can still be had.
#[test]
fn an_absurd_manifest_is_named_and_an_older_one_restorable() {
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    let first = cage.repo.push(&tree);
    let second = cage.repo.push(&tree);
    for (count, (what, change, says)) in ABSURD.into_iter().enumerate() {
        if count % 8 != 0 && !is_long() {
            // In everyday runs each eighth.
            continue;
        }
        let name = republish(&cage.repo, &second, change);
        let bears = |by: &str, ran: &crate::support::cage::Ran, codes: &[i64]| {
            ran.ended(&format!("{what}: {by}"), codes);
        };
        let ran = cage.list();
        bears("list", &ran, &[0, 3]);
        assert!(ran.err.contains(says), "{what}: {}", ran.err);
        let out = cage.restore(&[]);
        // Under a name that is no manifest's it is a file like any other.
        let is_named = says.is_empty();
        bears("restore", &out, if is_named { &[0] } else { &[1] });
        bears("recover", &cage.recover(&[]), &[0, 1]);
        for ran in [cage.restore(&["1"]), cage.recover(&["--snapshot", "1"])] {
            bears("the older one", &ran, &[0]);
            assert_eq!(fs::read(cage.restored().join("z")).unwrap(), noise(2, 500));
        }
        bears("verify", &cage.verify(), &[0, 3]);
        for ending in ["json", "json.sig"] {
            fs::remove_file(
                cage.repo
                    .folder()
                    .join(format!("manifests/{name}.{ending}")),
            )
            .unwrap();
        }
    }
    drop(first);
}

/// As deep as the parser of a language that recurses bears, and deeper.
#[test]
fn nesting_is_refused() {
    for depth in [200, 200_000] {
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        let mut cage = Cage::new();
        let tree = cage.tree.clone();
        cage.repo.push(&tree);
        let bytes =
            format!("{{\"format\":1,\"requires\":[],\"x\":{nested}}}\n{{\"tables\":{nested}}}\n");
        publish_bytes(&cage.repo, "00000002", "20260408T060000Z", bytes.as_bytes());
        for ran in [cage.restore(&[]), cage.recover(&[])] {
            ran.ended("a nested manifest", &[1]);
            assert!(ran.err.contains("00000002-20260408T060000Z"), "{}", ran.err);
        }
        for ran in [cage.restore(&["1"]), cage.recover(&["--snapshot", "1"])] {
            ran.ended("an older one", &[0]);
        }
        let line =
            format!(r#"{{"path":"zz","type":"dir","mode":1,"uid":0,"gid":0,"mtime":{nested}}}"#);
        Cage::with_lines(|_| vec![line.into_bytes()]).refuses("a nested entry", "malformed", "");
    }
}

/// What is in range and makes no sense does nothing.
#[test]
fn numbers_at_their_limits_are_borne() {
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    let manifest = cage.repo.push(&tree);
    let name = republish(&cage.repo, &manifest, |core, _| {
        core["sequence"] = json!((1u64 << 53) - 1);
        core["totals"] = json!({
            "entries": u64::MAX, "files": u64::MAX, "bytes": u64::MAX, "new_bytes": u64::MAX,
            "archives": u64::MAX, "archive_bytes": u64::MAX,
        });
        core["next_by"] = json!("-262143-01-01T00:00:00Z");
        core["marks_seen"] = json!(["../../x", "\u{1b}[2J", ""]);
        core["recipients"] = json!(["\u{1b}[2J"]);
        core["machine"] = json!("\u{1b}[2J");
        core["next_signer"] = json!("ssh-ed25519 AAAA");
        core["parents"] = json!(vec![Hash::blake3(b"x").to_string(); 1000]);
    });
    assert!(name.starts_with("9007199254740991-"));
    cage.restore(&[]).ended("limits", &[0]);
    // A signer that is none: the script says what it stumbled over.
    cage.recover(&[]).ended("limits by hand", &[0, 1]);
    cage.list().ended("limits", &[0]);
    cage.ls().ended("limits", &[0]);
    cage.verify().ended("limits", &[0, 3]);
    for (stamp, next_by) in [
        ("00000101T000000Z", "+262142-12-31T23:59:59Z"),
        ("99991231T235959Z", "0000-01-01T00:00:00Z"),
    ] {
        let mut cage = Cage::new();
        cage.repo.stamp = stamp.parse().unwrap();
        let manifest = cage.repo.push_changed(&cage.tree.clone(), |_| {});
        republish(&cage.repo, &manifest, |core, _| {
            core["next_by"] = json!(next_by)
        });
        for ran in [cage.restore(&[]), cage.recover(&[]), cage.list(), cage.ls()] {
            ran.ended(stamp, &[0]);
        }
        cage.verify().ended(stamp, &[0, 3]);
    }
}

/// The earlier snapshots of a manifest that names them in itself.
fn inline(core: &mut ManifestCore) -> &mut Vec<Known> {
    match &mut core.known {
        KnownRef::Inline(known) => known,
        KnownRef::Pages(_) => panic!("they are in pages"),
    }
}

/// Lineage that leads back into itself, or up: refused where it contradicts what is here, borne where it does not.
#[test]
fn a_history_that_runs_in_circles_is_refused() {
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    cage.repo.push(&tree);
    let second = cage.repo.push(&tree);
    let third = cage.repo.push(&tree);
    let core = third.core_hash;
    // The second knows the third, which knows the second.
    let name = republish_core(&cage.repo, &second, |core| {
        inline(core).push(third.as_known())
    });
    let ran = cage.restore(&[]);
    ran.ended("a circle", &[1]);
    assert!(ran.err.contains("does not follow"), "{}", ran.err);
    cage.recover(&[]).ended("a circle by hand", &[1]);
    cage.restore(&["1"]).ended("its beginning", &[0]);
    cage.verify().ended("a circle", &[3]);
    for ending in ["json", "json.sig"] {
        fs::remove_file(
            cage.repo
                .folder()
                .join(format!("manifests/{name}.{ending}")),
        )
        .unwrap();
    }
    // One that knows itself under its own sequence, and one above it.
    republish_core(&cage.repo, &third, |changed| {
        for sequence in [3, 4] {
            let stamp = changed.stamp;
            inline(changed).push(Known {
                sequence,
                stamp,
                core,
            });
        }
        changed.parents = vec![core];
    });
    let ran = cage.restore(&[]);
    ran.ended("itself", &[1]);
    assert!(ran.err.contains("does not follow"), "{}", ran.err);
    cage.recover(&[]).ended("itself by hand", &[1]);
}

/// What the signer says he knows costs no more than reading it.
#[test]
fn a_huge_known_is_read_in_one_pass() {
    let count = if is_long() { 200_000 } else { 4_000 };
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    let first = cage.repo.push(&tree);
    let second = cage.repo.push(&tree);
    let start = std::time::Instant::now();
    for above in [false, true] {
        republish_core(&cage.repo, &second, |core| {
            let stamp = core.stamp;
            *inline(core) = (0..count)
                .map(|n: u64| Known {
                    // All of the one that is here, or all of what is not.
                    sequence: if above { 1 } else { 10 + n },
                    stamp,
                    core: Hash::blake3(&n.to_le_bytes()),
                })
                .collect();
            inline(core).push(first.as_known());
        });
        cage.list().ended("known", &[3]);
        cage.restore(&["2"]).ended("known", &[0]);
        cage.recover(&["--snapshot", "2"])
            .ended("known by hand", &[0, 1]);
        for path in cage.repo.objects("manifests") {
            if path.to_string_lossy().contains("/00000002-") {
                fs::remove_file(path).unwrap();
            }
        }
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

/// Pages and directories of earlier snapshots that are missing, forged, nested, out of order, or too many: the reader
/// says so, soon, and restores what there is.
#[test]
fn absurd_pages_of_earlier_snapshots_are_named_and_harm_nothing() {
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    let first = cage.repo.push(&tree);
    let second = cage.repo.push(&tree);
    let made = (second.core.writer, 2);
    let known = |sequence: u64| Known {
        sequence,
        stamp: first.core.stamp,
        core: Hash::sha256(&sequence.to_le_bytes()),
    };
    let page = |known: Vec<Known>| KnownPage { made, known }.encode();
    let directory = |pages: Vec<Hash>| Directory { directory: pages }.encode();
    let pages = |pages: Vec<Hash>| KnownPages {
        directories: Vec::new(),
        pages,
    };
    let honest = page(vec![first.as_known()]);
    let full = page((10..74).map(known).collect());
    let inner = directory(vec![honest.0]);
    let nested = directory(vec![inner.0]);
    let same = directory(vec![full.0; 64]);
    let disordered = page(vec![known(9), known(8)]);
    let long = page((10..90).map(known).collect());
    let swollen = [&honest.1[..], &[b' '; 17 << 10]].concat();
    let swollen = (Hash::sha256(&swollen), swollen);
    let cases = [
        ("an honest one", pages(vec![honest.0]), vec![&honest], 0),
        ("a missing page", pages(vec![Hash::sha256(b"x")]), vec![], 3),
        ("a page twice", pages(vec![full.0; 2]), vec![&full], 3),
        (
            "pages in disorder",
            pages(vec![full.0, honest.0]),
            vec![&full, &honest],
            3,
        ),
        (
            "rows in disorder",
            pages(vec![disordered.0]),
            vec![&disordered],
            3,
        ),
        ("a long page", pages(vec![long.0]), vec![&long], 3),
        ("a swollen page", pages(vec![swollen.0]), vec![&swollen], 3),
        (
            "a directory for a page",
            pages(vec![inner.0]),
            vec![&inner, &honest],
            3,
        ),
        (
            "a directory of directories",
            KnownPages {
                directories: vec![nested.0],
                pages: Vec::new(),
            },
            vec![&nested, &inner, &honest],
            3,
        ),
        (
            "a page 16,000 times",
            KnownPages {
                directories: vec![same.0; 250],
                pages: Vec::new(),
            },
            vec![&same, &full],
            3,
        ),
        (
            "a page 65,000 times",
            KnownPages {
                directories: vec![same.0; 1024],
                pages: Vec::new(),
            },
            vec![&same, &full],
            3,
        ),
    ];
    let remove = || {
        for path in cage.repo.objects("manifests") {
            if path.to_string_lossy().contains("/00000002-") {
                fs::remove_file(path).unwrap();
            }
        }
    };
    for (what, named, objects, code) in cases {
        for (name, bytes) in objects {
            cage.repo.write(ObjectKey::table(name).as_str(), bytes);
        }
        republish_core(&cage.repo, &second, |core| {
            core.known = KnownRef::Pages(named);
            core.requires = core.known.requires();
        });
        let ran = cage.list();
        ran.ended(what, &[code]);
        assert_eq!(
            ran.err.contains("cannot determine which snapshots"),
            code == 3,
            "{what}: {}",
            ran.err
        );
        cage.restore(&["2"]).ended(what, &[0]);
        cage.verify().ended(what, &[code]);
        remove();
    }
    // What contradicts itself is no manifest.
    let none = || KnownRef::Pages(KnownPages::default());
    let many = KnownPages {
        directories: vec![same.0; 1025],
        pages: Vec::new(),
    };
    for (what, known, requires) in [
        ("pages that nothing requires", none(), vec![]),
        (
            "a list in itself",
            KnownRef::Inline(Vec::new()),
            vec!["known-pages".to_owned()],
        ),
        (
            "too many directories",
            KnownRef::Pages(many),
            vec!["known-pages".to_owned()],
        ),
    ] {
        republish_core(&cage.repo, &second, |core| {
            core.known = known;
            core.requires = requires;
        });
        let ran = cage.list();
        ran.ended(what, &[3]);
        assert!(ran.err.contains("is not acceptable"), "{what}: {}", ran.err);
        remove();
    }
}

#[test]
fn an_absurd_table_is_refused() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change, &str); 10] = [
        (
            "many rows",
            |page| {
                let row = page["rows"][0].clone();
                page["rows"] = json!(vec![row; if is_long() { 1_000_000 } else { 50_000 }]);
            },
            "",
        ),
        (
            "65 rows",
            |page| {
                let row = page["rows"][0].clone();
                page["rows"] = json!(vec![row; 65]);
            },
            "has 65 rows",
        ),
        (
            "a row twice",
            |page| {
                let row = page["rows"][0].clone();
                page["rows"].as_array_mut().unwrap().push(row);
            },
            "twice",
        ),
        (
            "the largest archive",
            |page| page["rows"][0][4] = json!(u64::MAX),
            "beyond its end",
        ),
        (
            "a negative one",
            |page| page["rows"][0][4] = json!(-1),
            "malformed",
        ),
        (
            "a name that is a path",
            |page| page["rows"][0][2] = json!("../../../dest/canary/file"),
            "malformed",
        ),
        (
            "an unknown kind",
            |page| page["rows"][0][1] = json!("code"),
            "malformed",
        ),
        (
            "archive 0",
            |page| page["rows"][0][0] = json!("0011223344556677.0"),
            "malformed",
        ),
        (
            "other recipients",
            |page| {
                let sets = page["sets"].as_object_mut().unwrap();
                sets.values_mut()
                    .for_each(|set| *set = json!(["age1\u{1b}[2J"]));
            },
            "other members",
        ),
        (
            "no recipients",
            |page| page["sets"] = json!({}),
            "unknown recipient set",
        ),
    ];
    for (count, (what, change, says)) in cases.into_iter().enumerate() {
        if count % 3 != 0 && !is_long() {
            continue;
        }
        let mut cage = Cage::new();
        let tree = cage.tree.clone();
        let manifest = cage.repo.push(&tree);
        replace_page(&cage.repo, &manifest, change);
        let ran = cage.restore(&[]);
        ran.ended(what, &[1]);
        assert!(ran.err.contains(says), "{what}: {}", ran.err);
        assert!(!cage.restored().exists());
        if is_long() {
            // The script needs no recipients, and takes the later of two rows.
            cage.recover(&[]).ended(what, &[0, 1]);
            cage.verify().ended(what, &[3]);
            cage.ls().ended(what, &[0, 1]);
        }
    }
}

/// Anyone who writes the target can plant a signature of any size; it is as if there were none.
#[test]
fn a_planted_signature_chokes_nobody() {
    let mut cage = Cage::new();
    let tree = cage.tree.clone();
    cage.repo.push(&tree);
    let second = cage.repo.push(&tree);
    let key = second.name().signature_key();
    let huge = fs::File::create(cage.repo.folder().join(key.as_str())).unwrap();
    huge.set_len(1 << 33).unwrap();
    for ran in [cage.restore(&["1"]), cage.recover(&["--snapshot", "1"])] {
        ran.ended("a planted signature", &[0]);
    }
    let ran = cage.restore(&[]);
    ran.ended("a planted signature", &[1]);
    assert!(ran.err.contains("it has no signature"), "{}", ran.err);
    cage.recover(&[]).ended("a planted signature", &[1]);
}
