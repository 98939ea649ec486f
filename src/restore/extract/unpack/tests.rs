//! A restored directory arrives as it was sent, or not at all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use crate::base::ids::Hash;
use crate::base::progress::Silent;
use crate::format::archive::tar_member::TarMember;
use crate::format::index::Entry;
use crate::format::restored::RESTORED;
use crate::format::restored::{RecordWriter, RestoredFrom, RestoredHeader};
use crate::restore::check_record::{RecordDifferences, check_record};
use crate::restore::pack_restored::{PackRestoredError, pack_restored};

/// Bytes that do not repeat.
fn noise(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Makes a small tree with its record, and returns the stream of it.
fn sample(tree: &Path) -> Vec<u8> {
    let make = |name: &[u8], content: &[u8]| {
        let path = tree.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    make(b"backup-metadata.json", b"{}");
    for size in [0, 1, 511, 512, 513, 1500] {
        make(format!("dir/{size}").as_bytes(), &noise(size));
    }
    make(&[b"dir/".to_vec(), vec![b'n'; 180]].concat(), b"long");
    make(b"raw-\xff", b"raw");
    make(b"zeros", &[0; 2000]);
    symlink("dir", tree.join("link")).unwrap();
    fs::hard_link(tree.join("dir/513"), tree.join("second")).unwrap();
    fs::set_permissions(tree.join("dir/1"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(tree.join("dir"), fs::Permissions::from_mode(0o2750)).unwrap();
    let from = RestoredFrom {
        host: "dalidou".parse().unwrap(),
        stamp: "20260407T060000Z".parse().unwrap(),
        sequence: 1,
        signer: "SHA256:x".to_owned(),
        core: Hash::blake3(b"core"),
        paths: Vec::new(),
    };
    let at = "2026-04-08T12:00:00Z".parse().unwrap();
    let header = RestoredHeader::new(&from, Vec::new(), at);
    let mut record = RecordWriter::begin(Vec::new(), &header).unwrap();
    for entry in entries(tree) {
        record.entry(entry).unwrap();
    }
    let record = record.finish().unwrap();
    fs::write(tree.join(RESTORED), &record).unwrap();
    let record = RestoredRecord::read(&record[..]).unwrap();
    let mut stream = Vec::new();
    let sent = std::cell::Cell::new(0);
    let dir = Dir::open(tree).unwrap();
    pack_restored(&dir, &record, &mut stream, &|bytes| {
        sent.set(sent.get() + bytes)
    })
    .unwrap();
    let of_record = fs::metadata(tree.join(RESTORED)).unwrap().len();
    assert_eq!(sent.get(), record.bytes() + of_record);
    stream
}

fn entries(tree: &Path) -> Vec<Entry> {
    let mut found: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    let mut dirs = vec![tree.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let rel = path.strip_prefix(tree).unwrap().as_os_str().as_bytes();
            let mut entry = Entry {
                path: rel.to_vec(),
                kind: EntryType::File,
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                user: None,
                group: None,
                mtime_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
                xattrs: BTreeMap::new(),
                size: 0,
                blake3: None,
                extents: Vec::new(),
                target: None,
                rdev: None,
                torn: false,
            };
            if meta.is_dir() {
                entry.kind = EntryType::Dir;
                dirs.push(path);
            } else if meta.is_symlink() {
                entry.kind = EntryType::Symlink;
                entry.target = Some(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec());
            } else if rel == b"second" {
                entry.kind = EntryType::Hardlink;
                entry.target = Some(b"dir/513".to_vec());
            } else {
                entry.size = meta.size();
                entry.blake3 = Some(Hash::blake3(&fs::read(path).unwrap()));
            }
            found.insert(entry.path.clone(), entry);
        }
    }
    found.into_values().collect()
}

/// Unpacks `stream` into a new directory, which must not exist.
fn receive(mut stream: &[u8], to: &Path) -> Result<RestoredRecord, UnpackError> {
    fs::create_dir(to).unwrap();
    let record = read_record(&mut stream)?;
    let unpacked = unpack(&mut stream, &record, &Dir::open(to).unwrap(), &Silent)?;
    assert_eq!(unpacked.problems, Vec::<String>::new());
    assert!(stream.is_empty());
    Ok(record)
}

#[test]
fn a_directory_arrives_as_it_was_sent() {
    let temp = tempfile::tempdir().unwrap();
    let (tree, to) = (temp.path().join("tree"), temp.path().join("to"));
    let stream = sample(&tree);
    let record = receive(&stream, &to).unwrap();
    let dir = Dir::open(&to).unwrap();
    let found = check_record(&record, &dir, &Silent).unwrap();
    assert_eq!(found, RecordDifferences::default());
    fs::remove_file(tree.join(RESTORED)).unwrap();
    assert_eq!(entries(&to), entries(&tree));
    let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("dir/513"), inode("second"));
    // And with stock tools: each member is a file of the snapshot.
    let mut archive = tar::Archive::new(&stream[..]);
    let members = archive.entries().unwrap().map(|member| {
        let member = member.unwrap();
        (member.path_bytes().into_owned(), member.size())
    });
    let members: Vec<_> = members.collect();
    assert_eq!(members[0].0, RESTORED.as_bytes());
    let files = record.entries.iter().filter(|e| e.kind == EntryType::File);
    let files = files.map(|entry| (entry.path.to_vec(), entry.size));
    assert_eq!(members[1..], files.collect::<Vec<_>>());
}

#[test]
fn a_stream_that_ends_or_changes_anywhere_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let stream = sample(&temp.path().join("tree"));
    let to = temp.path().join("to");
    // The bytes around each end of a block, and some within.
    let is_tried = |at: usize| matches!(at % BLOCK_BYTES, 0 | 1 | 511) || at.is_multiple_of(61);
    let places = (0..stream.len()).filter(|at| is_tried(*at));
    for at in places {
        let cut = receive(&stream[..at], &to).unwrap_err();
        assert!(matches!(cut, UnpackError::BrokeOff), "{at}: {cut:?}");
        fs::remove_dir_all(&to).unwrap();
        let mut changed = stream.clone();
        changed[at] ^= 1 << (at % 8);
        receive(&changed, &to).unwrap_err();
        fs::remove_dir_all(&to).unwrap();
    }
}

#[test]
fn only_what_the_record_lists_is_made() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    let stream = sample(&tree);
    let to = temp.path().join("to");
    // Another file in the place of the last one, of the same size and content.
    let other = TarMember {
        path: b"zeroz".to_vec(),
        ..file_member(
            &receive(&stream, &to)
                .unwrap()
                .entries
                .find(b"zeros")
                .unwrap(),
        )
    };
    fs::remove_dir_all(&to).unwrap();
    let start = stream.len() - TRAILER_BYTES - 2048 - BLOCK_BYTES;
    let replaced = [
        &stream[..start],
        &other.header(),
        &stream[start + BLOCK_BYTES..],
    ]
    .concat();
    let error = receive(&replaced, &to).unwrap_err();
    assert!(error.to_string().contains("\"zeros\""), "{error}");
    fs::remove_dir_all(&to).unwrap();
    // One more after the last.
    let end = stream.len() - TRAILER_BYTES;
    let more = [&stream[..end], &other.header(), &stream[end..]].concat();
    assert!(matches!(receive(&more, &to), Err(UnpackError::Stream(_))));
    assert!(!to.join("zeroz").exists());
    fs::remove_dir_all(&to).unwrap();
    // Another kind of stream.
    for foreign in [
        &stream[BLOCK_BYTES..],
        b"#!/bin/sh\n".repeat(100).as_slice(),
    ] {
        assert!(matches!(receive(foreign, &to), Err(UnpackError::Stream(_))));
        fs::remove_dir_all(&to).unwrap();
    }
    // A record without an end would be held in memory.
    let endless = [record_member(5 << 30).header(), vec![b'x'; 4096]].concat();
    assert!(matches!(
        receive(&endless, &to),
        Err(UnpackError::Stream(_))
    ));
}

