//! Figures of this process, as the kernel has them in `/proc`.

use std::fs;

use super::process;

/// Memory, descriptors and start of this process. A figure that the kernel does not show is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessFigures {
    /// Resident memory in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(crate) open_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub(crate) started_at: Option<f64>,
}

impl ProcessFigures {
    /// Reads the figures of this process.
    pub(crate) fn read() -> Self {
        Self {
            resident_bytes: resident_bytes(),
            open_fds: open_fds(),
            started_at: started_at(),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

fn open_fds() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.flatten().count() as u64;
    // The one that lists them.
    Some(open.saturating_sub(1))
}

fn started_at() -> Option<f64> {
    let ticks = process::started(std::process::id())?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "));
    let booted: f64 = booted?.trim().parse().ok()?;
    Some(booted + ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let figures = ProcessFigures::read();
        let resident = figures.resident_bytes.unwrap();
        assert!((100_000..100_000_000_000).contains(&resident), "{resident}");
        assert!(figures.open_fds.unwrap() >= 3);
        let age = crate::base::clock::now().timestamp() as f64 - figures.started_at.unwrap();
        // The kernel rounds the start of the machine.
        assert!((-5.0..86_400.0).contains(&age), "{age}");
    }
}
