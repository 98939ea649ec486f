//! Modification times far from today: what 64 bits of nanoseconds cannot hold (before 1677, after 2262) comes back as
//! it was, as far as the file system goes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::host::Host;

const DAY: i64 = 86_400;
/// Days from 1970 to the year.
fn year(number: i64) -> i64 {
    (number - 1970) * 365 * DAY + (number - 1970) / 4 * DAY
}

fn set(path: &Path, seconds: i64, nanoseconds: i64) {
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds as _,
        },
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

fn times(dir: &Path) -> Vec<(String, i64, i64)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, meta.mtime(), meta.mtime_nsec())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn times_beyond_64_bits_come_back_both_ways() {
    let host = Host::new();
    let data = host.data();
    let limit = i64::MAX / 1_000_000_000;
    for (name, seconds) in [
        ("today", year(2026)),
        ("limit", limit),
        ("beyond", limit + 1),
        ("far", year(2300)),
        ("farther", year(2440)),
        ("farthest", year(9000)),
        ("early", year(1905)),
        ("earlier", year(1600)),
    ] {
        fs::write(data.join(name), name).unwrap();
        set(&data.join(name), seconds, 123_456_789);
    }
    fs::create_dir(data.join("dir")).unwrap();
    set(&data.join("dir"), year(2301), 1);
    std::os::unix::fs::symlink("today", data.join("link")).unwrap();
    set(&data.join("link"), year(2302), 2);
    let before = times(&data);
    let far = before
        .iter()
        .filter(|(_, seconds, _)| *seconds > limit)
        .count();
    assert!(far >= 3, "this file system keeps no such times: {before:?}");
    host.backup();
    // What is unchanged is taken from the last snapshot.
    fs::write(data.join("more"), "more").unwrap();
    host.backup();
    fs::remove_file(data.join("more")).unwrap();
    for (to, out) in [
        ("first", host.restore("1", "first")),
        ("again", host.restore("latest", "again")),
        ("by-hand", host.recover("latest", "by-hand")),
    ] {
        let mut found = times(&out.join("data"));
        found.retain(|(name, _, _)| name != "more");
        assert_eq!(found, before, "{to}");
    }
    // A program that cannot read such times says so, and not that the index is damaged.
    let manifests = fs::read_dir(host.folder().join("manifests")).unwrap();
    let texts = manifests.map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let said = texts
        .filter(|text| String::from_utf8_lossy(text).contains("wide-times"))
        .count();
    assert_eq!(said, 2);
}