#[test]
fn a_file_that_changed_since_it_was_restored_is_not_sent() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    let stream = sample(&tree);
    let record = read_record(&mut &stream[..]).unwrap();
    fs::write(tree.join("dir/1500"), "short").unwrap();
    let dir = Dir::open(&tree).unwrap();
    let error = pack_restored(&dir, &record, &mut Vec::new(), &|_| ()).unwrap_err();
    assert!(matches!(error, PackRestoredError::Read { path, .. } if path == "dir/1500"));
    // One that grew is sent up to its size, and refused by its hash on the other side.
    fs::write(tree.join("dir/1500"), noise(1600)).unwrap();
    let mut stream = Vec::new();
    pack_restored(&dir, &record, &mut stream, &|_| ()).unwrap();
    let refused = receive(&stream, &temp.path().join("to")).unwrap_err();
    assert!(matches!(refused, UnpackError::Content { path } if path == "dir/1500"));
}

/// A key holder who is not root restored files that their permissions close to their owner.
#[test]
fn files_that_are_closed_to_their_owner_are_sent() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    sample(&tree);
    let text = fs::read(tree.join(RESTORED)).unwrap();
    let record = RestoredRecord::read(&text[..]).unwrap();
    for (name, mode) in [("dir/1", 0o000), ("zeros", 0o040), ("dir", 0o200)] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let dir = Dir::open(&tree).unwrap();
    let pack = |dir: &Dir| {
        let mut stream = Vec::new();
        pack_restored(dir, &record, &mut stream, &|_| ()).unwrap();
        stream
    };
    let stream = match nix::unistd::geteuid().is_root() {
        false => pack(&dir),
        true => {
            let another = nix::unistd::Uid::from_raw(65_534);
            for path in std::iter::once(tree.clone()).chain(paths_below(&tree)) {
                std::os::unix::fs::lchown(path, Some(another.as_raw()), None).unwrap();
            }
            // Of this thread only.
            std::thread::scope(|scope| {
                let packing = scope.spawn(|| {
                    // SAFETY: it changes whose access to files this thread has, and nothing else.
                    #[allow(unsafe_code, reason = "rustix has no call for it")]
                    unsafe {
                        libc::setfsuid(another.as_raw());
                    }
                    pack(&dir)
                });
                packing.join().unwrap()
            })
        }
    };
    receive(&stream, &temp.path().join("to")).unwrap();
}

fn paths_below(tree: &Path) -> Vec<std::path::PathBuf> {
    let found = entries(tree).into_iter();
    found
        .map(|entry| tree.join(OsStr::from_bytes(&entry.path)))
        .collect()
}
