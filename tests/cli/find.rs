//! `find` and `versions`: what they say is what the snapshots hold, whatever happened between them.

mod many;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::files::files;
use crate::support::host::Host;
use crate::support::random::Random;

fn words<'a>(host: &'a Host, first: &[&'a str]) -> Vec<&'a str> {
    [first, &host.place()].concat()
}

/// A host whose clock begins at a fixed time, and the next time.
pub fn set_day(host: &mut Host, day: usize) {
    host.clock = Some(format!("2026-03-{:02}T06:00:00Z", day + 1));
}

/// Changes some files below `data`: content, times, kinds and names that need care.
pub fn change(data: &Path, random: &mut Random) {
    const NAMES: [&[u8]; 7] = [
        b"a.txt",
        b"b.jpg",
        b"B.JPG",
        b"\xff\xfe",
        b"two words",
        b"q\"uote\\",
        b"a[1]",
    ];
    for _ in 0..1 + random.below(6) {
        let mut path = data.to_owned();
        if random.one_in(2) {
            path.push(["x", "y"][random.below(2)]);
            if !path.is_dir() {
                fs::create_dir(&path).unwrap();
            }
        }
        path.push(std::ffi::OsStr::from_bytes(
            NAMES[random.below(NAMES.len())],
        ));
        let _ = fs::remove_file(&path);
        match random.below(6) {
            0 => {}
            1 => std::os::unix::fs::symlink("a.txt", &path).unwrap(),
            _ => {
                fs::write(&path, vec![b'x'; random.below(3) * 700]).unwrap();
                let seconds = 1_700_000_000 + random.below(3) as i64;
                let time = rustix::fs::Timespec {
                    tv_sec: seconds,
                    tv_nsec: 0,
                };
                let times = rustix::fs::Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())
                    .unwrap();
            }
        }
    }
}

/// The entries of a snapshot as `ls` shows them: path, and the rest of a version.
fn listed(host: &Host, snapshot: &str) -> Vec<Value> {
    let all = host.json(&words(host, &["ls", snapshot]));
    all.as_array().unwrap().clone()
}

fn path_of(entry: &Value) -> Vec<u8> {
    match entry["path"].as_str() {
        Some(path) => path.as_bytes().to_vec(),
        None => {
            use base64::Engine as _;
            let text = entry["path_b64"].as_str().unwrap();
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap()
        }
    }
}

/// A version as a text that has all of it.
fn version_of(entry: &Value, time: &str) -> String {
    let size = entry["size"].as_u64().unwrap_or(0);
    format!(
        "{} {size} {} {}",
        entry["type"], entry[time], entry["blake3"]
    )
}

/// What `find` must show: each version of a path with the snapshots that have it.
type Expected = BTreeMap<(Vec<u8>, String), BTreeSet<u64>>;

fn brute_force(
    host: &Host,
    range: std::ops::RangeInclusive<u64>,
    wants: impl Fn(&[u8], &Value) -> bool,
) -> Expected {
    let mut expected = Expected::new();
    for sequence in range {
        for entry in listed(host, &sequence.to_string()) {
            let path = path_of(&entry);
            if wants(&path, &entry) {
                let version = version_of(&entry, "mtime");
                expected
                    .entry((path, version))
                    .or_default()
                    .insert(sequence);
            }
        }
    }
    expected
}

fn compare(host: &Host, options: &[&str], expected: &Expected) {
    let mut line = vec!["find"];
    line.extend(options);
    let found = host.json(&words(host, &line));
    let versions = found["versions"].as_array().unwrap();
    assert_eq!(versions.len(), expected.len(), "{options:?}: {found:#}");
    for one in versions {
        let key = (path_of(one), version_of(one, "modified"));
        let snapshots = expected
            .get(&key)
            .unwrap_or_else(|| panic!("{options:?}: {one}"));
        assert_eq!(
            one["first_sequence"].as_u64(),
            snapshots.first().copied(),
            "{one}"
        );
        assert_eq!(
            one["last_sequence"].as_u64(),
            snapshots.last().copied(),
            "{one}"
        );
        assert_eq!(
            one["snapshots"].as_u64(),
            Some(snapshots.len() as u64),
            "{one}"
        );
    }
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap()
}

/// A host with a history that `seed` chooses.
fn host_with_history(seed: u64, snapshots: usize) -> Host {
    let mut host = Host::new();
    let mut random = Random::new(seed);
    for day in 0..snapshots {
        change(&host.data(), &mut random);
        // Enough entries that an index has many chunks.
        if day == 0 {
            for number in 0..400 {
                fs::create_dir_all(host.data().join("many")).unwrap();
                fs::write(host.data().join(format!("many/f{number:04}")), "m").unwrap();
            }
        }
        if random.one_in(2) {
            fs::write(
                host.data().join(format!("many/f{:04}", random.below(400))),
                "n",
            )
            .unwrap();
        }
        set_day(&mut host, day);
        host.backup();
    }
    host
}

