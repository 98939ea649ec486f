//! Who began this run, for its report.

use std::fs::File;
use std::io::{self, IsTerminal as _};

use clap::ValueEnum;

use crate::jobs::run_report::Trigger;

/// What `--trigger` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TriggerName {
    Manual,
    Schedule,
    Api,
    Boot,
    Timer,
}

/// Returns who began this run: what the caller `said`, or what the environment shows.
pub(super) fn of(said: Option<TriggerName>) -> Trigger {
    match said {
        Some(TriggerName::Manual) => Trigger::Manual,
        Some(TriggerName::Schedule) => Trigger::Schedule,
        Some(TriggerName::Api) => Trigger::Api,
        Some(TriggerName::Boot) => Trigger::Boot,
        Some(TriggerName::Timer) => Trigger::Timer,
        None if is_unit() && !has_terminal() => Trigger::Timer,
        None => Trigger::Manual,
    }
}

/// Whether systemd started this process as a unit that writes to the journal.
fn is_unit() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("INVOCATION_ID") && is_set("JOURNAL_STREAM")
}

/// Whether a person's terminal is there. The terminals of a desktop are units of systemd, too, and
/// what is started in them inherits the variables.
fn has_terminal() -> bool {
    let streams = [
        io::stdin().is_terminal(),
        io::stdout().is_terminal(),
        io::stderr().is_terminal(),
    ];
    // It can be opened only if this process has a controlling terminal.
    streams.contains(&true) || File::open("/dev/tty").is_ok()
}
