//! Of a large tree on S3, a restore of little fetches little: of the data, and of the index.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::host::{Host, texts};
use crate::support::is_long;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::slow_link::SlowLink;
use crate::support::tree::noise;

/// Files of the tree in the long form, as many as the tree of the benchmarks has.
const MANY_FILES: u64 = 75_000;
const FILES: u64 = 30_000;
const FILES_IN_DIR: u64 = 60;
/// What a restore of 4 KiB may fetch, with listings, manifest and table: it depends on where in its
/// frame the file is.
const MOST_BYTES: u64 = 2_200_000;

/// Text that compresses as source code does, to some fifth.
fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let words: Vec<String> = noise(7, 4000)
        .chunks(8)
        .map(|word| {
            word.iter()
                .map(|byte| char::from(b'a' + byte % 26))
                .collect()
        })
        .collect();
    let picks = noise(seed, bytes / 4);
    let picked = picks.iter().map(|pick| words[usize::from(*pick)].as_str());
    let mut text = picked.collect::<Vec<_>>().join(" ").into_bytes();
    text.truncate(bytes);
    text
}

fn make_files(dir: &Path, files: u64, bytes: usize) {
    for number in 0..files {
        let dir = dir.join(format!("package-{:04}/src", number / FILES_IN_DIR));
        if number % FILES_IN_DIR == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        let length = bytes / 2 + (number * 7919) as usize % bytes;
        fs::write(
            dir.join(format!("module_{number:05}.rs")),
            text(number, length),
        )
        .unwrap();
    }
}

/// Kind: a restore of one small file costs as much as the index of the snapshot, or as its archive.
#[test]
fn a_small_file_out_of_a_large_tree_costs_little() {
    let (count, bytes) = match is_long() {
        true => (MANY_FILES, 8000),
        false => (FILES, 100),
    };
    let server = S3Server::start();
    let link = SlowLink::start(server.address, 1 << 30, Duration::ZERO);
    let host = Host::new();
    let data = host.data();
    make_files(&data, count, bytes);
    let places = [1, count / 2, count - 1];
    let path = |number: u64| {
        let dir = format!("package-{:04}/src", number / FILES_IN_DIR);
        format!("{dir}/wanted_{number}.bin")
    };
    for number in places {
        fs::write(data.join(path(number)), noise(number, 4096)).unwrap();
    }
    host.backup();
    // A day later, the index is in the archives of two snapshots.
    for number in (0..count).step_by(997) {
        let dir = data.join(format!("package-{:04}/src", number / FILES_IN_DIR));
        fs::write(dir.join("changed"), number.to_string()).unwrap();
    }
    host.backup();
    let url = format!("s3://{BUCKET}/off/site");
    server.ok(&mut host.command(&["sync", "./repo", &url, "--to-endpoint", &server.endpoint()]));
    let endpoint = format!("http://{}", link.address);
    let from = [
        "--identity",
        "key.txt",
        "--from",
        &url,
        "--endpoint",
        &endpoint,
        "--signer",
        &host.signer,
    ];
    let measured = |words: &[&str]| {
        let (_, before) = link.bytes();
        let began = Instant::now();
        let output = server.output_of(&mut host.command(&[words, &from[..]].concat()));
        let took = began.elapsed();
        assert!(output.status.success(), "{}", texts(&output).1);
        (output.stdout, link.bytes().1 - before, took)
    };
    let (_, whole, _) = measured(&["ls", "latest"]);
    for number in places {
        let path = format!("data/{}", path(number));
        let out = format!("out-{number}");
        let (_, fetched, took) = measured(&["restore", "latest", &path, "--to", &out]);
        println!("restore of {path}: {fetched} bytes in {took:?}; the index takes {whole}");
        let restored = fs::read(host.path(&out).join(&path)).unwrap();
        assert!(restored == noise(number, 4096), "{path}");
        assert!(
            fetched < MOST_BYTES.min(whole),
            "{path}: {fetched}, the index takes {whole}"
        );
        let (content, fetched, took) = measured(&["cat", "latest", &path, "--cache", "none"]);
        println!("cat: {fetched} bytes in {took:?}");
        assert!(content == noise(number, 4096), "{path}");
        assert!(
            fetched < MOST_BYTES.min(whole),
            "{path}: {fetched}, the index takes {whole}"
        );
    }
    // A directory, with what is in it.
    let (_, fetched, _) = measured(&["restore", "latest", "data/package-0007", "--to", "dir"]);
    println!("restore of a directory: {fetched} bytes");
    let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!(
        names(&host.path("dir/data/package-0007/src")),
        names(&data.join("package-0007/src"))
    );
    assert!(fetched < MOST_BYTES.min(whole), "{fetched}");
    // Only the headers of the indexes are read.
    let (listed, fetched, _) = measured(&["list"]);
    println!("list with the headers of two indexes: {fetched} bytes");
    assert!(listed.len() > 100 && fetched < whole, "{fetched}");
    // An identity that opens nothing is named as by a restore of everything.
    host.generate("other.txt");
    let with_other = |words: &[&str]| {
        let from = [&["--identity", "other.txt"], &from[2..]].concat();
        let words = [words, &from[..]].concat();
        let output = server.output_of(&mut host.command(&words));
        assert!(!output.status.success(), "{words:?}");
        texts(&output).1
    };
    let path = format!("data/{}", path(1));
    let said = with_other(&["restore", "latest", &path, "--to", "none"]);
    assert_eq!(said, with_other(&["restore", "latest", "--to", "none"]));
    assert!(said.contains("it is encrypted to"), "{said}");
    // A path that does not exist is explained by the whole index.
    let words = [
        &[
            "restore",
            "latest",
            "data/package-0007/src/module_00421",
            "--to",
            "none",
        ],
        &from[..],
    ]
    .concat();
    let output = server.output_of(&mut host.command(&words));
    assert!(!output.status.success());
    let explained = texts(&output).1;
    assert!(explained.contains("module_00421.rs"), "{explained}");
}