#[test]
fn find_equals_a_listing_of_every_snapshot() {
    let snapshots = 6;
    for seed in [1, 2] {
        let host = host_with_history(seed, snapshots);
        let last = snapshots as u64;
        compare(&host, &["*"], &brute_force(&host, 1..=last, |_, _| true));
        compare(
            &host,
            &["*.jpg", "--in", "2..4"],
            &brute_force(&host, 2..=4, |path, _| path.ends_with(b".jpg")),
        );
        let lower = |path: &[u8]| path.to_ascii_lowercase().ends_with(b".jpg");
        compare(
            &host,
            &["*.JPG", "--ignore-case", "--last", "3"],
            &brute_force(&host, last - 2..=last, |path, _| lower(path)),
        );
        compare(
            &host,
            &["a[1]"],
            &brute_force(&host, 1..=last, |path, _| {
                matches!(name(path), b"a[1]" | b"a1")
            }),
        );
        compare(
            &host,
            &["data/x/*", "--type", "f"],
            &brute_force(&host, 1..=last, |path, entry| {
                path.starts_with(b"data/x/") && entry["type"] == "file"
            }),
        );
        compare(
            &host,
            &["*", "--size", "+700"],
            &brute_force(&host, 1..=last, |_, entry| {
                entry["type"] == "file" && entry["size"].as_u64() > Some(700)
            }),
        );
        compare(
            &host,
            &["data/**", "--in", "2026-03-03.."],
            &brute_force(&host, 3..=last, |path, _| path.starts_with(b"data/")),
        );
        compare(
            &host,
            &[
                "*",
                "--changed-since",
                "2023-11-14T22:13:21Z",
                "--type",
                "l",
            ],
            &brute_force(&host, 1..=last, |_, entry| entry["type"] == "symlink"),
        );
    }
}

