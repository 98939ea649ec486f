//! The shrink alarm of trees, case by case: read in place, and copied first.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use super::shrink::{clear, database, fill, findings, on, text_of};
use crate::support::files::files;
use crate::support::host::Host;

fn random(bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    getrandom::fill(&mut content).unwrap();
    // By chance it would begin like an MP3 one time in two thousand.
    content[0] = 1;
    content
}

/// What a tree held, what it holds then, and what the alarm says; empty: none rings.
type Scenario = (&'static str, fn(&Path), fn(&Path), &'static str);

const SCENARIOS: &[Scenario] = &[
    (
        "emptied",
        |data| fill(data, 0..50, 900),
        clear,
        "data went from 50 to 0 files and from 45.0 kB to 0 B since",
    ),
    (
        "half of the files",
        |data| fill(data, 0..50, 900),
        |data| (25..50).for_each(|n| fs::remove_file(data.join(format!("{n}.txt"))).unwrap()),
        "",
    ),
    (
        "more than half of the files",
        |data| fill(data, 0..50, 900),
        |data| (24..50).for_each(|n| fs::remove_file(data.join(format!("{n}.txt"))).unwrap()),
        "data went from 50 to 24 files since",
    ),
    (
        "more than half of the bytes",
        |data| {
            fill(data, 0..5, 900);
            fs::write(data.join("large"), vec![7; 1 << 20]).unwrap();
        },
        |data| fs::write(data.join("large"), vec![7; 400_000]).unwrap(),
        "data went from 1.05 MB to 404 kB since",
    ),
    (
        "a small tree",
        |data| fill(data, 0..3, 900),
        |data| (1..3).for_each(|n| fs::remove_file(data.join(format!("{n}.txt"))).unwrap()),
        "",
    ),
    (
        "a small tree that is emptied",
        |data| fill(data, 0..1, 5),
        clear,
        "data went from 1 to 0 files",
    ),
    (
        "a database in a tree",
        |data| database(&data.join("x.db"), 500),
        |data| database(&data.join("x.db"), 20),
        "data: x.db: documents went from 500 to 20 rows since",
    ),
    (
        "a database in a tree that is gone",
        |data| {
            fill(data, 0..50, 900);
            database(&data.join("x.db"), 500);
        },
        |data| fs::remove_file(data.join("x.db")).unwrap(),
        "data went from 500 to 0 rows in all since",
    ),
    (
        "a database that was vacuumed",
        |data| {
            database(&data.join("x.db"), 20_000);
            database(&data.join("x.db"), 200);
        },
        |data| {
            Connection::open(data.join("x.db"))
                .unwrap()
                .execute_batch("VACUUM")
                .unwrap()
        },
        "",
    ),
    (
        "files that turned into noise",
        |data| fill(data, 0..30, 20_000),
        |data| {
            files(data)
                .iter()
                .for_each(|file| fs::write(file, random(20_000)).unwrap())
        },
        "data: 30 files turned into what looks like random bytes",
    ),
    (
        "files that turned into noise under longer names",
        |data| fill(data, 0..30, 20_000),
        |data| {
            for file in files(data) {
                let mut longer = file.clone().into_os_string();
                longer.push(".locked");
                fs::write(longer, random(20_000)).unwrap();
                fs::remove_file(file).unwrap();
            }
        },
        "data: 30 files turned into what looks like random bytes",
    ),
    (
        "noise that changed",
        |data| (0..30).for_each(|n| fs::write(data.join(n.to_string()), random(20_000)).unwrap()),
        |data| (0..30).for_each(|n| fs::write(data.join(n.to_string()), random(20_000)).unwrap()),
        "",
    ),
    (
        "photos that came",
        |data| fill(data, 0..30, 20_000),
        |data| {
            let photo = || [b"\xff\xd8\xff\xe0".as_slice(), &random(40_000)].concat();
            (0..90).for_each(|n| fs::write(data.join(format!("{n}.jpg")), photo()).unwrap());
        },
        "",
    ),
    (
        "logs that were compressed",
        |data| fill(data, 0..30, 20_000),
        |data| {
            for file in files(data) {
                let mut longer = file.clone().into_os_string();
                longer.push(".gz");
                let packed = [b"\x1f\x8b\x08".as_slice(), &random(20_000)].concat();
                fs::write(longer, packed).unwrap();
                fs::remove_file(file).unwrap();
            }
        },
        "",
    ),
];

#[test]
fn scenarios_of_trees_that_are_read_in_place() {
    try_scenarios(false);
}

#[test]
fn scenarios_of_trees_that_are_copied_first() {
    try_scenarios(true);
}

fn try_scenarios(stage: bool) {
    for (what, before, after, says) in SCENARIOS {
        let mut host = Host::new();
        if stage {
            host.edit_config("stage = false", "stage = true");
        }
        before(&host.data());
        on(&mut host, 1);
        assert_eq!(findings(&host.backup()), Vec::<Value>::new(), "{what}");
        after(&host.data());
        on(&mut host, 2);
        let report = host.json_exits(&["backup"], &[0, 3]);
        let found = findings(&report);
        let texts: Vec<&str> = found.iter().map(text_of).collect();
        match says.is_empty() {
            true => assert_eq!(texts, [""; 0], "{what}"),
            false => assert!(
                texts.len() == 1 && texts[0].contains(says),
                "{what}: {texts:?}"
            ),
        }
    }
}
