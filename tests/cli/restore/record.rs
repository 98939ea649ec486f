//! `restored.jsonl`, the record that a restore writes beside its files: it lists every entry as it is, shows any
//! damage to itself, and names every difference of a directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sealift::base::ids::Hash;
use sealift::base::openat::Dir;
use sealift::base::progress::Silent;
use sealift::format::index::{Entry, EntryType};
use sealift::format::restored::{
    RESTORED, RecordWriter, RestoredFrom, RestoredHeader, RestoredRecord,
};
use sealift::restore::{RecordDifferences, check_record};

use crate::support::files::mode_of;
use crate::support::host::{Host, texts};
use crate::support::random::Random;
use crate::support::tree::{make_tree, noise, scan};

fn read(dir: &Path) -> RestoredRecord {
    let bytes = fs::read(dir.join(RESTORED)).unwrap();
    RestoredRecord::read(&bytes[..]).unwrap()
}

fn check(record: &RestoredRecord, dir: &Path) -> RecordDifferences {
    check_record(record, &Dir::open(dir).unwrap(), &Silent).unwrap()
}

/// The entries of a directory as a record of it has them.
fn entries_of(dir: &Path) -> Vec<Entry> {
    let mut entries = scan(dir);
    for entry in &mut entries {
        let path = dir.join(std::ffi::OsStr::from_bytes(&entry.path));
        let is_file = entry.kind == EntryType::File;
        entry.blake3 = is_file.then(|| Hash::blake3(&fs::read(path).unwrap()));
    }
    entries
}

fn record_of(entries: &[Entry]) -> Vec<u8> {
    let from = RestoredFrom {
        host: "dalidou".parse().unwrap(),
        stamp: "20260407T060000Z".parse().unwrap(),
        sequence: 7,
        signer: "SHA256:abc".to_owned(),
        core: Hash::sha256(b"core"),
        paths: Vec::new(),
    };
    let at = "2026-04-08T12:00:00Z".parse().unwrap();
    let header = RestoredHeader::new(&from, Vec::new(), at);
    let mut writer = RecordWriter::begin(Vec::new(), &header).unwrap();
    for entry in entries {
        writer.entry(entry.clone()).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_restore_records_every_entry_as_it_is() {
    let host = Host::new();
    make_tree(&host.data());
    let report = host.backup();
    let out = host.restore("latest", "out");
    assert_eq!(mode_of(&out.join(RESTORED)), 0o600);
    let record = read(&out);
    let header = &record.header;
    assert_eq!(header.host.as_str(), "dalidou");
    assert_eq!(serde_json::json!(header.stamp), report["stamp"]);
    assert_eq!((header.sequence, header.complete), (1, true));
    assert_eq!(header.signer, host.signer);
    let manifests = fs::read_dir(host.folder().join("manifests")).unwrap();
    let manifest = manifests
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "json"));
    let manifest = fs::read(manifest.unwrap()).unwrap();
    let core = manifest.split(|byte| *byte == b'\n').next().unwrap();
    assert_eq!(header.core, Hash::sha256(core));
    // What it says of each entry is what is there: names of users are the snapshot's.
    let mut recorded: Vec<Entry> = record.entries.iter().map(|one| one.to_entry()).collect();
    for entry in &mut recorded {
        (entry.user, entry.group) = (None, None);
    }
    let there = entries_of(&out);
    assert_eq!(recorded.len(), there.len());
    for (recorded, there) in recorded.iter().zip(&there) {
        let path = there.path_lossy();
        assert_eq!(recorded.path, there.path);
        assert_eq!(
            (
                recorded.kind,
                recorded.size,
                recorded.blake3,
                &recorded.target
            ),
            (there.kind, there.size, there.blake3, &there.target),
            "{path}"
        );
        let is_linked = there.kind == EntryType::Symlink;
        assert!(is_linked || recorded.mode == there.mode, "{path}");
        assert_eq!(recorded.mtime_ns, there.mtime_ns, "{path}");
        assert_eq!(recorded.xattrs, there.xattrs, "{path}");
    }
    assert_eq!(check(&record, &out), RecordDifferences::default());
    // Its own file is not compared with anything, and a second restore to the same place moves it aside.
    let again = host.restore_words(&["--overwrite"], "out");
    let report = host.json(&again);
    assert_eq!(report["record"], true);
    assert_eq!(read(&out).entries.len(), record.entries.len());
    let aside = PathBuf::from(report["moved_aside"].as_str().unwrap());
    assert_eq!(read(&aside).header, record.header);
}

