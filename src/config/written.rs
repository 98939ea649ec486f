//! The tables of a configuration that it may have several of, as its text has them.

/// The two kinds of tables that a configuration may have several of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// `[[source]]`.
    Source,
    /// `[[target]]`.
    Target,
}

impl TableKind {
    /// Returns the key, as the file has it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// A `[[source]]` or `[[target]]` of a configuration's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenTable {
    /// The name of the source or target.
    pub name: String,
    /// The line of its header, from 1.
    pub line: usize,
}
