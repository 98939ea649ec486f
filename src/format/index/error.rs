//! Why an index is refused.

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading the input failed.
    #[error("cannot read the index")]
    Read(#[source] std::io::Error),
    /// A line breaks a rule of the format.
    #[error("line {line} of the index is malformed: {what}")]
    Malformed {
        /// Number of the line, from 1.
        line: u64,
        /// The rule that it breaks.
        what: String,
    },
}
