//! The rights that the child gives up before it opens a database that anyone may have written.

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

/// Limit of the address space in bytes: SQLite's own limit of memory, the program, and some
/// reserve.
const ADDRESS_BYTES: u64 = (super::inspect::MEMORY_BYTES as u64) + (256 << 20);
/// The newest version that is requested; an older kernel enforces the rules that it knows.
const RULES: ABI = ABI::V6;

/// Makes the kernel end this process when `parent` ends. Returns false if the parent has ended
/// already.
pub(super) fn end_with(parent: i32) -> bool {
    // The signal comes when the parent's thread that started this process ends; that thread waits
    // for us.
    let set = set_parent_process_death_signal(Some(Signal::KILL));
    set.is_ok() && getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent)
}

/// Limits processor time, memory and the size of written files, and forbids core dumps.
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

/// What the child does in the database's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads files.
    Read,
    /// Also writes, creates and removes files.
    Write,
}

/// Restricts this process to its working directory, with this `access`: nothing else of the file
/// system, no network.
///
/// Without Landlock in the kernel, root confines itself by `chroot`; another user's process keeps
/// its user's rights.
pub(super) fn to_working_directory(access: Access) -> io::Result<()> {
    let status = landlock(Some(access)).map_err(io::Error::other)?;
    if status == RulesetStatus::NotEnforced && rustix::process::geteuid().is_root() {
        rustix::process::chroot(".")?;
    }
    Ok(())
}

/// Restricts this process to the descriptors that it has: no file, no network.
///
/// Without Landlock in the kernel, root confines itself to the list of those descriptors; another
/// user's process keeps its user's rights.
pub(super) fn to_nothing() -> io::Result<()> {
    let status = landlock(None).map_err(io::Error::other)?;
    if status == RulesetStatus::NotEnforced && rustix::process::geteuid().is_root() {
        rustix::process::chdir("/proc/self/fdinfo")?;
        rustix::process::chroot(".")?;
    }
    Ok(())
}

/// Enforces the rules for this `access` to the working directory; `None`: no file at all.
fn landlock(access: Option<Access>) -> Result<RulesetStatus, landlock::RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?;
    let Some(access) = access else {
        return Ok(rules.restrict_self()?.ruleset);
    };
    let mut granted: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    if access == Access::Write {
        granted |= AccessFs::WriteFile | AccessFs::Truncate;
        granted |= AccessFs::MakeReg | AccessFs::RemoveFile;
    }
    // Its stdin is the working directory.
    let beneath = PathBeneath::new(rustix::stdio::stdin(), granted);
    Ok(rules.add_rule(beneath)?.restrict_self()?.ruleset)
}
