//! Classifies SQLite's errors by their extended result code.
//!
//! rusqlite's own `sqlite_error_code()` knows one of the two variants that carry a code: for an
//! error in the text of a statement, such as a missing function or collation, it returns nothing.

use rusqlite::{Error, ErrorCode, ffi};

/// Returns the extended result code of `error`; `None` if the error is rusqlite's own.
pub(crate) fn extended(error: &Error) -> Option<i32> {
    match error {
        Error::SqliteFailure(error, _) | Error::SqlInputError { error, .. } => {
            Some(error.extended_code)
        }
        _ => None,
    }
}

/// Returns the kind of the error, by its code; `None` if it is rusqlite's own.
pub fn kind(error: &Error) -> Option<ErrorCode> {
    extended(error).map(|code| ffi::Error::new(code).code)
}

/// Returns whether the code says that the file is damaged, or is not a database in spite of its
/// magic.
pub(super) fn is_damage(code: i32) -> bool {
    let kind = ffi::Error::new(code).code;
    matches!(kind, ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
}

/// Returns whether the code is `SQLITE_ERROR`: a statement cannot be prepared or run, because only
/// the database's application has a function, collation or module, or because the schema is newer
/// than this SQLite. The database may be sound.
pub(super) fn is_foreign(code: i32) -> bool {
    code & 0xff == ffi::SQLITE_ERROR
}

/// Failures of a write to the file, or to the memory that SQLite shares with other processes
/// (`-shm`). A full disk is the usual reason, which SQLite then does not name.
const WRITE_FAILURES: [i32; 3] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_SHMSIZE,
    ffi::SQLITE_IOERR_TRUNCATE,
];

/// Returns whether `error` says that the disk is full, or that a write failed: the caller looks
/// whether there is room.
pub fn may_lack_room(error: &Error) -> bool {
    let code = extended(error);
    kind(error) == Some(ErrorCode::DiskFull)
        || code.is_some_and(|code| WRITE_FAILURES.contains(&code))
}

/// Returns whether another process holds a lock.
pub(super) fn is_busy(error: &Error) -> bool {
    let kind = kind(error);
    matches!(
        kind,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Returns whether SQLite gave up because of a limit of ours; the database may be sound.
pub(super) fn is_limit(error: &Error) -> bool {
    matches!(
        kind(error),
        Some(ErrorCode::OutOfMemory | ErrorCode::TooBig)
    )
}

/// Returns whether a connection that may write might succeed.
pub(super) fn wants_writing(error: &Error) -> bool {
    matches!(
        kind(error),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::types::Type;

    /// Returns every variant that a test can make, and whether it carries `code`.
    fn variants(code: i32) -> Vec<(bool, Error)> {
        let utf8 = std::str::from_utf8(&[0xff, b'x'][..]).unwrap_err();
        let boxed = || Box::new(std::fmt::Error);
        let input = Error::SqlInputError {
            error: ffi::Error::new(code),
            msg: "no such function: fold".to_owned(),
            sql: "PRAGMA integrity_check".to_owned(),
            offset: 0,
        };
        let own = [
            Error::SqliteSingleThreadedMode,
            Error::FromSqlConversionFailure(0, Type::Text, boxed()),
            Error::IntegralValueOutOfRange(0, 1),
            Error::Utf8Error(0, utf8),
            Error::NulError(std::ffi::CString::new("\0").unwrap_err()),
            Error::InvalidParameterName(String::new()),
            Error::InvalidPath("x".into()),
            Error::ExecuteReturnedResults,
            Error::QueryReturnedNoRows,
            Error::QueryReturnedMoreThanOneRow,
            Error::InvalidColumnIndex(0),
            Error::InvalidColumnName(String::new()),
            Error::InvalidColumnType(0, String::new(), Type::Null),
            Error::StatementChangedRows(2),
            Error::ToSqlConversionFailure(boxed()),
            Error::Empty,
            Error::InvalidQuery,
            Error::UnwindingPanic,
            Error::MultipleStatement,
            Error::InvalidParameterCount(0, 1),
            Error::InvalidDatabaseIndex(0),
        ];
        let failure = Error::SqliteFailure(ffi::Error::new(code), None);
        let mut all = vec![(true, failure), (true, input)];
        all.extend(own.map(|error| (false, error)));
        all
    }

    /// Each code in each variant: a variant that carries the code is classified by it, the others
    /// never are.
    #[test]
    fn errors_are_classified_by_their_code_whatever_carries_it() {
        let extended_of = |primary: i32, n: i32| primary | (n << 8);
        for primary in 1..=26 {
            for code in [primary, extended_of(primary, 1), extended_of(primary, 5)] {
                for (carries, error) in variants(code) {
                    let of = |expected: &[i32]| carries && expected.contains(&primary);
                    let said = extended(&error);
                    assert_eq!(said, carries.then_some(code), "{error:?}");
                    let is = |test: fn(i32) -> bool| said.is_some_and(test);
                    assert_eq!(is_busy(&error), of(&[5, 6]), "{error:?}");
                    assert_eq!(is_limit(&error), of(&[7, 18]), "{error:?}");
                    assert_eq!(wants_writing(&error), of(&[8, 14]), "{error:?}");
                    assert_eq!(is(is_damage), of(&[11, 26]), "{error:?}");
                    assert_eq!(is(is_foreign), of(&[1]), "{error:?}");
                    let full = kind(&error) == Some(ErrorCode::DiskFull);
                    assert_eq!(full, of(&[13]), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn a_write_that_failed_may_lack_room() {
        let error = |code| Error::SqliteFailure(ffi::Error::new(code), None);
        // 4874: the shared memory of a log cannot grow.
        for (code, expected) in [
            (13, true),
            (778, true),
            (4874, true),
            (10, false),
            (266, false),
        ] {
            assert_eq!(may_lack_room(&error(code)), expected, "{code}");
        }
    }

    /// SQLite's own errors for a missing function, collation or table.
    #[test]
    fn a_missing_function_or_collation_is_foreign() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        for sql in [
            "SELECT fold(1)",
            "SELECT 1 ORDER BY 1 COLLATE mine",
            "SELECT * FROM x.y",
        ] {
            let error = db.prepare(sql).unwrap_err();
            assert!(extended(&error).is_some_and(is_foreign), "{error:?}");
        }
    }
}
