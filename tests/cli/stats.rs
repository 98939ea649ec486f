//! `stats`: its numbers are those of the objects on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;

use crate::shell::{Scene, Shell};
use crate::support::files::files;
use crate::support::host::Host;
use crate::support::random::Random;
use crate::support::tree::noise;

/// What the objects in a host's folder say, read without the program.
#[derive(Debug, Default)]
struct Model {
    /// Stamp, bytes and new bytes of each snapshot, by sequence.
    totals: BTreeMap<u64, (String, u64, u64)>,
    /// The archives that each snapshot names.
    needs: BTreeMap<u64, BTreeSet<String>>,
    /// Kind of each archive that a snapshot names.
    kinds: BTreeMap<String, String>,
    /// Size of each archive that is there.
    present: BTreeMap<String, u64>,
    other_bytes: u64,
    objects: u64,
}

impl Model {
    fn of(folder: &Path) -> Self {
        let mut model = Self::default();
        for path in files(folder) {
            let bytes = fs::metadata(&path).unwrap().len();
            let below = path.strip_prefix(folder).unwrap();
            let class = below.components().next().unwrap();
            let class = class.as_os_str().to_str().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if class.starts_with('.') {
                continue;
            }
            model.objects += 1;
            match class {
                "archives" => drop(model.present.insert(name, bytes)),
                _ => model.other_bytes += bytes,
            }
            if class == "manifests" && path.extension().is_some_and(|ending| ending == "json") {
                model.read_manifest(folder, &path);
            }
        }
        model
    }

    fn read_manifest(&mut self, folder: &Path, path: &Path) {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (core, totals) = (&lines[0], &lines[0]["totals"]);
        let sequence = core["sequence"].as_u64().unwrap();
        let number = |key: &str| totals[key].as_u64().unwrap();
        let stamp = core["stamp"].as_str().unwrap().to_owned();
        let row = (stamp, number("bytes"), number("new_bytes"));
        self.totals.insert(sequence, row);
        let needs = self.needs.entry(sequence).or_default();
        for page in lines[1]["tables"].as_array().unwrap() {
            let page = folder
                .join("tables")
                .join(format!("{}.json", page.as_str().unwrap()));
            let page: Value = serde_json::from_slice(&fs::read(page).unwrap()).unwrap();
            for row in page["rows"].as_array().unwrap() {
                let name = format!("{}.tar.zst.age", row[2].as_str().unwrap());
                let kind = row[1].as_str().unwrap().to_owned();
                self.kinds.insert(name.clone(), kind);
                needs.insert(name);
            }
        }
    }

    fn bytes<'a>(&self, archives: impl IntoIterator<Item = &'a String>) -> u64 {
        let sizes = archives.into_iter().map(|name| self.present[name]);
        sizes.sum()
    }

    fn of_kind(&self, kind: &str) -> Vec<&String> {
        let names = self.kinds.iter().filter(|(_, of)| *of == kind);
        names.map(|(name, _)| name).collect()
    }

    fn unused(&self) -> Vec<&String> {
        let names = self.present.keys();
        names
            .filter(|name| !self.kinds.contains_key(*name))
            .collect()
    }

    fn unique_bytes(&self, sequence: u64) -> u64 {
        let others = self.needs.iter().filter(|(other, _)| **other != sequence);
        let others: BTreeSet<&String> = others.flat_map(|(_, needs)| needs).collect();
        let own = self.needs[&sequence].iter();
        self.bytes(own.filter(|name| !others.contains(name)))
    }

    /// Of the archives that this snapshot and earlier ones need.
    fn stored_bytes(&self, sequence: u64) -> u64 {
        let until = self.needs.range(..=sequence);
        let needed: BTreeSet<&String> = until.flat_map(|(_, needs)| needs).collect();
        self.bytes(needed)
    }

    fn compare(&self, stats: &Value) {
        let snapshots = stats["snapshots"].as_array().unwrap();
        assert_eq!(snapshots.len(), self.totals.len());
        for (found, (sequence, (stamp, bytes, new_bytes))) in snapshots.iter().zip(&self.totals) {
            assert_eq!(found["sequence"], *sequence);
            assert_eq!(found["stamp"], **stamp);
            assert_eq!(found["bytes"], *bytes);
            assert_eq!(found["new_bytes"], *new_bytes);
            assert_eq!(found["unique_bytes"], self.unique_bytes(*sequence));
            assert_eq!(found["stored_bytes"], self.stored_bytes(*sequence));
        }
        let stored = &stats["stored"];
        for (class, names) in [
            ("data_archives", self.of_kind("data")),
            ("index_archives", self.of_kind("index")),
            ("unused_archives", self.unused()),
        ] {
            assert_eq!(stored[class]["objects"], names.len(), "{class}");
            assert_eq!(stored[class]["bytes"], self.bytes(names), "{class}");
        }
        assert_eq!(stored["manifests_and_tables"]["bytes"], self.other_bytes);
        assert_eq!(stored["total"]["objects"], self.objects);
        let all = self.bytes(self.present.keys()) + self.other_bytes;
        assert_eq!(stored["total"]["bytes"], all);
        let newest = self.needs.values().next_back().unwrap();
        let older = self.kinds.keys().filter(|name| !newest.contains(*name));
        assert_eq!(stats["older_only_bytes"], self.bytes(older));
        let sum: u64 = self.totals.values().map(|(_, bytes, _)| bytes).sum();
        assert_eq!(stats["bytes"], sum);
        let data = self.bytes(self.of_kind("data"));
        let together = (sum as f64 / data as f64 * 100.0).round() / 100.0;
        assert_eq!(stats["ratios"]["total"], together);
        let growth = stats["growth"].as_array().unwrap();
        let last = growth.last().unwrap();
        let newest = self.totals.keys().next_back().unwrap();
        assert_eq!(last["stored_bytes"], self.stored_bytes(*newest));
        let counts = growth.iter().map(|one| one["snapshots"].as_u64().unwrap());
        assert_eq!(counts.sum::<u64>(), self.totals.len() as u64);
    }
}

