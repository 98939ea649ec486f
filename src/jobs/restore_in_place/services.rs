//! Stops and starts what uses the data, each within its time, and looks who still uses it.

use std::io;
use std::time::{Duration, Instant};

use super::because::{Because, code};
use super::plan::{InPlacePlan, PlannedItem};
use super::requirements::watched;
use crate::base::error_chain::with_causes;
use crate::base::open_files::{FileUser, users_of};
use crate::base::units::duration;
use crate::config::{CommandLine, RestoreSettings};
use crate::producer::{RunHook, SourceError};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Least time for a process to end after it was stopped.
const GRACE: Duration = Duration::from_secs(2);
/// Processes that a message names.
const MOST_NAMED: usize = 5;
/// Texts by which programs say that another process has their port.
const PORT_IN_USE: [&str; 3] = [
    "address already in use",
    "port is already allocated",
    "eaddrinuse",
];

/// The commands of `[restore]`, for one restore.
pub(super) struct Services<'a> {
    settings: &'a RestoreSettings,
    environment: [(&'static str, String); 2],
}

impl<'a> Services<'a> {
    pub(super) fn new(settings: &'a RestoreSettings, plan: &InPlacePlan) -> Self {
        Self {
            settings,
            environment: [
                ("SEALIFT_RESTORE", plan.id.clone()),
                ("SEALIFT_STAMP", plan.stamp.to_string()),
            ],
        }
    }

    fn run(&self, line: &CommandLine, timeout: Duration) -> Result<String, SourceError> {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        RunHook {
            line,
            input: &[],
            environment: &environment,
            timeout,
        }
        .run()
    }

    /// Stops the service, and returns once nothing uses the live content of `items`.
    pub(super) fn stop(&self, items: &[PlannedItem]) -> Result<(), Because> {
        let deadline = Instant::now() + self.settings.stop_timeout;
        if let Some(stop) = &self.settings.stop {
            let stopped = self.run(stop, self.settings.stop_timeout);
            stopped.map_err(|error| stop_failed(&with_causes(&error)))?;
        }
        if let Some(stopped) = &self.settings.stopped {
            self.wait_for(stopped, deadline)?;
        }
        let deadline = match self.settings.stop {
            Some(_) => deadline.max(Instant::now() + GRACE),
            None => Instant::now(),
        };
        loop {
            let users = self.users(items)?;
            if users.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(still_in_use(&users));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Repeats the command `stopped` until it succeeds.
    fn wait_for(&self, stopped: &CommandLine, deadline: Instant) -> Result<(), Because> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.run(stopped, left.max(GRACE)) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                let limit = duration(self.settings.stop_timeout);
                let text = format!(
                    "after {limit} `stopped` still fails: {}",
                    with_causes(&error)
                );
                return Err(stop_failed(&text));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns the processes that use the live content of `items`.
    pub(super) fn users(&self, items: &[PlannedItem]) -> Result<Vec<FileUser>, Because> {
        let watched = watched(items);
        let watched =
            watched.map_err(|error| Because::io("cannot look at the live data", &error))?;
        Ok(users_of(&watched))
    }

    /// Fails if a process uses the live content of `items`.
    pub(super) fn require_unused(&self, items: &[PlannedItem]) -> Result<(), Because> {
        let users = self.users(items)?;
        match users.is_empty() {
            true => Ok(()),
            false => Err(still_in_use(&users)),
        }
    }

    /// Starts the service. Returns whether there is a command for it.
    pub(super) fn start(&self) -> Result<bool, Because> {
        let Some(start) = &self.settings.start else {
            return Ok(false);
        };
        match self.run(start, self.settings.start_timeout) {
            Ok(_) => {
                std::thread::sleep(self.settings.settle);
                Ok(true)
            }
            Err(error) => Err(not_started(&with_causes(&error))),
        }
    }
}

fn stop_failed(why: &str) -> Because {
    let next = "stop it by hand, and look why the commands in [restore] do not; then run it again";
    Because::new(
        code::STOP_FAILED,
        format!("the service did not stop: {why}"),
        next,
    )
}

/// Makes the reason that processes still use the data.
pub(super) fn still_in_use(users: &[FileUser]) -> Because {
    let named: Vec<String> = users
        .iter()
        .take(MOST_NAMED)
        .map(|user| user.to_string().replace(") has ", ") still has "))
        .collect();
    match named.is_empty() {
        true => stop_failed("a process that cannot be seen from here has a database locked"),
        false => stop_failed(&named.join(", ")),
    }
}

fn not_started(why: &str) -> Because {
    let lower = why.to_lowercase();
    let text = format!("the service did not start: {why}");
    match PORT_IN_USE.iter().any(|one| lower.contains(one)) {
        true => {
            let next = "end the process that has its port (`ss -ltnp`), then run it again";
            Because::new(code::PORT_IN_USE, text, next)
        }
        false => {
            let next = "read its log; a wrong owner of the restored files is a common cause";
            Because::new(code::START_FAILED, text, next)
        }
    }
}

/// Adds to the reason that the service did not start each item whose owner or permissions differ
/// from those of the old content.
pub(super) fn explain_owners(because: &mut Because, items: &[PlannedItem]) -> io::Result<()> {
    if because.code != code::START_FAILED {
        return Ok(());
    }
    let mut commands = Vec::new();
    for item in items {
        let live = item.slots()?.live.meta()?;
        let (Some(now), Some(old)) = (live, &item.old) else {
            continue;
        };
        let path = item.live.display();
        if (now.uid(), now.gid()) != (old.uid, old.gid) {
            because.text.push_str(&format!(
                "; {path} belongs to {}:{}, before it belonged to {}:{}",
                now.uid(),
                now.gid(),
                old.uid,
                old.gid
            ));
            commands.push(format!("chown -R {}:{} {path}", old.uid, old.gid));
        }
        if now.permissions() != old.mode {
            because.text.push_str(&format!(
                "; {path} has mode {:04o}, before it had {:04o}",
                now.permissions(),
                old.mode
            ));
            commands.push(format!("chmod {:04o} {path}", old.mode));
        }
    }
    if !commands.is_empty() {
        because.next = format!(
            "set `owner` and `mode` of the source in the configuration, then restore again; by hand it is: {}",
            commands.join("; ")
        );
    }
    Ok(())
}
