//! What must still be done when this process is told to end (Ctrl-C, SIGTERM, SIGHUP): a service that
//! was stopped is started again, decrypted files that nobody will finish are removed.
//!
//! Each duty is done once, by whoever takes it first: the owner in the course of things, or
//! [`run_all`] for a process that is about to end. Nothing helps against a kill -9.

use std::sync::{Mutex, MutexGuard};

use crate::base::lock::lock;

/// Gives what it did, or what went wrong, for the person who watches.
type CleanupWork = Box<dyn FnOnce() -> String + Send>;

#[derive(Default)]
struct Ledger {
    /// Nothing more is taken on.
    closed: bool,
    last: u64,
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

/// The ledger of a process that goes on; of one that is told to end, there is none to be had.
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

/// A duty that is owed until it is taken.
#[derive(Debug)]
pub struct CleanupGuard(u64);

impl CleanupGuard {
    /// Once [`run_all`] was called this does not return: whoever was about to begin something that would
    /// have to be cleared up is stopped here.
    pub fn register(work: impl FnOnce() -> String + Send + 'static) -> Self {
        let mut ledger = open_ledger();
        ledger.last += 1;
        let number = ledger.last;
        ledger.owed.push((number, Box::new(work)));
        Self(number)
    }

    /// Takes it back. Whether it was still owed: then its owner does the work, or need not. Does not
    /// return either once [`run_all`] was called, which must not be outrun by the end of the process.
    pub fn take(&self) -> bool {
        let mut ledger = open_ledger();
        let before = ledger.owed.len();
        ledger.owed.retain(|(number, _)| *number != self.0);
        ledger.owed.len() < before
    }
}

/// Does everything that is owed, the newest first, for a process that ends now.
pub fn run_all() -> Vec<String> {
    let owed = {
        let mut ledger = ledger();
        ledger.closed = true;
        std::mem::take(&mut ledger.owed)
    };
    owed.into_iter().rev().map(|(_, work)| work()).collect()
}
