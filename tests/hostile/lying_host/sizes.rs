//! Sizes, extents and bombs.

use std::fs;

use sealift::base::ids::Hash;
use sealift::format::index::{Entry, EntryType, Extent};
use sealift::format::manifest::{ArchiveKind, IndexRef};

use crate::support::cage::{Cage, Words, bomb, crowded, hole, line, republish_core, wide};
use crate::support::handmade_repo::Draft;
use crate::support::is_long;
use crate::support::tree::noise;

const PETABYTE: u64 = 1_000_000_000_000_000;

fn z(draft: &mut Draft) -> &mut Entry {
    draft.entries.last_mut().unwrap()
}

/// An index line says anything; what no disk holds is refused before the first byte.
#[test]
fn ten_petabytes_are_refused_at_once() {
    let cage = Cage::lying(|draft| {
        let entry = z(draft);
        (entry.size, entry.extents) = (10 * PETABYTE, vec![hole(10 * PETABYTE)]);
    });
    cage.refuses("holes", "bytes of holes", "do not fit");
    if is_long() {
        cage.bears_looking("holes");
    }
    // Just as much in many small claims, each of which would do.
    let cage = Cage::lying(|draft| {
        let mut last = draft.entries.pop().unwrap();
        for n in 0..1000 {
            last.path = format!("z{n:05}").into_bytes();
            (last.size, last.extents) = (PETABYTE / 100, vec![hole(PETABYTE / 100)]);
            draft.entries.push(last.clone());
        }
    });
    cage.refuses("small holes", "bytes of holes", "do not fit");
    // Real bytes, a gigabyte of zeros that a few kB hold, named again and again.
    let mut cage = Cage::new();
    let id = bomb(&mut cage.repo, ArchiveKind::Data, 1 << 30);
    let tree = cage.tree.clone();
    cage.repo.push_changed(&tree, |draft| {
        let mut stream = draft.archives[0];
        (stream.archive, stream.tar_bytes) = (id, 1 << 30);
        draft.archives.insert(0, stream);
        let all = Extent {
            archive: Some(id),
            offset: 0,
            length: 1 << 30,
        };
        let mut last = draft.entries.pop().unwrap();
        (last.size, last.extents) = (100 << 30, vec![all; 100]);
        for n in 0..200 {
            last.path = format!("z{n:05}").into_bytes();
            draft.entries.push(last.clone());
        }
    });
    cage.refuses("gigabytes of the same", "are to be restored,", "do not fit");
    if is_long() {
        cage.bears_looking("gigabytes of the same");
    }
}

