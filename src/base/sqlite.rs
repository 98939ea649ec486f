//! SQLite databases as files: recognizes them, copies them as of one moment, locks them for
//! reading, checks them.
//!
//! A database that is in use is more than its file: a `-wal` may hold newer pages, or a `-journal`
//! may be about to take some back. So a database with a live sidecar is copied by [`backup`] only,
//! and one without is read byte by byte under [`lock_for_read`]. Both keep the order of the pages,
//! so the next push is small.
//!
//! **Only our own catalog is opened in this process.** A user who can write a file can make it
//! crash SQLite, fill the memory or keep a check busy for years. So [`process`] starts a [`child`]
//! for each database: with limits, confined to the database's directory, killed when its time is
//! up. A check that did not end is [`SqliteError::Unchecked`], never damage. The child also holds
//! the lock for reading. (This process would lose it: closing any descriptor of a file releases all
//! of the process's POSIX locks on it.)
//!
//! A [`Place`] names a database: an open directory and a name in it. The child verifies that SQLite
//! opened the very file that the caller has open.

mod backup;
mod budget;
mod check;
mod child;
mod close_up;
mod code;
mod confine;
mod connection;
mod error;
mod header;
mod inspect;
mod inspection;
mod message;
mod paged;
mod place;
mod process;
mod query;
mod refusal;
mod vfs;

use std::path::Path;

pub use backup::{backup, backup_at};
pub use budget::Budget;
pub use check::{Lock, inspect, inspect_at, lock_for_read};
pub use child::serve;
pub use close_up::{Shut, close_up};
pub use code::kind as error_kind;
pub use code::may_lack_room;
pub use error::SqliteError;
pub use header::{HEAD_BYTES, MAGIC, SIDECARS, is_sqlite, page_size, sidecars};
pub use inspection::{Depth, Inspection};
pub use paged::{MOST_QUERY_BYTES, PageSource, PagedQueryError, PagedRows, SqlValue};
pub use place::Place;
pub use process::register_program;
pub use query::query;

/// Calls [`Place::has_live_journal`] for a path; false if its directory cannot be opened.
pub fn has_live_journal(path: &Path) -> bool {
    Place::of(path).is_ok_and(|place| place.has_live_journal())
}

/// Opens a connection that writes, for tests of code that copies databases.
#[cfg(test)]
pub(crate) fn open_for_test(path: &std::path::Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_programs_sqlite_deletes_no_file_that_a_planted_journal_names() {
        assert!(rusqlite::version_number() >= child::SAFE_SQLITE);
    }
}
