//! Why a query of a database by its pages failed.

use std::time::Duration;

use super::super::code;
use super::super::inspect::MEMORY_BYTES;
use super::super::message::ChildAnswer;
use super::super::refusal::shown;
use super::MOST_QUERY_BYTES;

/// Why a query failed; `E`: why content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PagedQueryError<E> {
    /// The content cannot be read.
    #[error("the content of the database cannot be read")]
    Content(E),
    /// SQLite does not run the query.
    #[error("SQLite does not run the query: {0}")]
    Query(String),
    /// The statement would change the database.
    #[error("the statement does not only read: a snapshot does not change")]
    Writes,
    /// The text is not one statement.
    #[error("the text is not one SQL statement")]
    NotOneStatement,
    /// SQLite found damage.
    #[error("SQLite says that the database is damaged: {0}")]
    Damaged(String),
    /// The query needs too much memory.
    #[error("the query needs more than {} MiB of memory", MEMORY_BYTES >> 20)]
    Memory,
    /// The query takes too long.
    #[error("the query took more than {} s", .0.as_secs())]
    TimeUp(Duration),
    /// The text of the query is too long.
    #[error("the query has {0} bytes; the longest has {MOST_QUERY_BYTES}")]
    LongQuery(usize),
    /// The process for the query failed.
    #[error("the query did not end: {0}")]
    Process(String),
}

/// Returns the error that the child reports.
pub(super) fn refused<E>(answer: ChildAnswer) -> PagedQueryError<E> {
    match answer {
        ChildAnswer::Memory => PagedQueryError::Memory,
        ChildAnswer::Writes => PagedQueryError::Writes,
        ChildAnswer::NotOneStatement => PagedQueryError::NotOneStatement,
        ChildAnswer::Failed { code, message, .. } if code::is_damage(code) => {
            PagedQueryError::Damaged(shown(&message))
        }
        ChildAnswer::Failed { message, .. } if message.contains("too many attached databases") => {
            PagedQueryError::Query("ATTACH is not possible here".to_owned())
        }
        ChildAnswer::Failed { message, .. } => PagedQueryError::Query(shown(&message)),
        ChildAnswer::System { errno, .. } => {
            let error = std::io::Error::from_raw_os_error(errno);
            PagedQueryError::Process(format!("its process cannot be confined: {error}"))
        }
        _ => PagedQueryError::Process("its process sent a malformed answer".to_owned()),
    }
}
