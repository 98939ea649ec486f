//! A hostile host: it can write any index, and a restore of
//! it must neither leave its directory nor do harm.

use std::fs;
use std::path::Path;

use sealift::base::error_chain::with_causes as told;
use sealift::base::ids::Hash;
use sealift::format::index::{Entry, EntryType, Extent};
use sealift::format::manifest::ArchiveKind;
use sealift::restore::{Aspect, DatabaseCheck, RestoreError, RestoreReport, RestoreRequest};

use crate::support::handmade_repo::{self, Draft, Repo};
use crate::support::tree::noise;

/// As root would restore: device nodes too.
fn restore(repo: &Repo, to: &Path) -> Result<RestoreReport, RestoreError> {
    let request = RestoreRequest {
        devices: true,
        databases: DatabaseCheck::Repeat,
        ..handmade_repo::request(to)
    };
    handmade_repo::restore(repo, &request)
}

/// Everything that is directly in the repository's directory: nothing may come or go there.
fn around(repo: &Repo) -> Vec<String> {
    let names = fs::read_dir(repo.temp.path()).unwrap();
    let mut names: Vec<String> = names
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Pushes a tree of `a/file` and `z`, with the lie, and restores it.
fn lie(change: impl FnOnce(&mut Draft)) -> (Repo, Result<RestoreReport, RestoreError>) {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir_all(tree.join("a")).unwrap();
    fs::write(tree.join("a/file"), noise(1, 50_000)).unwrap();
    fs::write(tree.join("z"), noise(2, 500)).unwrap();
    repo.push_changed(&tree, change);
    let before = around(&repo);
    let result = restore(&repo, &repo.path("out"));
    let mut after = around(&repo);
    if result.is_ok() {
        after.retain(|name| name != "out");
    }
    assert_eq!(after, before);
    (repo, result)
}

fn refused(change: impl FnOnce(&mut Draft)) -> String {
    let (_repo, result) = lie(change);
    told(&result.expect_err("it was restored"))
}

fn raw(line: &str) -> impl FnOnce(&mut Draft) + use<> {
    let line = line.as_bytes().to_vec();
    move |draft| draft.raw_lines.push(line)
}

fn named(draft: &mut Draft, path: &str, kind: EntryType, target: Option<&str>) {
    let mut entry = draft.entries[0].clone();
    entry.path = path.as_bytes().to_vec();
    entry.kind = kind;
    entry.target = target.map(|text| text.as_bytes().to_vec());
    draft.entries.push(entry);
    draft.entries.sort_by(|a, b| a.path.cmp(&b.path));
}

fn file<'a>(draft: &'a mut Draft, path: &str) -> &'a mut Entry {
    let of_path = |entry: &&mut Entry| entry.path == path.as_bytes();
    draft.entries.iter_mut().find(of_path).unwrap()
}