#[test]
fn a_part_is_recorded_as_a_part() {
    let host = Host::new();
    make_tree(&host.data());
    host.backup();
    host.ok(&host.restore_words(&["data/dir", "data/notes.txt"], "part"));
    let record = read(&host.path("part"));
    assert!(!record.header.complete);
    let covered = |path: &str| record.covers(path.as_bytes());
    assert!(covered("data/dir") && covered("data/dir/deep") && covered("data/notes.txt"));
    assert!(!covered("data") && !covered("data/dir-beside") && !covered("data/notes"));
    assert!(!covered("backup-metadata.json"));
    assert_eq!(
        check(&record, &host.path("part")),
        RecordDifferences::default()
    );
}

#[test]
fn a_snapshot_with_such_a_file_of_its_own_keeps_it() {
    let host = Host::prepared(
        |dir| fs::write(dir.join("restored.jsonl"), "{\"mine\": true}").unwrap(),
        &["--json-file", "restored.jsonl", "--tree", "data"],
    );
    host.backup();
    let output = host.run(&host.restore_words(&[], "out"));
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(err.contains("an entry restored.jsonl of its own"), "{err}");
    let mine = fs::read_to_string(host.path("out/restored.jsonl")).unwrap();
    assert_eq!(mine, "{\"mine\": true}");
}

#[test]
fn a_record_that_is_cut_or_changed_anywhere_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/file"), "content").unwrap();
    fs::write(tree.join("z"), "").unwrap();
    fs::hard_link(tree.join("a/b/file"), tree.join("link")).unwrap();
    symlink("a", tree.join("to")).unwrap();
    let bytes = record_of(&entries_of(&tree));
    assert_eq!(RestoredRecord::read(&bytes[..]).unwrap().entries.len(), 6);
    for end in 0..bytes.len() {
        let error = RestoredRecord::read(&bytes[..end]).unwrap_err();
        assert!(error.to_string().contains("truncated"), "{end}: {error}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(
                RestoredRecord::read(&changed[..]).is_err(),
                "{at}, bit {bit}"
            );
        }
    }
    // Lines that are left out, doubled or exchanged.
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for one in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(one);
        assert!(
            RestoredRecord::read(&without.concat()[..]).is_err(),
            "without {one}"
        );
        let mut twice = lines.clone();
        twice.insert(one, lines[one]);
        assert!(
            RestoredRecord::read(&twice.concat()[..]).is_err(),
            "{one} twice"
        );
        for other in 0..one {
            let mut exchanged = lines.clone();
            exchanged.swap(one, other);
            let read = RestoredRecord::read(&exchanged.concat()[..]);
            assert!(read.is_err(), "{one} and {other}");
        }
    }
}

#[test]
fn a_record_cannot_lead_out_of_its_directory() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), "content").unwrap();
    let [file] = entries_of(temp.path()).try_into().unwrap();
    let with = |path: &[u8]| Entry {
        path: path.to_vec(),
        ..file.clone()
    };
    let link = |target: &[u8]| Entry {
        kind: EntryType::Hardlink,
        blake3: None,
        size: 0,
        target: Some(target.to_vec()),
        ..with(b"b")
    };
    let refused: [Vec<Entry>; 9] = [
        vec![with(b"../a")],
        vec![with(b"/a")],
        vec![with(b"a/../b")],
        vec![with(b"a\0b")],
        vec![with(b"")],
        vec![with(b"dir/a")],
        vec![with(RESTORED.as_bytes())],
        vec![with(b"a"), link(b"c")],
        vec![with(b"a"), link(b"../a")],
    ];
    for entries in refused {
        let bytes = record_of(&entries);
        assert!(RestoredRecord::read(&bytes[..]).is_err(), "{entries:?}");
    }
    let good = [with(b"a"), link(b"a")];
    RestoredRecord::read(&record_of(&good)[..]).unwrap();
}

/// A tree of files, directories, links and FIFOs.
fn random_tree(random: &mut Random, root: &Path) {
    fs::create_dir(root).unwrap();
    let mut dirs = vec![root.to_owned()];
    let mut files = Vec::new();
    for number in 0..5 + random.below(40) {
        let dir = dirs[random.below(dirs.len())].clone();
        let raw: [&[u8]; 3] = [b"", b"\xff", b" \n\""];
        let name = [raw[random.below(3)], number.to_string().as_bytes()].concat();
        let path = dir.join(std::ffi::OsStr::from_bytes(&name));
        match random.below(10) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path);
            }
            2 => symlink(format!("to-{number}"), path).unwrap(),
            3 => crate::support::files::make_fifo(&path),
            4 if !files.is_empty() => {
                let first: &PathBuf = &files[random.below(files.len())];
                fs::hard_link(first, path).unwrap();
            }
            _ => {
                fs::write(&path, noise(random.next(), random.below(5000))).unwrap();
                files.push(path);
            }
        }
    }
}

