//! How the samples were made, with the program of that day. The identity that opens them is derived from a
//! sentence that everyone may know, so that none needs to be kept: it protects nothing.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift::base::ids::{Hash, ObjectKey};
use sealift::format::manifest::{Manifest, TablePage};

use super::read::{Expected, full_listing};
use crate::support::files::files;
use crate::support::host::{SEALIFT, texts};
use crate::support::tree::noise;

const SENTENCE: &str = "sealift format 1 sample";

/// An age identity file whose secret is the SHA-256 of the sentence.
pub fn identity() -> String {
    let secret = Hash::sha256(SENTENCE.as_bytes()).0;
    format!("{}\n", bech32("age-secret-key-", &secret).to_uppercase())
}

/// As BIP 173 has it.
fn bech32(prefix: &str, bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let mut fives = Vec::new();
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            fives.push((held >> bits & 31) as u8);
        }
    }
    fives.push((held << (5 - bits) & 31) as u8);
    let high = prefix.bytes().map(|c| c >> 5);
    let low = prefix.bytes().map(|c| c & 31);
    let stem = high.chain([0]).chain(low).chain(fives.iter().copied());
    let mut sum = 1u32;
    for value in stem.chain([0; 6]) {
        let top = sum >> 25;
        sum = (sum & 0x1ff_ffff) << 5 ^ u32::from(value);
        for (bit, term) in [
            0x3b6a_57b2,
            0x2650_8e6d,
            0x1ea1_19fa,
            0x3d42_33dd,
            0x2a14_62b3,
        ]
        .iter()
        .enumerate()
        {
            sum ^= if top >> bit & 1 == 1 { *term } else { 0 };
        }
    }
    sum ^= 1;
    let check = (0..6).map(|at| (sum >> (5 * (5 - at)) & 31) as u8);
    let letters = fives.iter().copied().chain(check);
    let letters: String = letters
        .map(|five| char::from(LETTERS[usize::from(five)]))
        .collect();
    format!("{prefix}1{letters}")
}

#[test]
fn the_identity_is_one() {
    let text = identity();
    assert!(text.starts_with("AGE-SECRET-KEY-1"), "{text}");
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("key.txt"), text).unwrap();
    let shown = Command::new(SEALIFT)
        .current_dir(temp.path())
        .args(["key", "show", "key.txt"])
        .output();
    let (out, err) = texts(&shown.unwrap());
    // Written down when the samples were made: another one opens nothing.
    assert_eq!(out.trim(), RECIPIENT, "{err}");
}

const RECIPIENT: &str = "age1wwtd50lehm54edva2yxgj558d044pfqq6hm87qvx9qssys4qha5swez2ur";

struct Maker {
    dir: PathBuf,
}

impl Maker {
    /// At `time`, or now.
    fn run(&self, time: &str, arguments: &[&str]) -> String {
        let clock = Some(("SEALIFT_CLOCK", time)).filter(|_| !time.is_empty());
        let output = Command::new(SEALIFT)
            .envs(clock)
            .env("SEALIFT_MACHINE_ID", "sample")
            .current_dir(&self.dir)
            .args(["--config", "c.toml"])
            .args(arguments)
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {out}\n{err}");
        out
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.join("data").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.data(name).parent().unwrap()).unwrap();
        fs::write(self.data(name), content).unwrap();
    }

    fn edit_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir.join("c.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(self.dir.join("c.toml"), text.replace(from, to)).unwrap();
    }

    /// So that the look of a tree does not hang on the moment.
    fn settle(&self) {
        for path in files(&self.dir.join("data")) {
            if fs::symlink_metadata(&path).unwrap().is_file() {
                let file = fs::File::open(path).unwrap();
                let time =
                    std::time::UNIX_EPOCH + std::time::Duration::new(1_775_000_000, 123_456_789);
                file.set_modified(time).unwrap();
            }
        }
    }
}