#[test]
fn names_that_are_not_text_go_through_and_null_separates_paths() {
    let mut host = Host::new();
    let name = PathBuf::from(std::ffi::OsString::from_vec(b"raw-\xff\n.x".to_vec()));
    fs::write(host.data().join(&name), "1").unwrap();
    set_day(&mut host, 0);
    host.backup();
    fs::write(host.data().join(&name), "22").unwrap();
    set_day(&mut host, 1);
    host.backup();
    let output = host.run(&words(&host, &["find", "raw-*", "-0"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"data/raw-\xff\n.x\0");
    let text = host.ok(&words(&host, &["find", "raw-*"]));
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.is_ascii() && !text.contains('\u{fffd}'), "{text}");
    // The name itself as the pattern.
    let mut line: Vec<&std::ffi::OsStr> = vec!["versions".as_ref()];
    let path = Path::new("data").join(&name);
    line.push(path.as_os_str());
    let place = host.place();
    line.extend(place.iter().map(std::ffi::OsStr::new));
    let said = host.json(&line);
    assert_eq!(said["versions"].as_array().unwrap().len(), 2, "{said}");
}

#[test]
fn versions_of_equal_content_are_one_and_the_line_restores_it() {
    let mut host = Host::new();
    let file = host.data().join("report.ods");
    for (day, content) in ["one", "two", "one", "three"].iter().enumerate() {
        fs::write(&file, content).unwrap();
        set_day(&mut host, day);
        host.backup();
    }
    let said = host.json(&words(&host, &["versions", "data/report.ods"]));
    let versions = said["versions"].as_array().unwrap();
    let spans: Vec<_> = versions
        .iter()
        .map(|one| {
            (
                one["first_sequence"].clone(),
                one["last_sequence"].clone(),
                one["snapshots"].clone(),
            )
        })
        .collect();
    assert_eq!(
        spans,
        [
            (1.into(), 3.into(), 2.into()),
            (2.into(), 2.into(), 1.into()),
            (4.into(), 4.into(), 1.into())
        ]
    );
    let text = host.ok(&words(&host, &["versions", "data/report.ods"]));
    assert!(
        text.starts_with("data/report.ods: 3 versions in 4 snapshots\n"),
        "{text}"
    );
    for line in text.lines().filter(|line| !line.contains("sealift")) {
        assert!(line.len() <= 80, "{line}");
    }
    let hash = blake3::hash(b"two").to_hex();
    assert!(text.contains(&hash[..8]), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("to restore one: sealift "))
        .unwrap();
    let line = line.replace("DIR", "out");
    host.ok(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(
        fs::read_to_string(host.path("out/data/report.ods")).unwrap(),
        "three"
    );
    let (_, err) = host.exits(&words(&host, &["versions", "data/none"]), 1);
    assert!(
        err.contains("no snapshot that was searched has data/none"),
        "{err}"
    );
}

/// The index archives that only the newest snapshot needs are damaged: it is named, the others are searched.
#[test]
fn a_snapshot_whose_index_cannot_be_read_is_named_and_the_others_are_searched() {
    let mut host = Host::new();
    fs::write(host.data().join("kept"), "1").unwrap();
    set_day(&mut host, 0);
    host.backup();
    let before: BTreeSet<PathBuf> = files(&host.folder().join("archives")).into_iter().collect();
    fs::write(host.data().join("new"), "2").unwrap();
    set_day(&mut host, 1);
    host.backup();
    for archive in files(&host.folder().join("archives")) {
        if !before.contains(&archive) {
            let mut bytes = fs::read(&archive).unwrap();
            let middle = bytes.len() - 20;
            bytes[middle] ^= 1;
            let mut permissions = fs::metadata(&archive).unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
            fs::set_permissions(&archive, permissions).unwrap();
            fs::write(&archive, bytes).unwrap();
        }
    }
    let cache = ["--cache", "none"];
    let line = [&words(&host, &["find", "*"])[..], &cache].concat();
    let said = host.json_exits(&line, &[3]);
    assert_eq!(said["unseen"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(said["unseen"][0]["sequence"], 2);
    assert_eq!(said["snapshots"], 1);
    let paths: Vec<&str> = said["versions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["path"].as_str())
        .collect();
    assert!(
        paths.contains(&"data/kept") && !paths.contains(&"data/new"),
        "{paths:?}"
    );
    let (_, err) = host.exits(&line, 3);
    assert!(
        err.contains("warning: snapshot 20260302T060000Z (2) was not searched"),
        "{err}"
    );
    // Nothing at all can be searched.
    let line = [&words(&host, &["find", "*", "--in", "2"])[..], &cache].concat();
    let (_, err) = host.exits(&line, 1);
    assert!(err.contains("no snapshot could be searched"), "{err}");
    // Another identity.
    host.generate("other.txt");
    let line = [
        "find",
        "*",
        "--from",
        "repo",
        "--signer",
        &host.signer,
        "--identity",
        "other.txt",
    ];
    let (_, err) = host.exits(&[&line[..], &cache].concat(), 1);
    assert!(err.contains("--identity"), "{err}");
}

#[test]
fn offline_searches_what_the_cache_has_and_names_the_rest() {
    let mut host = Host::new();
    fs::write(host.data().join("a"), "1").unwrap();
    set_day(&mut host, 0);
    host.backup();
    let cached = |line: &[&'static str]| {
        let line: Vec<String> = words(&host, line)
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
        [line, vec!["--cache".to_owned(), "cache".to_owned()]].concat()
    };
    let online = cached(&["find", "*"]);
    let first = host.json(&online);
    let offline = cached(&["find", "*", "--offline"]);
    // Without the target.
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    let found = host.json(&offline);
    assert_eq!(found["versions"], first["versions"]);
    fs::rename(host.path("away"), host.path("repo")).unwrap();
    // A snapshot whose manifest is known here and whose index is not.
    fs::write(host.data().join("b"), "2").unwrap();
    let mut later = host;
    set_day(&mut later, 1);
    later.backup();
    let host = later;
    let cached = |line: &[&'static str]| {
        let line: Vec<String> = words(&host, line)
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
        [line, vec!["--cache".to_owned(), "cache".to_owned()]].concat()
    };
    host.ok(&cached(&["find", "*", "--in", "1"]));
    let (out, err) = host.exits(&cached(&["find", "a", "--offline"]), 3);
    assert!(
        err.contains("snapshot 20260302T060000Z (2) was not searched"),
        "{err}"
    );
    assert!(out.contains("data/a"), "{out}");
    // Nothing but ciphertext and manifests was kept.
    for file in files(&host.path("cache")) {
        let bytes = fs::read(&file).unwrap();
        assert!(memchr::memmem::find(&bytes, b"data/").is_none(), "{file:?}");
    }
}

#[test]
fn patterns_of_any_size_end_soon() {
    let mut host = Host::new();
    fs::write(host.data().join("a".repeat(200)), "1").unwrap();
    set_day(&mut host, 0);
    host.backup();
    let stars = format!("{}b", "*a".repeat(2_000));
    let sets = "[[:alpha:]]*".repeat(300);
    for pattern in [&*stars, &sets, "[", "\\", "**/**/**/b", "[!", "a\\"] {
        let (out, err) = host.exits(&words(&host, &["find", pattern, "--quiet"]), 0);
        assert!(out.is_empty() || pattern == sets, "{out}{err}");
    }
}
