//! A tree of 90,000 files (long form; else of 2,000).

use std::fs;
use std::time::Instant;

use super::{Mounting, can_mount, is_equal};
use crate::support::host::Host;
use crate::support::is_long;
use crate::support::tree::noise;

#[test]
fn a_large_tree_is_the_source() {
    if !can_mount("a mount of a large tree") {
        return;
    }
    let files = if is_long() { 90_000 } else { 2_000 };
    let host = Host::new();
    for n in 0..files {
        let dir = host
            .data()
            .join(format!("{:02}/{:02}", n % 37, n / 37 % 31));
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join(format!("file-{n}.txt")),
            noise(n, 100 + n as usize % 900),
        )
        .unwrap();
    }
    host.backup();
    let mounting = Mounting::of(&host, &[]);
    let began = Instant::now();
    assert!(
        fs::read_dir(mounting.latest().join("data"))
            .unwrap()
            .count()
            == 37
    );
    println!("first listing of {files} files: {:?}", began.elapsed());
    let began = Instant::now();
    is_equal(&host.data(), &mounting.latest().join("data"));
    println!("all comparisons: {:?}", began.elapsed());
    let status = fs::read_to_string(format!("/proc/{}/status", mounting.child.id())).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    println!("memory of the mount: {peak}");
    mounting.unmount();
}