fn database(path: &Path, rows: std::ops::Range<i64>) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text TEXT)")
        .unwrap();
    for row in rows {
        let text = Hash::blake3(&row.to_le_bytes()).to_string().repeat(3);
        db.execute("INSERT INTO t VALUES(?1,?2)", (row, text))
            .unwrap();
    }
}

/// `SEALIFT_SAMPLES_TO=DIR cargo test --test stages make_format_1 -- --ignored`, as root on ext4.
#[test]
#[ignore = "the samples are never made again; see tests/samples/README.md"]
fn make_format_1() {
    let to = PathBuf::from(std::env::var_os("SEALIFT_SAMPLES_TO").expect("SEALIFT_SAMPLES_TO"));
    assert!(!to.exists(), "{} is there", to.display());
    let temp = tempfile::tempdir().unwrap();
    let maker = Maker {
        dir: temp.path().to_owned(),
    };
    let hour = |n: u32| format!("2026-04-01T{:02}:{:02}:00Z", n / 2, n % 2 * 30);
    let day = |n: u32| format!("2026-04-{n:02}T06:00:00Z");
    first_tree(&maker);
    let target = to.join("repo").display().to_string();
    fs::create_dir_all(&target).unwrap();
    let init = [
        "init",
        "--host",
        "sample",
        "--recipient",
        RECIPIENT,
        "--target",
        &target,
        "--tree",
        "data",
    ];
    maker.run("", &init);
    maker.edit_config("[retention]\n", "[retention]\nwithin = \"60d\"\n");
    // Many archives, so that the table has several pages.
    for n in 0..33 {
        maker.write("log", format!("line {n}\n").repeat(n as usize + 1));
        maker.run(&hour(n), &["backup"]);
    }
    maker.run(&hour(40), &["prune", "--yes", "--policy", "daily=7"]);
    // The second day: a new signer is announced; things change in place.
    let keygen = [
        "-q", "-t", "ed25519", "-N", "", "-C", "sample-2", "-f", "signer-2",
    ];
    assert!(
        Command::new("ssh-keygen")
            .current_dir(&maker.dir)
            .args(keygen)
            .status()
            .unwrap()
            .success()
    );
    maker.edit_config(
        "signer = \"c.signer\"",
        "signer = \"c.signer\"\nnext_signer = \"signer-2.pub\"",
    );
    let mut blocks = noise(2, 24_000);
    blocks[5_000..5_004].copy_from_slice(b"here");
    maker.write("blocks.bin", &blocks);
    database(&maker.data("app.db"), 40..50);
    let device = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::RUSR;
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, maker.data("device"), kind, mode, device).unwrap();
    maker.settle();
    maker.run(&day(2), &["backup"]);
    let second = full_listing(&maker.data(""));
    maker.run(&day(2), &["prune", "--policy", "daily=7"]);
    // The third: by the new signer.
    maker.edit_config(
        "signer = \"c.signer\"\nnext_signer = \"signer-2.pub\"",
        "signer = \"signer-2\"",
    );
    fs::remove_file(maker.data("device")).unwrap();
    blocks[15_000..15_004].copy_from_slice(b"and ");
    maker.write("blocks.bin", &blocks);
    maker.write("added", "on the third day\n");
    maker.settle();
    maker.run(&day(3), &["backup"]);
    let third = full_listing(&maker.data(""));
    // The fourth: less, and a snapshot is forgotten whose archives wait.
    fs::remove_file(maker.data("added")).unwrap();
    database(&maker.data("app.db"), 50..53);
    maker.settle();
    maker.run(
        &day(4),
        &[
            "backup",
            "--tag",
            "last",
            "--note",
            "the last of the samples",
        ],
    );
    let fourth = full_listing(&maker.data(""));
    maker.run(&day(4), &["prune", "--policy", "daily=3"]);
    finish(&maker, &to, &[second, third, fourth]);
}

