//! Processes of this machine, by their number and the time at which they started: a number alone is
//! used again.

/// Returns when the kernel started the process `pid`, in the clock ticks of `/proc/PID/stat`.
/// `None`: there is no such process, or it has ended and waits for its parent.
pub fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in brackets, and may itself contain some.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    // The state is the third field of the file, the start the twenty-second.
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// Whether the process `pid` that started at `since` is still there. 0: the start is not known.
pub fn is_running(pid: u32, since: u64) -> bool {
    started(pid).is_some_and(|started| since == 0 || started == since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let own = std::process::id();
        let since = started(own).unwrap();
        assert!(since > 0 && is_running(own, since) && is_running(own, 0));
        assert!(!is_running(own, since + 1));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(started(pid), None);
    }
}
