//! Whether a process holds a lock on a file, as the kernel lists locks. To try the lock instead
//! could disturb a process that is about to take it.

/// Returns whether a process holds a `flock` on the file with this inode. False, too, if the kernel
/// does not say.
pub(crate) fn is_held(inode: u64) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| is_flock_on(line, inode))
}

/// Reads a line such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:131078 0 EOF`. Some file systems have
/// other device numbers there than elsewhere, so only the inode is compared.
fn is_flock_on(line: &str, inode: u64) -> bool {
    let mut words = line.split_whitespace();
    let kind = words.nth(1);
    let file = words.nth(3).and_then(|file| file.rsplit(':').next());
    kind == Some("FLOCK") && file.is_some_and(|number| number.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_kind_of_lock_on_this_file_counts() {
        let line = "1: FLOCK  ADVISORY  WRITE 4711 08:01:131078 0 EOF";
        assert!(is_flock_on(line, 131_078) && !is_flock_on(line, 1_078));
        assert!(!is_flock_on(&line.replace("FLOCK", "POSIX"), 131_078));
        assert!(!is_flock_on("", 0) && !is_flock_on("1: -> FLOCK  ADVISORY", 7));
    }
}
