//! What the child takes from itself before it opens a database that may come from anywhere.

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

/// Bytes of address space: SQLite's own limit of memory, the program and some room.
const ADDRESS_BYTES: u64 = (super::inspect::MEMORY_BYTES as u64) + (256 << 20);
/// The newest rules that are asked for; an older kernel enforces those that it knows.
const RULES: ABI = ABI::V6;

/// Ends this process with `parent`. False if that one has ended already.
pub(super) fn end_with(parent: i32) -> bool {
    // It is sent when the parent's thread ends that started the child; that thread waits for it.
    let set = set_parent_process_death_signal(Some(Signal::KILL));
    set.is_ok() && getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent)
}

/// Limits processor time, memory and the size of written files; no core dump is written.
pub(super) fn limit(cpu_seconds: u64, file_bytes: u64) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Cpu, cpu_seconds),
        (Resource::As, ADDRESS_BYTES),
        (Resource::Fsize, file_bytes),
        (Resource::Core, 0),
    ] {
        let limit = getrlimit(resource);
        let most = limit.maximum.map_or(most, |maximum| maximum.min(most));
        let limit = Rlimit {
            current: Some(limit.current.map_or(most, |current| current.min(most))),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Lets this process read what is beneath its working directory and, if `write`, write there; nothing
/// else of the file system, and no network.
///
/// Where the kernel has no Landlock, root confines itself by `chroot`. Other users' processes can do what
/// their user can.
pub(super) fn to_working_directory(write: bool) -> io::Result<()> {
    let status = landlock(write).map_err(io::Error::other)?;
    if status == RulesetStatus::NotEnforced && rustix::process::geteuid().is_root() {
        rustix::process::chroot(".")?;
    }
    Ok(())
}

fn landlock(write: bool) -> Result<RulesetStatus, landlock::RulesetError> {
    let mut granted: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    if write {
        granted |= AccessFs::WriteFile | AccessFs::Truncate;
        granted |= AccessFs::MakeReg | AccessFs::RemoveFile;
    }
    // Its stdin is the working directory.
    let beneath = PathBeneath::new(rustix::stdio::stdin(), granted);
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rule(beneath)?;
    Ok(rules.restrict_self()?.ruleset)
}
