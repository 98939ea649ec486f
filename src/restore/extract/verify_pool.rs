//! Verifies complete files on threads of their own while other archives still arrive: the hash of a
//! file that arrived in pieces, and each database's own check. Then sets owner, mode and time.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::content::{Content, ContentOutcome};
use super::databases::{self, DatabaseChecks};
use crate::base::sqlite::Budget;
use crate::format::index::DatabaseRecord;
use crate::restore::plan::DatabaseCheck;

const MOST_THREADS: usize = 4;

/// The queue of complete files, by number.
pub(super) struct Complete {
    /// The end that takes them.
    pub(super) queue: Sender<u32>,
    waiting: Receiver<u32>,
}

impl Complete {
    /// Returns an empty queue.
    pub(super) fn new() -> Self {
        let (queue, waiting) = channel();
        Self { queue, waiting }
    }
}

/// Threads that verify files as they become complete.
pub(super) struct VerifyPool {
    queue: Option<Sender<u32>>,
    threads: Vec<JoinHandle<DatabaseChecks>>,
    content: Arc<Content>,
}

/// The state that all threads share.
struct ProofTask {
    waiting: Mutex<Receiver<u32>>,
    content: Arc<Content>,
    database_check: DatabaseCheck,
    /// The time for the checks of all databases together.
    checks: Budget,
}

impl VerifyPool {
    /// Starts the threads.
    pub(super) fn start(
        complete: Complete,
        content: Arc<Content>,
        database_check: DatabaseCheck,
    ) -> io::Result<Self> {
        let task = Arc::new(ProofTask {
            waiting: Mutex::new(complete.waiting),
            content: Arc::clone(&content),
            database_check,
            checks: Budget::of_run(),
        });
        let mut threads = Vec::new();
        let count = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        for _ in 0..count {
            let task = Arc::clone(&task);
            let named = thread::Builder::new().name("prove".to_owned());
            threads.push(named.spawn(move || task.work())?);
        }
        Ok(Self {
            queue: Some(complete.queue),
            threads,
            content,
        })
    }

    /// Returns the queue for complete files.
    pub(super) fn queue(&self) -> Sender<u32> {
        match &self.queue {
            Some(queue) => queue.clone(),
            // This is only so after the end, when no thread receives.
            None => channel().0,
        }
    }

    /// Waits until all complete files are verified.
    pub(super) fn finish(mut self) -> (ContentOutcome, DatabaseChecks) {
        let mut checked = DatabaseChecks::default();
        let mut stopped = false;
        self.queue = None;
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(more) => checked.extend(more),
                Err(_) => stopped = true,
            }
        }
        let mut outcome = self.content.take_outcome();
        if stopped {
            // Then no file counts as verified.
            let all = 0..self.content.entries.len() as u32;
            outcome
                .wrong
                .extend(all.map(|number| (number, "its check stopped".to_owned())));
        }
        (outcome, checked)
    }
}

impl Drop for VerifyPool {
    /// Waits for the threads, which must not read a tree that is being removed.
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl ProofTask {
    /// Verifies files until the queue is closed.
    fn work(&self) -> DatabaseChecks {
        let mut checked = DatabaseChecks::default();
        loop {
            let waiting = self.waiting.lock();
            let next = waiting.unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(number) = next else { return checked };
            self.content.prove(number);
            if let Some(record) = self.content.databases.get(&number) {
                self.check_database(number, record, &mut checked);
            }
            self.content.finish_proven(number);
        }
    }

    /// Checks the database `number`, whose hash is that of the index.
    fn check_database(&self, number: u32, record: &DatabaseRecord, checked: &mut DatabaseChecks) {
        let (tree, entries) = (&self.content.tree, &self.content.entries);
        let entry = entries.get(number as usize);
        match (databases::known_defect(&entry, record), self.database_check) {
            (Some(defect), _) => checked.known_bad.push(defect),
            (None, DatabaseCheck::AsSealed) => checked.as_sealed.push(record.path.clone()),
            (None, DatabaseCheck::Repeat) => {
                databases::check(tree, entries, &entry, record, &self.checks, checked);
            }
        }
    }
}
