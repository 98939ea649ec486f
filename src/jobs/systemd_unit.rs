//! The units of systemd for this host: those in `deploy/`, with the paths of this configuration,
//! and for each a drop-in with which its sandbox fits.
//!
//! A sandbox that is too tight fails: with `226/NAMESPACE` if it names a path that is missing, so
//! every path has the prefix `-`. One that fits every configuration would be none. So the drop-in
//! opens what this configuration needs, and no more:
//!
//! - what is written: state, snapshots, folders of targets, directories of databases;
//! - home directories, `/tmp` and the sockets of containers, if something there is needed;
//! - all of the system but `/usr`, `/boot` and `/etc`, if it has commands: what these write cannot
//!   be computed.

mod drop_in;
mod needs;
mod word;

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;

use self::needs::SandboxNeeds;
use self::word::unit_word;
use crate::config::{Config, DrillConfig, Schedule};

/// The paths in the units of `deploy/`.
const PROGRAM: &str = "/usr/local/bin/sealift";
const CONFIG: &str = "/etc/sealift/sealift.toml";
const DRILL_CONFIG: &str = "/etc/sealift/drill.toml";
const STATE: &str = "/var/lib/sealift";
/// The lines that make [`STATE`].
const STATE_LINES: &str = "StateDirectory=sealift\nStateDirectoryMode=0700\n";
/// The line of the timer that says when.
const ON_CALENDAR: &str = "OnCalendar=*-*-* 06:00:00 UTC";
/// Occurrences of a schedule by which it counts as daily.
const LOOKED_AT: usize = 9;

/// One of the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitName {
    /// The agent.
    Agent,
    /// One backup, and its timer, for a host without the agent.
    Backup,
    /// What finishes an interrupted restore in place when the system starts.
    Recover,
    /// What looks at the targets from another machine, and its timer.
    Watch,
    /// A restore for proof on the key holder's machine, and its timer.
    Drill,
}

/// A file for systemd.
#[derive(Debug, Serialize)]
pub(crate) struct UnitFile {
    /// `unit`, `drop_in` or `timer`.
    pub(crate) part: &'static str,
    /// Where it belongs.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl UnitName {
    fn service(self) -> &'static str {
        match self {
            Self::Agent => "sealift.service",
            Self::Backup => "sealift-backup.service",
            Self::Recover => "sealift-recover.service",
            Self::Watch => "sealift-watch.service",
            Self::Drill => "sealift-drill.service",
        }
    }

    /// Returns the unit as `deploy/` has it.
    fn template(self) -> &'static str {
        match self {
            Self::Agent => include_str!("../../deploy/sealift.service"),
            Self::Backup => include_str!("../../deploy/sealift-backup.service"),
            Self::Recover => include_str!("../../deploy/sealift-recover.service"),
            Self::Watch => include_str!("../../deploy/sealift-watch.service"),
            Self::Drill => include_str!("../../deploy/sealift-drill.service"),
        }
    }

    fn timer(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Agent | Self::Recover => None,
            Self::Backup => Some((
                "sealift-backup.timer",
                include_str!("../../deploy/sealift-backup.timer"),
            )),
            Self::Watch => Some((
                "sealift-watch.timer",
                include_str!("../../deploy/sealift-watch.timer"),
            )),
            Self::Drill => Some((
                "sealift-drill.timer",
                include_str!("../../deploy/sealift-drill.timer"),
            )),
        }
    }
}

/// Returns the files of the unit for the program at `program`. `config`: `None` for the watcher,
/// which needs none.
pub(crate) fn files(
    name: UnitName,
    config: Option<&Config>,
    program: &Path,
    now: DateTime<Utc>,
) -> Vec<UnitFile> {
    let service = name.service();
    let text = name.template().replace(PROGRAM, &unit_word(program));
    let text = match config {
        Some(config) => with_paths(&text, config),
        None => text,
    };
    let mut files = vec![of_systemd("unit", service, text)];
    if let Some(config) = config {
        let path = format!("{service}.d/sandbox.conf");
        let text = drop_in::text(&config.file, &SandboxNeeds::of(name, config, program));
        files.push(of_systemd("drop_in", &path, text));
    }
    if let Some((timer, text)) = name.timer() {
        let text = match config {
            Some(config) => text.replace(ON_CALENDAR, &calendar(&config.schedule, now)),
            None => text.to_owned(),
        };
        files.push(of_systemd("timer", timer, text));
    }
    files
}

/// Returns the files of the unit that drills with `config`, for the program at `program`.
pub(crate) fn drill_files(config: &DrillConfig, program: &Path) -> Vec<UnitFile> {
    let name = UnitName::Drill;
    let text = name.template().replace(PROGRAM, &unit_word(program));
    let text = text.replace(DRILL_CONFIG, &unit_word(&config.file));
    let drop_in = drop_in::text(&config.file, &SandboxNeeds::of_drill(config, program));
    let service = name.service();
    let mut files = vec![
        of_systemd("unit", service, text),
        of_systemd("drop_in", &format!("{service}.d/sandbox.conf"), drop_in),
    ];
    let timer = name.timer();
    files.extend(timer.map(|(timer, text)| of_systemd("timer", timer, text.to_owned())));
    files
}

fn of_systemd(part: &'static str, name: &str, text: String) -> UnitFile {
    UnitFile {
        part,
        path: format!("/etc/systemd/system/{name}"),
        text,
    }
}

/// Puts the paths of `config` into a unit.
fn with_paths(text: &str, config: &Config) -> String {
    let text = text.replace(CONFIG, &unit_word(&config.file));
    if config.state == Path::new(STATE) {
        return text;
    }
    text.replace(STATE_LINES, "")
        .replace(STATE, &unit_word(&config.state))
}

/// Returns the line of a timer that runs as `schedule` says.
fn calendar(schedule: &Schedule, now: DateTime<Utc>) -> String {
    let times = std::iter::successors(schedule.next(now), |time| schedule.next(*time));
    let times: Vec<DateTime<Utc>> = times.take(LOOKED_AT).collect();
    let mut clock_times = times.iter().map(|time| time.format("%H:%M:%S").to_string());
    let Some(first) = clock_times.next() else {
        return format!("# The configuration has no schedule, so this is a guess.\n{ON_CALENDAR}");
    };
    let day = chrono::Duration::days(1);
    let is_daily = times.windows(2).all(|pair| pair[1] - pair[0] == day);
    match is_daily && clock_times.all(|time| time == first) {
        true => format!("OnCalendar=*-*-* {first} UTC"),
        false => {
            format!("# Not as [schedule] says, which is not daily: put it here.\n{ON_CALENDAR}")
        }
    }
}

#[cfg(test)]
mod tests;
