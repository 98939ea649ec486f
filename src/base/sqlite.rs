//! SQLite files as files: telling them, copying them whole, reading them untorn, checking them.
//!
//! A database that is in use is more than its file: pages may wait in a `-wal`, or a `-journal` may be
//! about to take some back. So a database with a live sidecar is copied by [`backup`] only, and one
//! without is read as the bytes it is under [`lock_for_read`]. Both leave page order alone, which is
//! what makes the next push small.
//!
//! **No database but our own catalog is opened in this process.** Any user who may write a file may have made it
//! to crash SQLite, to fill the memory or to be worked on for years. So [`process`] starts a [`child`] for
//! each: with limits, confined to the database's directory, killed when its time is up. What did not come to
//! an end is [`SqliteError::Unchecked`], never damage. The child also holds the lock for reading. (Here it
//! would be lost: a process loses all POSIX locks on a file when it closes any descriptor of it.)
//!
//! A database is named by a [`Place`]: an open directory and a name in it. The child proves that SQLite
//! opened the very file that the caller has open.

mod backup;
mod budget;
mod check;
mod child;
mod code;
mod confine;
mod error;
mod header;
mod inspect;
mod inspection;
mod message;
mod place;
mod process;
mod refusal;
mod vfs;

use std::path::Path;

pub use backup::{backup, backup_at};
pub use budget::Budget;
pub use check::{Lock, inspect, inspect_at, lock_for_read};
pub use child::serve;
pub use code::kind as error_kind;
pub use error::SqliteError;
pub use header::{HEAD_BYTES, MAGIC, SIDECARS, is_sqlite, page_size, sidecars};
pub use inspection::{Depth, Inspection};
pub use place::Place;
pub use process::register_program;

/// [`Place::has_live_journal`] of a path.
pub fn has_live_journal(path: &Path) -> bool {
    Place::of(path).is_ok_and(|place| place.has_live_journal())
}

/// A connection that writes, for tests of what copies databases.
#[cfg(test)]
pub(crate) fn open_for_test(path: &std::path::Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlite_in_this_program_deletes_nothing_that_a_planted_journal_names() {
        assert!(rusqlite::version_number() >= child::SAFE_SQLITE);
    }
}
