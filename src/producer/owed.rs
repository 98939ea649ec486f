//! The `after` commands that are owed: a service was stopped and must be started again, even if this
//! process is told to end. (Nothing helps against a kill -9 but the service's own supervisor.)

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::command;
use crate::config::CommandLine;
use crate::error::with_causes;

struct Owed {
    number: u64,
    line: CommandLine,
    environment: Vec<(String, String)>,
    timeout: Duration,
}

#[derive(Default)]
struct Ledger {
    last: u64,
    owed: Vec<Owed>,
}

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger {
    last: 0,
    owed: Vec::new(),
});

fn ledger() -> MutexGuard<'static, Ledger> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that `line` must run, before its `before` is begun.
pub(super) fn owe(line: &CommandLine, environment: &[(&str, &str)], timeout: Duration) -> u64 {
    let mut ledger = ledger();
    ledger.last += 1;
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let owed = Owed {
        number: ledger.last,
        line: line.clone(),
        environment: environment.iter().map(owned).collect(),
        timeout,
    };
    ledger.owed.push(owed);
    ledger.last
}

/// Whether the caller is to run it now: once only, and not if [`run_owed`] was first.
pub(super) fn settle(number: u64) -> bool {
    let mut ledger = ledger();
    let before = ledger.owed.len();
    ledger.owed.retain(|owed| owed.number != number);
    ledger.owed.len() < before
}

/// Runs what is owed, for a process that is about to end; gives what was run, and what went wrong.
pub fn run_owed() -> Vec<String> {
    let owed = std::mem::take(&mut ledger().owed);
    let run = |owed: Owed| {
        let environment: Vec<(&str, &str)> = owed
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        match command::run(&owed.line, None, &environment, owed.timeout) {
            Ok(()) => format!("ran `{}` as `after` demands", owed.line),
            Err(error) => with_causes(&error),
        }
    };
    owed.into_iter().rev().map(run).collect()
}
