//! What must still be done when this process is told to end (Ctrl-C, SIGTERM, SIGHUP): a service that
//! was stopped is started again, decrypted files that nobody will finish are removed.
//!
//! Each duty is done once, by whoever takes it first: the owner in the course of things, or
//! [`settle_all`] for a process that is about to end. Nothing helps against a kill -9.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Gives what it did, or what went wrong, for the person who watches.
type Work = Box<dyn FnOnce() -> String + Send>;

#[derive(Default)]
struct Ledger {
    last: u64,
    owed: Vec<(u64, Work)>,
}

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger {
    last: 0,
    owed: Vec::new(),
});

fn ledger() -> MutexGuard<'static, Ledger> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A duty that is owed until it is taken.
#[derive(Debug)]
pub struct Duty(u64);

impl Duty {
    pub fn owe(work: impl FnOnce() -> String + Send + 'static) -> Self {
        let mut ledger = ledger();
        ledger.last += 1;
        let number = ledger.last;
        ledger.owed.push((number, Box::new(work)));
        Self(number)
    }

    /// Takes it back. Whether it was still owed: then its owner does the work, or need not.
    pub fn take(&self) -> bool {
        let mut ledger = ledger();
        let before = ledger.owed.len();
        ledger.owed.retain(|(number, _)| *number != self.0);
        ledger.owed.len() < before
    }
}

/// Does everything that is owed, the newest first.
pub fn settle_all() -> Vec<String> {
    let owed = std::mem::take(&mut ledger().owed);
    owed.into_iter().rev().map(|(_, work)| work()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duty_is_done_once() {
        let taken = Duty::owe(|| "taken".to_owned());
        let left = Duty::owe(|| "left".to_owned());
        assert!(taken.take());
        assert!(!taken.take());
        assert!(settle_all().contains(&"left".to_owned()));
        assert!(!left.take());
    }
}
