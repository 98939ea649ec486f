//! Closes the rows of runs that cannot end any more.

use std::path::Path;

use chrono::{DateTime, Utc};

use super::KILLED;
use crate::base::process;
use crate::state::history::{EndedRun, History, HistoryError, NewRun, RunRow};
use crate::state::run_file;

/// Closes the rows without an end whose process is gone: these runs were killed, or the machine
/// lost power. Returns them.
pub(crate) fn close_dead(
    history: &History,
    now: DateTime<Utc>,
) -> Result<Vec<RunRow>, HistoryError> {
    let mut closed = Vec::new();
    for (age, row) in history.open_runs()?.into_iter().enumerate() {
        let is_newest = age == 0;
        if is_there(&row.run) || is_newest && may_be_hidden(history.dir()) {
            continue;
        }
        let end = EndedRun {
            ended_at: now.max(row.run.started_at),
            outcome: KILLED.to_owned(),
            exit_code: None,
            stamp: None,
            sequence: None,
            message: format!(
                "its process (pid {}) is gone: it was killed, or the machine stopped",
                row.run.pid
            ),
            report: None,
        };
        if history.end_run(&row.run.id, &end)? {
            closed.push(RunRow {
                end: Some(end),
                ..row
            });
        }
    }
    if !closed.is_empty() {
        history.forget_stages()?;
    }
    Ok(closed)
}

/// Whether the process of the run is there, or may be.
fn is_there(run: &NewRun) -> bool {
    process::is_running(run.pid, run.pid_started) || is_of_another_user(run.pid)
}

/// Whether there is a process `pid` of another user that `/proc` does not show.
fn is_of_another_user(pid: u32) -> bool {
    if Path::new("/proc").join(pid.to_string()).exists() {
        return false;
    }
    let pid = i32::try_from(pid).ok();
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        let probed = rustix::process::test_kill_process(pid);
        matches!(probed, Err(rustix::io::Errno::PERM))
    })
}

/// Whether a process that cannot be seen from here may be at work: in another container, say. It
/// holds the lock then.
fn may_be_hidden(dir: &Path) -> bool {
    run_file::is_locked(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history_with_runs(dir: &Path) -> History {
        let history = History::open(dir).unwrap();
        let own = std::process::id();
        let since = process::started(own).unwrap();
        let runs = [
            ("01A", own, since + 1),
            ("01B", own, since),
            ("01C", u32::MAX >> 1, 5),
        ];
        for (id, pid, pid_started) in runs {
            let run = NewRun {
                id: id.to_owned(),
                kind: "backup".to_owned(),
                trigger: "schedule".to_owned(),
                started_at: DateTime::UNIX_EPOCH,
                pid,
                pid_started,
                note: None,
            };
            history.begin_run(&run).unwrap();
        }
        history
    }

    fn ids(rows: &[RunRow]) -> Vec<&str> {
        rows.iter().map(|row| row.run.id.as_str()).collect()
    }

    #[test]
    fn a_run_is_closed_if_its_process_is_gone_or_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let history = history_with_runs(dir.path());
        let now = DateTime::from_timestamp(1_775_541_600, 0).unwrap();
        let closed = close_dead(&history, now).unwrap();
        assert_eq!(ids(&closed), ["01C", "01A"]);
        let row = history.run("01A").unwrap().unwrap().end.unwrap();
        assert_eq!((row.outcome.as_str(), row.ended_at), ("killed", now));
        assert_eq!(ids(&history.open_runs().unwrap()), ["01B"]);
        assert_eq!(close_dead(&history, now).unwrap(), []);
    }

    /// Kind: a run in a container, whose process number means nothing here, is called killed.
    #[test]
    fn the_newest_run_stays_open_while_a_process_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let history = history_with_runs(dir.path());
        let lock = crate::state::lock(dir.path()).unwrap();
        let now = DateTime::from_timestamp(1_775_541_600, 0).unwrap();
        assert_eq!(ids(&close_dead(&history, now).unwrap()), ["01A"]);
        drop(lock);
        assert_eq!(ids(&close_dead(&history, now).unwrap()), ["01C"]);
    }
}
