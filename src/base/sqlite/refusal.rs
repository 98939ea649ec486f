//! Turns a child's failure or silence into an error that names the database.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::SqliteError;
use super::message::{ChildAnswer, Step};
use super::place::Place;
use super::process::Silence;
use super::{code, inspect};

/// Longest text of a child that is shown, in characters.
const TEXT_CHARS: usize = 300;

/// Returns the error for a system call that failed; `what` is a verb phrase that `path` completes.
pub(super) fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> SqliteError {
    let path = path.to_owned();
    move |source| SqliteError::Io {
        what,
        path: path.clone(),
        source,
    }
}

/// Returns the error for a `step` that did not finish.
pub(super) fn unchecked(step: Step, place: &Place, why: impl Into<String>) -> SqliteError {
    SqliteError::Unchecked {
        what: step.text(),
        path: place.path().to_owned(),
        why: why.into(),
    }
}

/// Returns a child's text as it may be shown: shortened, in one line, without characters that a
/// terminal would obey.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        match c {
            _ if count == TEXT_CHARS => {
                shown.push_str("...");
                break;
            }
            '\n' | '\t' => shown.push(' '),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Returns the error for a child that did not answer.
pub(super) fn silent(silence: Silence, step: Step, place: &Place) -> SqliteError {
    unchecked(step, place, silence_text(silence))
}

/// Returns why a child did not answer, for the operator.
pub(super) fn silence_text(silence: Silence) -> String {
    match silence {
        Silence::NotStarted(error) => format!("the process for it cannot be started: {error}"),
        Silence::Late(allowed) => format!("it took more than {:.1} s", allowed.as_secs_f32()),
        Silence::Ended { signal: Some(9) } => "the process for it was killed".to_owned(),
        Silence::Ended { signal: Some(24) } => "it used too much processor time".to_owned(),
        Silence::Ended { signal: Some(25) } => "it wrote more than it may".to_owned(),
        Silence::Ended { signal: Some(n) } => {
            format!("the process for it crashed, by signal {n}")
        }
        Silence::Ended { signal: None } => {
            "the process for it ended: it may have had too little memory".to_owned()
        }
        Silence::Unreadable => {
            "the process for it sent an answer that is malformed or too long".to_owned()
        }
    }
}

/// Returns the error that an answer reports.
pub(super) fn refused(
    answer: ChildAnswer,
    step: Step,
    place: &Place,
    busy: Duration,
) -> SqliteError {
    let path = place.path().to_owned();
    match answer {
        ChildAnswer::Busy => SqliteError::Busy { path, waited: busy },
        ChildAnswer::Memory => {
            let megabytes = inspect::MEMORY_BYTES >> 20;
            unchecked(
                step,
                place,
                format!("it needs more than {megabytes} MiB of memory"),
            )
        }
        ChildAnswer::Exchanged => {
            let why = "another file took its name while it was opened";
            io_error(step.text(), &path)(io::Error::other(why))
        }
        ChildAnswer::SuperJournal => {
            let why = "its journal belongs to a transaction over several databases, which only its \
                       application may play back: start the application once";
            io_error(step.text(), &path)(io::Error::other(why))
        }
        ChildAnswer::OldSqlite { version } => {
            let why = format!(
                "SQLite {} is too old to play back a foreign journal safely: use a build of Sealift \
                 with its own SQLite",
                shown(&version)
            );
            io_error(step.text(), &path)(io::Error::other(why))
        }
        ChildAnswer::NotOneValue { what } => {
            let why = format!("the query returned {}, and not one value", shown(&what));
            unchecked(step, place, why)
        }
        ChildAnswer::System { step, errno } => {
            io_error(step.text(), &path)(io::Error::from_raw_os_error(errno))
        }
        // The database may be sound: this SQLite lacks a function of its application, or of a newer
        // SQLite.
        ChildAnswer::Failed {
            step: step @ Step::Check,
            code,
            message,
        } if code::is_foreign(code) => unchecked(step, place, shown(&message)),
        ChildAnswer::Failed {
            step,
            code,
            message,
        } => SqliteError::Sqlite {
            what: step.text(),
            path,
            source: rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(code),
                Some(shown(&message)),
            ),
        },
        ChildAnswer::Held { .. }
        | ChildAnswer::Unlocked
        | ChildAnswer::Checked { .. }
        | ChildAnswer::Copied { .. }
        | ChildAnswer::ClosedUp
        | ChildAnswer::NotOneStatement
        | ChildAnswer::Writes
        | ChildAnswer::Value { .. } => silent(Silence::Unreadable, step, place),
    }
}