fn on_target(host: &Host) -> Value {
    let mut report = host.json(&["stats", "--target", "folder"]);
    report["backups"][0].take()
}

/// A backup of files that some steps change, some take away and some bring back.
fn step(host: &mut Host, random: &mut Random, number: i64) {
    // Most of the content never changes, so no source seems to have shrunk.
    if number == 0 {
        for name in 0..20 {
            fs::write(
                host.data().join(format!("same-{name}")),
                noise(100 + name, 30_000),
            )
            .unwrap();
        }
    }
    let first: DateTime<Utc> = "2026-03-01T06:00:00Z".parse().unwrap();
    host.clock = Some((first + Duration::days(number)).to_rfc3339());
    for name in ["a", "b", "c", "d", "e"] {
        let path = host.data().join(name);
        match random.below(4) {
            0 => drop(fs::remove_file(path)),
            1 => fs::write(path, noise(random.next() % 8, 40_000)).unwrap(),
            _ => {}
        }
    }
    fs::write(host.data().join("number"), number.to_string()).unwrap();
    host.backup();
}

/// Unique bytes are what prune frees if only that snapshot is deleted and a backup follows.
#[test]
fn the_numbers_are_those_of_the_objects_and_of_what_a_prune_frees() {
    for seed in 0..3 {
        let mut random = Random::new(seed);
        let mut host = Host::new();
        let mut number = 0;
        while number < 7 {
            step(&mut host, &mut random, number);
            number += 1;
        }
        for _ in 0..3 {
            let stats = on_target(&host);
            Model::of(&host.folder()).compare(&stats);
            // Any but the newest, which stays.
            let snapshots = stats["snapshots"].as_array().unwrap();
            let gone = &snapshots[random.below(snapshots.len() - 1)];
            let name = gone["sequence"].to_string();
            host.ok(&["prune", "--forget", &name, "--yes"]);
            let stats = on_target(&host);
            Model::of(&host.folder()).compare(&stats);
            let unused = &stats["stored"]["unused_archives"]["bytes"];
            assert_eq!(*unused, gone["unique_bytes"], "seed {seed}: {gone}");
            step(&mut host, &mut random, number);
            number += 1;
            let done = host.json(&["prune", "--policy", "last=100"]);
            let freed = &done["targets"][0]["done"]["freed_bytes"];
            assert_eq!(*freed, gone["unique_bytes"], "seed {seed}: {gone}");
        }
    }
}

/// The catalog asks no target and agrees with it; from elsewhere only what the manifests show is known.
#[test]
fn the_catalog_agrees_with_the_target_and_each_says_what_it_does_not_know() {
    let mut random = Random::new(9);
    let mut host = Host::new();
    (0..5).for_each(|number| step(&mut host, &mut random, number));
    let there = on_target(&host);
    let text = host.ok(&["stats", "--target", "folder"]);
    assert!(
        text.contains("UNIQUE") && text.contains("compression"),
        "{text}"
    );
    let away = host.json(&["stats", "--from", "repo", "--signer", &host.signer]);
    let away = &away["backups"][0];
    assert_eq!(away["snapshots"], there["snapshots"]);
    assert_eq!(away["ratios"]["total"], there["ratios"]["total"]);
    assert!(away["ratios"]["compression"].is_null());
    assert!(away["unknown"][0].as_str().unwrap().contains("compression"));

    fs::rename(host.path("repo"), host.path("away")).unwrap();
    let here = &host.json(&["stats"])["backups"][0];
    for class in ["data_archives", "index_archives"] {
        assert_eq!(here["stored"][class], there["stored"][class]);
    }
    assert_eq!(here["ratios"], there["ratios"]);
    assert_eq!(here["older_only_bytes"], there["older_only_bytes"]);
    assert_eq!(here["bytes"], there["bytes"]);
    assert_eq!(here["snapshots"].as_array().unwrap().len(), 5);
    assert!(here["stored"]["manifests_and_tables"].is_null());
    assert!(here["snapshots"][0]["unique_bytes"].is_null());
    let unknown = here["unknown"][0].as_str().unwrap();
    assert!(unknown.contains("--target folder"), "{unknown}");
}

/// A missing archive is a finding, and counts for nothing.
#[test]
fn each_host_of_a_target_is_shown_and_a_missing_archive_is_named() {
    let shell = Shell::new(Scene::Backup);
    shell.ok("mkdir second; cd second; umask 077
        sealift init --host second --recipient ../recipient.txt --target ../repo --tree ../data
        sealift --quiet backup");
    let both = shell.ok("sealift stats --from ./repo --accept-signer");
    for host in ["dalidou", "second"] {
        let line = format!("host {host}: 1 snapshot");
        assert!(both.contains(&line), "{both}");
    }
    shell.ok("rm repo/dalidou/archives/*/*");
    let (code, said) = shell.run("sealift stats --from ./repo --accept-signer --host dalidou");
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("stored in") && !said.contains("host second"),
        "{said}"
    );
    assert!(
        said.contains("2 archives that snapshots need: missing"),
        "{said}"
    );
    let (code, said) = shell.run("sealift stats --host second");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--target NAME"), "{said}");
}