#[test]
fn numbers_that_are_none_are_refused() {
    type Lines = fn(&Words) -> String;
    let cases: [(&str, Lines); 14] = [
        ("a negative length", |w| {
            w.extent.replace(",500]", ",-1]") + &format!(r#",{}],"size":499"#, w.extent)
        }),
        ("a negative offset", |w| {
            let id = w.extent.split(',').next().unwrap();
            format!(r#"{id},-500,500]],"size":500"#)
        }),
        ("no length", |w| {
            w.extent.replace(",500]", ",0]") + r#"],"size":0"#
        }),
        ("a fraction", |w| {
            w.extent.replace(",500]", ",5e2]") + r#"],"size":500"#
        }),
        ("beyond 64 bits", |w| {
            w.extent.replace(",500]", ",18446744073709551616]") + r#"],"size":18446744073709551616"#
        }),
        ("the last number", |w| {
            w.extent.replace(",500]", ",18446744073709551615]") + r#"],"size":18446744073709551615"#
        }),
        ("beyond its archive", |w| {
            w.extent.replace(",500]", ",5000000]") + r#"],"size":5000000"#
        }),
        ("more size than extents", |w| {
            w.extent.clone() + r#"],"size":501"#
        }),
        ("less size than extents", |w| {
            w.extent.clone() + r#"],"size":499"#
        }),
        ("a negative size", |w| w.extent.clone() + r#"],"size":-1"#),
        ("a sum that overflows", |_| {
            r#"["-",0,18446744073709551615],["-",0,501]],"size":500"#.to_owned()
        }),
        ("no archive", |_| r#"["",0,500]],"size":500"#.to_owned()),
        ("an unknown archive", |_| {
            r#"["0011223344556677.18446744073709551615",0,500]],"size":500"#.to_owned()
        }),
        ("a nested one", |w| format!(r#"[{}]],"size":500"#, w.extent)),
    ];
    for (what, extents) in cases {
        let cage = Cage::with_lines(|words| {
            let (extents, blake3) = (extents(words), &words.blake3);
            let rest = format!(r#","blake3":"{blake3}","extents":[{extents}"#);
            vec![line(r#""path":"zz""#, "file", &rest)]
        });
        cage.refuses(what, "index", "");
        if is_long() {
            cage.bears_looking(what);
        }
    }
    for (what, from, to) in [
        (
            "an owner beyond 32 bits",
            r#""uid":0"#,
            r#""uid":4294967296"#,
        ),
        ("a negative owner", r#""gid":0"#, r#""gid":-1"#),
        ("a negative mode", r#""mode":493"#, r#""mode":-1"#),
        (
            "a time beyond 64 bits",
            r#""mtime":0"#,
            r#""mtime":9223372036854775808"#,
        ),
    ] {
        let cage = Cage::with_lines(|_| {
            let text = String::from_utf8(line(r#""path":"zz""#, "dir", "")).unwrap();
            vec![text.replace(from, to).into_bytes()]
        });
        cage.restore(&[]).ended(what, &[1]);
        if is_long() {
            // The script takes what Python takes, and says what it cannot set.
            cage.recover(&[]).ended(what, &[0, 1, 3]);
        }
    }
}

/// Content that overlaps itself and others comes out right, by whichever way.
#[test]
fn extents_may_overlap() {
    let cage = Cage::lying(|draft| {
        let content = noise(1, 50_000);
        let source = draft.entries[1].extents[0];
        let entry = z(draft);
        let part = |offset: u64| Extent {
            offset: source.offset + offset,
            length: 2_000,
            ..source
        };
        let offsets = [1_000, 0, 999, 1_000, 1];
        entry.extents = offsets.map(part).to_vec();
        entry.size = 10_000;
        let whole: Vec<u8> = offsets
            .iter()
            .flat_map(|at| content[*at as usize..][..2_000].to_vec())
            .collect();
        entry.blake3 = Some(Hash::blake3(&whole));
    });
    for ran in [cage.restore(&[]), cage.recover(&[])] {
        ran.ended("overlap", &[0]);
        let found = fs::read(cage.restored().join("z")).unwrap();
        assert_eq!(&found[..2_000], &noise(1, 50_000)[1_000..3_000]);
        assert_eq!(&found[8_000..], &noise(1, 50_000)[1..2_001]);
    }
}

/// What an archive swells to does not matter: no reader reads on behind what it needs, and no tar is that long.
#[test]
fn bombs_do_not_go_off() {
    let mut cage = Cage::new();
    // 20 GB, whose last bytes an honest-looking index wants.
    let frames = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    let frames = frames.repeat(20);
    let sealed = crate::support::handmade_repo::encrypt(&frames, &cage.repo.recipients.clone());
    let id = cage.repo.add_archive(&sealed, ArchiveKind::Data);
    let tree = cage.tree.clone();
    let aimed = |draft: &mut Draft, offset: u64, tar_bytes: u64| {
        let mut stream = draft.archives[0];
        (stream.archive, stream.tar_bytes) = (id, tar_bytes);
        draft.archives.insert(0, stream);
        z(draft).extents[0] = Extent {
            archive: Some(id),
            offset,
            length: 500,
        };
    };
    cage.repo
        .push_changed(&tree, |draft| aimed(draft, (20 << 30) - 500, 20 << 30));
    cage.refuses("a long tar", "21474836480 bytes", "an impossible extent");
    if is_long() {
        cage.bears_looking("a long tar");
    }
    // The start of it is as good as any other content, and no more than that is unpacked.
    cage.repo.push_changed(&tree, |draft| {
        aimed(draft, 0, 4 << 30);
        z(draft).blake3 = Some(Hash::blake3(&[0; 500]));
    });
    for ran in [cage.restore(&[]), cage.recover(&[])] {
        ran.ended("the start of a bomb", &[0]);
    }
    // An index at the end of one.
    let manifest = cage.repo.push(&tree);
    let (id, bytes) = (bomb(&mut cage.repo, ArchiveKind::Index, 1 << 20), 1000);
    let reference = |offset, length| IndexRef {
        extents: vec![Extent {
            archive: Some(id),
            offset,
            length,
        }],
        bytes: length,
        blake3: Hash::blake3(b"index"),
    };
    let rows = [id, manifest.core.index.extents[0].archive.unwrap()];
    let manifest = cage.repo.publish_manifest(reference(1 << 50, bytes), &rows);
    cage.refuses("an index far away", "impossible size", "impossible extent");
    for (what, offset, length, says, by_hand) in [
        ("an index of zeros", 0, 1 << 20, "its BLAKE3 is not", ""),
        (
            "an index beyond the end",
            1 << 20,
            1000,
            "are needed",
            "ends too early",
        ),
        ("a huge index", 0, 9 << 30, "impossible size", "too large"),
        (
            "an index without end",
            u64::MAX / 2,
            1 << 62,
            "impossible size",
            "too large",
        ),
    ] {
        republish_core(&cage.repo, &manifest, |core| {
            core.sequence += 1;
            core.index = reference(offset, length);
        });
        cage.refuses(what, says, by_hand);
        for path in cage.repo.objects("manifests") {
            if path
                .to_string_lossy()
                .contains(&format!("{:08}-", manifest.core.sequence + 1))
            {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn archives_that_are_no_archives_are_named() {
    let opened = |kind: &dyn Fn(
        &mut crate::support::handmade_repo::Repo,
    ) -> sealift::base::ids::ArchiveId| {
        let mut cage = Cage::new();
        let id = kind(&mut cage.repo);
        let path = cage.repo.newest_archive(ArchiveKind::Data);
        let tree = cage.tree.clone();
        cage.repo.push_changed(&tree, |draft| {
            let mut stream = draft.archives[0];
            (stream.archive, stream.tar_bytes) = (id, 4 << 20);
            draft.archives.insert(0, stream);
            z(draft).extents[0] = Extent {
                archive: Some(id),
                offset: 512,
                length: 500,
            };
        });
        (cage, path)
    };
    type Craft = fn(&mut crate::support::handmade_repo::Repo) -> sealift::base::ids::ArchiveId;
    let mut cases: Vec<(&str, Craft, &str, &str)> = vec![
        (
            "a wide window",
            |r| wide(r, ArchiveKind::Data),
            "too much memory",
            "zstd",
        ),
        (
            "a crowd",
            |r| crowded(r, ArchiveKind::Data, 300),
            "300 recipients",
            "age",
        ),
        (
            "no age file",
            |r| {
                r.add_archive(
                    b"age-encryption.org/v1\n\n---\n0123456789abcdef0123",
                    ArchiveKind::Data,
                )
            },
            "damaged",
            "age",
        ),
        (
            "no zstd",
            |r| {
                let sealed =
                    crate::support::handmade_repo::encrypt(&noise(9, 5000), &r.recipients.clone());
                r.add_archive(&sealed, ArchiveKind::Data)
            },
            "damaged",
            "zstd",
        ),
        (
            "nothing",
            |r| {
                let sealed = crate::support::handmade_repo::encrypt(b"", &r.recipients.clone());
                r.add_archive(&sealed, ArchiveKind::Data)
            },
            "cut short",
            "zstd",
        ),
    ];
    // As many as fit into the largest file that recover.py may write here.
    let most: Craft = |r| crowded(r, ArchiveKind::Data, 600_000);
    if is_long() {
        cases.push(("most stanzas", most, "longer than 4 MiB", "age"));
    }
    let many: Craft = |r| crowded(r, ArchiveKind::Data, 60_000);
    cases.push(("many stanzas", many, "longer than 4 MiB", "age"));
    for (what, craft, says, by_hand) in cases {
        let (cage, archive) = opened(&craft);
        cage.refuses(what, says, by_hand);
        assert!(cage.open(&archive).ended(what, &[0, 1]).err.len() < 1000);
        if is_long() {
            cage.bears_looking(what);
        }
    }
    // `open` has no index to tell it where to stop: it streams.
    let (cage, archive) = opened(&|r| bomb(r, ArchiveKind::Data, 512 << 20));
    cage.open(&archive).ended("a bomb", &[0]);
}

/// A tar is not where names come from: what its members are called makes no difference.
#[test]
fn the_tars_own_names_and_links_do_nothing() {
    let mut cage = Cage::new();
    let content = noise(5, 500);
    let mut header = tar::Header::new_ustar();
    let mut stream = Vec::new();
    for (name, kind, link) in [
        ("../../canary/file", tar::EntryType::Regular, ""),
        ("/etc/new", tar::EntryType::Symlink, "/etc"),
        ("zz", tar::EntryType::Link, "../canary/file"),
    ] {
        header.set_entry_type(kind);
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(if link.is_empty() { 500 } else { 0 });
        header.as_mut_bytes()[157..257].fill(0);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        stream.extend_from_slice(header.as_bytes());
        if link.is_empty() {
            stream.extend_from_slice(&content);
            stream.resize(stream.len().next_multiple_of(512), 0);
        }
    }
    stream.extend([0; 1024]);
    let sealed = crate::support::handmade_repo::seal_tar(&stream, &cage.repo.recipients.clone());
    let id = cage.repo.add_archive(&sealed, ArchiveKind::Data);
    let tree = cage.tree.clone();
    cage.repo.push_changed(&tree, |draft| {
        let mut row = draft.archives[0];
        (row.archive, row.tar_bytes) = (id, stream.len() as u64);
        draft.archives.insert(0, row);
        let entry = z(draft);
        assert_eq!(entry.kind, EntryType::File);
        entry.blake3 = Some(Hash::blake3(&content));
        entry.extents[0] = Extent {
            archive: Some(id),
            offset: 512,
            length: 500,
        };
    });
    for ran in [cage.restore(&[]), cage.recover(&[])] {
        ran.ended("a hostile tar", &[0]);
        assert_eq!(fs::read(cage.restored().join("z")).unwrap(), content);
    }
    cage.verify().ended("a hostile tar", &[0]);
}
