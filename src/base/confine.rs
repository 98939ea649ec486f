//! Confines a process that handles foreign content: it can change files in named directories only.
//!
//! An index that the host signed and files from a target decide what a restore writes. The code
//! keeps it below one directory; if that code has a fault, the kernel stops it: with Landlock
//! (Linux 5.19 and later) this process can create, change, rename and remove files only beneath the
//! directories that it names. Reading and the network stay as they are.
//!
//! The restriction cannot be taken back, and child processes inherit it. So a process that starts
//! other programs, such as hooks, ssh or an age plugin, must not use it.

use std::path::Path;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

use crate::base::openat::Dir;

/// The oldest version with which an entry can be renamed into another directory.
const OLDEST_RULES: ABI = ABI::V2;
/// The newest version that is requested; an older kernel enforces the rules that it knows.
const RULES: ABI = ABI::V3;
/// Devices that stay writable: prompts and discarded output go there.
const DEVICES: [&str; 2] = ["/dev/tty", "/dev/null"];

fn changes() -> BitFlags<AccessFs> {
    AccessFs::from_write(RULES)
}

/// Restricts the calling thread, and the threads and processes that it starts from now on, to
/// changing files beneath `dirs`. Call it before other threads are started. Returns whether the
/// kernel enforces it; an older one does not.
pub fn writes_to(dirs: &[Dir]) -> Result<bool, RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(OLDEST_RULES));
    let rules = match rules {
        Ok(rules) => rules,
        Err(_) => return Ok(false),
    };
    let mut rules = rules
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(changes())?
        .create()?;
    for dir in dirs {
        rules = rules.add_rule(PathBeneath::new(dir, changes()))?;
    }
    for device in DEVICES {
        if let Ok(device) = PathFd::new(Path::new(device)) {
            rules = rules.add_rule(PathBeneath::new(device, AccessFs::WriteFile))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_thread_writes_beneath_its_directories_and_nowhere_else() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["a", "b", "c"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("c/there"), "x").unwrap();
        let dirs = ["a", "b"].map(|name| Dir::open(&at(name)).unwrap());
        let outside = Dir::open(&at("c")).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Not every kernel has Landlock.
                if !writes_to(&dirs).unwrap() {
                    return;
                }
                std::fs::write(at("a/new"), "x").unwrap();
                std::fs::rename(at("a/new"), at("b/new")).unwrap();
                std::fs::remove_file(at("b/new")).unwrap();
                std::fs::create_dir(at("b/dir")).unwrap();
                assert!(std::fs::write(at("c/new"), "x").is_err());
                assert!(std::fs::write(at("c/there"), "y").is_err());
                assert!(std::fs::remove_file(at("c/there")).is_err());
                assert!(outside.create_file("new", 0o600).is_err());
                assert!(std::fs::rename(at("b/dir"), at("c/dir")).is_err());
                assert_eq!(std::fs::read(at("c/there")).unwrap(), b"x");
                std::fs::write("/dev/null", "x").unwrap();
            });
            thread.join().unwrap();
        });
        // The other threads go on as they were.
        std::fs::write(at("c/new"), "x").unwrap();
    }
}