#[test]
fn paths_that_lead_out_are_refused() {
    for path in [
        r#""path":"zz/../../evil""#,
        r#""path":"..""#,
        r#""path":"/zzz""#,
        r#""path":"zz//x""#,
        r#""path":"zz/.""#,
        r#""path":"""#,
        r#""path":"zz\u0000""#,
        r#""path_b64":"Li4vZXZpbA==""#,
    ] {
        let line =
            format!("{{{path},\"type\":\"dir\",\"mode\":448,\"uid\":0,\"gid\":0,\"mtime\":0}}");
        let text = refused(raw(&line));
        assert!(text.contains("unsafe path"), "{path}: {text}");
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let text = refused(|draft| {
        named(draft, "b", EntryType::Symlink, Some("/tmp"));
        named(draft, "b/evil", EntryType::Dir, None);
    });
    assert!(text.contains("no parent directory"), "{text}");
    for (link, target) in [
        ("b", "c"),
        ("b", "a"),
        ("b", "b"),
        ("b", "z"),
        ("b", "nowhere"),
    ] {
        let text = refused(|draft| {
            named(draft, "a0", EntryType::Symlink, Some("/etc/passwd"));
            named(draft, link, EntryType::Hardlink, Some(target));
        });
        assert!(text.contains("hard link"), "{link} → {target}: {text}");
    }
    let text = refused(|draft| {
        named(draft, "a0", EntryType::Symlink, Some("/etc/passwd"));
        named(draft, "b", EntryType::Hardlink, Some("a0"));
    });
    assert!(text.contains("hard link"), "{text}");
    let text = refused(|draft| named(draft, "b", EntryType::Hardlink, Some("../key.txt")));
    assert!(text.contains("unsafe path"), "{text}");
    // The other way round the link stays a link, and what it points to stays as it was.
    let (repo, result) = lie(|draft| named(draft, "b", EntryType::Symlink, Some("../key.txt")));
    result.unwrap();
    assert!(
        fs::read_to_string(repo.path("key.txt"))
            .unwrap()
            .contains("AGE-SECRET-KEY")
    );
}

#[test]
fn one_path_stands_once() {
    let text = refused(|draft| {
        let twin = file(draft, "z").clone();
        draft.entries.push(twin);
    });
    assert!(text.contains("out of order"), "{text}");
}

#[test]
fn impossible_sizes_are_refused() {
    let hole = |length| Extent {
        archive: None,
        offset: 0,
        length,
    };
    let text = refused(|draft| {
        for path in ["a/file", "z"] {
            let entry = file(draft, path);
            (entry.size, entry.extents) = (1 << 63, vec![hole(1 << 63)]);
        }
    });
    assert!(text.contains("bytes of holes"), "{text}");
    let text = refused(|draft| {
        let entry = file(draft, "z");
        (entry.size, entry.extents) = (10, vec![hole(u64::MAX), hole(11)]);
    });
    assert!(text.contains("add up"), "{text}");
    let text = refused(|draft| {
        let extent = &mut file(draft, "z").extents[0];
        extent.offset = u64::MAX - 600;
    });
    assert!(text.contains("beyond the end"), "{text}");
}

#[test]
fn content_that_overlaps_is_proven_like_any_other() {
    let text = refused(|draft| {
        let extent = file(draft, "a/file").extents[0];
        let entry = file(draft, "z");
        entry.extents = vec![extent, extent];
        entry.size = 2 * extent.length;
    });
    assert!(text.contains("not what the index says"), "{text}");
    let (repo, result) = lie(|draft| {
        let content = noise(1, 50_000);
        let source = file(draft, "a/file").extents[0];
        let part = |offset: u64, length| Extent {
            offset: source.offset + offset,
            length,
            ..source
        };
        let entry = file(draft, "z");
        entry.extents = vec![part(100, 3_000), part(0, 3_000), part(50, 3_000)];
        entry.size = 9_000;
        let whole = [&content[100..3_100], &content[..3_000], &content[50..3_050]].concat();
        entry.blake3 = Some(sealift::base::ids::Hash::blake3(&whole));
    });
    result.unwrap();
    assert_eq!(fs::metadata(repo.path("out/z")).unwrap().len(), 9_000);
}

#[test]
fn a_bomb_does_not_swell() {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("z"), noise(2, 500)).unwrap();
    // The archive of the next file: 1 GB of zeros in a few dozen kB.
    let zeros = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    let sealed = handmade_repo::encrypt(&zeros, &repo.recipients);
    let bomb = repo.add_archive(&sealed, ArchiveKind::Data);
    repo.push_changed(&tree, |draft| {
        let mut stream = draft.archives[0];
        stream.archive = bomb;
        draft.archives.insert(0, stream);
        let entry = file(draft, "z");
        entry.extents[0].archive = Some(bomb);
    });
    let start = std::time::Instant::now();
    let text = told(&restore(&repo, &repo.path("out")).expect_err("it was restored"));
    assert!(text.contains("bomb"), "{text}");
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn odd_metadata_is_told_of_or_harmless() {
    let (repo, result) = lie(|draft| {
        let entry = file(draft, "z");
        (entry.uid, entry.gid) = (u32::MAX, u32::MAX);
        entry.mtime_ns = i64::MIN.into();
        entry.xattrs.insert(b"user.\0".to_vec(), b"x".to_vec());
        entry.xattrs.insert(vec![b'x'; 300], vec![0; 100_000]);
        entry.user = Some("nobody\nat all".to_owned());
        let entry = file(draft, "a/file");
        entry.mtime_ns = i64::MAX.into();
        named(draft, "b", EntryType::Chardev, None);
        file(draft, "b").rdev = Some((u32::MAX, u32::MAX));
    });
    let lost = result.unwrap().not_kept;
    let lost: Vec<_> = lost.iter().map(|one| (one.kind, one.count)).collect();
    assert!(lost.contains(&(Aspect::Attributes, 1)), "{lost:?}");
    // The file system here ends earlier than a 64 bit number of nanoseconds does.
    assert!(
        lost.iter().any(|(kind, _)| *kind == Aspect::Time),
        "{lost:?}"
    );
    assert!(repo.path("out/z").exists());
}

#[test]
fn names_that_no_file_system_takes_change_nothing() {
    let text = refused(|draft| {
        let name = "n".repeat(300);
        named(draft, &name, EntryType::Dir, None);
    });
    assert!(text.contains("cannot make"), "{text}");
    // Deeper than a path may be long.
    let (repo, result) = lie(|draft| {
        let mut path = "b".to_owned();
        for _ in 0..30 {
            named(draft, &path, EntryType::Dir, None);
            path = format!("{path}/{}", "d".repeat(200));
        }
    });
    result.unwrap();
    drop(repo);
}

/// A host that signs what is not so: every hash of its ciphertext is right, and a file is another one.
#[test]
fn content_that_is_not_what_the_index_says_is_found_by_opening_it() {
    let mut repo = Repo::new();
    let tree = repo.path("tree");
    fs::create_dir(&tree).unwrap();
    for (n, name) in ["honest", "forged"].iter().enumerate() {
        fs::write(tree.join(name), noise(n as u64, 30_000)).unwrap();
    }
    repo.push_changed(&tree, |draft| {
        let forged = draft
            .entries
            .iter_mut()
            .find(|entry| entry.path == b"forged");
        forged.unwrap().blake3 = Some(Hash::blake3(b"something else"));
    });
    let (from, signer) = (repo.path("repo"), repo.signer.fingerprint());
    let verify = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealift"));
        command
            .env("HOME", repo.temp.path())
            .args(["verify", "--data", "--signer", &signer, "--from"])
            .arg(&from);
        let output = command.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (code, out) = verify(&[]);
    assert_eq!(code, Some(0), "{out}");
    let (code, out) = verify(&["--identity", repo.key_file.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{out}");
    assert!(out.contains("forged") && !out.contains("honest"), "{out}");
    assert!(
        out.contains("its content is not what the index says"),
        "{out}"
    );
}