/// `SEALIFT_SAMPLES_TO=DIR cargo test --test stages make_format_1_pages -- --ignored`, as root on ext4. Earlier
/// snapshots in pages and directories, signed marks.
#[test]
#[ignore = "the samples are never made again; see tests/samples/README.md"]
fn make_format_1_pages() {
    let to = PathBuf::from(std::env::var_os("SEALIFT_SAMPLES_TO").expect("SEALIFT_SAMPLES_TO"));
    assert!(!to.exists(), "{} is there", to.display());
    let temp = tempfile::tempdir().unwrap();
    let maker = Maker {
        dir: temp.path().to_owned(),
    };
    let day = |n: u32| format!("2026-04-{n:02}T06:00:00Z");
    maker.write("base.bin", noise(4, 24_000));
    maker.write("dir/file", noise(3, 5_000));
    database(&maker.data("app.db"), 0..40);
    let target = to.join("repo").display().to_string();
    fs::create_dir_all(&target).unwrap();
    let init = [
        "init",
        "--host",
        "sample",
        "--recipient",
        RECIPIENT,
        "--target",
        &target,
        "--tree",
        "data",
    ];
    maker.run("", &init);
    maker.edit_config("[retention]\n", "[retention]\nwithin = \"60d\"\n");
    let mut trees = Vec::new();
    for n in 1..=10 {
        // So that the pages are many, and some in a directory.
        if n > 2 {
            let after = (n * 64).to_string();
            maker.run(&day(n), &["adopt", "--after", &after]);
        }
        maker.write("number", format!("{n}\n"));
        maker.settle();
        maker.run(&day(n), &["backup"]);
        trees.push(full_listing(&maker.data("")));
        // The first is forgotten, and what only it needed is freed once the third has taken notice.
        if n == 2 || n == 3 {
            maker.run(
                &day(n),
                &["prune", "--yes", "--policy", &format!("last={}", n - 1)],
            );
        }
    }
    // The second is forgotten, and what only it needed waits.
    maker.run(&day(10), &["prune", "--policy", "last=8"]);
    finish(&maker, &to, &trees[2..]);
}

