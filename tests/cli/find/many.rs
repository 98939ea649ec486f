//! `find` over a long history: 365 snapshots of 90,000 entries in the long form. The history is made without the packer:
//! its index is cut at content-defined places, within lines, and only chunks that are new are stored.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use sealift::base::ids::{ArchiveId, Hash};
use sealift::format::index::{Extent, IndexHeader, ValidationRecord, push_extent};
use sealift::format::manifest::{ArchiveKind, IndexRef};

use crate::support::cost::{Cost, cost};
use crate::support::handmade_repo::{Repo, TarStream, seal_tar};
use crate::support::host::SEALIFT;
use crate::support::is_long;
use crate::support::random::Random;

/// Lines of a chunk, on average: 8 KiB or so.
const CHUNK_LINES: u64 = 27;
/// Where in a line chunks end.
const WITHIN: usize = 40;

struct History {
    repo: Repo,
    /// The version of each entry.
    versions: Vec<u32>,
    chunks: HashMap<Hash, Extent>,
    archives: Vec<ArchiveId>,
    /// Bytes of all index archives.
    stored_bytes: u64,
}

impl History {
    fn new(entries: usize) -> Self {
        Self {
            repo: Repo::new(),
            versions: vec![0; entries],
            chunks: HashMap::new(),
            archives: Vec::new(),
            stored_bytes: 0,
        }
    }

    fn line(number: usize, version: u32) -> String {
        if number == 0 {
            return "{\"path\":\"data\",\"type\":\"dir\",\"mode\":493,\"uid\":0,\"gid\":0,\"mtime\":0}\n".to_owned();
        }
        let hash = blake3::hash(format!("{number} {version}").as_bytes()).to_hex();
        format!(
            "{{\"path\":\"data/a-file-with-a-usual-name-{number:06}.jpg\",\"type\":\"file\",\"mode\":420,\"uid\":1000,\"gid\":1000,\
             \"user\":\"someone\",\"group\":\"someone\",\"mtime\":{},\"size\":0,\"blake3\":\"{hash}\"}}\n",
            1_700_000_000_000_000_000_u64 + u64::from(version)
        )
    }

    fn header(&self) -> Vec<u8> {
        let header = IndexHeader {
            format: 1,
            host: self.repo.host.clone(),
            stamp: self.repo.stamp,
            salt: "0".repeat(64),
            tags: Vec::new(),
            note: None,
            sources: Vec::new(),
            validation: ValidationRecord {
                valid: true,
                checked_at: self.repo.stamp.time(),
                errors: Vec::new(),
            },
            databases: Vec::new(),
            skipped: Vec::new(),
            archives: 0,
            entries: self.versions.len() as u64,
        };
        let mut line = serde_json::to_vec(&header).unwrap();
        line.push(b'\n');
        line
    }

    /// Publishes the state now as a snapshot.
    fn publish(&mut self) {
        let mut index = self.header();
        let mut ends = vec![index.len()];
        for (number, version) in self.versions.iter().enumerate() {
            let line = Self::line(number, *version);
            // A line of its own decides where a chunk ends, so that the cuts stay where they are.
            if number as u64 % CHUNK_LINES == 7 {
                ends.push(index.len() + WITHIN);
            }
            index.extend(line.as_bytes());
        }
        ends.push(index.len());
        let mut tar = TarStream::default();
        let id = self.repo.next_id();
        let mut extents: Vec<Extent> = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        let mut placed: Vec<(usize, Option<Extent>, usize)> = Vec::new();
        let mut start = 0;
        for end in ends {
            let chunk = &index[start..end];
            start = end;
            if chunk.is_empty() {
                continue;
            }
            let known = self.chunks.get(&Hash::blake3(chunk)).copied();
            placed.push((run.len(), known, chunk.len()));
            if known.is_none() {
                run.extend_from_slice(chunk);
            }
        }
        let content = tar.add(b"index/0", &run);
        for (at, known, length) in placed {
            let extent = known.unwrap_or(Extent {
                archive: Some(id),
                offset: content + at as u64,
                length: length as u64,
            });
            if known.is_none() {
                self.chunks
                    .insert(Hash::blake3(&run[at..at + length]), extent);
            }
            push_extent(&mut extents, extent);
        }
        let sealed = seal_tar(&tar.finish(), &self.repo.recipients);
        self.stored_bytes += sealed.len() as u64;
        let stored = self.repo.add_archive(&sealed, ArchiveKind::Index);
        assert_eq!(stored, id);
        self.archives.push(id);
        let reference = IndexRef {
            bytes: index.len() as u64,
            blake3: Hash::blake3(&index),
            extents,
        };
        let archives = self.archives.clone();
        self.repo.publish_manifest(reference, &archives);
    }
}

fn run(repo: &Repo, words: &[&str]) -> Cost {
    let place = ["--from", "repo", "--accept-signer"];
    let options = ["--identity", "key.txt", "--cache", "cache"];
    let mut command = Command::new(SEALIFT);
    command
        .args([words, &place, &options].concat())
        .current_dir(repo.temp.path())
        .env_clear()
        .env("HOME", repo.temp.path());
    cost(&mut command, repo.temp.path())
}

#[test]
fn a_long_history_is_searched_in_the_time_of_a_few_indexes() {
    let (snapshots, entries, changes) = if is_long() {
        (365, 90_000, 60)
    } else {
        (40, 4_000, 20)
    };
    let mut history = History::new(entries);
    let mut random = Random::new(7);
    history.publish();
    for _ in 1..snapshots {
        for _ in 0..changes {
            // Changes are near each other, as those of people and programs.
            let place = 1 + random.below(entries - 40);
            for number in place..place + random.below(6) {
                history.versions[number] += 1;
            }
        }
        // One entry changes in every snapshot.
        history.versions[entries / 2] += 1;
        history.publish();
    }
    let name = format!("*-{:06}.jpg", entries / 2);
    let cold = run(&history.repo, &["find", &name]);
    assert!(cold.said.lines().count() > snapshots / 2, "{}", cold.said);
    let warm = run(&history.repo, &["--json", "find", &name]);
    let said: serde_json::Value = serde_json::from_str(&warm.said).unwrap();
    let versions = said["versions"].as_array().unwrap();
    assert_eq!(said["snapshots"], snapshots);
    let counts = versions
        .iter()
        .map(|one| one["snapshots"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), snapshots as u64);
    println!(
        "{snapshots} snapshots of {entries} entries, {} MB of index archives: cold {:.2?}, warm {:.2?}, {} and {} MiB",
        history.stored_bytes / 1_000_000,
        cold.wall,
        warm.wall,
        cold.peak_bytes >> 20,
        warm.peak_bytes >> 20,
    );
    // Kept is what the target has of it, once.
    let kept = crate::support::files::bytes_below(&history.repo.path("cache"));
    println!("{} MB are kept", kept / 1_000_000);
    assert!(warm.peak_bytes < 150 << 20, "{} MiB", warm.peak_bytes >> 20);
    if !cfg!(debug_assertions) {
        assert!(warm.wall < Duration::from_secs(2), "{:?}", warm.wall);
    }
}
