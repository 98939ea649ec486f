//! A disk so small that it is full soon: a `tmpfs` of its own, gone when dropped. Mounting takes root.

#![allow(dead_code, unreachable_pub, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK_KIBIBYTES: u64 = 16 << 10;
const FILLER: &str = "filler";

pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `at`, a folder that is there. `None`, and a line on stderr: that is not allowed here.
    pub fn mount(at: &Path) -> Option<Self> {
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={DISK_KIBIBYTES}k,mode=0755"))
            .arg("sealift-test")
            .arg(at)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self { at: at.to_owned() }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                eprintln!("SKIPPED: a small disk cannot be mounted here (it takes root): {why}");
                None
            }
            Err(error) => {
                eprintln!("SKIPPED: a small disk cannot be mounted here: {error}");
                None
            }
        }
    }

    /// Leaves this number of bytes free.
    pub fn fill(&self, free: u64) {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        let filler = (stat.f_bavail * stat.f_frsize).saturating_sub(free);
        fs::write(self.at.join(FILLER), vec![0; filler as usize]).unwrap();
    }

    /// Nothing can be written any more, or again.
    pub fn read_only(&self, read_only: bool) {
        let how = match read_only {
            true => "remount,bind,ro",
            false => "remount,bind,rw",
        };
        let status = Command::new("mount")
            .args(["-o", how])
            .arg(&self.at)
            .status();
        assert!(status.unwrap().success(), "{}", self.at.display());
    }

    pub fn empty(&self) {
        fs::remove_file(self.at.join(FILLER)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server may look at it still.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
