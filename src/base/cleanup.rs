//! Work that must still be done when this process is asked to end (Ctrl-C, SIGTERM, SIGHUP):
//! starting a service again that a hook stopped, removing decrypted files of an unfinished restore.
//!
//! Each piece of work is done once: by the code that registered it, which takes it back first, or
//! by [`run_all`] when the process is about to end. Nothing helps against SIGKILL.

use std::sync::{Mutex, MutexGuard};

use crate::base::lock::lock;

/// Does the work and returns a line for the operator: what it did, or why it failed.
type CleanupWork = Box<dyn FnOnce() -> String + Send>;

#[derive(Default)]
struct Ledger {
    /// Whether [`run_all`] was called: from then on nothing is registered or taken back.
    closed: bool,
    /// The number of the last registered work.
    last: u64,
    /// Number and work, in the order of registration.
    owed: Vec<(u64, CleanupWork)>,
}

static LEDGER: Mutex<Ledger> = Mutex::new(Ledger {
    closed: false,
    last: 0,
    owed: Vec::new(),
});

fn ledger() -> MutexGuard<'static, Ledger> {
    lock(&LEDGER)
}

/// Locks the ledger; blocks forever once [`run_all`] was called.
fn open_ledger() -> MutexGuard<'static, Ledger> {
    loop {
        let ledger = ledger();
        if !ledger.closed {
            return ledger;
        }
        drop(ledger);
        std::thread::park();
    }
}

/// Registered work that [`run_all`] does unless its owner takes it back.
#[derive(Debug)]
pub struct CleanupGuard(u64);

impl CleanupGuard {
    /// Registers `work`. Does not return once [`run_all`] was called, so that the caller cannot
    /// begin something that nothing would clean up.
    pub fn register(work: impl FnOnce() -> String + Send + 'static) -> Self {
        let mut ledger = open_ledger();
        ledger.last += 1;
        let number = ledger.last;
        ledger.owed.push((number, Box::new(work)));
        Self(number)
    }

    /// Takes the work back. Returns whether it was still registered: then the caller does it, or
    /// knows that it is not needed. Does not return once [`run_all`] was called: the process must
    /// not end before that has done the work.
    pub fn take(&self) -> bool {
        let mut ledger = open_ledger();
        let before = ledger.owed.len();
        ledger.owed.retain(|(number, _)| *number != self.0);
        ledger.owed.len() < before
    }
}

/// Does all registered work, the newest first, and returns the lines for the operator. The process
/// must end after it.
pub fn run_all() -> Vec<String> {
    let owed = {
        let mut ledger = ledger();
        ledger.closed = true;
        std::mem::take(&mut ledger.owed)
    };
    owed.into_iter().rev().map(|(_, work)| work()).collect()
}
