//! What is mounted in a tree: file systems of the kernel are left out and named, others are taken, or left out and
//! named with `one_file_system`. Mounting takes root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::host::Host;
use crate::support::small_disk::SmallDisk;

/// Something mounted, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(at: &Path, arguments: &[&str]) -> Option<Self> {
        let status = Command::new("mount").args(arguments).arg(at).output();
        match status {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                eprintln!("SKIPPED: {arguments:?} cannot be mounted here (it takes root)");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A host with a tree that has a directory for each mount and files beside them.
fn host() -> Host {
    let host = Host::new();
    for dir in ["proc", "sys", "disk", "z"] {
        fs::create_dir(host.data().join(dir)).unwrap();
    }
    fs::write(host.data().join("status"), "a file of a disk").unwrap();
    fs::write(host.data().join("z/last"), "precious").unwrap();
    host
}

fn notes(report: &serde_json::Value) -> Vec<String> {
    let notes = report["notes"].as_array().unwrap().iter();
    notes
        .map(|note| note.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn file_systems_of_the_kernel_are_left_out_by_type_and_named_once() {
    let host = host();
    let data = host.data();
    let Some(_proc) = Mounted::mount(&data.join("proc"), &["-t", "proc", "proc"]) else {
        return;
    };
    let _sys = Mounted::mount(&data.join("sys"), &["-t", "sysfs", "sysfs"]);
    // One file of such a file system, mounted on its own.
    let file = Mounted::mount(&data.join("status"), &["--bind", "/proc/version"]);
    for stage in ["stage = false ", "stage = true #"] {
        host.edit_config("stage = false ", stage);
        let (_, err) = host.exits(&["backup"], 0);
        let named: Vec<&str> = err
            .lines()
            .filter(|line| line.contains("proc (proc)"))
            .collect();
        assert_eq!(named.len(), 1, "{stage}: {err}");
        if _sys.is_some() {
            assert!(named[0].contains("sys (sysfs)"), "{err}");
        }
        let restored = host.restore("latest", stage.split(' ').nth(2).unwrap());
        assert_eq!(fs::read_dir(restored.join("data/proc")).unwrap().count(), 0);
        assert_eq!(restored.join("data/status").exists(), file.is_none());
        assert!(restored.join("data/z/last").exists());
        fs::remove_dir_all(restored).unwrap();
    }
    // A tree that is such a file system.
    let proc = format!("path = \"{}\"", data.join("proc").display());
    host.edit_config(&format!("path = \"{}\"", data.display()), &proc);
    let (_, err) = host.exits_any(&["backup"], &[1, 3]);
    assert!(err.contains("is on a proc file system"), "{err}");
}

#[test]
fn one_file_system_names_what_it_leaves_out() {
    let host = host();
    let Some(_disk) = SmallDisk::mount(&host.data().join("disk")) else {
        return;
    };
    fs::write(host.data().join("disk/there"), "precious").unwrap();
    let report = host.backup();
    assert!(
        notes(&report)
            .iter()
            .all(|note| !note.contains("one_file_system"))
    );
    assert!(
        host.restore("latest", "all")
            .join("data/disk/there")
            .exists()
    );
    host.edit_config("stage = false ", "one_file_system = true\nstage = false ");
    let report = host.backup();
    let notes = notes(&report);
    let named = notes.iter().filter(|note| note.contains("one_file_system"));
    let named: Vec<&String> = named.collect();
    assert!(
        named.len() == 1 && named[0].ends_with(": disk"),
        "{notes:?}"
    );
    let restored = host.restore("latest", "one");
    assert!(restored.join("data/disk").is_dir() && !restored.join("data/disk/there").exists());
}