fn first_tree(maker: &Maker) {
    maker.write("notes.txt", "plain\n");
    // So that the first archive stays worth keeping.
    maker.write("base.bin", noise(4, 24_000));
    maker.write("empty", "");
    maker.write("blocks.bin", noise(2, 24_000));
    maker.write("dir/deep/er/file", noise(3, 5_000));
    maker.write("dir-beside", "sorts between dir and dir/");
    maker.write("dir/\u{e4}\u{f6}.txt", "umlauts");
    let raw = |name: &'static [u8]| std::ffi::OsStr::from_bytes(name);
    fs::write(maker.dir.join("data").join(raw(b"raw-\xff\xfe")), "no text").unwrap();
    fs::create_dir(maker.data("empty-dir")).unwrap();
    fs::hard_link(maker.data("notes.txt"), maker.data("dir/again.txt")).unwrap();
    symlink("notes.txt", maker.data("link")).unwrap();
    symlink("/nowhere/at/all", maker.data("dangling")).unwrap();
    symlink(raw(b"to-\xfe"), maker.data("raw-link")).unwrap();
    let sparse = fs::File::create(maker.data("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 500_000).unwrap();
    let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, maker.data("fifo"), fifo, owner, 0).unwrap();
    database(&maker.data("app.db"), 0..40);
    xattr::set(maker.data("notes.txt"), "user.note", b"\x00\xffvalue").unwrap();
    xattr::set(maker.data("empty-dir"), "user.on-dir", b"yes").unwrap();
    std::os::unix::fs::lchown(maker.data("dir/deep"), Some(1000), Some(1001)).unwrap();
    maker.settle();
    for (name, mode) in [
        ("notes.txt", 0o4640),
        ("empty-dir", 0o1777),
        ("dir/deep", 0o555),
    ] {
        fs::set_permissions(maker.data(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn finish(maker: &Maker, to: &Path, trees: &[Vec<String>]) {
    fs::write(maker.dir.join("key.txt"), identity()).unwrap();
    let folder = to.join("repo/sample");
    // No part of the format: copies for a key holder who lost his own.
    for name in ["RECOVER.md", "recover-v4.py"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let _ = fs::remove_dir(entry.unwrap().path());
    }
    let first = fs::read_to_string(maker.dir.join("c.signer.pub"));
    let first = first.unwrap_or_else(|_| {
        let shown = Command::new("ssh-keygen")
            .current_dir(&maker.dir)
            .args(["-y", "-f", "c.signer"])
            .output();
        texts(&shown.unwrap()).0
    });
    let key: Vec<&str> = first.split_whitespace().take(2).collect();
    let namespaces = "namespaces=\"sealift-manifest,sealift-prune\"";
    fs::write(
        to.join("allowed_signers"),
        format!("sample {namespaces} {}\n", key.join(" ")),
    )
    .unwrap();
    let manifests: Vec<Manifest> = files(&folder.join("manifests"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| Manifest::parse(&fs::read(path).unwrap()).unwrap())
        .collect();
    for one in &manifests {
        println!("{}: {} pages", one.core.sequence, one.pages.len());
    }
    let pages = manifests.iter().map(|one| one.pages.len()).max();
    let in_directories = |one: &Manifest| {
        let known = one.core.known.pages();
        known.is_some_and(|known| !known.directories.is_empty())
    };
    assert!(
        pages > Some(1) || manifests.iter().any(in_directories),
        "one page only"
    );
    let mut named = std::collections::BTreeSet::new();
    for page in manifests.iter().flat_map(|one| &one.pages) {
        let bytes = fs::read(folder.join(ObjectKey::table(page).as_str())).unwrap();
        named.extend(
            TablePage::parse(&bytes)
                .unwrap()
                .rows
                .into_iter()
                .map(|row| row.id),
        );
    }
    fs::create_dir(to.join("trees")).unwrap();
    let repo = to.join("repo").display().to_string();
    let signer = to.join("allowed_signers").display().to_string();
    let from = ["--from", &repo, "--signer", &signer];
    let time = "2026-04-04T07:00:00Z";
    assert_eq!(manifests.len(), trees.len());
    for (manifest, tree) in manifests.iter().zip(trees) {
        let number = manifest.core.sequence.to_string();
        let restore = [
            "restore",
            &number,
            "--identity",
            "key.txt",
            "--devices",
            "--to",
            &number,
        ];
        maker.run(time, &[&restore[..], &from].concat());
        assert_eq!(&full_listing(&maker.dir.join(&number).join("data")), tree);
        // With `data` itself, and the metadata beside it.
        let all = full_listing(&maker.dir.join(&number)).join("\n") + "\n";
        fs::write(to.join(format!("trees/{number}.txt")), all).unwrap();
    }
    let listed = maker.run(time, &[&["--json", "list"], &from[..]].concat());
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let listed = listed["snapshots"].as_array().unwrap().iter();
    let signers = listed.map(|one| one["signer"].as_str().unwrap().to_owned());
    let count = |name: &str, ending: &str| {
        let all = files(&folder.join(name)).into_iter();
        all.filter(|path| path.to_string_lossy().ends_with(ending))
            .count()
    };
    let expected = Expected {
        sequences: manifests.iter().map(|one| one.core.sequence).collect(),
        signers: signers.collect(),
        tombstones: count("tombstones", ".json"),
        marks: count("marks", ".json"),
        signed_marks: count("marks", ".sig"),
        pages: count("tables", ".json"),
        archives: count("archives", ".age"),
        pruned_to_two: {
            let older = manifests.iter().rev().skip(2).rev();
            older.map(|one| one.core.stamp.to_string()).collect()
        },
    };
    let text = serde_json::to_string_pretty(&expected).unwrap() + "\n";
    fs::write(to.join("expected.json"), text).unwrap();
    println!("{} archives are named", named.len());
}
