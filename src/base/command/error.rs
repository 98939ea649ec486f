//! Why a command did not succeed.

use std::io;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be started.
    #[error("cannot start `{line}`")]
    Start {
        /// The command line, shortened.
        line: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended without success, or did not end in time.
    #[error("`{line}` failed, {status}: {stderr}")]
    Failed {
        /// The command line, shortened.
        line: String,
        /// The exit status and its meaning.
        status: String,
        /// The exit code. `None`: a signal ended it, or its time was up.
        code: Option<i32>,
        /// The end of its stderr.
        stderr: String,
    },
}