/// Changes one thing of `tree`. Returns the paths that differ afterwards; `true`: they are additional.
fn change(random: &mut Random, tree: &Path, entries: &[Entry]) -> (BTreeSet<String>, bool) {
    let at = |entry: &Entry| tree.join(std::ffi::OsStr::from_bytes(&entry.path));
    let one = &entries[random.below(entries.len())];
    let mut names = BTreeSet::from([one.path_lossy().into_owned()]);
    let below = |names: &mut BTreeSet<String>| {
        let prefix = [&one.path[..], b"/"].concat();
        let below = entries
            .iter()
            .filter(|entry| entry.path.starts_with(&prefix));
        names.extend(below.map(|entry| entry.path_lossy().into_owned()));
    };
    match (random.below(4), one.kind) {
        (0, _) => {
            let new = tree.join("0-additional");
            fs::create_dir(&new).unwrap();
            fs::write(new.join("in-it"), "").unwrap();
            return (BTreeSet::from(["0-additional".to_owned()]), true);
        }
        (1, EntryType::File) if one.size > 0 => {
            // In place, so that hard links have it, too.
            let mut content = fs::read(at(one)).unwrap();
            let byte = random.below(content.len());
            content[byte] ^= 1;
            fs::write(at(one), content).unwrap();
        }
        (2, EntryType::File) => {
            let mut file = fs::OpenOptions::new().append(true).open(at(one)).unwrap();
            file.write_all(b"more").unwrap();
        }
        (3, EntryType::Symlink) => {
            fs::remove_file(at(one)).unwrap();
            symlink("elsewhere", at(one)).unwrap();
        }
        (_, EntryType::Dir) => {
            fs::remove_dir_all(at(one)).unwrap();
            below(&mut names);
        }
        _ => {
            fs::remove_file(at(one)).unwrap();
            fs::create_dir(at(one)).unwrap();
        }
    }
    (names, false)
}

#[test]
fn any_tree_is_as_its_record_says_until_it_is_changed() {
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        random_tree(random, &tree);
        let entries = entries_of(&tree);
        let bytes = record_of(&entries);
        let record = RestoredRecord::read(&bytes[..]).unwrap();
        let read: Vec<Entry> = record.entries.iter().map(|one| one.to_entry()).collect();
        assert_eq!(read, entries, "seed {seed}");
        fs::write(tree.join(RESTORED), &bytes).unwrap();
        assert_eq!(
            check(&record, &tree),
            RecordDifferences::default(),
            "seed {seed}"
        );

        let (names, is_additional) = change(random, &tree, &entries);
        let found = check(&record, &tree);
        assert_eq!(found.is_whole(), is_additional, "seed {seed}: {found:?}");
        let changed = found.changed.iter().map(|(path, _)| path.clone());
        let different: BTreeSet<String> = found.missing.iter().cloned().chain(changed).collect();
        match is_additional {
            true => assert_eq!(
                BTreeSet::from_iter(found.additional.clone()),
                names,
                "seed {seed}"
            ),
            // The first name of a changed file differs with its other names.
            false => assert!(
                names.is_subset(&different),
                "seed {seed}: {names:?} {found:?}"
            ),
        }
        let text = found.to_string();
        assert!(
            is_additional || names.iter().all(|name| text.contains(name.as_str())),
            "{text}"
        );
    }
}

#[test]
fn a_copy_by_another_user_without_hard_links_is_whole() {
    let temp = tempfile::tempdir().unwrap();
    let (tree, copy) = (temp.path().join("tree"), temp.path().join("copy"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let record = record_of(&entries_of(&tree));
    let record = RestoredRecord::read(&record[..]).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-R", "--no-preserve=all"])
        .args([&tree, &copy])
        .status();
    assert!(copied.unwrap().success());
    assert_eq!(check(&record, &copy), RecordDifferences::default());
    // One of the names gets other content.
    fs::set_permissions(copy.join("hard"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(copy.join("hard"), noise(9, 700_000)).unwrap();
    let found = check(&record, &copy);
    assert_eq!(found.changed.len(), 1, "{found:?}");
    assert!(found.changed[0].0 == "hard", "{found:?}");
}
